//! CSV and TSV.
//!
//! Fields may be quoted, and then hold delimiters, line breaks and doubled quotes (RFC 4180). Lines end with LF, CRLF or CR. A row with
//! more or fewer fields than the header is rejected. Where CR alone ends the lines, LF is a character: Python writes it without quotes.
//!
//! A TSV file is quoted or not (IANA's text/tab-separated-values knows no quotes, pandas writes them), which no single line shows:
//! a caption may begin with a quotation mark. It is taken for quoted where every field that begins with a quotation mark also ends
//! with one, as pandas would have written it.
//!
//! A table in another encoding than UTF-8 is refused whole: some of its lines may be valid UTF-8 by chance, and would be read as
//! nonsense.

use super::byte_ranges::Position;
use super::input::Input;
use super::json_lines::BOM;
use super::opening::{Opened, Opening, boxed};
use super::raw::{Request, reject};
use super::section::Section;
use super::text::{MAX_RECORD, READ_BUFFER, Record, Records, Start, TextFile, TextFormat, too_large};
use super::value::Value;
use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};
use llavm_pipeline::StageError;
use llavm_pipeline::rejects::{FILE_LOST, Reject};
use llavm_pipeline::stage::OpenContext;
use memchr::memchr_iter;
use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Read};

/// What separates fields unless the manifest says otherwise.
pub const COMMA: u8 = b',';
pub const TAB: u8 = b'\t';

/// Raised when the same file is taken for another dialect.
const VERSION: u32 = 2;

/// How the fields of a line are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dialect {
    delimiter: u8,
    quote: Option<u8>,
    /// Whether lines end with CR alone, and LF is a character.
    returns: bool,
}

impl Dialect {
    fn reader(self) -> Reader {
        ReaderBuilder::new()
            .delimiter(self.delimiter)
            .quoting(self.quote.is_some())
            .quote(self.quote.unwrap_or(b'"'))
            .terminator(if self.returns { Terminator::Any(b'\r') } else { Terminator::CRLF })
            .build()
    }
}

struct Delimited {
    dialect: Dialect,
    /// Whether the first record names the columns.
    header: bool,
    names: Vec<String>,
    /// The names as one text, for digests.
    names_text: Vec<u8>,
}

/// Opens a table whose fields are separated by `delimiter` where the manifest does not say it.
pub fn open(opening: &Opening<'_>, delimiter: u8) -> Opened {
    let Opening { read, input, context, .. } = opening;
    let facts = match facts(input, *context)? {
        Ok(facts) => facts,
        Err(cause) => return Ok(Err(cause)),
    };
    if let Some(line) = facts.not_utf8.filter(|_| read.encoding.is_none()) {
        let guess = if facts.reads_as_gbk { "gbk" } else { "windows-1252" };
        return Ok(Err(format!(
            "line {line} is not UTF-8, nor are most lines beyond ASCII: set encoding = \"{guess}\", or whatever it was written in; \
             encoding = \"utf-8\" reads it all the same and rejects such lines"
        )));
    }
    let delimiter = read.delimiter.map_or(delimiter, |delimiter| delimiter.0);
    let quote = match &read.quote {
        Some(quote) => quote.0,
        None if delimiter == TAB && !facts.tabs_quoted => None,
        None => Some(b'"'),
    };
    let dialect = Dialect { delimiter, quote, returns: facts.returns };
    match Delimited::new(input, dialect, read.header, *context)? {
        Ok(format) => boxed(TextFile::open(opening, format)?),
        Err(cause) => Ok(Err(cause)),
    }
}

impl Delimited {
    /// Reads the first record. The inner error says why the file is no table.
    fn new(
        input: &Input,
        dialect: Dialect,
        header: bool,
        context: &dyn OpenContext,
    ) -> Result<Result<Self, String>, StageError> {
        let what = format!("table-head/{VERSION}/{dialect:?}");
        let found = input.remembered(&what, context, &|file| {
            let mut text = Vec::new();
            let first = Rows::new(file.clone(), dialect, 1).next(&mut text)?;
            let fields = match first {
                None => Err("the file has no line".to_owned()),
                Some(Record { fault: Some(fault), .. }) => Err(fault.detail),
                Some(_) => texts(&text),
            };
            serde_json::to_vec(&fields).map_err(io::Error::from)
        })?;
        let fields = found.map(|found| serde_json::from_slice::<Result<Vec<String>, String>>(&found));
        Ok(match fields {
            Ok(Ok(fields)) => fields.map(|fields| Self::with_names(dialect, header, fields)),
            Ok(Err(cause)) => Err(cause.to_string()),
            Err(cause) => Err(cause),
        })
    }

    fn with_names(dialect: Dialect, header: bool, fields: Vec<String>) -> Self {
        let numbered = |index: usize| format!("column_{}", index + 1);
        let names = if header { fields } else { (0..fields.len()).map(numbered).collect() };
        Self { dialect, header, names_text: names.join("\0").into_bytes(), names }
    }
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

    fn value<'a>(&self, text: &'a [u8], record: &Record, request: &Request) -> Result<Value<'a>, Reject> {
        let line = record.at.line;
        let fields = texts(text).map_err(|cause| reject("bad-row", format!("line {line}: {cause}")))?;
        if fields.len() != self.names.len() {
            let detail = format!("line {line}: {} fields, expected {}", fields.len(), self.names.len());
            return Err(if fields.len() < self.names.len() {
                record.ends_early("bad-row", detail)
            } else {
                reject("bad-row", detail)
            });
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

/// Cuts records, and leaves of each its fields as [`texts`] takes them. Empty lines are no records.
struct Rows {
    input: BufReader<Section>,
    reader: Reader,
    offset: u64,
    line: u64,
    /// Whether the last byte was a CR: the line ends there, unless an LF follows.
    after_return: bool,
    skip_first: bool,
    output: Vec<u8>,
    ends: Vec<usize>,
}

/// How a record ended.
#[derive(Default)]
struct Cut {
    bytes: usize,
    fields: usize,
    too_long: bool,
    /// At the end of the file: in a quoted field, or without a line end.
    unclosed: bool,
    unfinished: bool,
}

impl Rows {
    fn new(input: Section, dialect: Dialect, line: u64) -> Self {
        Self {
            input: BufReader::with_capacity(READ_BUFFER, input),
            reader: dialect.reader(),
            offset: 0,
            line,
            after_return: false,
            skip_first: false,
            output: vec![0; 1 << 12],
            ends: vec![0; 64],
        }
    }

    fn consume(&mut self, bytes: usize) {
        self.input.consume(bytes);
        self.offset += bytes as u64;
    }

    /// Passes over the mark at the head of the file and over empty lines, so that a record begins where its first field does.
    fn skip_empty(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.after_return) && self.input.fill_buf()?.first() != Some(&b'\n') {
            self.line += 1;
        }
        if self.offset == 0 && self.input.fill_buf()?.starts_with(BOM) {
            self.consume(BOM.len());
        }
        loop {
            let buffer = self.input.fill_buf()?;
            let breaks = buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            if breaks == 0 {
                return Ok(());
            }
            let feeds = memchr_iter(b'\n', &buffer[..breaks]).count();
            self.line += if feeds > 0 { feeds } else { breaks } as u64;
            self.consume(breaks);
        }
    }

    /// The next record; `None` at the end of the file.
    fn cut(&mut self) -> io::Result<Option<Cut>> {
        self.reader.reset();
        let mut cut = Cut::default();
        let mut started = false;
        loop {
            let buffer = self.input.fill_buf()?;
            // The line end that the last record lacks is added: a field that takes it is still in quotes. (A clone of the reader
            // cannot be asked, as csv-core copies only a part of its tables.)
            let added = buffer.is_empty() && started && !cut.unclosed;
            let text = if added { &b"\r"[..] } else { buffer };
            let (result, read, written, ended) =
                self.reader.read_record(text, &mut self.output[cut.bytes..], &mut self.ends[cut.fields..]);
            if added {
                cut.unfinished = true;
                cut.unclosed = result == ReadRecordResult::InputEmpty;
            } else {
                started |= read > 0;
                self.line += memchr_iter(b'\n', &text[..read]).count() as u64;
                self.after_return = read > 0 && text[read - 1] == b'\r';
                self.consume(read);
            }
            cut.bytes += written;
            cut.fields += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.output.len() < MAX_RECORD => {
                    self.output.resize(self.output.len() * 2, 0);
                }
                ReadRecordResult::OutputFull => {
                    cut.too_long = true;
                    cut.bytes = 0;
                }
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => return Ok(Some(cut)),
                ReadRecordResult::End => return Ok(None),
            }
        }
    }

    fn framed(&self, cut: &Cut, text: &mut Vec<u8>) {
        text.clear();
        let ends = &self.ends[..cut.fields];
        text.extend_from_slice(&(ends.len() as u64).to_le_bytes());
        ends.iter().for_each(|end| text.extend_from_slice(&(*end as u64).to_le_bytes()));
        text.extend_from_slice(&self.output[..cut.bytes]);
    }
}

impl Records for Rows {
    fn next(&mut self, text: &mut Vec<u8>) -> io::Result<Option<Record>> {
        loop {
            self.skip_empty()?;
            let at = Position { offset: self.offset, line: self.line };
            let Some(cut) = self.cut()? else { return Ok(None) };
            let is_blank = cut.fields == 1 && self.output[..cut.bytes].iter().all(u8::is_ascii_whitespace);
            if is_blank && !cut.too_long || std::mem::take(&mut self.skip_first) {
                continue;
            }
            self.framed(&cut, text);
            let fault = match () {
                () if cut.unclosed => Some(reject(
                    FILE_LOST,
                    format!(
                        "line {}: a quoted field is never closed, so that it takes all lines behind it",
                        at.line
                    ),
                )),
                () => cut.too_long.then(too_large),
            };
            return Ok(Some(Record { at, fault, unfinished: cut.unfinished }));
        }
    }
}

/// The fields of one record: their number, where each ends, their bytes.
fn texts(record: &[u8]) -> Result<Vec<String>, String> {
    let number = |at: usize| {
        let bytes = record.get(at * 8..).and_then(|bytes| bytes.first_chunk::<8>());
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes) as usize)
    };
    let fields = number(0);
    let bytes = record.get((fields + 1) * 8..).unwrap_or_default();
    let mut start = 0;
    let field = |n: usize| {
        let end = number(n + 1);
        let field = bytes.get(start..end).unwrap_or_default();
        start = end;
        std::str::from_utf8(field).map(str::to_owned).map_err(|cause| format!("not UTF-8: {cause}"))
    };
    (0..fields).map(field).collect()
}

/// What only the whole file shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Facts {
    /// The first line that is no UTF-8, where most lines with other than ASCII letters are none.
    not_utf8: Option<u64>,
    reads_as_gbk: bool,
    /// Whether the file is quoted, read with tabs between fields.
    tabs_quoted: bool,
    /// Whether lines end with CR alone.
    returns: bool,
}

/// Remembered by the file's content.
fn facts(input: &Input, context: &dyn OpenContext) -> Result<Result<Facts, String>, StageError> {
    let found = input.remembered_of_all(&format!("table/{VERSION}"), context, &|file| {
        let facts = scan(file.clone())?;
        let flags = [facts.reads_as_gbk, facts.tabs_quoted, facts.returns];
        let flags = flags.into_iter().rev().fold(0_u8, |all, flag| all << 1 | u8::from(flag));
        Ok([&facts.not_utf8.unwrap_or(0).to_le_bytes()[..], &[flags]].concat())
    })?;
    Ok(found.map(|found| {
        let line = found.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let flags = found.last().copied().unwrap_or(0);
        Facts {
            not_utf8: Some(line).filter(|line| *line > 0),
            reads_as_gbk: flags & 1 != 0,
            tabs_quoted: flags & 2 != 0,
            returns: flags & 4 != 0,
        }
    }))
}

fn scan(file: Section) -> io::Result<Facts> {
    let mut input = BufReader::with_capacity(READ_BUFFER, file);
    let mut facts = Facts::default();
    let (mut line, mut number, mut beyond_ascii, mut foreign) = (Vec::new(), 0, 0_u64, 0_u64);
    let mut quotes = Quotes::default();
    let mut ends_with_feed = false;
    while {
        line.clear();
        (&mut input).take(MAX_RECORD as u64).read_until(b'\n', &mut line)? > 0
    } {
        number += 1;
        quotes.follow(&line);
        if number == 1 {
            facts.returns = begins_with_a_return_line(&line);
        }
        facts.returns &= !line.ends_with(b"\r\n");
        ends_with_feed = line.ends_with(b"\n");
        if !line.is_ascii() {
            beyond_ascii += 1;
            if std::str::from_utf8(&line).is_err() {
                foreign += 1;
                if facts.not_utf8.is_none() {
                    facts.not_utf8 = Some(number);
                    facts.reads_as_gbk =
                        encoding_rs::GBK.decode_without_bom_handling_and_without_replacement(&line).is_some();
                }
            }
        }
    }
    facts.not_utf8 = facts.not_utf8.filter(|_| foreign * 2 >= beyond_ascii);
    facts.tabs_quoted = quotes.well_formed();
    facts.returns &= !ends_with_feed;
    Ok(facts)
}

/// Whether the first line ends with CR alone; `text` reaches to the first LF.
fn begins_with_a_return_line(text: &[u8]) -> bool {
    let mut quoted = false;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b'\r' if !quoted => return text.get(at + 1) != Some(&b'\n'),
            _ => {}
        }
    }
    false
}

/// Follows a text with tabs between fields: whether every quoted field is closed at its end, and there is one.
#[derive(Default)]
struct Quotes {
    state: State,
    any: bool,
    broken: bool,
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
    fn follow(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().filter(|_| !self.broken) {
            self.state = match (self.state, *byte) {
                (State::Quoted, b'"') => State::QuoteInQuoted,
                (State::Quoted, _) | (State::QuoteInQuoted, b'"') => State::Quoted,
                (State::FieldStart, b'"') => {
                    self.any = true;
                    State::Quoted
                }
                (_, b'\n' | b'\r' | b'\t') => State::FieldStart,
                (State::QuoteInQuoted, _) => {
                    self.broken = true;
                    return;
                }
                _ => State::Plain,
            };
        }
    }

    fn well_formed(&self) -> bool {
        self.any && !self.broken && self.state != State::Quoted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CSV: Dialect = Dialect { delimiter: COMMA, quote: Some(b'"'), returns: false };
    const TSV: Dialect = Dialect { delimiter: TAB, quote: None, returns: false };

    fn section(text: &[u8]) -> Section {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        std::fs::write(&path, text).unwrap();
        Section::open(&path).unwrap()
    }

    fn cut(text: &[u8], dialect: Dialect) -> Vec<Vec<String>> {
        let mut rows = Rows::new(section(text), dialect, 1);
        let (mut found, mut record) = (Vec::new(), Vec::new());
        while let Some(Record { fault, .. }) = rows.next(&mut record).unwrap() {
            assert!(fault.is_none(), "{fault:?}");
            found.push(texts(&record).unwrap());
        }
        found
    }

    proptest! {
        #[test]
        fn records_are_those_the_csv_crate_writes(rows in prop::collection::vec(prop::collection::vec(r#"[ab",\r\n图]{0,6}"#, 2..4), 1..8)) {
            let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
            rows.iter().for_each(|row| writer.write_record(row).unwrap());
            prop_assert_eq!(cut(&writer.into_inner().unwrap(), CSV), rows);
        }

        #[test]
        fn a_quoted_table_with_tabs_is_known_as_one(rows in prop::collection::vec(prop::collection::vec(r#"[ab"\t\n图]{1,6}"#, 2..4), 1..8)) {
            let mut writer = csv::WriterBuilder::new().flexible(true).delimiter(TAB).from_writer(Vec::new());
            rows.iter().for_each(|row| writer.write_record(row).unwrap());
            let text = writer.into_inner().unwrap();
            let quoted = text.contains(&b'"');
            prop_assert_eq!(scan(section(&text)).unwrap().tabs_quoted, quoted);
        }
    }

    #[test]
    fn a_quote_inside_an_unquoted_field_is_a_character() {
        assert_eq!(cut(b"a 5\" disk,b\r\nc,d\r\n", CSV), [["a 5\" disk", "b"], ["c", "d"]]);
        assert_eq!(cut(b"\"open\tb\nc\td\n", TSV), [["\"open", "b"], ["c", "d"]]);
        assert_eq!(cut(b"\t\n\n\tx\n", TSV), [["", ""], ["", "x"]]);
        assert_eq!(cut(b"\xef\xbb\xbf\"a\",b\rc,d\r", CSV), [["a", "b"], ["c", "d"]]);
    }

    #[test]
    fn lines_are_counted_whatever_ends_them() {
        for text in ["a\nb\n\n\"c\nd\"\ne", "a\r\nb\r\n\r\n\"c\r\nd\"\r\ne", "a\rb\r\r\"c\nd\"\re"] {
            let mut rows = Rows::new(section(text.as_bytes()), CSV, 1);
            let (mut found, mut record) = (Vec::new(), Vec::new());
            while let Some(Record { at, unfinished, .. }) = rows.next(&mut record).unwrap() {
                found.push((at.line, unfinished));
            }
            assert_eq!(found, [(1, false), (2, false), (4, false), (6, true)], "{text:?}");
        }
    }

    #[test]
    fn another_encoding_is_seen_in_the_lines_beyond_ascii() {
        let (gbk, ..) = encoding_rs::GBK.encode("id,caption\n1,一张图\n2,a cat\n3,联通\n");
        let facts = scan(section(&gbk)).unwrap();
        assert_eq!((facts.not_utf8, facts.reads_as_gbk), (Some(2), true));
        let one_broken = ["图,a\n".repeat(9).as_bytes(), b"caf\xe9,b\n"].concat();
        assert_eq!(scan(section(&one_broken)).unwrap().not_utf8, None);
    }

    #[test]
    fn a_line_feed_is_a_character_where_returns_end_the_lines() {
        let text = b"a,b\rtwo\nlines,\"c\rd\"\re,f";
        assert!(scan(section(text)).unwrap().returns);
        let dialect = Dialect { returns: true, ..CSV };
        assert_eq!(cut(text, dialect), [["a", "b"], ["two\nlines", "c\rd"], ["e", "f"]]);
        for mixed in ["a,b\rc,d\r\ne,f\r", "a,b\rc,d\n", "a,b\nc,d\r", "\"a\rb\",c\nd,e"] {
            assert!(!scan(section(mixed.as_bytes())).unwrap().returns, "{mixed:?}");
        }
    }

    #[test]
    fn an_unclosed_quote_loses_the_rest_of_the_file() {
        let mut rows = Rows::new(section(b"a,b\n1,\"2\n3,4\n"), CSV, 1);
        let mut record = Vec::new();
        let faults: Vec<_> =
            std::iter::from_fn(|| rows.next(&mut record).unwrap()).map(|record| record.fault).collect();
        assert_eq!((faults.len(), faults[1].as_ref().map(|fault| fault.code)), (2, Some(FILE_LOST)));
    }
}
