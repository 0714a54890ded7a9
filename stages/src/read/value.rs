//! One cell of raw data, whatever file format it came from.
//!
//! In: JSON text, an Arrow array, a CSV field. Out: a [`Value`] that borrows where it can, so that a 30 KB image cell is not
//! copied before it reaches the output column.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// A JSON-like value with raw bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    List(Vec<Value<'a>>),
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
}

impl<'a> Value<'a> {
    /// The value under a column name or dotted path (`image.bytes`, `caption.0`); a name that holds dots itself wins.
    pub fn get(&self, path: &str) -> Option<&Value<'a>> {
        if let Some(value) = self.child(path) {
            return Some(value);
        }
        let (head, rest) = path.split_once('.')?;
        self.child(head)?.get(rest)
    }

    /// The last field of that name (as Python's `json` keeps it), or the list item at that index.
    fn child(&self, name: &str) -> Option<&Value<'a>> {
        match self {
            Self::Object(fields) => fields.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value),
            Self::List(items) => items.get(name.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// The same value, borrowing nothing.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(truth) => Value::Bool(truth),
            Self::Int(number) => Value::Int(number),
            Self::Float(number) => Value::Float(number),
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Self::Bytes(bytes) => Value::Bytes(Cow::Owned(bytes.into_owned())),
            Self::List(items) => Value::List(items.into_iter().map(Value::into_owned).collect()),
            Self::Object(fields) => {
                let owned = |(name, value): (Cow<'_, str>, Value<'_>)| {
                    (Cow::Owned(name.into_owned()), value.into_owned())
                };
                Value::Object(fields.into_iter().map(owned).collect())
            }
        }
    }

    /// The text of a scalar: numbers and truth values as JSON writes them; `None` for null and for anything nested.
    pub fn as_text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Int(number) => Some(Cow::Owned(number.to_string())),
            Self::Float(number) => Some(Cow::Owned(number.to_string())),
            Self::Bool(truth) => Some(Cow::Borrowed(if *truth { "true" } else { "false" })),
            _ => None,
        }
    }

    /// What a person would call it: `string`, `list of objects`.
    pub fn kind(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(_) => "bool".to_owned(),
            Self::Int(_) => "int".to_owned(),
            Self::Float(_) => "float".to_owned(),
            Self::Text(_) => "string".to_owned(),
            Self::Bytes(_) => "binary".to_owned(),
            Self::List(items) => {
                format!("list<{}>", items.first().map_or_else(|| "null".to_owned(), Self::kind))
            }
            Self::Object(fields) => {
                let fields: Vec<_> =
                    fields.iter().map(|(name, value)| format!("{name}: {}", value.kind())).collect();
                format!("struct<{}>", fields.join(", "))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(Value::Int(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(i64::try_from(number).map_or(Value::Float(number as f64), Value::Int))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value<'de>, E> {
        Ok(Value::Float(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = entries.next_key::<Text<'de>>()? {
            fields.push((name.0, entries.next_value()?));
        }
        Ok(Value::Object(fields))
    }
}

/// A string that borrows from the input unless it holds escapes.
pub struct Text<'a>(pub Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Text(text) => Ok(Self(text)),
            other => Err(serde::de::Error::custom(format!("expected a string, found {}", other.kind()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value<'_> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_path_reaches_into_objects_and_lists() {
        let row = json(r#"{"image": {"bytes": "x"}, "caption": ["first", "second"], "a.b": 1}"#);
        assert_eq!(row.get("image.bytes"), Some(&Value::Text("x".into())));
        assert_eq!(row.get("caption.1"), Some(&Value::Text("second".into())));
        assert_eq!(row.get("a.b"), Some(&Value::Int(1)));
        assert_eq!(row.get("caption.2"), None);
        assert_eq!(row.get("image.path"), None);
    }

    #[test]
    fn the_last_of_two_equal_keys_wins_as_in_python() {
        assert_eq!(json(r#"{"a": 1, "a": 2}"#).get("a"), Some(&Value::Int(2)));
    }

    #[test]
    fn strings_without_escapes_are_borrowed() {
        assert!(matches!(json("\"plain 图\""), Value::Text(Cow::Borrowed(_))));
        assert_eq!(json(r#""line\nbreak 😀""#), Value::Text("line\nbreak 😀".into()));
    }
}
