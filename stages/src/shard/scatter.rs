//! Second pass of `shard`: bring rows into their order without holding them in memory.
//!
//! The partitions are read once, in order; each row is appended to the spill file of the shard it belongs to. Then, shard by
//! shard, rows are fetched from the spill file in their final order. Memory: eight bytes a row, one batch, and a write buffer
//! for each shard; disk: the tokens a second time, until the shard is written.

use super::kept::Kept;
use super::survey::{Row, Survey, views};
use crate::arrays::{Lists, column, items, list_of};
use arrow::array::{ArrayRef, Int32Array, RecordBatch, StructArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Schema, UInt32Type};
use arrow::ipc::writer::FileWriter;
use arrow::row::OwnedRow;
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
    kept: &Kept,
    order: &[u32],
    rows_per_shard: usize,
    folder: &Path,
) -> Result<(), StageError> {
    std::fs::create_dir_all(folder).map_err(|cause| StageError::io(folder, cause))?;
    let mut spills = Vec::new();
    for n in 0..order.len().div_ceil(rows_per_shard) {
        spills.push(Spill::create(folder.join(format!("{n:05}.spill")))?);
    }
    let places = Places::new(survey, order, rows_per_shard);
    scatter(inputs, kept, places, &mut spills)?;
    let shards = order.chunks(rows_per_shard);
    for ((n, spill), rows) in spills.into_iter().enumerate().zip(shards) {
        let path = folder.join(format!("{n:05}.arrow"));
        spill.into_shard(survey, kept, rows, &path)?;
    }
    Ok(())
}

/// Where rows go, asked for in the order of the survey.
struct Places<'a> {
    survey: &'a Survey,
    rows_per_shard: usize,
    /// (row in the survey, place in the order), by row.
    left: std::iter::Peekable<std::vec::IntoIter<(u32, u32)>>,
    /// The next row of the survey.
    next: usize,
}

impl<'a> Places<'a> {
    fn new(survey: &'a Survey, order: &[u32], rows_per_shard: usize) -> Self {
        let mut places: Vec<(u32, u32)> = order.iter().copied().zip(0..).collect();
        places.sort_unstable();
        Self { survey, rows_per_shard, left: places.into_iter().peekable(), next: 0 }
    }

    /// Whether the survey counted the row of this group, partition and index; then it is the current one.
    fn is_usable(&mut self, (group, partition, index): (u32, u32, u32)) -> bool {
        let found = self.survey.rows.get(self.next);
        let usable =
            found.is_some_and(|row: &Row| (row.group, row.partition, row.index) == (group, partition, index));
        self.next += usize::from(usable);
        usable
    }

    /// The next place of the current row: which shard, and where in it.
    fn place(&mut self) -> Option<(usize, usize)> {
        let current = self.next.checked_sub(1)?;
        let (_, place) = self.left.next_if(|(row, _)| *row as usize == current)?;
        Some((place as usize / self.rows_per_shard, place as usize % self.rows_per_shard))
    }
}

/// Appends each row to the spill files of the shards that hold it.
fn scatter(
    inputs: &GatherInputs<'_>,
    kept: &Kept,
    mut places: Places<'_>,
    spills: &mut [Spill],
) -> Result<(), StageError> {
    for (group, view) in views(inputs) {
        let mut columns = vec!["input_ids", "labels", "n_images"];
        columns.extend(inputs.groups.get(group as usize).into_iter().flat_map(|group| kept.of(group)));
        let (partition, mut first) = (view.index() as u32, 0);
        for batch in view.batches(&columns)? {
            let batch = batch?;
            let copied = kept.rows(&batch)?;
            for n in 0..batch.num_rows() {
                if places.is_usable((group, partition, first + n as u32)) {
                    let bytes = row_bytes(&batch, n, copied.row(n).as_ref())?;
                    while let Some((shard, place)) = places.place() {
                        spills[shard].append(place, &bytes)?;
                    }
                }
            }
            first += batch.num_rows() as u32;
        }
    }
    Ok(())
}

/// A row for a spill file, in words of four bytes: `n_images`, how many bytes are copied columns, ids, labels; then those bytes.
fn row_bytes(batch: &RecordBatch, row: usize, copied: &[u8]) -> Result<Vec<u8>, StageError> {
    let n_images = column::<UInt32Array>(batch, "n_images")?.value(row);
    let ids = items::<UInt32Type>(column(batch, "input_ids")?, row)?;
    let labels = items::<Int32Type>(column(batch, "labels")?, row)?;
    if ids.len() != labels.len() {
        return Err(StageError::new(format!("a row has {} tokens and {} labels", ids.len(), labels.len())));
    }
    let too_long = |_| StageError::new("a row has more than 4 GiB in the columns of `keep`");
    let head = [n_images, u32::try_from(copied.len()).map_err(too_long)?];
    let words = head.into_iter().chain(ids.iter().copied());
    let words = words.chain(labels.iter().map(|label| label.cast_unsigned()));
    let mut bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
    bytes.extend_from_slice(copied);
    Ok(bytes)
}

/// The rows of one shard in the order in which they were read, as [`row_bytes`] gives them.
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

    fn append(&mut self, place: usize, bytes: &[u8]) -> Result<(), StageError> {
        if self.offsets.len() <= place {
            self.offsets.resize(place + 1, 0);
        }
        self.offsets[place] = self.end;
        self.end += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|cause| StageError::io(&self.path, cause))
    }

    /// Writes the rows in their final order and removes the spill file.
    fn into_shard(self, survey: &Survey, kept: &Kept, rows: &[u32], path: &Path) -> Result<(), StageError> {
        let Self { path: spilled, file, offsets, .. } = self;
        let failed = |cause: std::io::Error| StageError::io(&spilled, cause);
        let mut file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        let shard = File::create(path).map_err(|cause| StageError::io(path, cause))?;
        let mut writer = FileWriter::try_new_buffered(shard, &schema(kept))?;
        for (rows, offsets) in rows.chunks(BATCH).zip(offsets.chunks(BATCH)) {
            let mut batch = ShardBatch::default();
            for (&row, &offset) in rows.iter().zip(offsets) {
                let length = survey.rows[row as usize].length as usize;
                file.seek(SeekFrom::Start(offset)).map_err(failed)?;
                batch.read_row(&mut file, kept, length).map_err(failed)?;
            }
            writer.write(&batch.finish(survey, kept, rows)?)?;
        }
        writer.finish()?;
        drop(file);
        std::fs::remove_file(&spilled).map_err(failed)
    }
}

fn schema(kept: &Kept) -> Arc<Schema> {
    let own = [
        Field::new("input_ids", list_of(DataType::UInt32), false),
        Field::new("labels", list_of(DataType::Int32), false),
        Field::new("n_images", DataType::UInt32, false),
        Field::new("row", DataType::Struct(row_fields()), false),
    ];
    let fields = own.into_iter().map(Arc::new).chain(kept.fields().iter().cloned());
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
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
    kept: Vec<OwnedRow>,
}

impl ShardBatch {
    fn read_row(&mut self, file: &mut impl Read, kept: &Kept, length: usize) -> std::io::Result<()> {
        self.bytes.resize(4 * (2 + 2 * length), 0);
        file.read_exact(&mut self.bytes)?;
        let mut words = self.bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
        self.n_images.extend(words.next());
        let copied = words.next().unwrap_or(0) as usize;
        self.input_ids.extend(words.by_ref().take(length));
        self.labels.extend(words.map(u32::cast_signed));
        self.bytes.resize(copied, 0);
        file.read_exact(&mut self.bytes)?;
        self.kept.push(kept.parse(&self.bytes));
        Ok(())
    }

    fn finish(self, survey: &Survey, kept: &Kept, rows: &[u32]) -> Result<RecordBatch, StageError> {
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
        let mut columns = vec![
            lists.finish(numbers(self.input_ids))?,
            lists.finish(Arc::new(Int32Array::from(self.labels)))?,
            numbers(self.n_images),
            Arc::new(pointers),
        ];
        columns.extend(kept.columns(&self.kept)?);
        Ok(RecordBatch::try_new(schema(kept), columns)?)
    }
}
