//! Arrow IPC: what `datasets.save_to_disk` writes (`data-00000-of-00001.arrow`, the stream format), and Feather (the file format).
//!
//! A file of the file format is a stream between two marks, so both are read as streams: the messages are listed once, without their
//! bodies, and a partition is a stream of the schema, the dictionaries and the batches that hold its rows.

use super::arrow_value::{flatten, row_value};
use super::input::Input;
use super::opening::Opening;
use super::raw::{CHUNK_ROWS, Chunk, ChunkIterator, Failed, RawColumn, RawFile, Request, Split, reject};
use super::section::Section;
use super::value::Value;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::{MessageHeader, root_as_message};
use llavm_model::untrusted;
use llavm_pipeline::StageError;
use llavm_pipeline::rejects::{FILE_LOST, Reject};
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

/// How a file of the file format begins: its mark, padded to eight bytes.
const MARK: &[u8] = b"ARROW1\0\0";
/// The largest alignment of messages that writers use.
const ALIGNMENT: u64 = 64;
/// Stands before the length of a message since format version 5.
const CONTINUATION: u32 = 0xffff_ffff;
/// Longest description of a message read into memory, in bytes.
const MAX_METADATA: u32 = 64 << 20;

/// An Arrow file whose messages have been listed.
pub struct ArrowRows {
    input: Arc<Input>,
    schema: SchemaRef,
    /// Schema and dictionaries.
    head: Range<u64>,
    batches: Vec<Message>,
    splits: Vec<Split>,
    columns: Vec<RawColumn>,
    /// Why the file ends too early, if it does; the row behind the last one says so.
    cut: Option<String>,
}

/// A record batch.
#[derive(Clone, Debug)]
struct Message {
    bytes: Range<u64>,
    rows: Range<u64>,
}

/// The messages of a file.
#[derive(Debug, Default)]
struct Messages {
    head: Range<u64>,
    batches: Vec<Message>,
    cut: Option<String>,
}

impl ArrowRows {
    /// The inner error says why the file is none.
    pub fn open(opening: &Opening<'_>) -> Result<Result<Self, String>, StageError> {
        let input = &opening.input;
        let io = |cause| StageError::io(input.path(), cause);
        let file = match input.section() {
            Ok(file) => file,
            Err(cause) => return input.failed(cause),
        };
        let Messages { head, batches, cut } = messages(&file).map_err(io)?;
        let stream = file.part(head.start, head.end - head.start);
        let schema = match guarded(|| StreamReader::try_new(stream, None).map(|reader| reader.schema())) {
            Ok(schema) => schema,
            Err(cause) => return Ok(Err(format!("no Arrow stream: {cause}"))),
        };
        let mut columns = Vec::new();
        schema.fields().iter().for_each(|field| flatten("", field, &mut columns));
        let rows = batches.last().map_or(0, |batch| batch.rows.end) + u64::from(cut.is_some());
        let digest = opening.context.file_digest(input.path())?;
        let every = opening.read.partition_rows.max(1);
        let split = |start: u64| {
            let rows = start..rows.min(start + every);
            let mut hasher = blake3::Hasher::new();
            hasher
                .update(digest.as_bytes())
                .update(&rows.start.to_le_bytes())
                .update(&rows.end.to_le_bytes());
            Split { rows, digest: hasher.finalize() }
        };
        let splits = (0..rows.div_ceil(every)).map(|index| split(index * every)).collect();
        Ok(Ok(Self { input: Arc::clone(input), schema, head, batches, splits, columns, cut }))
    }

    /// A stream of the batches that hold any of `rows`, and the row it begins with.
    fn stream(&self, rows: &Range<u64>, columns: &[usize]) -> Result<(Stream, u64), String> {
        let touched =
            self.batches.iter().filter(|batch| batch.rows.start < rows.end && rows.start < batch.rows.end);
        let (Some(first), Some(last)) = (touched.clone().next(), touched.clone().next_back()) else {
            return Err("no batch holds these rows".to_owned());
        };
        let file = self.input.section().map_err(|cause| cause.to_string())?;
        let part = |bytes: Range<u64>| file.part(bytes.start, bytes.end - bytes.start);
        let input = part(self.head.clone()).chain(part(first.bytes.start..last.bytes.end));
        let stream = guarded(|| StreamReader::try_new(input, Some(columns.to_vec())))?;
        Ok((stream, first.rows.start))
    }
}

type Stream = StreamReader<io::Chain<Section, Section>>;

impl RawFile for ArrowRows {
    fn splits(&self) -> &[Split] {
        &self.splits
    }

    fn columns(&self) -> &[RawColumn] {
        &self.columns
    }

    fn has_fixed_columns(&self) -> bool {
        true
    }

    fn has_fixed_types(&self) -> bool {
        true
    }

    fn read(&self, split: usize, request: Request) -> Result<ChunkIterator<'_>, StageError> {
        let split = self.splits.get(split).ok_or_else(|| StageError::new("no such split"))?;
        let length = (split.rows.end - split.rows.start) as usize;
        let fields = self.schema.fields().iter().enumerate();
        let columns: Vec<usize> =
            fields.filter(|(_, field)| request.wants_column(field.name())).map(|(index, _)| index).collect();
        let end = split.rows.start + request.limit.unwrap_or(length).min(length) as u64;
        Ok(Box::new(Rows {
            file: self,
            first: split.rows.start,
            next: split.rows.start,
            end,
            columns,
            request,
            stream: None,
            batch: None,
        }))
    }
}

struct Rows<'a> {
    file: &'a ArrowRows,
    /// Rows of the file: the first of the split, the next to give, the end of what is wanted.
    first: u64,
    next: u64,
    end: u64,
    columns: Vec<usize>,
    request: Request,
    stream: Option<Stream>,
    /// A batch and the row it begins with.
    batch: Option<(RecordBatch, u64)>,
}

impl Rows<'_> {
    /// The batch that holds the next row.
    fn batch(&mut self) -> Result<(RecordBatch, u64), String> {
        loop {
            let behind = self.batch.as_ref().map(|(batch, first)| first + batch.num_rows() as u64);
            match (&self.batch, behind) {
                (Some((batch, first)), Some(behind)) if behind > self.next => {
                    return Ok((batch.clone(), *first));
                }
                _ => {}
            }
            let mut first = behind;
            let mut stream = if let Some(stream) = self.stream.take() {
                stream
            } else {
                let (stream, row) = self.file.stream(&(self.next..self.end), &self.columns)?;
                first = Some(row);
                stream
            };
            let batch = guarded(|| stream.next().transpose())?.ok_or("the stream ends early")?;
            self.batch = Some((batch, first.unwrap_or(self.next)));
            self.stream = Some(stream);
        }
    }

    fn lost(&self) -> Option<Reject> {
        let rows = self.file.batches.last().map_or(0, |batch| batch.rows.end);
        (self.next >= rows).then(|| reject(FILE_LOST, self.file.cut.clone().unwrap_or_default()))
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = Result<Box<dyn Chunk + 'a>, StageError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.end {
            let place = |row: u64| (row - self.first) as usize;
            if let Some(reject) = self.lost() {
                let rows = vec![place(self.next)];
                self.next = self.end;
                return Some(Ok(Box::new(Failed { rows, reject })));
            }
            let first = self.first;
            let place = |row: u64| (row - first) as usize;
            let (batch, start) = match self.batch() {
                Ok(found) => found,
                Err(cause) => {
                    let rows =
                        (self.next..self.end).map(place).filter(|row| self.request.wants(*row)).collect();
                    self.next = self.end;
                    return Some(Ok(Box::new(Failed { rows, reject: reject("corrupt-batch", cause) })));
                }
            };
            let offset = (self.next - start) as usize;
            let length = (batch.num_rows() - offset).min(CHUNK_ROWS).min((self.end - self.next) as usize);
            let all = self.next..self.next + length as u64;
            self.next = all.end;
            let wanted: Vec<(usize, usize)> =
                all.map(place).enumerate().filter(|(_, row)| self.request.wants(*row)).collect();
            if !wanted.is_empty() {
                let (cells, rows) = wanted.into_iter().unzip();
                return Some(Ok(Box::new(Cells { batch: batch.slice(offset, length), cells, rows })));
            }
        }
        None
    }
}

#[allow(clippy::struct_field_names, reason = "the cells are what it is named for")]
struct Cells {
    batch: RecordBatch,
    /// Which rows of the batch, and which of the split.
    cells: Vec<usize>,
    rows: Vec<usize>,
}

impl Chunk for Cells {
    fn rows(&self) -> &[usize] {
        &self.rows
    }

    fn value(&self, index: usize) -> Result<Value<'_>, Reject> {
        let cell = self.cells.get(index).ok_or_else(|| reject(FILE_LOST, "no such row"))?;
        Ok(row_value(&self.batch, *cell))
    }
}

/// Lists the messages of a stream, or of a file from behind its mark.
fn messages(file: &Section) -> io::Result<Messages> {
    let mut found = Messages::default();
    let mut start = Vec::new();
    file.part(0, MARK.len() as u64).read_to_end(&mut start)?;
    let mut at = if start == MARK { behind_padding(file)? } else { 0 };
    found.head = at..at;
    let mut rows = 0;
    loop {
        let message = match message(file, at)? {
            Next::Message(message) => message,
            Next::End => return Ok(found),
            Next::Cut(why) => {
                found.cut = Some(why);
                return Ok(found);
            }
        };
        match message.rows {
            Some(count) => {
                found.batches.push(Message { bytes: at..message.end, rows: rows..rows + count });
                rows += count;
            }
            None if found.batches.is_empty() => found.head.end = message.end,
            None => {
                found.cut = Some("a dictionary changes within the file, which is not read".to_owned());
                return Ok(found);
            }
        }
        at = message.end;
    }
}

/// Where the first message of the file format begins: the mark is padded with zeros to the alignment of whoever wrote the file,
/// 8 bytes in Arrow's C++, 64 in its Rust.
fn behind_padding(file: &Section) -> io::Result<u64> {
    let mut head = Vec::new();
    file.part(MARK.len() as u64, ALIGNMENT - MARK.len() as u64).read_to_end(&mut head)?;
    let zeros = head.chunks_exact(8).take_while(|word| word.iter().all(|byte| *byte == 0)).count();
    Ok((MARK.len() + 8 * zeros) as u64)
}

enum Next {
    Message(Described),
    End,
    Cut(String),
}

struct Described {
    end: u64,
    /// Of a record batch.
    rows: Option<u64>,
}

fn message(file: &Section, at: u64) -> io::Result<Next> {
    let number = |at: u64| -> io::Result<Option<u32>> {
        let mut bytes = Vec::with_capacity(4);
        file.part(at, 4).read_to_end(&mut bytes)?;
        Ok(bytes.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes)))
    };
    let cut = || Next::Cut("the file ends before its last batch does".to_owned());
    let Some(first) = number(at)? else {
        return Ok(if at == file.len() && at > 0 { Next::End } else { cut() });
    };
    let (length, begin) =
        if first == CONTINUATION { (number(at + 4)?, at + 8) } else { (Some(first), at + 4) };
    let Some(length) = length else { return Ok(cut()) };
    if length == 0 {
        return Ok(Next::End);
    }
    if length > MAX_METADATA {
        return Ok(Next::Cut("no Arrow message stands here".to_owned()));
    }
    let mut metadata = Vec::with_capacity(length as usize);
    file.part(begin, length.into()).read_to_end(&mut metadata)?;
    let Ok(message) = root_as_message(&metadata) else { return Ok(cut()) };
    let body = u64::try_from(message.bodyLength()).unwrap_or(0);
    let end = begin.saturating_add(length.into()).saturating_add(body);
    if end > file.len() {
        return Ok(cut());
    }
    let rows = match message.header_type() {
        MessageHeader::RecordBatch => {
            let rows = message.header_as_record_batch().map_or(0, |batch| batch.length());
            Some(u64::try_from(rows).unwrap_or(0))
        }
        _ => None,
    };
    Ok(Next::Message(Described { end, rows }))
}

fn guarded<T>(work: impl FnOnce() -> Result<T, arrow::error::ArrowError>) -> Result<T, String> {
    match untrusted::guarded(work) {
        Some(result) => result.map_err(|cause| cause.to_string()),
        None => Err("the Arrow decoder could not read these bytes".to_owned()),
    }
}
