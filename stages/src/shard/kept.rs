//! The columns that `shard` copies, whatever their types: row by row to bytes and back.

use crate::row::messages_type;
use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::row::{OwnedRow, RowConverter, RowParser, Rows, SortField};
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{GatherInputs, Group};
use std::sync::Arc;

/// What is kept unless the manifest says otherwise.
pub const DEFAULT: [&str; 3] = ["messages", "language", "source"];
/// Columns that every shard has.
pub const OWN: [&str; 6] = ["input_ids", "labels", "n_images", "row", "id", "reject"];

/// The columns to copy, in order, and how rows of them become bytes (the row format of Arrow).
pub struct Kept {
    fields: Vec<FieldRef>,
    converter: RowConverter,
    parser: RowParser,
}

impl Kept {
    /// `id`, then the columns `keep`, with the types that the first group has that has them.
    pub fn new(keep: &[String], inputs: &GatherInputs<'_>) -> Result<Self, StageError> {
        let names = std::iter::once("id").chain(keep.iter().map(String::as_str));
        let field = |name: &str| {
            let found = inputs.groups.iter().find_map(|group| group.kept.get(name));
            let data_type = found.map_or_else(|| default_type(name), |column| Some(column.data_type.clone()));
            let missing = || StageError::new(format!("no stage makes the column `{name}` it is to keep"));
            Ok(Arc::new(Field::new(name, data_type.ok_or_else(missing)?, true)))
        };
        let fields: Vec<FieldRef> = names.map(field).collect::<Result<_, StageError>>()?;
        let sorted = fields.iter().map(|field| SortField::new(field.data_type().clone()));
        let converter = RowConverter::new(sorted.collect())?;
        Ok(Self { fields, parser: converter.parser(), converter })
    }

    pub fn fields(&self) -> &[FieldRef] {
        &self.fields
    }

    /// Those of the columns that a group has.
    pub fn of<'a>(&'a self, group: &'a Group<'_>) -> impl Iterator<Item = &'a str> {
        let names = self.fields.iter().map(|field| field.name().as_str());
        names.filter(|name| group.kept.get(name).is_some())
    }

    /// The rows of a batch as bytes; null in columns that it does not have.
    pub fn rows(&self, batch: &RecordBatch) -> Result<Rows, StageError> {
        let columns: Result<Vec<ArrayRef>, StageError> = self
            .fields
            .iter()
            .map(|field| match batch.column_by_name(field.name()) {
                Some(column) => Ok(cast(column, field.data_type())?),
                None => Ok(new_null_array(field.data_type(), batch.num_rows())),
            })
            .collect();
        Ok(self.converter.convert_columns(&columns?)?)
    }

    /// A row from the bytes that [`Kept::rows`] gave.
    pub fn parse(&self, bytes: &[u8]) -> OwnedRow {
        self.parser.parse(bytes).owned()
    }

    /// The columns of some rows.
    pub fn columns(&self, rows: &[OwnedRow]) -> Result<Vec<ArrayRef>, StageError> {
        Ok(self.converter.convert_rows(rows.iter().map(OwnedRow::row))?)
    }
}

fn default_type(name: &str) -> Option<DataType> {
    match name {
        "id" | "language" | "source" => Some(DataType::Utf8),
        "messages" => Some(messages_type()),
        _ => None,
    }
}
