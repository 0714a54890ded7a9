//! Text formats: a file cut into records, each of which is parsed alone.
//!
//! A format says how records are cut ([`Records`]) and how one becomes a row ([`TextFormat::value`]); counting rows, reading a
//! partition, holding 128 records at a time and naming what is wrong are the same for all of them.

use super::raw::{CHUNK_ROWS, Chunk, ChunkIterator, Piece, RawColumn, RawFile, Request, reject};
use super::regions::{Position, Region, borders, regions};
use super::sample::sampled_columns;
use super::section::Section;
use super::value::Value;
use llavm_pipeline::StageError;
use llavm_pipeline::rejects::Reject;
use llavm_pipeline::stage::OpenContext;
use std::io;
use std::path::{Path, PathBuf};
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

    /// The row that a record's text holds; `line` is where it begins.
    fn value<'a>(&self, text: &'a [u8], line: u64, request: &Request) -> Result<Value<'a>, Reject>;

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
    path: PathBuf,
    format: Arc<F>,
    regions: Vec<Region>,
    pieces: Vec<Piece>,
    columns: Vec<RawColumn>,
}

impl<F: TextFormat + 'static> TextFile<F> {
    pub fn open(path: &Path, format: F, every: u64, context: &dyn OpenContext) -> Result<Self, StageError> {
        let scan = |file: Section| {
            let length = file.len();
            let mut records = format.records(file, Start::File);
            let mut text = Vec::new();
            borders(every, length, &mut || Ok(records.next(&mut text)?.map(|record| record.at)))
        };
        let regions = regions(path, &format.index_name(), every, context, &scan)?;
        let pieces = regions.iter().map(|region| piece(region, &format)).collect();
        let mut file =
            Self { path: path.to_owned(), format: Arc::new(format), regions, pieces, columns: Vec::new() };
        file.columns = file.find_columns()?;
        Ok(file)
    }

    /// The columns of the header with the types that a sample shows, or those that a sample shows.
    fn find_columns(&self) -> Result<Vec<RawColumn>, StageError> {
        let sampled = sampled_columns(self, &|cell| self.format.kind(cell))?;
        let Some((names, _)) = self.format.header() else {
            return Ok(sampled);
        };
        let kind = |name: &String| {
            sampled.iter().find(|column| column.name == *name).map(|column| column.kind.clone())
        };
        let column = |name: &String| RawColumn {
            name: name.clone(),
            kind: kind(name).unwrap_or_else(|| "string".to_owned()),
        };
        Ok(names.iter().map(column).collect())
    }
}

/// The digest of a piece covers what names its columns and on which line it begins, which rejects say.
fn piece(region: &Region, format: &dyn TextFormat) -> Piece {
    let mut hasher = blake3::Hasher::new();
    hasher.update(region.digest.as_bytes()).update(&region.first_line.to_le_bytes());
    hasher.update(format.header().map_or(&[], |(_, bytes)| bytes));
    Piece { rows: region.first_row..region.first_row + region.rows, digest: hasher.finalize() }
}

impl<F: TextFormat + 'static> RawFile for TextFile<F> {
    fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    fn columns(&self) -> &[RawColumn] {
        &self.columns
    }

    fn has_fixed_columns(&self) -> bool {
        self.format.header().is_some()
    }

    fn read(&self, piece: usize, request: Request) -> Result<ChunkIterator<'_>, StageError> {
        let region = self.regions.get(piece).ok_or_else(|| StageError::new("no such piece"))?;
        let file = Section::open(&self.path).map_err(|cause| StageError::io(&self.path, cause))?;
        let start = Start::Record { line: region.first_line };
        let records = self.format.records(file.part(region.offset, region.length), start);
        let limit = request.limit.unwrap_or(usize::MAX).min(region.rows as usize);
        Ok(Box::new(Rows { path: &self.path, format: &self.format, records, request, next: 0, limit }))
    }
}

struct Rows<'a, F> {
    path: &'a Path,
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
            Err(cause) => Some(Err(StageError::io(self.path, cause))),
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
            Some((record, text)) => self.format.value(text, record.at.line, &self.request),
            None => Err(reject("bad-file", "no such row")),
        }
    }
}
