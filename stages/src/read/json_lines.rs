//! JSON Lines: one row per line.
//!
//! CRLF line ends and a byte-order mark are accepted, blank lines are no rows. A line that is no JSON (invalid UTF-8, a last
//! line cut short) is a rejected row that names its line.

use super::byte_ranges::Position;
use super::json::{BAD_JSON, parse_row};
use super::raw::{Request, reject};
use super::section::Section;
use super::text::{MAX_RECORD, READ_BUFFER, Record, Records, Start, TextFormat, too_large};
use super::value::Value;
use llavm_pipeline::rejects::Reject;
use std::io::{self, BufRead, BufReader, Read};

/// The byte-order mark in UTF-8.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

pub struct JsonLines;

impl TextFormat for JsonLines {
    fn index_name(&self) -> String {
        "jsonl".to_owned()
    }

    fn records(&self, input: Section, start: Start) -> Box<dyn Records> {
        let number = if let Start::Record { line } = start { line } else { 1 };
        Box::new(Lines { input: BufReader::with_capacity(READ_BUFFER, input), offset: 0, number })
    }

    fn value<'a>(&self, text: &'a [u8], record: &Record, request: &Request) -> Result<Value<'a>, Reject> {
        let row = parse_row(text, request, &format!("line {}", record.at.line));
        row.map_err(|bad| {
            if bad.ends_early {
                record.ends_early(BAD_JSON, bad.detail)
            } else {
                reject(BAD_JSON, bad.detail)
            }
        })
    }
}

/// Non-blank lines in order.
struct Lines {
    input: BufReader<Section>,
    offset: u64,
    number: u64,
}

impl Records for Lines {
    /// The next line that is not blank, with its end, without a byte-order mark.
    fn next(&mut self, line: &mut Vec<u8>) -> io::Result<Option<Record>> {
        loop {
            line.clear();
            let at = Position { offset: self.offset, line: self.number };
            let mut read = (&mut self.input).take(MAX_RECORD as u64).read_until(b'\n', line)?;
            if read == 0 {
                return Ok(None);
            }
            let cut = read == MAX_RECORD && line.last() != Some(&b'\n');
            if cut {
                read += self.input.skip_until(b'\n')?;
            }
            self.offset += read as u64;
            self.number += 1;
            if line.starts_with(BOM) {
                line.drain(..BOM.len());
            }
            if line.iter().any(|byte| !byte.is_ascii_whitespace()) {
                let unfinished = !cut && line.last() != Some(&b'\n');
                return Ok(Some(Record { at, fault: cut.then(too_large), unfinished }));
            }
        }
    }
}
