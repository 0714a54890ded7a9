//! What stands beside the words of a conversation, as JSON text with keys in the order of the file, as a chat template takes it.
//!
//! Calls of tools: `tool_calls` of a message, its older form `function_call`, and turns that are nothing but calls, as a list of
//! `{type, function: {name, arguments}}`. Tools on offer: a list of definitions. Further keys of a turn: an object of [`EXTRA`].
//!
//! Tables have the keys of all rows in each row, null where a row has not got them: such keys are left out (so does TRL). In JSON text
//! they stay.

use super::super::image_cell::short;
use super::super::json;
use super::super::raw::reject;
use super::super::value::Value;
use llavm_model::message::EXTRA;
use llavm_pipeline::rejects::Reject;
use std::borrow::Cow;

/// The calls beside the content of a message.
pub fn beside(number: usize, item: &Value<'_>) -> Result<Option<String>, Reject> {
    if let Some(calls) = item.first_of(&["tool_calls"]) {
        return of(number, calls).map(|calls| calls.filter(|calls| calls != "[]"));
    }
    item.first_of(&["function_call"]).map_or(Ok(None), |call| of(number, call))
}

/// The calls of a turn that consists of them: `{name, arguments}` or a list of these, as JSON text or not.
pub fn alone(number: usize, content: Option<&Value<'_>>) -> Result<Option<String>, Reject> {
    of(number, content.ok_or_else(|| bad(number, "it has no content"))?)
}

fn of(number: usize, calls: &Value<'_>) -> Result<Option<String>, Reject> {
    let parsed = match calls {
        Value::Text(text) => {
            json::parse(text).map_err(|cause| bad(number, &format!("its calls are no JSON ({cause})")))?
        }
        other => without_nulls(other),
    };
    let calls = match parsed {
        Value::List(items) => items.into_iter().map(wrapped).collect(),
        one => vec![wrapped(one)],
    };
    if calls.iter().any(|call| call.get("function.name").and_then(Value::as_text).is_none()) {
        return Err(bad(number, "a call without the name of a function"));
    }
    let text = serde_json::to_string(&Value::List(calls));
    text.map(Some).map_err(|cause| bad(number, &cause.to_string()))
}

/// The tools on offer: a list of definitions or a single one, each an object or JSON text of one. `None` for an empty list.
pub fn tools(cell: &Value<'_>) -> Result<Option<String>, Reject> {
    let bad = |why: String| {
        let detail = format!(
            "the tools are {why}; expected a list of definitions, or JSON text of one (columns.tools = \"\" reads none)"
        );
        reject("bad-tools", detail)
    };
    let parsed = match cell {
        Value::Null => return Ok(None),
        Value::Text(text) if text.trim().is_empty() => return Ok(None),
        Value::Text(text) => {
            json::parse(text).map_err(|cause| bad(format!("no JSON ({cause}): {}", short(text))))?
        }
        other => without_nulls(other),
    };
    let items = match parsed {
        Value::Null => return Ok(None),
        Value::List(items) => items,
        one => vec![one],
    };
    let mut tools = Vec::with_capacity(items.len());
    for item in &items {
        let tool = match item {
            Value::Text(text) => json::parse(text).map_err(|cause| bad(format!("no JSON ({cause})")))?,
            other => other.clone(),
        };
        if !matches!(tool, Value::Object(_)) {
            return Err(bad(format!("a list that holds {}", tool.kind())));
        }
        tools.push(tool);
    }
    if tools.is_empty() {
        return Ok(None);
    }
    serde_json::to_string(&Value::List(tools)).map(Some).map_err(|cause| bad(cause.to_string()))
}

/// What else chat templates read of a turn; `None` where it has nothing of it.
pub fn extra(item: &Value<'_>) -> Option<String> {
    let Value::Object(fields) = item else { return None };
    let known = fields.iter().filter(|(key, value)| EXTRA.contains(&key.as_ref()) && *value != Value::Null);
    let known: Vec<_> = known.map(|(key, value)| (Cow::Borrowed(key.as_ref()), value.clone())).collect();
    if known.is_empty() { None } else { serde_json::to_string(&Value::Object(known)).ok() }
}

/// The value without the keys that are null.
fn without_nulls<'a>(value: &'a Value<'_>) -> Value<'a> {
    match value {
        Value::List(items) => Value::List(items.iter().map(without_nulls).collect()),
        Value::Object(fields) => {
            let given = fields.iter().filter(|(_, value)| *value != Value::Null);
            Value::Object(
                given.map(|(key, value)| (Cow::Borrowed(key.as_ref()), without_nulls(value))).collect(),
            )
        }
        other => other.clone(),
    }
}

fn bad(number: usize, why: &str) -> Reject {
    reject("bad-conversation", format!("message {number} calls a tool: {why}"))
}

/// `{name, arguments}` as the function of a call.
fn wrapped(call: Value<'_>) -> Value<'_> {
    if call.get("function").is_some_and(|function| matches!(function, Value::Object(_))) {
        return call;
    }
    let kind = (Cow::Borrowed("type"), Value::Text(Cow::Borrowed("function")));
    Value::Object(vec![kind, (Cow::Borrowed("function"), call)])
}
