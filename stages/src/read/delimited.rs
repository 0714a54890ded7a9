//! CSV and TSV.
//!
//! CSV follows RFC 4180 as the `csv` crate reads it: fields may be quoted, and then hold commas, line breaks and doubled quotes.
//! TSV has no quoting (IANA text/tab-separated-values): a quotation mark there is a character like any other, as captions need
//! it. A row with more or fewer fields than the header is rejected.

use super::json_lines::BOM;
use super::raw::{Request, reject};
use super::regions::Position;
use super::section::Section;
use super::text::{MAX_RECORD, READ_BUFFER, Record, Records, Start, TextFormat, too_large};
use super::value::Value;
use csv::{ByteRecord, ReaderBuilder, Terminator};
use llavm_pipeline::StageError;
use llavm_pipeline::rejects::Reject;
use std::borrow::Cow;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

/// What separates fields, and whether they may be quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Csv,
    Tsv,
}

impl Dialect {
    fn delimiter(self) -> u8 {
        if self == Self::Csv { b',' } else { b'\t' }
    }

    fn quotes(self) -> bool {
        self == Self::Csv
    }
}

pub struct Delimited {
    dialect: Dialect,
    /// Whether the first record names the columns.
    header: bool,
    names: Vec<String>,
    /// The names as one text, for digests.
    names_text: Vec<u8>,
}

impl Delimited {
    /// Reads the first record. The inner error says why the file is no table.
    pub fn open(path: &Path, dialect: Dialect, header: bool) -> Result<Result<Self, String>, StageError> {
        let io = |cause| StageError::io(path, cause);
        let mut text = Vec::new();
        let mut records = Rows::new(Section::open(path).map_err(io)?, dialect, 1);
        let first = records.next(&mut text).map_err(io)?;
        Ok(match first {
            None => Err("the file is empty".to_owned()),
            Some(Record { fault: Some(fault), .. }) => Err(fault.detail),
            Some(_) => fields(&text, dialect).map(|fields| Self::with_names(dialect, header, fields)),
        })
    }

    fn with_names(dialect: Dialect, header: bool, fields: Vec<String>) -> Self {
        let numbered = |index: usize| format!("column_{}", index + 1);
        let names = if header { fields } else { (0..fields.len()).map(numbered).collect() };
        Self { dialect, header, names_text: names.join("\0").into_bytes(), names }
    }
}

/// The fields of one record as text.
fn fields(record: &[u8], dialect: Dialect) -> Result<Vec<String>, String> {
    let record = record.strip_suffix(b"\n").unwrap_or(record);
    let record = record.strip_suffix(b"\r").unwrap_or(record);
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(dialect.delimiter())
        .quoting(dialect.quotes())
        // Line breaks inside quotes are data, and the record has no other.
        .terminator(Terminator::Any(b'\n'))
        .buffer_capacity(record.len().clamp(1, READ_BUFFER))
        .from_reader(record);
    let mut fields = ByteRecord::new();
    reader.read_byte_record(&mut fields).map_err(|cause| cause.to_string())?;
    let text = |field: &[u8]| {
        std::str::from_utf8(field).map(str::to_owned).map_err(|cause| format!("not UTF-8: {cause}"))
    };
    fields.iter().map(text).collect()
}

impl TextFormat for Delimited {
    fn index_name(&self) -> String {
        format!("{:?}/{}", self.dialect, self.header)
    }

    fn records(&self, input: Section, start: Start) -> Box<dyn Records> {
        match start {
            Start::Record { line } => Box::new(Rows::new(input, self.dialect, line)),
            Start::File => Box::new(Rows { skip_first: self.header, ..Rows::new(input, self.dialect, 1) }),
        }
    }

    fn value<'a>(&self, text: &'a [u8], line: u64, request: &Request) -> Result<Value<'a>, Reject> {
        let fields =
            fields(text, self.dialect).map_err(|cause| reject("bad-row", format!("line {line}: {cause}")))?;
        if fields.len() != self.names.len() {
            let detail = format!("line {line}: {} fields, expected {}", fields.len(), self.names.len());
            return Err(reject("bad-row", detail));
        }
        let cells = self.names.iter().zip(fields).filter(|(name, _)| request.wants_column(name));
        Ok(Value::Object(
            cells.map(|(name, field)| (Cow::Owned(name.clone()), Value::Text(Cow::Owned(field)))).collect(),
        ))
    }

    fn header(&self) -> Option<(&[String], &[u8])> {
        Some((&self.names, &self.names_text))
    }

    /// A text that reads as a number counts as one, so that `where` can compare it.
    fn kind(&self, cell: &Value<'_>) -> String {
        match cell {
            Value::Text(text) if text.trim().is_empty() => "null",
            Value::Text(text) if text.trim().parse::<i64>().is_ok() => "int",
            Value::Text(text) if text.trim().parse::<f64>().is_ok() => "float",
            _ => "string",
        }
        .to_owned()
    }
}

/// Cuts records: a line, or several where a quoted field holds line breaks. Empty lines are no records.
struct Rows {
    input: BufReader<Section>,
    dialect: Dialect,
    offset: u64,
    line: u64,
    skip_first: bool,
}

impl Rows {
    fn new(input: Section, dialect: Dialect, line: u64) -> Self {
        let input = BufReader::with_capacity(READ_BUFFER, input);
        Self { input, dialect, offset: 0, line, skip_first: false }
    }

    /// One record with its line end; `None` at the end of the file.
    fn record(&mut self, text: &mut Vec<u8>) -> io::Result<Option<Record>> {
        text.clear();
        let at = Position { offset: self.offset, line: self.line };
        let (mut quotes, mut too_long) = (Quotes::default(), false);
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                break;
            }
            let end = memchr::memchr(b'\n', buffer).map_or(buffer.len(), |at| at + 1);
            let piece = &buffer[..end];
            if self.dialect.quotes() {
                quotes.follow(piece, self.dialect.delimiter());
            }
            too_long |= text.len() + end > MAX_RECORD;
            if !too_long {
                text.extend_from_slice(piece);
            }
            let line_ended = piece.last() == Some(&b'\n');
            self.line += u64::from(line_ended);
            self.input.consume(end);
            self.offset += end as u64;
            if line_ended && !quotes.open() {
                break;
            }
        }
        if self.offset == at.offset {
            return Ok(None);
        }
        let fault = match () {
            () if quotes.open() => {
                Some(reject("bad-row", format!("line {}: a quoted field is never closed", at.line)))
            }
            () => too_long.then(too_large),
        };
        Ok(Some(Record { at, fault }))
    }
}

impl Records for Rows {
    fn next(&mut self, text: &mut Vec<u8>) -> io::Result<Option<Record>> {
        loop {
            let record = self.record(text)?;
            if record.as_ref().is_some_and(|record| record.at.offset == 0) && text.starts_with(BOM) {
                text.drain(..BOM.len());
            }
            let empty = record
                .as_ref()
                .is_some_and(|record| record.fault.is_none() && text.trim_ascii_end().is_empty());
            // A lone tab is two empty fields, not an empty line.
            if empty && !text.contains(&b'\t') {
                continue;
            }
            if record.is_some() && std::mem::take(&mut self.skip_first) {
                continue;
            }
            return Ok(record);
        }
    }
}

/// Whether the text so far ends inside a quoted field. A quote opens a field only at its start.
#[derive(Default)]
struct Quotes {
    state: State,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    FieldStart,
    Plain,
    Quoted,
    /// After a quote inside a quoted field: its end, or the first of a doubled one.
    QuoteInQuoted,
}

impl Quotes {
    fn follow(&mut self, bytes: &[u8], delimiter: u8) {
        for byte in bytes {
            self.state = match (self.state, *byte) {
                (State::Quoted, b'"') => State::QuoteInQuoted,
                (State::Quoted, _) | (State::FieldStart | State::QuoteInQuoted, b'"') => State::Quoted,
                (_, b'\n') => State::FieldStart,
                (_, byte) if byte == delimiter => State::FieldStart,
                _ => State::Plain,
            };
        }
    }

    fn open(&self) -> bool {
        self.state == State::Quoted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(text: &[u8], dialect: Dialect) -> Vec<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        std::fs::write(&path, text).unwrap();
        let mut rows = Rows::new(Section::open(&path).unwrap(), dialect, 1);
        let (mut found, mut record) = (Vec::new(), Vec::new());
        while let Some(Record { fault, .. }) = rows.next(&mut record).unwrap() {
            assert!(fault.is_none(), "{fault:?}");
            found.push(fields(&record, dialect).unwrap());
        }
        found
    }

    proptest! {
        #[test]
        fn records_are_those_the_csv_crate_writes(rows in prop::collection::vec(prop::collection::vec(r#"[ab",\r\n图]{0,6}"#, 2..4), 1..8)) {
            let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
            rows.iter().for_each(|row| writer.write_record(row).unwrap());
            prop_assert_eq!(cut(&writer.into_inner().unwrap(), Dialect::Csv), rows);
        }
    }

    #[test]
    fn a_quote_inside_an_unquoted_field_is_a_character() {
        assert_eq!(cut(b"a 5\" disk,b\r\nc,d\r\n", Dialect::Csv), [["a 5\" disk", "b"], ["c", "d"]]);
        assert_eq!(cut(b"\"open\tb\nc\td\n", Dialect::Tsv), [["\"open", "b"], ["c", "d"]]);
        assert_eq!(cut(b"\t\n\n\tx\n", Dialect::Tsv), [["", ""], ["", "x"]]);
    }
}
