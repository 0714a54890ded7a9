//! JSON arrays: a file that is one `[ … ]`, cut into its elements without parsing it as a whole, so that a file of millions of
//! rows is never in memory.
//!
//! The cutter looks only at strings and brackets; each element is then parsed alone, and a broken one costs its own row. Where
//! the file ends too early, the row it ends in is rejected and the rows before it stay.

use super::byte_ranges::Position;
use super::image_cell::short;
use super::json::{BAD_JSON, parse_row};
use super::json_lines::{BOM, JsonLines};
use super::raw::{Request, reject};
use super::section::Section;
use super::text::{MAX_RECORD, READ_BUFFER, Record, Records, Start, TextFormat, too_large};
use super::value::Value;
use llavm_pipeline::rejects::{FILE_LOST, Reject};
use memchr::memchr2;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Read};

pub struct JsonArray;

impl TextFormat for JsonArray {
    fn index_name(&self) -> String {
        "json".to_owned()
    }

    fn records(&self, input: Section, start: Start) -> Box<dyn Records> {
        let input = BufReader::with_capacity(READ_BUFFER, input);
        let place = if let Start::File = start { Place::Before } else { Place::Inside };
        Box::new(Elements { input, offset: 0, place })
    }

    fn value<'a>(&self, text: &'a [u8], _record: &Record, request: &Request) -> Result<Value<'a>, Reject> {
        parse_row(text, request, "the element").map_err(|bad| reject(BAD_JSON, bad.detail))
    }
}

/// Whether the file is an array, JSON lines under another name, or neither (and then why).
pub fn layout(file: &Section) -> io::Result<Result<Layout, String>> {
    let mut start = Vec::new();
    file.clone().take(PEEKED).read_to_end(&mut start)?;
    let start = start.strip_prefix(BOM).unwrap_or(&start).trim_ascii();
    Ok(match start.first() {
        None => Err("the file is empty, expected a JSON array of rows".to_owned()),
        Some(b'[') => Ok(Layout::Array),
        Some(b'{') if first_line_is_object(file.clone())? => Ok(Layout::Lines),
        Some(b'{') => {
            Err("the file is one JSON object, expected an array of rows or one object per line".to_owned())
        }
        Some(_) => Err(format!("no JSON: it begins with {}", short(&String::from_utf8_lossy(start)))),
    })
}

/// Whether a file of JSON lines begins with an array that its first line does not end: then the array is the file.
pub fn begins_array(file: &Section) -> io::Result<bool> {
    let (mut line, mut rest) = (Vec::new(), Vec::new());
    let mut records = JsonLines.records(file.clone(), Start::File);
    let Some(first) = records.next(&mut line)? else { return Ok(false) };
    let line = line.trim_ascii();
    if !line.starts_with(b"[") {
        return Ok(false);
    }
    match serde_json::from_slice::<serde::de::IgnoredAny>(line) {
        // `json.dump` of a list writes one line.
        Ok(_) => Ok(records.next(&mut rest)?.is_none()),
        Err(cause) => Ok(cause.is_eof() && !first.unfinished),
    }
}

/// Bytes looked at to find out what a .json file holds.
const PEEKED: u64 = 4096;

fn first_line_is_object(file: Section) -> io::Result<bool> {
    let mut line = Vec::new();
    let read = JsonLines.records(file, Start::File).next(&mut line)?;
    Ok(read.is_some() && parse_row(&line, &Request::default(), "line 1").is_ok())
}

/// What a .json file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    Array,
    Lines,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Before,
    Inside,
    After,
}

/// The elements of the array in order.
struct Elements {
    input: BufReader<Section>,
    offset: u64,
    place: Place,
}

impl Records for Elements {
    fn next(&mut self, text: &mut Vec<u8>) -> io::Result<Option<Record>> {
        text.clear();
        if self.place == Place::Before {
            self.skip_mark()?;
            self.skip_space()?;
            self.consume(1);
            self.place = Place::Inside;
        }
        if self.place == Place::After {
            return Ok(None);
        }
        let next = self.skip_space()?;
        let at = Position { offset: self.offset, line: 0 };
        let fault = match next {
            Some(b']') => {
                self.place = Place::After;
                self.consume(1);
                if self.skip_space()?.is_none() {
                    return Ok(None);
                }
                Some(reject(FILE_LOST, "text follows the end of the array"))
            }
            Some(_) => self.element(text)?,
            None => {
                self.place = Place::After;
                Some(reject(FILE_LOST, "the file ends before its array does"))
            }
        };
        Ok(Some(Record { at, fault, unfinished: false }))
    }
}

impl Elements {
    fn consume(&mut self, bytes: usize) {
        self.input.consume(bytes);
        self.offset += bytes as u64;
    }

    fn skip_mark(&mut self) -> io::Result<()> {
        if self.input.fill_buf()?.starts_with(BOM) {
            self.consume(BOM.len());
        }
        Ok(())
    }

    /// The first byte that is no white space, left in place.
    fn skip_space(&mut self) -> io::Result<Option<u8>> {
        loop {
            let buffer = self.input.fill_buf()?;
            let Some(first) = buffer.first() else {
                return Ok(None);
            };
            let space = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            if space == 0 {
                return Ok(Some(*first));
            }
            self.consume(space);
        }
    }

    /// Reads up to the comma or bracket that ends the element; the comma is consumed, the bracket is not.
    fn element(&mut self, text: &mut Vec<u8>) -> io::Result<Option<Reject>> {
        let mut cutter = Cutter::default();
        let mut too_long = false;
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                self.place = Place::After;
                return Ok(Some(reject(FILE_LOST, "the file ends inside this row")));
            }
            let (length, end) = cutter.cut(buffer);
            too_long |= text.len() + length > MAX_RECORD;
            if !too_long {
                text.extend_from_slice(&buffer[..length]);
            }
            self.consume(length + usize::from(end == Some(b',')));
            if end.is_some() {
                return Ok(too_long.then(too_large));
            }
        }
    }
}

/// Follows strings and brackets through an element that may come in several buffers.
#[derive(Default)]
struct Cutter {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Cutter {
    /// How many bytes belong to the element, and the byte that ends it when it is in `bytes`.
    fn cut(&mut self, bytes: &[u8]) -> (usize, Option<u8>) {
        let mut at = 0;
        while at < bytes.len() {
            if self.in_string {
                at += self.skip_string(&bytes[at..]);
                continue;
            }
            match bytes[at] {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                end @ (b',' | b']') if self.depth == 0 => return (at, Some(end)),
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            at += 1;
        }
        (at, None)
    }

    /// How many bytes of the string there are, with its closing quote.
    fn skip_string(&mut self, bytes: &[u8]) -> usize {
        if self.escaped {
            self.escaped = false;
            return 1;
        }
        match memchr2(b'"', b'\\', bytes) {
            None => bytes.len(),
            Some(at) => {
                self.in_string = bytes[at] != b'"';
                self.escaped = self.in_string;
                at + 1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value as Json;

    fn elements(text: &[u8]) -> Vec<(String, Option<Reject>)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.json");
        std::fs::write(&path, text).unwrap();
        let mut records = JsonArray.records(Section::open(&path).unwrap(), Start::File);
        let (mut found, mut element) = (Vec::new(), Vec::new());
        while let Some(record) = records.next(&mut element).unwrap() {
            found.push((String::from_utf8_lossy(&element).trim().to_owned(), record.fault));
        }
        found
    }

    fn json() -> impl Strategy<Value = Json> {
        let text = r#"[\\\\"\[\]{},: a-z\n图😀]{0,8}"#;
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            text.prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 24, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
                prop::collection::btree_map(text, inner, 0..5)
                    .prop_map(|map| Json::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn elements_are_those_serde_json_finds(values in prop::collection::vec(json(), 0..6), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_vec_pretty(&values) } else { serde_json::to_vec(&values) }.unwrap();
            let found: Vec<Json> = elements(&text)
                .into_iter()
                .map(|(element, fault)| {
                    assert_eq!(fault, None);
                    serde_json::from_str(&element).unwrap()
                })
                .collect();
            prop_assert_eq!(found, values);
        }

        #[test]
        fn a_cut_between_any_two_bytes_changes_nothing(value in json(), at in any::<prop::sample::Index>()) {
            let text = format!("{},", serde_json::to_string(&value).unwrap()).into_bytes();
            let at = at.index(text.len());
            let mut cutter = Cutter::default();
            let (first, end) = cutter.cut(&text[..at]);
            let length = if end.is_some() { first } else { first + cutter.cut(&text[at..]).0 };
            prop_assert_eq!(length, text.len() - 1);
        }

        #[test]
        fn any_bytes_are_cut_without_loss_of_control(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = [b"[".as_slice(), &bytes].concat();
            prop_assert!(elements(&text).len() <= bytes.len() + 1);
        }
    }

    #[test]
    fn a_broken_element_costs_its_own_row() {
        let codes = |text: &str| {
            let outcome = |(element, fault): (String, Option<Reject>)| match fault {
                Some(fault) => fault.code.to_owned(),
                None => element,
            };
            elements(text.as_bytes()).into_iter().map(outcome).collect::<Vec<_>>()
        };
        assert_eq!(codes("\u{feff} [ ]\n"), Vec::<String>::new());
        assert_eq!(codes(r#"[{"a": 1}, {"b" 2}, {}]"#), [r#"{"a": 1}"#, r#"{"b" 2}"#, "{}"]);
        assert_eq!(codes(r#"[{"a": 1},]"#), [r#"{"a": 1}"#]);
        assert_eq!(codes(r#"[{"a": 1}, {"b": "#), [r#"{"a": 1}"#, "bad-file"]);
        assert_eq!(codes(r#"[{"a": 1},"#), [r#"{"a": 1}"#, "bad-file"]);
        assert_eq!(codes(r#"[{"a": 1}"#), ["bad-file"]);
        assert_eq!(codes("[1] [2]"), ["1", "bad-file"]);
    }
}
