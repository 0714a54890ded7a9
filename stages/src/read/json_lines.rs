//! JSON Lines: one row per line.
//!
//! CRLF line ends and a byte-order mark are accepted, blank lines are no rows. A line that is no JSON (invalid UTF-8, a last
//! line cut short) is a rejected row that names its line.

use super::json_row::parse_row;
use super::raw::{CHUNK_ROWS, Chunk, ChunkIterator, Piece, RawColumn, RawFile, Request, reject};
use super::regions::{Border, Position, Region, borders, regions};
use super::sample::sampled_columns;
use super::section::Section;
use super::value::Value;
use llavm_pipeline::StageError;
use llavm_pipeline::rejects::Reject;
use llavm_pipeline::stage::OpenContext;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Longest line read into memory, in bytes; a longer one is rejected.
pub const MAX_RECORD: u64 = 256 << 20;

const BOM: &[u8] = b"\xef\xbb\xbf";
const READ_BUFFER: usize = 1 << 18;

/// A JSON Lines file whose lines have been counted.
pub struct JsonLines {
    path: PathBuf,
    regions: Vec<Region>,
    pieces: Vec<Piece>,
    columns: Vec<RawColumn>,
}

impl JsonLines {
    pub fn open(path: &Path, partition_rows: u64, context: &dyn OpenContext) -> Result<Self, StageError> {
        let scan = |file| scan(file, partition_rows);
        let regions = regions(path, "jsonl", partition_rows, context, &scan)?;
        let pieces = regions.iter().map(Region::piece).collect();
        let mut file = Self { path: path.to_owned(), regions, pieces, columns: Vec::new() };
        file.columns = sampled_columns(&file)?;
        Ok(file)
    }
}

impl RawFile for JsonLines {
    fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    fn columns(&self) -> &[RawColumn] {
        &self.columns
    }

    fn read(&self, piece: usize, request: Request) -> Result<ChunkIterator<'_>, StageError> {
        let region = self.regions.get(piece).ok_or_else(|| StageError::new("no such piece"))?;
        let file = Section::open(&self.path).map_err(|cause| StageError::io(&self.path, cause))?;
        let lines = Lines::new(file.part(region.offset, region.length), region.first_line);
        let limit = request.limit.unwrap_or(usize::MAX).min(region.rows as usize);
        Ok(Box::new(Rows { path: &self.path, lines, request, next: 0, limit }))
    }
}

fn scan(file: Section, every: u64) -> io::Result<Vec<Border>> {
    let length = file.len();
    let mut lines = Lines::new(file, 1);
    let mut line = Vec::new();
    borders(every, length, &mut || Ok(lines.next(&mut line)?.map(|start| start.at)))
}

/// Non-blank lines in order.
struct Lines {
    input: BufReader<Section>,
    offset: u64,
    number: u64,
}

/// Where a line begins, and whether it was longer than [`MAX_RECORD`].
struct Line {
    at: Position,
    too_long: bool,
}

impl Lines {
    fn new(input: Section, first_line: u64) -> Self {
        Self { input: BufReader::with_capacity(READ_BUFFER, input), offset: 0, number: first_line }
    }

    /// The next line that is not blank, without its end and without a byte-order mark.
    fn next(&mut self, line: &mut Vec<u8>) -> io::Result<Option<Line>> {
        loop {
            line.clear();
            let at = Position { offset: self.offset, line: self.number };
            let mut read = (&mut self.input).take(MAX_RECORD).read_until(b'\n', line)? as u64;
            if read == 0 {
                return Ok(None);
            }
            let too_long = read == MAX_RECORD && line.last() != Some(&b'\n');
            if too_long {
                read += self.input.skip_until(b'\n')? as u64;
            }
            self.offset += read;
            self.number += 1;
            if line.starts_with(BOM) {
                line.drain(..BOM.len());
            }
            if line.iter().any(|byte| !byte.is_ascii_whitespace()) {
                return Ok(Some(Line { at, too_long }));
            }
        }
    }
}

struct Rows<'a> {
    path: &'a Path,
    lines: Lines,
    request: Request,
    next: usize,
    limit: usize,
}

impl Rows<'_> {
    fn chunk(&mut self) -> io::Result<LineChunk> {
        let mut chunk = LineChunk { request: self.request.clone(), rows: Vec::new(), lines: Vec::new() };
        let mut text = Vec::new();
        while chunk.rows.len() < CHUNK_ROWS && self.next < self.limit {
            let Some(line) = self.lines.next(&mut text)? else {
                break;
            };
            if self.request.wants(self.next) {
                chunk.rows.push(self.next);
                chunk.lines.push((line.at.line, (!line.too_long).then(|| std::mem::take(&mut text))));
            }
            self.next += 1;
        }
        Ok(chunk)
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = Result<Box<dyn Chunk + 'a>, StageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let path = self.path;
        match self.chunk() {
            Ok(chunk) if chunk.rows.is_empty() => None,
            Ok(chunk) => Some(Ok(Box::new(chunk))),
            Err(cause) => Some(Err(StageError::io(path, cause))),
        }
    }
}

struct LineChunk {
    request: Request,
    rows: Vec<usize>,
    /// Line number and text; no text where it was too long.
    lines: Vec<(u64, Option<Vec<u8>>)>,
}

impl Chunk for LineChunk {
    fn rows(&self) -> &[usize] {
        &self.rows
    }

    fn value(&self, index: usize) -> Result<Value<'_>, Reject> {
        match self.lines.get(index) {
            Some((number, Some(text))) => parse_row(text, &self.request, &format!("line {number}")),
            Some((number, None)) => {
                Err(reject("too-large", format!("line {number} is over {MAX_RECORD} bytes")))
            }
            None => Err(reject("bad-json", "no such line")),
        }
    }
}
