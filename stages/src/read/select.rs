//! `where`: which rows of a partition are read at all.
//!
//! The predicate's columns are read first and alone; rows it does not hold for are then skipped without reading the rest. A row
//! whose columns cannot be read is kept, as a reject.

use super::arrow_value;
use super::image_cell::short;
use super::raw::{RawColumn, RawFile, Request, reject};
use super::value::Value;
use crate::sql::{Predicate, ScalarType, Scalars};
use llavm_pipeline::StageError;
use llavm_pipeline::rejects::Reject;
use std::collections::BTreeMap;

/// A predicate and the types of its columns.
pub struct Filter {
    predicate: Predicate,
    types: Vec<ScalarType>,
}

/// The verdict on the rows of one split.
pub struct Selection {
    pub keep: Vec<bool>,
    /// Rows on which the predicate could not be computed.
    pub unreadable: BTreeMap<usize, Reject>,
}

impl Filter {
    /// Fails when a column does not exist, is no scalar, or the predicate does not fit its type.
    pub fn new(text: &str, file: &str, columns: &[RawColumn]) -> Result<Self, StageError> {
        let predicate = Predicate::parse(text)?;
        let types = predicate.columns().iter().map(|name| scalar_type(name, file, columns));
        let types = types.collect::<Result<Vec<_>, _>>()?;
        predicate.check(&types)?;
        Ok(Self { predicate, types })
    }

    /// The raw columns it looks at.
    pub fn columns(&self) -> &[String] {
        self.predicate.columns()
    }

    /// What a partition's digest has to hold of it.
    pub fn identity(&self) -> String {
        format!("{} {:?}", self.predicate.text(), self.types)
    }

    /// Evaluates the predicate on the first `rows` rows of a split.
    pub fn select(&self, file: &dyn RawFile, split: usize, rows: usize) -> Result<Selection, StageError> {
        let names = self.predicate.columns();
        let mut selection = Selection { keep: vec![true; rows], unreadable: BTreeMap::new() };
        let request = Request { columns: Some(names.into()), limit: Some(rows), ..Request::default() };
        for chunk in file.read(split, request)? {
            let chunk = chunk?;
            let (mut places, mut values) = (Vec::new(), Vec::new());
            for (index, row) in chunk.rows().iter().enumerate() {
                let value = chunk.value(index).and_then(|value| self.comparable(value));
                match value {
                    Ok(value) => {
                        places.push(*row);
                        values.push(value);
                    }
                    Err(reject) => {
                        selection.unreadable.insert(*row, reject);
                    }
                }
            }
            let columns = names.iter().zip(&self.types);
            let columns: Vec<_> = columns.map(|(name, scalar)| scalars(name, *scalar, &values)).collect();
            let mask = self.predicate.mask(&columns, values.len())?;
            for (row, kept) in places.into_iter().zip(mask) {
                if let Some(keep) = selection.keep.get_mut(row) {
                    *keep = kept;
                }
            }
        }
        Ok(selection)
    }
}

impl Filter {
    /// The row, if its cells have the types of their columns: one that has not must not be left out in silence.
    fn comparable<'a>(&self, row: Value<'a>) -> Result<Value<'a>, Reject> {
        for (name, scalar) in self.predicate.columns().iter().zip(&self.types) {
            let cell = row.get(name).unwrap_or(&Value::Null);
            let fits = match scalar {
                ScalarType::Bool => as_bool(cell).is_some(),
                ScalarType::Int => as_int(cell).is_some(),
                ScalarType::Float => as_float(cell).is_some(),
                ScalarType::Text => cell.as_text().is_some(),
            };
            let is_empty = *cell == Value::Null
                || matches!(cell, Value::Text(text) if text.trim().is_empty())
                || matches!(cell, Value::Float(number) if number.is_nan());
            if !fits && !is_empty {
                let shown = cell.as_text().map_or_else(|| cell.kind(), |text| short(&text));
                let detail = format!("`where` compares {name} as {scalar:?}, and {shown} is none");
                return Err(reject("not-comparable", detail.to_lowercase()));
            }
        }
        Ok(row)
    }
}

fn scalar_type(name: &str, file: &str, columns: &[RawColumn]) -> Result<ScalarType, StageError> {
    let Some(column) = columns.iter().find(|column| column.name == name) else {
        return Err(super::columns::no_column(name, file, columns)
            .help("Names in `where` are those of the raw files."));
    };
    arrow_value::scalar_type(&column.kind).ok_or_else(|| {
        StageError::new(format!("where: column `{name}` of {file} is {}", column.kind))
            .help("A predicate compares text, numbers and truth values; a field of a struct is written \"name.field\" in double quotes.")
    })
}

/// The cells of one column as its type; what does not fit is null.
fn scalars(name: &str, scalar: ScalarType, rows: &[Value<'_>]) -> Scalars {
    let cells = rows.iter().map(|row| row.get(name).unwrap_or(&Value::Null));
    match scalar {
        ScalarType::Bool => Scalars::Bool(cells.map(as_bool).collect()),
        ScalarType::Int => Scalars::Int(cells.map(as_int).collect()),
        ScalarType::Float => Scalars::Float(cells.map(as_float).collect()),
        ScalarType::Text => Scalars::Text(cells.map(|cell| cell.as_text().map(Into::into)).collect()),
    }
}

fn as_bool(cell: &Value<'_>) -> Option<bool> {
    if let Value::Bool(truth) = cell { Some(*truth) } else { None }
}

fn as_int(cell: &Value<'_>) -> Option<i64> {
    match cell {
        Value::Int(number) => i64::try_from(*number).ok(),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn as_float(cell: &Value<'_>) -> Option<f64> {
    match cell {
        Value::Int(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        Value::Text(text) | Value::Number(text) => text.trim().parse().ok(),
        _ => None,
    }
}
