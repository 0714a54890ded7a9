//! One cell of raw data, whatever file format it came from.
//!
//! In: JSON text, an Arrow array, a CSV field. Out: a [`Value`] that borrows where it can, so that a 30 KB image cell is not
//! copied before it reaches the output column.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// A JSON-like value with raw bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    /// A whole number of up to 64 bits, with or without a sign, and more.
    Int(i128),
    Float(f64),
    /// A number that is not whole, or too long for the others, as the file writes it.
    Number(Cow<'a, str>),
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

    /// The first of these fields that is there and not null: sets with one schema for all rows fill what a row lacks with nulls.
    pub fn first_of(&self, names: &[&str]) -> Option<&Value<'a>> {
        names.iter().find_map(|name| self.child(name).filter(|value| **value != Self::Null))
    }

    /// The same value, borrowing nothing.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(truth) => Value::Bool(truth),
            Self::Int(number) => Value::Int(number),
            Self::Float(number) => Value::Float(number),
            Self::Number(text) => Value::Number(Cow::Owned(text.into_owned())),
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

    /// The text of a scalar: numbers as the file has them (as JSON writes them where it has none), bytes where they are UTF-8,
    /// which is how Parquet files without the mark for text hold it. `None` for null, not-a-number and for anything nested.
    pub fn as_text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) | Self::Number(text) => Some(Cow::Borrowed(text)),
            Self::Int(number) => Some(Cow::Owned(number.to_string())),
            Self::Float(number) => {
                serde_json::Number::from_f64(*number).map(|number| Cow::Owned(number.to_string()))
            }
            Self::Bool(truth) => Some(Cow::Borrowed(if *truth { "true" } else { "false" })),
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            _ => None,
        }
    }

    /// The text of what names something, an id or an image: a whole number has no fraction, though pandas made a float of it;
    /// bytes that are no text are a UUID or hexadecimal.
    pub fn as_name(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Float(number) if number.fract() == 0.0 => Some(Cow::Owned(format!("{number:.0}"))),
            Self::Number(text) => Some(whole(text)),
            Self::Bytes(bytes) => Some(match std::str::from_utf8(bytes) {
                Ok(text) if !text.chars().any(char::is_control) => Cow::Borrowed(text),
                _ => Cow::Owned(hex(bytes)),
            }),
            other => other.as_text(),
        }
    }

    /// What a person would call it: `string`, `list of objects`.
    pub fn kind(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(_) => "bool".to_owned(),
            Self::Int(_) => "int".to_owned(),
            Self::Float(_) | Self::Number(_) => "float".to_owned(),
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

/// As JSON, fields in their order; bytes are null, and so is a number that JSON has not.
impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null | Self::Bytes(_) => serializer.serialize_unit(),
            Self::Bool(truth) => serializer.serialize_bool(*truth),
            Self::Int(number) => match (i64::try_from(*number), u64::try_from(*number)) {
                (Ok(number), _) => serializer.serialize_i64(number),
                (_, Ok(number)) => serializer.serialize_u64(number),
                _ => serializer.serialize_f64(*number as f64),
            },
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::Number(text) => match text.parse::<f64>() {
                Ok(number) => serializer.serialize_f64(number),
                Err(_) => serializer.serialize_unit(),
            },
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => serializer.collect_seq(items),
            Self::Object(fields) => serializer.collect_map(fields.iter().map(|(name, value)| (name, value))),
        }
    }
}

/// `12.00` is 12, whatever its length; other numbers stay as they are.
fn whole(text: &str) -> Cow<'_, str> {
    if let Some((number, zeros)) = text.split_once('.')
        && zeros.bytes().all(|byte| byte == b'0')
    {
        return Cow::Borrowed(number);
    }
    match text.parse::<f64>() {
        Ok(number) if text.contains(['e', 'E']) && number.fract() == 0.0 => {
            Cow::Owned(format!("{number:.0}"))
        }
        _ => Cow::Borrowed(text),
    }
}

/// Hexadecimal, with the hyphens of a UUID where there are 16 bytes.
fn hex(bytes: &[u8]) -> String {
    let digits = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match bytes {
        [a, b, c, d, e, f, g, h, i, j, rest @ ..] if rest.len() == 6 => {
            let groups = [&[*a, *b, *c, *d][..], &[*e, *f], &[*g, *h], &[*i, *j], rest];
            groups.map(digits).join("-")
        }
        _ => digits(bytes),
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
        Ok(Value::Int(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(Value::Int(number.into()))
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
    fn names_are_whole_and_bytes_have_a_text() {
        let name = |value: Value<'_>| value.as_name().unwrap().into_owned();
        assert_eq!(name(Value::Float(7.0)), "7");
        assert_eq!(name(Value::Float(0.5)), "0.5");
        assert_eq!(name(Value::Number("18446744073709551615.00".into())), "18446744073709551615");
        assert_eq!(name(Value::Number("1e3".into())), "1000");
        assert_eq!(name(Value::Bytes(b"\xe5\x9b\xbe".as_slice().into())), "图");
        assert_eq!(name(Value::Bytes(b"\xff\x01".as_slice().into())), "ff01");
        let uuid: Vec<u8> = (0xf0..=0xff).collect();
        assert_eq!(name(Value::Bytes(uuid.into())), "f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff");
        assert_eq!(Value::Float(1.0).as_text().unwrap(), "1.0");
        assert_eq!(Value::Float(f64::NAN).as_text(), None);
        assert_eq!(json("18446744073709551615").as_text().unwrap(), "18446744073709551615");
    }

    #[test]
    fn strings_without_escapes_are_borrowed() {
        assert!(matches!(json("\"plain 图\""), Value::Text(Cow::Borrowed(_))));
        assert_eq!(json(r#""line\nbreak 😀""#), Value::Text("line\nbreak 😀".into()));
    }
}
