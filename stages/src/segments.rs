//! The column `segments`: a rendered conversation in [`Segment`]s, `list<struct<text: utf8, train: bool, role: utf8>>`. The
//! texts of a row, joined, are what the template rendered.

use crate::arrays::{Lists, column, item_range, list_of};
use arrow::array::{
    Array, ArrayRef, BooleanArray, ListArray, RecordBatch, StringArray, StringBuilder, StructArray,
};
use arrow::datatypes::{DataType, Field, Fields};
pub use llavm_model::processor::segment::{IMAGE, Segment, Sink, TEMPLATE, USER};
use llavm_pipeline::StageError;
use std::sync::Arc;

/// The type of the column `segments`.
pub fn segments_type() -> DataType {
    list_of(DataType::Struct(fields()))
}

fn fields() -> Fields {
    Fields::from(vec![
        Field::new("text", DataType::Utf8, true),
        Field::new("train", DataType::Boolean, true),
        Field::new("role", DataType::Utf8, true),
    ])
}

/// The column `segments` of a batch, to read.
pub struct SegmentRows<'a> {
    lists: &'a ListArray,
    text: &'a StringArray,
    train: &'a BooleanArray,
    role: &'a StringArray,
}

impl<'a> SegmentRows<'a> {
    pub fn of(rows: &'a RecordBatch) -> Result<Self, StageError> {
        let lists: &ListArray = column(rows, "segments")?;
        let wrong = || StageError::new("`segments` is not list<struct<text: utf8, train: bool, role: utf8>>");
        let pieces = lists.values().as_any().downcast_ref::<StructArray>().ok_or_else(wrong)?;
        let text = pieces.column_by_name("text").and_then(|column| column.as_any().downcast_ref());
        let train = pieces.column_by_name("train").and_then(|column| column.as_any().downcast_ref());
        let role = pieces.column_by_name("role").and_then(|column| column.as_any().downcast_ref());
        match (text, train, role) {
            (Some(text), Some(train), Some(role)) => Ok(Self { lists, text, train, role }),
            _ => Err(wrong()),
        }
    }

    /// The segments of a row that is not null.
    pub fn row(&self, row: usize) -> impl Iterator<Item = Segment<'a>> + Clone + use<'a> {
        let (text, train, role) = (self.text, self.train, self.role);
        item_range(self.lists, row).map(move |item| Segment {
            text: text.value(item),
            train: train.value(item),
            role: role.value(item),
        })
    }
}

/// The column `segments`, written row by row.
pub struct SegmentsBuilder {
    text: StringBuilder,
    train: Vec<bool>,
    role: StringBuilder,
    lists: Lists,
    open: usize,
}

impl SegmentsBuilder {
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            text: StringBuilder::new(),
            train: Vec::new(),
            role: StringBuilder::new(),
            lists: Lists::with_capacity(rows),
            open: 0,
        }
    }

    /// Closes the row.
    pub fn end_row(&mut self) {
        self.lists.push(std::mem::take(&mut self.open));
    }

    /// Closes a rejected row, to which nothing was added.
    pub fn null_row(&mut self) {
        self.lists.push_null();
    }

    pub fn finish(mut self) -> Result<ArrayRef, StageError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.text.finish()),
            Arc::new(BooleanArray::from(self.train)),
            Arc::new(self.role.finish()),
        ];
        self.lists.finish(Arc::new(StructArray::try_new(fields(), columns, None)?))
    }
}

/// Adds to the row being written.
impl Sink for SegmentsBuilder {
    fn push(&mut self, segment: Segment<'_>) {
        self.text.append_value(segment.text);
        self.train.push(segment.train);
        self.role.append_value(segment.role);
        self.open += 1;
    }
}
