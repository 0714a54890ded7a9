//! One JSON object of text as a row, with only the fields asked for.

use super::raw::{Request, reject};
use super::value::{Text, Value};
use llavm_pipeline::rejects::Reject;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::fmt;

/// Parses the object; `place` ("line 12") begins the reject's text. Fields not asked for are checked, not kept.
pub fn parse_row<'a>(text: &'a [u8], request: &Request, place: &str) -> Result<Value<'a>, Reject> {
    let bad = |cause: &dyn fmt::Display| reject("bad-json", format!("{place}: {cause}"));
    let text = std::str::from_utf8(text).map_err(|cause| bad(&format!("not UTF-8: {cause}")))?;
    let mut parser = serde_json::Deserializer::from_str(text);
    let row = Fields { request }.deserialize(&mut parser).map_err(|cause| bad(&cause))?;
    parser.end().map_err(|cause| bad(&cause))?;
    Ok(row)
}

struct Fields<'r> {
    request: &'r Request,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some(Text(name)) = entries.next_key()? {
            if self.request.wants_column(&name) {
                fields.push((name, entries.next_value()?));
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_broken_row_names_its_place() {
        let detail = |text: &[u8]| parse_row(text, &Request::default(), "line 7").unwrap_err().detail;
        assert_eq!(detail(br#"{"a": "#), "line 7: EOF while parsing a value at line 1 column 6");
        assert_eq!(
            detail(b"[1]"),
            "line 7: invalid type: sequence, expected a JSON object at line 1 column 0"
        );
        assert_eq!(detail(b"{} {}"), "line 7: trailing characters at line 1 column 4");
        assert!(detail(b"{\"a\": \"\xff\"}").starts_with("line 7: not UTF-8: "));
    }
}
