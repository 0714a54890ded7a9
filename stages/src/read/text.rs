//! Text formats: a file cut into records, each of which is parsed alone.
//!
//! A format says how records are cut ([`Records`]) and how one becomes a row ([`TextFormat::value`]); counting rows, reading a
//! partition, holding 128 records at a time and naming what is wrong are the same for all of them.

use super::byte_ranges::{ByteRange, Position, byte_ranges, cut};
use super::input::Input;
use super::opening::Opening;
use super::raw::{CHUNK_ROWS, Chunk, ChunkIterator, RawColumn, RawFile, Request, Split, reject};
use super::sample::remembered_columns;
use super::section::Section;
use super::value::Value;
use llavm_pipeline::StageError;
use llavm_pipeline::rejects::{FILE_LOST, Reject};
use llavm_pipeline::stage::OpenContext;
use std::io;
use std::sync::Arc;

/// Longest record read into memory, in bytes; a longer one is rejected.
pub const MAX_RECORD: usize = 256 << 20;

/// Bytes read from the disk at once.
pub const READ_BUFFER: usize = 1 << 18;

/// Where a record begins, and why its text cannot be used although it is there.
#[derive(Debug)]
pub struct Record {
    pub at: Position,
    pub fault: Option<Reject>,
    /// Whether the file ends in it: without a line end, it may have been cut short.
    pub unfinished: bool,
}

impl Record {
    /// The reject of a text that ends too early: where the file ends in it, all that followed is lost.
    pub fn ends_early(&self, code: &'static str, detail: String) -> Reject {
        if !self.unfinished {
            return reject(code, detail);
        }
        reject(
            FILE_LOST,
            format!("{detail}; the file ends in this row, without a line end: it was cut short"),
        )
    }
}

/// The reject of a record over [`MAX_RECORD`].
pub fn too_large() -> Reject {
    reject("too-large", format!("the row is over {MAX_RECORD} bytes"))
}

/// Cuts a stretch of a file into records.
pub trait Records: Send {
    /// The next record, its text put into `text`.
    fn next(&mut self, text: &mut Vec<u8>) -> io::Result<Option<Record>>;
}

/// Where reading begins.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// At the first byte of the file.
    File,
    /// At a record, which is on this line.
    Record { line: u64 },
}

/// How a text format is read.
pub trait TextFormat: Send + Sync {
    /// Names the format in the key of a remembered index; all that decides where records begin.
    fn index_name(&self) -> String;

    fn records(&self, input: Section, start: Start) -> Box<dyn Records>;

    /// The row that a record's text holds.
    fn value<'a>(&self, text: &'a [u8], record: &Record, request: &Request) -> Result<Value<'a>, Reject>;

    /// The columns of every row, for formats that name them once, and the bytes that name them.
    fn header(&self) -> Option<(&[String], &[u8])> {
        None
    }

    /// What the type of a column is called when it holds this cell.
    fn kind(&self, cell: &Value<'_>) -> String {
        cell.kind()
    }
}

/// A text file whose records have been counted.
pub struct TextFile<F> {
    input: Arc<Input>,
    format: Arc<F>,
    byte_ranges: Vec<ByteRange>,
    splits: Vec<Split>,
    columns: Vec<RawColumn>,
}

impl<F: TextFormat + 'static> TextFile<F> {
    /// The inner error says why its bytes cannot be had.
    pub fn open(opening: &Opening<'_>, format: F) -> Result<Result<Self, String>, StageError> {
        let (input, every, context) = (&opening.input, opening.read.partition_rows, opening.context);
        let scan = |file: &Section| {
            let mut records = format.records(file.clone(), Start::File);
            let mut text = Vec::new();
            cut(every, file, &mut || Ok(records.next(&mut text)?.map(|record| record.at)))
        };
        let byte_ranges = match byte_ranges(input, &format.index_name(), every, context, &scan)? {
            Ok(byte_ranges) => byte_ranges,
            Err(cause) => return Ok(Err(cause)),
        };
        let splits = byte_ranges.iter().map(|range| split(range, &format)).collect();
        let (input, format) = (Arc::clone(input), Arc::new(format));
        let mut file = Self { input, format, byte_ranges, splits, columns: Vec::new() };
        file.columns = file.find_columns(context)?;
        Ok(Ok(file))
    }

    /// The columns of the header with the types that a sample shows, or those that a sample shows.
    fn find_columns(&self, context: &dyn OpenContext) -> Result<Vec<RawColumn>, StageError> {
        let sampled = remembered_columns(self, &self.format.index_name(), context)?;
        let Some((names, _)) = self.format.header() else {
            return Ok(sampled);
        };
        let column = |name: &String| {
            let sampled = sampled.iter().find(|column| column.name == *name).cloned();
            sampled.unwrap_or_else(|| RawColumn::new(name.as_str(), "string"))
        };
        Ok(names.iter().map(column).collect())
    }
}

/// The digest of a split covers what names its columns and on which line it begins, which rejects say.
fn split(range: &ByteRange, format: &dyn TextFormat) -> Split {
    let mut hasher = blake3::Hasher::new();
    hasher.update(range.digest.as_bytes()).update(&range.first_line.to_le_bytes());
    hasher.update(format.header().map_or(&[], |(_, bytes)| bytes));
    Split { rows: range.first_row..range.first_row + range.rows, digest: hasher.finalize() }
}

impl<F: TextFormat + 'static> RawFile for TextFile<F> {
    fn splits(&self) -> &[Split] {
        &self.splits
    }

    fn columns(&self) -> &[RawColumn] {
        &self.columns
    }

    fn has_fixed_columns(&self) -> bool {
        self.format.header().is_some()
    }

    fn names_in_rows(&self) -> bool {
        self.format.header().is_none()
    }

    fn kind(&self, cell: &Value<'_>) -> String {
        self.format.kind(cell)
    }

    fn read(&self, split: usize, request: Request) -> Result<ChunkIterator<'_>, StageError> {
        let range = self.byte_ranges.get(split).ok_or_else(|| StageError::new("no such split"))?;
        let file = self.input.section().map_err(|cause| StageError::io(self.input.path(), cause))?;
        let start = Start::Record { line: range.first_line };
        let records = self.format.records(file.part(range.offset, range.length), start);
        let limit = request.limit.unwrap_or(usize::MAX).min(range.rows as usize);
        Ok(Box::new(Rows { input: &self.input, format: &self.format, records, request, next: 0, limit }))
    }
}

struct Rows<'a, F> {
    input: &'a Input,
    format: &'a Arc<F>,
    records: Box<dyn Records>,
    request: Request,
    next: usize,
    limit: usize,
}

impl<F: TextFormat> Rows<'_, F> {
    fn chunk(&mut self) -> io::Result<TextChunk<F>> {
        let format = Arc::clone(self.format);
        let mut chunk =
            TextChunk { format, request: self.request.clone(), rows: Vec::new(), records: Vec::new() };
        let mut text = Vec::new();
        while chunk.rows.len() < CHUNK_ROWS && self.next < self.limit {
            let Some(record) = self.records.next(&mut text)? else {
                break;
            };
            if self.request.wants(self.next) {
                chunk.rows.push(self.next);
                chunk.records.push((record, std::mem::take(&mut text)));
            }
            self.next += 1;
        }
        Ok(chunk)
    }
}

impl<'a, F: TextFormat + 'static> Iterator for Rows<'a, F> {
    type Item = Result<Box<dyn Chunk + 'a>, StageError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.chunk() {
            Ok(chunk) if chunk.rows.is_empty() => None,
            Ok(chunk) => Some(Ok(Box::new(chunk))),
            Err(cause) => Some(Err(StageError::io(self.input.path(), cause))),
        }
    }
}

struct TextChunk<F> {
    format: Arc<F>,
    request: Request,
    rows: Vec<usize>,
    records: Vec<(Record, Vec<u8>)>,
}

impl<F: TextFormat> Chunk for TextChunk<F> {
    fn rows(&self) -> &[usize] {
        &self.rows
    }

    fn value(&self, index: usize) -> Result<Value<'_>, Reject> {
        match self.records.get(index) {
            Some((Record { fault: Some(fault), .. }, _)) => Err(fault.clone()),
            Some((record, text)) => self.format.value(text, record, &self.request),
            None => Err(reject("bad-file", "no such row")),
        }
    }
}
