//! Parquet: only the columns asked for, only the row groups of the partition, 128 rows in memory.
//!
//! A page that cannot be decoded costs the rows of its batch: they are rejected with the reader's own words, and reading
//! goes on behind them.

use super::arrow_value::{row_value, type_name};
use super::raw::{CHUNK_ROWS, Chunk, ChunkIterator, Failed, Piece, RawColumn, RawFile, Request, reject};
use super::value::Value;
use arrow::array::RecordBatch;
use arrow::datatypes::Field;
use llavm_pipeline::StageError;
use llavm_pipeline::rejects::Reject;
use llavm_pipeline::stage::{Digest, OpenContext};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
    RowSelection,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;
use std::fs::File;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// A Parquet file whose footer has been read.
pub struct Parquet {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
    pieces: Vec<Piece>,
    columns: Vec<RawColumn>,
}

impl Parquet {
    /// Errors of the outer result concern the disk, of the inner one the file's content.
    pub fn open(
        path: &Path,
        partition_rows: u64,
        context: &dyn OpenContext,
    ) -> Result<Result<Self, String>, StageError> {
        let file = File::open(path).map_err(|cause| StageError::io(path, cause))?;
        // The Arrow schema some writers embed only picks between variants of a type, all of which read the same here.
        let options = ArrowReaderOptions::new()
            .with_skip_arrow_metadata(true)
            .with_page_index_policy(PageIndexPolicy::Optional);
        let metadata = match guarded(|| ArrowReaderMetadata::load(&file, options)) {
            Ok(metadata) => metadata,
            Err(cause) => return Ok(Err(cause)),
        };
        let digest = context.file_digest(path)?;
        let rows = metadata.metadata().file_metadata().num_rows();
        let pieces = pieces(u64::try_from(rows).unwrap_or(0), partition_rows.max(1), digest);
        let mut columns = Vec::new();
        metadata.schema().fields().iter().for_each(|field| flatten("", field, &mut columns));
        Ok(Ok(Self { path: path.to_owned(), metadata, pieces, columns }))
    }

    /// A reader of the given rows of the file, all of them wanted.
    fn reader(&self, rows: &[u64], columns: &[usize]) -> Result<ParquetRecordBatchReader, String> {
        let file = File::open(&self.path).map_err(|cause| cause.to_string())?;
        let (groups, selection) = self.selection(rows);
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), columns.iter().copied());
        guarded(|| {
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
                .with_row_groups(groups)
                .with_row_selection(selection)
                .with_projection(mask)
                .with_batch_size(CHUNK_ROWS)
                .build()
        })
    }

    /// The row groups that hold any of `rows` (ascending), and the rows within these groups.
    fn selection(&self, rows: &[u64]) -> (Vec<usize>, RowSelection) {
        let (mut groups, mut ranges): (Vec<usize>, Vec<Range<usize>>) = (Vec::new(), Vec::new());
        let (mut start, mut base, mut next) = (0_u64, 0_usize, 0_usize);
        for (group, metadata) in self.metadata.metadata().row_groups().iter().enumerate() {
            let length = u64::try_from(metadata.num_rows()).unwrap_or(0);
            let first = next;
            while let Some(row) = rows.get(next).filter(|row| **row < start + length) {
                let at = base + (row - start) as usize;
                match ranges.last_mut() {
                    Some(range) if range.end == at => range.end += 1,
                    _ => ranges.push(at..at + 1),
                }
                next += 1;
            }
            if next > first {
                groups.push(group);
                base += length as usize;
            }
            start += length;
        }
        (groups, RowSelection::from_consecutive_ranges(ranges.into_iter(), base))
    }
}

impl RawFile for Parquet {
    fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    fn columns(&self) -> &[RawColumn] {
        &self.columns
    }

    fn has_fixed_columns(&self) -> bool {
        true
    }

    fn read(&self, piece: usize, request: Request) -> Result<ChunkIterator<'_>, StageError> {
        let piece = self.pieces.get(piece).ok_or_else(|| StageError::new("no such piece"))?;
        let rows = (piece.rows.end - piece.rows.start) as usize;
        let wanted = (0..rows.min(request.limit.unwrap_or(rows))).filter(|row| request.wants(*row)).collect();
        let fields = self.metadata.schema().fields().iter().enumerate();
        let columns =
            fields.filter(|(_, field)| request.wants_column(field.name())).map(|(index, _)| index).collect();
        Ok(Box::new(Rows { file: self, first: piece.rows.start, wanted, columns, next: 0, reader: None }))
    }
}

fn pieces(rows: u64, every: u64, file: Digest) -> Vec<Piece> {
    let piece = |start: u64| {
        let end = rows.min(start + every);
        let mut hasher = blake3::Hasher::new();
        hasher.update(file.as_bytes()).update(&start.to_le_bytes()).update(&end.to_le_bytes());
        Piece { rows: start..end, digest: hasher.finalize() }
    };
    (0..rows.div_ceil(every)).map(|index| piece(index * every)).collect()
}

fn flatten(prefix: &str, field: &Field, columns: &mut Vec<RawColumn>) {
    let name = format!("{prefix}{}", field.name());
    columns.push(RawColumn { name: name.clone(), kind: type_name(field.data_type()) });
    if let arrow::datatypes::DataType::Struct(fields) = field.data_type() {
        fields.iter().for_each(|field| flatten(&format!("{name}."), field, columns));
    }
}

/// Runs the decoder on foreign bytes; some corrupt pages make it panic instead of returning an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|cause| cause.to_string()),
        Err(_) => Err("the Parquet decoder gave up on these bytes".to_owned()),
    }
}

struct Rows<'a> {
    file: &'a Parquet,
    /// Row of the file at which the piece begins.
    first: u64,
    /// Rows of the piece to read, ascending, and how many of them are done.
    wanted: Vec<usize>,
    next: usize,
    columns: Vec<usize>,
    reader: Option<ParquetRecordBatchReader>,
}

impl Rows<'_> {
    fn read(&mut self) -> Result<RecordBatch, String> {
        let mut reader = if let Some(reader) = self.reader.take() {
            reader
        } else {
            let rows: Vec<u64> =
                self.wanted[self.next..].iter().map(|row| self.first + *row as u64).collect();
            self.file.reader(&rows, &self.columns)?
        };
        let batch = guarded(|| reader.next().transpose().map_err(ParquetError::from))?;
        match batch {
            Some(batch) if batch.num_rows() > 0 && batch.num_rows() <= self.wanted.len() - self.next => {
                self.reader = Some(reader);
                Ok(batch)
            }
            _ => Err("the file has fewer rows than its footer says".to_owned()),
        }
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = Result<Box<dyn Chunk + 'a>, StageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.wanted.len() {
            return None;
        }
        let read = self.read();
        let count = read.as_ref().map_or(CHUNK_ROWS, RecordBatch::num_rows);
        let end = self.wanted.len().min(self.next + count);
        let rows = self.wanted[self.next..end].to_vec();
        self.next = end;
        Some(Ok(match read {
            Ok(batch) => Box::new(Batch { rows, batch }),
            Err(cause) => Box::new(Failed { rows, reject: reject("corrupt-page", cause) }),
        }))
    }
}

struct Batch {
    rows: Vec<usize>,
    batch: RecordBatch,
}

impl Chunk for Batch {
    fn rows(&self) -> &[usize] {
        &self.rows
    }

    fn value(&self, index: usize) -> Result<Value<'_>, Reject> {
        Ok(row_value(&self.batch, index))
    }
}
