//! Calls of tools: `tool_calls` of a message, its older form `function_call`, and turns that are nothing but calls.
//!
//! Out: JSON text of a list of `{type, function: {name, arguments}}`, keys in the order of the file, as a chat template takes it.

use super::super::json;
use super::super::raw::reject;
use super::super::value::Value;
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
        other => other.clone(),
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
