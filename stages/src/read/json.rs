//! JSON text as a [`Value`], numbers as they are written.
//!
//! `serde_json` gives a number as its value: `1.0` and `1e0` are the same to it. Where a value holds numbers that are not whole, it is
//! read a second time beside a list of its number tokens. `NaN` and `Infinity`, which Python writes and JSON has not, are null.
//!
//! `serde_json`'s `arbitrary_precision` would change how every crate in the program reads numbers.

use super::raw::Request;
use super::value::{Text, Value};
use memchr::{memchr, memchr2};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;

/// Any JSON value.
pub fn parse(text: &str) -> Result<Value<'_>, serde_json::Error> {
    read(text, Shape::Any, &Request::default())
}

/// The code of a row that cannot be parsed.
pub const BAD_JSON: &str = "bad-json";

/// Why a row cannot be parsed.
#[derive(Debug)]
pub struct BadJson {
    pub detail: String,
    /// Whether its text ends too early.
    pub ends_early: bool,
}

/// Parses an object as a row; `place` ("line 12") begins the error's text. Fields not asked for are checked, not kept.
pub fn parse_row<'a>(text: &'a [u8], request: &Request, place: &str) -> Result<Value<'a>, BadJson> {
    let bad =
        |cause: &dyn fmt::Display, ends_early| BadJson { detail: format!("{place}: {cause}"), ends_early };
    let text = std::str::from_utf8(text).map_err(|cause| {
        bad(&format!("not UTF-8 ({cause}); set `encoding` if the file is text in another one"), false)
    })?;
    if text.trim_start().starts_with('[') {
        return Err(bad(&"a JSON array, expected an object", false));
    }
    read(text, Shape::Object, request).map_err(|cause| bad(&format!("{cause}{}", hint(text)), cause.is_eof()))
}

/// What people write who meant JSON Lines.
fn hint(text: &str) -> &'static str {
    let text = text.trim();
    if text == "{" {
        "; the row goes on in the lines behind: write each row on one line"
    } else if text.starts_with("{'") {
        "; it is Python's way to write a dict, not JSON: use json.dumps"
    } else if text.ends_with("},") {
        "; it ends in a comma, as rows of a JSON array do: name such a file `.json`, with brackets around the rows"
    } else {
        ""
    }
}

/// What a value has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Any,
    Object,
}

fn read<'a>(text: &'a str, shape: Shape, request: &Request) -> Result<Value<'a>, serde_json::Error> {
    match read_exactly(text, shape, request) {
        Ok(value) => Ok(value),
        Err(cause) => match without_nan(text) {
            Some(text) => read_exactly(&text, shape, request).map(Value::into_owned),
            None => Err(cause),
        },
    }
}

fn read_exactly<'a>(text: &'a str, shape: Shape, request: &Request) -> Result<Value<'a>, serde_json::Error> {
    let fractions = Cell::new(false);
    let value = deserialize(text, shape, request, Numbers::Values { fractions: &fractions })?;
    if !fractions.get() {
        return Ok(value);
    }
    let tokens = RefCell::new(numbers(text));
    deserialize(text, shape, request, Numbers::Written { tokens: &tokens })
}

fn deserialize<'a>(
    text: &'a str,
    shape: Shape,
    request: &Request,
    numbers: Numbers<'_, 'a>,
) -> Result<Value<'a>, serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_str(text);
    let value = match shape {
        Shape::Any => Cells { numbers }.deserialize(&mut parser)?,
        Shape::Object => Fields { numbers, request }.deserialize(&mut parser)?,
    };
    parser.end()?;
    Ok(value)
}

/// How numbers are read.
#[derive(Clone, Copy)]
enum Numbers<'c, 'a> {
    /// As values; notes whether one of them is not whole.
    Values { fractions: &'c Cell<bool> },
    /// As the tokens, which come in the same order.
    Written { tokens: &'c RefCell<Tokens<'a>> },
}

impl<'a> Numbers<'_, 'a> {
    fn int(self, number: i128) -> Value<'a> {
        if let Self::Written { tokens } = self {
            tokens.borrow_mut().next();
        }
        Value::Int(number)
    }

    fn float(self, number: f64) -> Value<'a> {
        match self {
            Self::Values { fractions } => {
                fractions.set(true);
                Value::Float(number)
            }
            Self::Written { tokens } => {
                let token = tokens.borrow_mut().next();
                token.map_or(Value::Float(number), |token| {
                    token.parse().map_or(Value::Number(Cow::Borrowed(token)), Value::Int)
                })
            }
        }
    }
}

/// A value of any shape.
#[derive(Clone, Copy)]
struct Cells<'c, 'a> {
    numbers: Numbers<'c, 'a>,
}

impl<'de> DeserializeSeed<'de> for Cells<'_, 'de> {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Cells<'_, 'de> {
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
        Ok(self.numbers.int(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(self.numbers.int(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value<'de>, E> {
        Ok(self.numbers.float(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = entries.next_key::<Text<'de>>()? {
            fields.push((name.0, entries.next_value_seed(self)?));
        }
        Ok(Value::Object(fields))
    }
}

/// The fields of a row that are asked for.
struct Fields<'c, 'a, 'r> {
    numbers: Numbers<'c, 'a>,
    request: &'r Request,
}

impl<'de> DeserializeSeed<'de> for Fields<'_, 'de, '_> {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_, 'de, '_> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value<'de>, A::Error> {
        let mut fields = Vec::new();
        let cells = Cells { numbers: self.numbers };
        while let Some(Text(name)) = entries.next_key()? {
            if self.request.wants_column(&name) {
                fields.push((name, entries.next_value_seed(cells)?));
            } else if matches!(self.numbers, Numbers::Written { .. }) {
                // Its numbers have to go by.
                entries.next_value_seed(cells)?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Value::Object(fields))
    }
}

/// The number tokens of JSON text, in order.
struct Tokens<'a> {
    text: &'a str,
    outside: Outside<'a>,
    /// What is left of the stretch in work.
    stretch: Range<usize>,
}

fn numbers(text: &str) -> Tokens<'_> {
    Tokens { text, outside: Outside { text, at: 0 }, stretch: 0..0 }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            let stretch = &self.text[self.stretch.clone()];
            let Some(at) = stretch.find(|c: char| c.is_ascii_digit() || c == '-') else {
                self.stretch = self.outside.next()?;
                continue;
            };
            let token = &stretch[at..];
            let is_part = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
            let length = token.find(|c: char| !is_part(c)).unwrap_or(token.len());
            self.stretch.start += at + length;
            return Some(&token[..length]);
        }
    }
}

/// The stretches of JSON text between its strings.
struct Outside<'a> {
    text: &'a str,
    at: usize,
}

impl Iterator for Outside<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        if start >= bytes.len() {
            return None;
        }
        let end = memchr(b'"', &bytes[start..]).map_or(bytes.len(), |quote| start + quote);
        let mut at = end + 1;
        while let Some(found) = bytes.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
            let quote = bytes[at + found] == b'"';
            at += found + if quote { 1 } else { 2 };
            if quote {
                break;
            }
        }
        self.at = if end == bytes.len() { end } else { at };
        Some(start..end)
    }
}

/// The text with null in the place of NaN and Infinity; `None` where it has none of them.
fn without_nan(text: &str) -> Option<String> {
    let mut given = String::with_capacity(text.len());
    let mut done = 0;
    for stretch in (Outside { text, at: 0 }) {
        let between = &text[stretch.clone()];
        if between.contains("NaN") || between.contains("Infinity") {
            given.push_str(&text[done..stretch.start]);
            let replaced =
                between.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null");
            given.push_str(&replaced);
            done = stretch.end;
        }
    }
    given.push_str(&text[done..]);
    (done > 0).then_some(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<'a>(text: &'a str, columns: &[&str]) -> Value<'a> {
        let columns: Vec<String> = columns.iter().map(|&name| name.to_owned()).collect();
        let request = Request { columns: Some(columns.into()), ..Request::default() };
        parse_row(text.as_bytes(), &request, "line 1").unwrap()
    }

    #[test]
    fn only_the_fields_asked_for_are_kept_but_all_are_checked() {
        let columns = ["a".to_owned(), "image.bytes".to_owned()];
        let request = Request { columns: Some(columns.into()), ..Request::default() };
        let row = parse_row(br#"{"a": 1, "ab": 2, "image": {"bytes": "x"}}"#, &request, "line 1").unwrap();
        let Value::Object(fields) = row else { panic!() };
        assert_eq!(fields.iter().map(|(name, _)| name.as_ref()).collect::<Vec<_>>(), ["a", "image"]);
        assert!(parse_row(br#"{"a": 1, "ab": [}"#, &request, "line 1").is_err());
    }

    #[test]
    fn numbers_keep_their_text() {
        let text = r#"{"skip": [3, "4 \" 5", -6.5], "a": 1.0, "b": [1e3, 7, -0, 0.10], "c": 99999999999999999999999}"#;
        let row = row(text, &["a", "b", "c"]);
        let reported = |path: &str| row.get(path).and_then(Value::as_text).unwrap().into_owned();
        assert_eq!(["a", "b.0", "b.1", "b.2", "b.3"].map(reported), ["1.0", "1e3", "7", "0", "0.10"]);
        assert_eq!(row.get("c"), Some(&Value::Int(99_999_999_999_999_999_999_999)));
    }

    #[test]
    fn what_python_writes_for_no_number_is_null() {
        let text = r#"{"a": NaN, "b": [-Infinity, Infinity, 2.50], "c": "NaN Infinity"}"#;
        let row = row(text, &["a", "b", "c"]);
        assert_eq!(row.get("a"), Some(&Value::Null));
        assert_eq!(
            row.get("b"),
            Some(&Value::List(vec![Value::Null, Value::Null, Value::Number("2.50".into())]))
        );
        assert_eq!(row.get("c"), Some(&Value::Text("NaN Infinity".into())));
    }

    #[test]
    fn a_broken_row_names_its_place() {
        let detail = |text: &[u8]| parse_row(text, &Request::default(), "line 7").unwrap_err().detail;
        assert_eq!(detail(br#"{"a": "#), "line 7: EOF while parsing a value at line 1 column 6");
        assert_eq!(detail(b"[1]"), "line 7: a JSON array, expected an object");
        assert_eq!(detail(b"{} {}"), "line 7: trailing characters at line 1 column 4");
        assert!(detail(b"{\"a\": \"\xff\"}").starts_with("line 7: not UTF-8 ("));
    }
}
