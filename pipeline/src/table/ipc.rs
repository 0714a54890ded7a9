//! One partition as an Arrow IPC file, read batch by batch.
//!
//! Each batch is mapped into memory by itself and unmapped when the last array over it is dropped, so that a partition of
//! several hundred megabytes of pixels never stands in memory as a whole. The file is open only while a batch is mapped: a
//! training reads rows of any number of partitions.

use crate::spec::error::StageError;
use crate::spec::stage::BatchIterator;
use crate::store::files::at;
use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::ipc::convert::try_fb_to_schema;
use arrow::ipc::reader::{FileDecoder, read_footer_length};
use arrow::ipc::{Block, MetadataVersion, root_as_footer, root_as_message};
use memmap2::MmapOptions;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Bytes before the description of a batch: a mark and the length of the description.
const PREFIX: usize = 8;

/// Bytes after the footer: its length and the magic word.
const TRAILER: usize = 10;

/// A file whose footer was read. It must stay where it is.
#[derive(Debug)]
pub struct ArrowFile {
    path: PathBuf,
    bytes: u64,
    schema: SchemaRef,
    version: MetadataVersion,
    batches: Vec<Block>,
    /// By batch: how many rows there are up to its end; read when a row is first asked for.
    ends: OnceLock<Vec<usize>>,
}

impl ArrowFile {
    /// Reads the footer.
    pub fn open(path: &Path) -> Result<Self, StageError> {
        let mut file = at(path, File::open(path))?;
        let bytes = at(path, file.metadata())?.len();
        let footer = footer(path, &mut file, bytes)?;
        let broken = |text: &str| StageError::new(format!("{}: {text}", path.display()));
        let footer = root_as_footer(&footer).map_err(|cause| broken(&cause.to_string()))?;
        let schema = try_fb_to_schema(footer.schema().ok_or_else(|| broken("no schema"))?)?;
        if footer.dictionaries().is_some_and(|dictionaries| !dictionaries.is_empty()) {
            return Err(broken("dictionary-encoded columns are not supported"));
        }
        let batches = footer.recordBatches().map(|blocks| blocks.iter().copied().collect());
        Ok(Self {
            path: path.to_owned(),
            bytes,
            schema: Arc::new(schema),
            version: footer.version(),
            batches: batches.unwrap_or_default(),
            ends: OnceLock::new(),
        })
    }

    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// The batch that holds row `row` of the file, and the row's place in it.
    pub fn place(&self, row: usize) -> Result<Option<(usize, usize)>, StageError> {
        let ends = if let Some(ends) = self.ends.get() {
            ends
        } else {
            let found = self.find_ends()?;
            self.ends.get_or_init(|| found)
        };
        let batch = ends.partition_point(|end| *end <= row);
        let first = batch.checked_sub(1).map_or(0, |before| ends[before]);
        Ok((batch < ends.len()).then(|| (batch, row - first)))
    }

    fn find_ends(&self) -> Result<Vec<usize>, StageError> {
        let mut end = 0;
        let mut ends = Vec::with_capacity(self.batches.len());
        for block in &self.batches {
            let bytes = self.map(block)?;
            let length = usize::try_from(block.metaDataLength()).unwrap_or(0);
            // In front of the message stand a mark and its length.
            let message = bytes.get(PREFIX..length).and_then(|message| root_as_message(message).ok());
            let rows =
                message.and_then(|message| message.header_as_record_batch()).map(|batch| batch.length());
            let rows = rows.and_then(|rows| usize::try_from(rows).ok());
            end += rows.ok_or_else(|| self.broken("a batch does not say how many rows it has"))?;
            ends.push(end);
        }
        Ok(ends)
    }

    /// The named columns of batch `n`.
    pub fn batch(&self, n: usize, columns: &[&str]) -> Result<RecordBatch, StageError> {
        let block = self.batches.get(n).ok_or_else(|| self.broken(&format!("there is no batch {n}")))?;
        let indices: Result<Vec<usize>, _> = columns.iter().map(|name| self.schema.index_of(name)).collect();
        let decoder = FileDecoder::new(Arc::clone(&self.schema), self.version).with_projection(indices?);
        let batch = decoder.read_record_batch(block, &self.map(block)?)?;
        batch.ok_or_else(|| self.broken(&format!("batch {n} is empty")))
    }

    /// All batches in order, the named columns only.
    pub fn into_batches(self, columns: &[&str]) -> BatchIterator<'static> {
        let columns: Vec<String> = columns.iter().map(|&column| column.to_owned()).collect();
        Box::new((0..self.batches()).map(move |n| {
            let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
            self.batch(n, &columns)
        }))
    }

    fn map(&self, block: &Block) -> Result<Buffer, StageError> {
        let length = i64::from(block.metaDataLength()) + block.bodyLength();
        let (Ok(offset), Ok(length)) = (u64::try_from(block.offset()), usize::try_from(length)) else {
            return Err(self.broken("a batch has a negative length"));
        };
        if offset.checked_add(length as u64).is_none_or(|end| end > self.bytes) {
            return Err(self.broken("a batch ends after the end of the file"));
        }
        let file = at(&self.path, File::open(&self.path))?;
        // SAFETY: files under a final name of the store are never written again; they are only replaced and removed by
        // renaming and unlinking, which leaves mapped pages as they are.
        let map = unsafe { MmapOptions::new().offset(offset).len(length).map(&file) };
        let map = at(&self.path, map)?;
        Ok(Buffer::from(bytes::Bytes::from_owner(map)))
    }

    fn broken(&self, text: &str) -> StageError {
        StageError::new(format!("{}: {text}", self.path.display()))
    }
}

/// The bytes of the footer.
fn footer(path: &Path, file: &mut File, bytes: u64) -> Result<Vec<u8>, StageError> {
    let too_short = || StageError::new(format!("{}: no Arrow file, it is too short", path.display()));
    let start = bytes.checked_sub(TRAILER as u64).ok_or_else(too_short)?;
    let mut trailer = [0; TRAILER];
    at(path, file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut trailer)))?;
    let length = read_footer_length(trailer)?;
    let start = start.checked_sub(length as u64).ok_or_else(too_short)?;
    let mut footer = vec![0; length];
    at(path, file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut footer)))?;
    Ok(footer)
}
