//! What a row of raw data looks like once it is read: the column types that sources give and later stages take.

use arrow::datatypes::{DataType, Field, Fields};
use std::sync::Arc;

/// Encoded images of a row, in order; empty for a text-only row: `list<binary>`.
pub fn images_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Binary, true)))
}

/// The turns of a conversation: `list<struct<role: utf8, content: utf8, tool_calls: utf8>>`; roles are `system`, `user`, `assistant`, `tool`.
pub fn messages_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Struct(message_fields()), true)))
}

/// The fields of one turn; `tool_calls` is JSON text of a list, null where the turn calls nothing.
pub fn message_fields() -> Fields {
    ["role", "content", "tool_calls"].map(|name| Field::new(name, DataType::Utf8, true)).into_iter().collect()
}
