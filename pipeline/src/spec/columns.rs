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

/// Whether a column of type `offered` can be read as `needed`: the same shape, whatever the list items are called and
/// whether nulls are declared.
pub fn fits(needed: &DataType, offered: &DataType) -> bool {
    use DataType::{FixedSizeList, LargeList, List, Struct};
    match (needed, offered) {
        (List(a), List(b)) | (LargeList(a), LargeList(b)) => fits(a.data_type(), b.data_type()),
        (FixedSizeList(a, n), FixedSizeList(b, m)) => n == m && fits(a.data_type(), b.data_type()),
        (Struct(a), Struct(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| a.name() == b.name() && fits(a.data_type(), b.data_type()))
        }
        _ => needed == offered,
    }
}

/// A type as the documentation writes it: `list<u32>`, `list<struct<role: utf8, content: utf8>>`.
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) => format!("list<{}>", type_name(item.data_type())),
        DataType::FixedSizeList(item, n) => format!("list<{}>[{n}]", type_name(item.data_type())),
        DataType::FixedSizeBinary(n) => format!("fixed_size_binary[{n}]"),
        DataType::BinaryView => "binary_view".to_owned(),
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|field| format!("{}: {}", field.name(), type_name(field.data_type())))
                .collect();
            format!("struct<{}>", fields.join(", "))
        }
        DataType::Boolean => "bool".to_owned(),
        DataType::UInt8 => "u8".to_owned(),
        DataType::UInt16 => "u16".to_owned(),
        DataType::UInt32 => "u32".to_owned(),
        DataType::UInt64 => "u64".to_owned(),
        DataType::Int32 => "i32".to_owned(),
        DataType::Int64 => "i64".to_owned(),
        DataType::Float16 => "f16".to_owned(),
        DataType::Float32 => "f32".to_owned(),
        DataType::Float64 => "f64".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(item: &str, data_type: DataType) -> DataType {
        DataType::List(Arc::new(Field::new(item, data_type, true)))
    }

    #[test]
    fn the_name_of_a_list_item_does_not_matter_but_its_type_does() {
        assert!(fits(&list("item", DataType::UInt32), &list("element", DataType::UInt32)));
        assert!(!fits(&list("item", DataType::UInt32), &list("item", DataType::Int32)));
    }

    #[test]
    fn types_are_written_as_in_the_documentation() {
        let turn = Fields::from(vec![
            Field::new("role", DataType::Utf8, true),
            Field::new("content", DataType::Utf8, false),
        ]);
        let messages = list("item", DataType::Struct(turn));
        assert_eq!(type_name(&messages), "list<struct<role: utf8, content: utf8>>");
        assert_eq!(type_name(&list("item", DataType::FixedSizeBinary(12))), "list<fixed_size_binary[12]>");
    }
}
