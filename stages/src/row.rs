//! What a row of raw data looks like once it is read: the column types that sources give and later stages take.

use arrow::datatypes::{DataType, Field, Fields};
use std::sync::Arc;

/// Encoded images of a row, in order; empty for a text-only row: `list<binary>`.
pub fn images_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Binary, true)))
}

/// The turns of a conversation: `list<struct<role, content, tool_calls, extra, tools>>`, all utf8; roles are `system`, `user`, `assistant`, `tool`.
pub fn messages_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Struct(message_fields()), true)))
}

/// The fields of one turn. JSON text, null where there is none: `tool_calls`, a list; `extra`, an object of the other keys that
/// chat templates read ([`llavm_model::message::EXTRA`]); `tools`, a list of the tools on offer, beside the first turn.
pub fn message_fields() -> Fields {
    let fields = ["role", "content", "tool_calls", "extra", "tools"];
    fields.map(|name| Field::new(name, DataType::Utf8, true)).into_iter().collect()
}
