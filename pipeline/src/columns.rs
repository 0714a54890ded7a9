//! The columns a stage needs and gives, so that a wiring can be checked before anything runs.

use arrow::datatypes::{DataType, Field, Fields, Schema};
use std::sync::Arc;

/// One named, typed column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub data_type: DataType,
}

/// An ordered set of columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns(Vec<Column>);

impl Columns {
    pub fn new() -> Self {
        Self::default()
    }

    /// This set with one more column at its end.
    #[must_use]
    pub fn with(mut self, name: &str, data_type: DataType) -> Self {
        self.0.push(Column { name: name.to_owned(), data_type });
        self
    }

    pub fn get(&self, name: &str) -> Option<&Column> {
        self.0.iter().find(|column| column.name == name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|column| column.name.as_str())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Column> {
        self.0.iter()
    }

    /// The Arrow schema of these columns; every column is nullable, because a rejected row holds nulls.
    pub fn schema(&self) -> Arc<Schema> {
        let fields: Fields =
            self.0.iter().map(|column| Field::new(&column.name, column.data_type.clone(), true)).collect();
        Arc::new(Schema::new(fields))
    }
}
