//! Second pass of `shard`: bring rows into their order without holding them in memory.
//!
//! The partitions are read once, in order; each row is appended to the spill file of the shard it belongs to. Then, shard by
//! shard, rows are fetched from the spill file in their final order. Memory: eight bytes a row, one batch, and a write buffer
//! for each shard; disk: the tokens a second time, until the shard is written.

use super::survey::{Survey, views};
use crate::arrays::{Lists, column, items, list_of};
use arrow::array::{ArrayRef, Int32Array, ListArray, RecordBatch, StructArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Schema, UInt32Type};
use arrow::ipc::writer::FileWriter;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::GatherInputs;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows in a batch of a shard file.
const BATCH: usize = 1024;
/// Bytes buffered in front of each spill file.
const BUFFER: usize = 64 << 10;

/// Writes the rows `order` names to `folder/00000.arrow …`.
pub fn write(
    inputs: &GatherInputs<'_>,
    survey: &Survey,
    order: &[u32],
    rows_per_shard: usize,
    folder: &Path,
) -> Result<(), StageError> {
    std::fs::create_dir_all(folder).map_err(|cause| StageError::io(folder, cause))?;
    let mut spills = Vec::new();
    for n in 0..order.len().div_ceil(rows_per_shard) {
        spills.push(Spill::create(folder.join(format!("{n:05}.spill")))?);
    }
    scatter(inputs, order, rows_per_shard, &mut spills)?;
    let shards = order.chunks(rows_per_shard);
    for ((n, spill), rows) in spills.into_iter().enumerate().zip(shards) {
        let path = folder.join(format!("{n:05}.arrow"));
        spill.into_shard(survey, rows, &path)?;
    }
    Ok(())
}

/// Appends each row to the spill files of the shards that hold it.
fn scatter(
    inputs: &GatherInputs<'_>,
    order: &[u32],
    rows_per_shard: usize,
    spills: &mut [Spill],
) -> Result<(), StageError> {
    // (row in the survey, place in the order), by row: what is needed while reading rows in order.
    let mut places: Vec<(u32, u32)> = order.iter().copied().zip(0..).collect();
    places.sort_unstable();
    let mut places = places.into_iter().peekable();
    let mut index = 0;
    for (_, view) in views(inputs) {
        for batch in view.batches(&["input_ids", "labels", "n_images"])? {
            let batch = TokenBatch::of(batch?)?;
            for n in (0..batch.rows).filter(|n| batch.is_usable(*n)) {
                while let Some((_, place)) = places.next_if(|(row, _)| *row == index) {
                    let shard = place as usize / rows_per_shard;
                    spills[shard].append(place as usize % rows_per_shard, &batch, n)?;
                }
                index += 1;
            }
        }
    }
    Ok(())
}

/// The token columns of a batch.
struct TokenBatch {
    batch: RecordBatch,
    rows: usize,
}

impl TokenBatch {
    fn of(batch: RecordBatch) -> Result<Self, StageError> {
        for name in ["input_ids", "labels"] {
            column::<ListArray>(&batch, name)?;
        }
        Ok(Self { rows: batch.num_rows(), batch })
    }

    /// The same rows that the survey counted.
    fn is_usable(&self, row: usize) -> bool {
        let valid = |name| self.batch.column_by_name(name).is_some_and(|column| column.is_valid(row));
        valid("input_ids") && !valid("reject")
    }

    fn row(&self, row: usize) -> Result<(u32, &[u32], &[i32]), StageError> {
        let n_images = column::<UInt32Array>(&self.batch, "n_images")?.value(row);
        let ids = items::<UInt32Type>(column(&self.batch, "input_ids")?, row)?;
        let labels = items::<Int32Type>(column(&self.batch, "labels")?, row)?;
        if ids.len() == labels.len() {
            return Ok((n_images, ids, labels));
        }
        Err(StageError::new(format!("a row has {} tokens and {} labels", ids.len(), labels.len())))
    }
}

/// The rows of one shard in the order in which they were read: `n_images`, then ids, then labels, four bytes each.
struct Spill {
    path: PathBuf,
    file: BufWriter<File>,
    /// Bytes written.
    end: u64,
    /// Where in the file the row of each place begins.
    offsets: Vec<u64>,
}

impl Spill {
    fn create(path: PathBuf) -> Result<Self, StageError> {
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(|cause| StageError::io(&path, cause))?;
        Ok(Self { path, file: BufWriter::with_capacity(BUFFER, file), end: 0, offsets: Vec::new() })
    }

    fn append(&mut self, place: usize, batch: &TokenBatch, row: usize) -> Result<(), StageError> {
        let (n_images, ids, labels) = batch.row(row)?;
        if self.offsets.len() <= place {
            self.offsets.resize(place + 1, 0);
        }
        self.offsets[place] = self.end;
        let words = ids.iter().copied().chain(labels.iter().map(|label| label.cast_unsigned()));
        let bytes: Vec<u8> = std::iter::once(n_images).chain(words).flat_map(u32::to_le_bytes).collect();
        self.end += bytes.len() as u64;
        self.file.write_all(&bytes).map_err(|cause| StageError::io(&self.path, cause))
    }

    /// Writes the rows in their final order and removes the spill file.
    fn into_shard(self, survey: &Survey, rows: &[u32], path: &Path) -> Result<(), StageError> {
        let Self { path: spilled, file, offsets, .. } = self;
        let failed = |cause: std::io::Error| StageError::io(&spilled, cause);
        let mut file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        let shard = File::create(path).map_err(|cause| StageError::io(path, cause))?;
        let mut writer = FileWriter::try_new_buffered(shard, &schema())?;
        for (rows, offsets) in rows.chunks(BATCH).zip(offsets.chunks(BATCH)) {
            let mut batch = ShardBatch::default();
            for (&row, &offset) in rows.iter().zip(offsets) {
                let length = survey.rows[row as usize].length as usize;
                file.seek(SeekFrom::Start(offset)).map_err(failed)?;
                batch.read_row(&mut file, length).map_err(failed)?;
            }
            writer.write(&batch.finish(survey, rows)?)?;
        }
        writer.finish()?;
        drop(file);
        std::fs::remove_file(&spilled).map_err(failed)
    }
}

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new("input_ids", list_of(DataType::UInt32), false),
        Field::new("labels", list_of(DataType::Int32), false),
        Field::new("n_images", DataType::UInt32, false),
        Field::new("row", DataType::Struct(row_fields()), false),
    ]))
}

fn row_fields() -> Fields {
    ["group", "partition", "row"].map(|name| Field::new(name, DataType::UInt32, false)).into_iter().collect()
}

/// A batch of a shard file while it is filled.
#[derive(Default)]
struct ShardBatch {
    bytes: Vec<u8>,
    input_ids: Vec<u32>,
    labels: Vec<i32>,
    n_images: Vec<u32>,
}

impl ShardBatch {
    fn read_row(&mut self, file: &mut impl Read, length: usize) -> std::io::Result<()> {
        self.bytes.resize(4 * (1 + 2 * length), 0);
        file.read_exact(&mut self.bytes)?;
        let mut words = self.bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
        self.n_images.extend(words.next());
        self.input_ids.extend(words.by_ref().take(length));
        self.labels.extend(words.map(u32::cast_signed));
        Ok(())
    }

    fn finish(self, survey: &Survey, rows: &[u32]) -> Result<RecordBatch, StageError> {
        let rows: Vec<_> = rows.iter().map(|row| survey.rows[*row as usize]).collect();
        let mut lists = Lists::with_capacity(rows.len());
        for row in &rows {
            lists.push(row.length as usize);
        }
        let numbers = |values: Vec<u32>| Arc::new(UInt32Array::from(values)) as ArrayRef;
        let pointers = StructArray::try_new(
            row_fields(),
            vec![
                numbers(rows.iter().map(|row| row.group).collect()),
                numbers(rows.iter().map(|row| row.partition).collect()),
                numbers(rows.iter().map(|row| row.index).collect()),
            ],
            None,
        )?;
        let columns = vec![
            lists.finish(numbers(self.input_ids))?,
            lists.finish(Arc::new(Int32Array::from(self.labels)))?,
            numbers(self.n_images),
            Arc::new(pointers),
        ];
        Ok(RecordBatch::try_new(schema(), columns)?)
    }
}
