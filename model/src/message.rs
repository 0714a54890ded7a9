//! What a chat template is given: the turns of a conversation, and what stands beside their words.
//!
//! Training reads it from rows, inference from whoever asks; both hand the same [`Message`]s to the processor. A template sees of
//! a turn its `role`, `content`, `tool_calls` and the keys of [`EXTRA`], as Transformers passes them, and the tools on offer as `tools`.

use minijinja::value::{Value, ValueKind};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;

/// Thoughts of an assistant, by the names that templates have for them.
pub const THOUGHTS: [&str; 4] = ["reasoning_content", "reasoning", "thinking", "tool_plan"];
/// Keys of a turn, beside its words and its calls of tools, that templates read.
pub const EXTRA: [&str; 6] =
    ["reasoning_content", "reasoning", "thinking", "tool_plan", "name", "tool_call_id"];

/// One turn of a conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message<'a> {
    /// `system`, `user`, `assistant` or whatever else the template knows.
    pub role: &'a str,
    pub content: &'a str,
    /// The tools that an assistant calls, `[{type, function: {name, arguments}}]`; a template looks at it only where it is there.
    pub tool_calls: Option<Json>,
    /// An object of what else the turn has for a template, by the names of [`EXTRA`].
    pub extra: Option<Json>,
    /// The tools on offer, a list of definitions: of the conversation, beside one of its turns.
    pub tools: Option<Json>,
}

impl<'a> Message<'a> {
    /// A turn that only says something.
    pub fn new(role: &'a str, content: &'a str) -> Self {
        Self { role, content, ..Self::default() }
    }

    /// Whether any of its texts holds such a character.
    pub fn contains(&self, wanted: impl Fn(char) -> bool + Copy) -> bool {
        let beside = [&self.tool_calls, &self.extra, &self.tools];
        self.content.contains(wanted) || beside.into_iter().flatten().any(|json| json.contains(wanted))
    }

    /// Whether the turn brings thoughts of its own.
    pub fn thinks(&self) -> bool {
        let thought = |extra: &Json| {
            let text = |name: &&str| extra.0.get_attr(name).ok().filter(|text| !is_blank(text));
            THOUGHTS.iter().find_map(text)
        };
        self.extra.as_ref().and_then(thought).is_some()
    }
}

fn is_blank(value: &Value) -> bool {
    value.is_undefined() || value.is_none() || value.as_str().is_some_and(|text| text.trim().is_empty())
}

/// What stands beside the words of a message of an API: its calls of tools, and the keys of [`EXTRA`] among others.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Beside {
    pub tool_calls: Option<Json>,
    #[serde(flatten)]
    others: BTreeMap<String, Json>,
}

impl Beside {
    /// The calls of tools, none for an empty list; an error says what is wrong with them.
    pub fn calls(&self) -> Result<Option<Json>, &'static str> {
        let Some(calls) = self.tool_calls.as_ref().filter(|calls| !calls.is_nothing()) else {
            return Ok(None);
        };
        let is_call = |call: Value| {
            let function = call.get_attr("function").ok();
            let name = function.and_then(|function| function.get_attr("name").ok());
            name.is_some_and(|name| name.as_str().is_some())
        };
        let all = calls.items().is_some_and(|items| items.into_iter().all(is_call));
        if all {
            Ok(Some(calls.clone()))
        } else {
            Err("`tool_calls` is a list of {type, function: {name, arguments}}")
        }
    }

    /// The keys of [`EXTRA`] that are not null.
    pub fn extra(&self) -> Option<Json> {
        let known =
            self.others.iter().filter(|(key, value)| EXTRA.contains(&key.as_str()) && !value.0.is_none());
        let known: Vec<_> = known.map(|(key, value)| (key.clone(), value.0.clone())).collect();
        (!known.is_empty()).then(|| Json(Value::from_pairs(known)))
    }
}

/// Definitions of tools as they came, `None` for an empty list; an error says what is wrong with them.
pub fn definitions(tools: Option<Json>) -> Result<Option<Json>, &'static str> {
    let Some(tools) = tools.filter(|tools| !tools.is_nothing()) else { return Ok(None) };
    let all = tools.items().is_some_and(|items| items.iter().all(|item| item.kind() == ValueKind::Map));
    if all {
        Ok(Some(tools))
    } else {
        Err("tools are a list of objects, as {type, function: {name, description, parameters}}")
    }
}

/// The tools that a conversation offers.
pub fn tools<'m>(messages: &'m [Message<'_>]) -> Option<&'m Json> {
    messages.iter().find_map(|message| message.tools.as_ref())
}

/// As a template reads it: an object.
impl Serialize for Message<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("role", self.role)?;
        map.serialize_entry("content", self.content)?;
        if let Some(calls) = &self.tool_calls {
            map.serialize_entry("tool_calls", calls)?;
        }
        for (key, value) in self.extra.iter().flat_map(Json::fields) {
            map.serialize_entry(&key, &value)?;
        }
        map.end()
    }
}

/// A JSON value whose keys stay in the order in which they are written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(pub Value);

impl Json {
    /// From JSON text.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text).map(Self)
    }

    /// Whether any text in it, a key or a value, holds such a character.
    pub fn contains(&self, wanted: impl Fn(char) -> bool) -> bool {
        serde_json::to_string(&self.0).is_ok_and(|text| text.contains(wanted))
    }

    /// Whether it is null or an empty list.
    fn is_nothing(&self) -> bool {
        self.0.is_none() || self.items().is_some_and(|items| items.is_empty())
    }

    /// The items of a list.
    fn items(&self) -> Option<Vec<Value>> {
        (self.0.kind() == ValueKind::Seq).then(|| self.0.try_iter().into_iter().flatten().collect())
    }

    /// The keys and values of an object; none of anything else.
    pub fn fields(&self) -> Vec<(Value, Value)> {
        if self.0.kind() != ValueKind::Map {
            return Vec::new();
        }
        let pair = |key: Value| {
            let value = self.0.get_item(&key).unwrap_or_default();
            (key, value)
        };
        self.0.try_iter().into_iter().flatten().map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_sees_the_keys_of_a_turn_in_their_order() {
        let extra = Json::parse(r#"{"reasoning_content": "hm", "name": "me"}"#).unwrap();
        let message = Message { extra: Some(extra), ..Message::new("assistant", "a") };
        let text = serde_json::to_string(&message).unwrap();
        assert_eq!(text, r#"{"role":"assistant","content":"a","reasoning_content":"hm","name":"me"}"#);
        assert!(message.thinks());
    }

    #[test]
    fn what_an_api_sends_beside_the_words_is_checked() {
        let beside = |text: &str| serde_json::from_str::<Beside>(text).unwrap();
        let call = r#"{"tool_calls": [{"id": "1", "function": {"name": "zoom", "arguments": "{}"}}], "name": "x", "refusal": null, "audio": 1}"#;
        let sent = beside(call);
        assert!(sent.calls().unwrap().is_some());
        assert_eq!(sent.extra(), Some(Json::parse(r#"{"name": "x"}"#).unwrap()));
        for nothing in ["{}", r#"{"tool_calls": null}"#, r#"{"tool_calls": []}"#, r#"{"name": null}"#] {
            assert_eq!((beside(nothing).calls(), beside(nothing).extra()), (Ok(None), None), "{nothing}");
        }
        for wrong in ["1", "{}", "[1]", r#"[{"function": {}}]"#, r#"[{"function": {"name": 1}}]"#] {
            assert!(beside(&format!("{{\"tool_calls\": {wrong}}}")).calls().is_err(), "{wrong}");
        }
        let tools = |text: &str| definitions(Some(Json::parse(text).unwrap()));
        assert_eq!((tools("[]"), tools("null"), definitions(None)), (Ok(None), Ok(None), Ok(None)));
        assert!(tools(r#"[{"name": "zoom"}]"#).unwrap().is_some());
        assert!(tools("{}").is_err() && tools("[1]").is_err() && tools("\"zoom\"").is_err());
    }

    #[test]
    fn blank_thoughts_are_none() {
        for extra in
            [r#"{"reasoning_content": ""}"#, r#"{"thinking": " \n"}"#, r#"{"name": "x"}"#, "{}", "[]"]
        {
            let message =
                Message { extra: Some(Json::parse(extra).unwrap()), ..Message::new("assistant", "a") };
            assert!(!message.thinks(), "{extra}");
        }
    }
}
