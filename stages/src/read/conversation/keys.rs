//! Keys of turns that nothing reads.

use super::super::json;
use super::super::value::Value;
use super::{PAIRS, is_messages};
use llavm_model::message::EXTRA;

/// The keys of the turns in a cell that are not read: all but those that say who speaks, what, with which calls, images and thoughts.
pub fn unused_keys(cell: &Value<'_>) -> Vec<String> {
    let read = |key: &str| {
        let own =
            ["role", "from", "content", "value", "tool_calls", "function_call", "tools", "image", "images"];
        let pair = PAIRS.iter().any(|(question, answer)| [*question, *answer].contains(&key));
        own.contains(&key) || EXTRA.contains(&key) || pair
    };
    let is_nothing = |value: &Value<'_>| match value {
        Value::Null => true,
        Value::Text(text) => text.trim().is_empty(),
        Value::List(items) => items.is_empty(),
        _ => false,
    };
    match cell {
        Value::Text(text) if text.trim_start().starts_with(['[', '{']) => {
            json::parse(text).map_or_else(|_| Vec::new(), |cell| unused_keys(&cell))
        }
        Value::List(items) if is_messages(cell) => items.iter().flat_map(unused_keys).collect(),
        Value::Object(fields) if is_messages(cell) => {
            let unused = fields.iter().filter(|(key, value)| !read(key) && !is_nothing(value));
            unused.map(|(key, _)| key.to_string()).collect()
        }
        _ => Vec::new(),
    }
}
