//! One partition as an Arrow IPC file, read batch by batch.
//!
//! Each batch is mapped into memory by itself and unmapped when the last array over it is dropped, so that a partition of
//! several hundred megabytes of pixels never stands in memory as a whole.

use crate::StageError;
use crate::stage::BatchIterator;
use crate::store::files::at;
use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::ipc::convert::try_fb_to_schema;
use arrow::ipc::reader::{FileDecoder, read_footer_length};
use arrow::ipc::{Block, MetadataVersion, root_as_footer};
use memmap2::MmapOptions;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes after the footer: its length and the magic word.
const TRAILER: usize = 10;

/// An open file.
#[derive(Debug)]
pub struct ArrowFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    schema: SchemaRef,
    version: MetadataVersion,
    batches: Vec<Block>,
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
            file,
            bytes,
            schema: Arc::new(schema),
            version: footer.version(),
            batches: batches.unwrap_or_default(),
        })
    }

    pub fn batches(&self) -> usize {
        self.batches.len()
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
        // SAFETY: files under a final name of the store are never written again; they are only replaced and removed by
        // renaming and unlinking, which leaves mapped pages as they are.
        let map = unsafe { MmapOptions::new().offset(offset).len(length).map(&self.file) };
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
