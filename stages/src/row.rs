//! What a row of raw data looks like once it is read: the column types that sources give and later stages take.

use arrow::datatypes::{DataType, Field, Fields};
use std::sync::Arc;

/// Encoded pictures of a row, in order; empty for a text-only row: `list<binary>`.
pub fn images_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Binary, true)))
}

/// The turns of a conversation: `list<struct<role: utf8, content: utf8>>`; roles are `system`, `user`, `assistant`.
pub fn messages_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Struct(message_fields()), true)))
}

/// The fields of one turn.
pub fn message_fields() -> Fields {
    Fields::from(vec![Field::new("role", DataType::Utf8, true), Field::new("content", DataType::Utf8, true)])
}
