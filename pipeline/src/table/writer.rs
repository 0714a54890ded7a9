//! Writes one partition: batches in order into an Arrow IPC file, hashed on the way, with everything its record needs.
//!
//! What is written goes to the disk while the partition is being made: a partition of pixels is 600 MB, and a run that waits for it
//! at the end does nothing meanwhile.

use super::direct::DirectFile;
use super::rejects::{self, REJECT};
use crate::spec::columns::{Columns, type_name};
use crate::spec::error::StageError;
use crate::spec::stage::BATCH_ROWS;
use crate::store::files::at;
use crate::store::key::KeyParts;
use crate::store::record::{DerivedReject, RejectedRow, TableRecord};
use crate::store::scratch::{Scratch, Unfinished};
use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::FileWriter;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

/// Bytes written and then hashed while the CPU still holds them.
const AT_ONCE: usize = 256 << 10;

/// The rows of one batch after a stage.
pub struct Output {
    /// The columns of the stage and `reject`.
    pub rows: RecordBatch,
    /// By row of the batch.
    pub rejects: Vec<RejectedRow>,
    /// By row of the batch.
    pub derived: Vec<DerivedReject>,
}

impl Output {
    /// Checks what a stage gave against what it declares, and adds the reject column.
    pub fn new(
        given: &RecordBatch,
        rows: usize,
        schema: &SchemaRef,
        before: &StringArray,
        rejects: Vec<RejectedRow>,
    ) -> Result<Self, StageError> {
        if given.num_rows() != rows {
            return Err(StageError::new(format!("it gave {} rows for {rows}", given.num_rows())));
        }
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for field in schema.fields().iter().filter(|field| field.name() != REJECT) {
            let array = given
                .column_by_name(field.name())
                .ok_or_else(|| StageError::new(format!("it gave no column `{}`", field.name())))?;
            if array.data_type() != field.data_type() {
                let (is, should) = (type_name(array.data_type()), type_name(field.data_type()));
                let text = format!("it gave the column `{}` as {is}, not as {should}", field.name());
                return Err(StageError::new(text));
            }
            arrays.push(Arc::clone(array));
        }
        arrays.push(Arc::new(rejects::after(before, &rejects)));
        Ok(Self { rows: RecordBatch::try_new(Arc::clone(schema), arrays)?, rejects, derived: Vec::new() })
    }
}

/// The schema of a stored table: the columns of the stage, then `reject`.
pub fn stored_schema(columns: &Columns) -> SchemaRef {
    let declared = columns.schema();
    let fields = declared.fields().iter().cloned().chain([rejects::field()]).collect::<Vec<_>>();
    Arc::new(arrow::datatypes::Schema::new(fields))
}

/// A partition being written.
pub struct TableWriter {
    unfinished: Unfinished,
    file: FileWriter<BufWriter<Hashing>>,
    rows: u64,
    batches: u64,
    usable: u64,
    run: u64,
    longest_run: u64,
    reject_hash: blake3::Hasher,
    rejects: Vec<RejectedRow>,
    derived: Vec<DerivedReject>,
}

impl TableWriter {
    pub fn create(scratch: &Scratch, schema: &SchemaRef) -> Result<Self, StageError> {
        let unfinished = scratch.unfinished("table.arrow");
        let file = at(unfinished.path(), File::create_new(unfinished.path()))?;
        let hashing = Hashing { file: DirectFile::new(file), hasher: blake3::Hasher::new(), bytes: 0 };
        let file =
            FileWriter::try_new_buffered(hashing, schema).map_err(|error| io_at(unfinished.path(), error))?;
        Ok(Self {
            unfinished,
            file,
            rows: 0,
            batches: 0,
            usable: 0,
            run: 0,
            longest_run: 0,
            reject_hash: blake3::Hasher::new(),
            rejects: Vec::new(),
            derived: Vec::new(),
        })
    }

    pub fn write(&mut self, output: Output) -> Result<(), StageError> {
        let column = rejects::column(&output.rows)?;
        rejects::hash(&mut self.reject_hash, self.rows, &column);
        self.count(&column, &output.rejects);
        self.file.write(&output.rows).map_err(|error| io_at(self.unfinished.path(), error))?;
        let first = self.rows;
        self.rejects.extend(output.rejects.into_iter().map(|mut reject| {
            reject.row += first;
            reject
        }));
        self.derived.extend(output.derived.into_iter().map(|mut reject| {
            reject.row += first;
            reject
        }));
        self.rows += output.rows.num_rows() as u64;
        self.batches += 1;
        Ok(())
    }

    fn count(&mut self, column: &StringArray, new: &[RejectedRow]) {
        let mut new = new.iter().map(|reject| reject.row).peekable();
        for row in 0..column.len() {
            if new.next_if_eq(&(row as u64)).is_some() {
                self.run += 1;
                self.usable += 1;
            } else if column.is_null(row) {
                self.run = 0;
                self.usable += 1;
            }
            self.longest_run = self.longest_run.max(self.run);
        }
    }

    /// The rows this stage rejected one after the other, up to the last batch written.
    pub fn longest_run(&self) -> u64 {
        self.longest_run
    }

    pub fn rejects(&self) -> &[RejectedRow] {
        &self.rejects
    }

    /// Makes the file durable; it still has to be published.
    pub fn finish(self, key: KeyParts) -> Result<(Unfinished, TableRecord), StageError> {
        let path = self.unfinished.path().to_owned();
        debug_assert!(self.rows <= self.batches * BATCH_ROWS as u64, "batches have at most BATCH_ROWS rows");
        let buffered = self.file.into_inner().map_err(|error| io_at(&path, error))?;
        let hashing = at(&path, buffered.into_inner().map_err(io::IntoInnerError::into_error))?;
        at(&path, hashing.file.finish().and_then(|file| file.sync_all()))?;
        let record = TableRecord {
            rows: self.rows,
            batches: self.batches,
            bytes: hashing.bytes,
            digest: hashing.hasher.finalize().to_hex().to_string(),
            reject_digest: self.reject_hash.finalize().to_hex().to_string(),
            usable: self.usable,
            longest_run: self.longest_run,
            rejects: self.rejects,
            derived: self.derived,
            key,
        };
        Ok((self.unfinished, record))
    }
}

/// Keeps the I/O error inside an Arrow error and the path, so that a full disk is reported as such.
fn io_at(path: &Path, error: ArrowError) -> StageError {
    match error {
        ArrowError::IoError(_, cause) => StageError::io(path, cause),
        other => other.into(),
    }
}

/// Hashes what goes to a file.
struct Hashing {
    file: DirectFile,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(&bytes[..bytes.len().min(AT_ONCE)])?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
