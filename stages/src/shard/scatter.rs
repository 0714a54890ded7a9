//! Second pass of `shard`: bring rows into their order without holding them in memory.
//!
//! The partitions are read once, in order; each row is appended to the spill of the shard it belongs to: a buffer that goes to a
//! file when it is full. Then, shard by shard, rows are fetched from the spill in their final order. Memory: eight bytes a row,
//! one batch, and the buffers, [`BUFFERS`] together; disk: the tokens a second time, until the shard is written. One spill file
//! is open at a time, however many shards there are.

use super::Shard;
use super::kept::Kept;
use super::scan::{Row, RowScan, views};
use crate::arrays::{Lists, column, items, list_of};
use arrow::array::{
    Array, ArrayRef, BooleanArray, Int32Array, ListArray, RecordBatch, StructArray, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Schema, UInt32Type};
use arrow::ipc::writer::FileWriter;
use arrow::row::OwnedRow;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::GatherInputs;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The key in a file's metadata that says whether its labels are shifted, and its values, each with what it means to a trainer.
pub const LABELS: &str = "llavm.labels";
const SHIFTED: (&str, &str) = (
    "shifted",
    "labels[i] is the token behind input_ids[i]; a trainer that shifts by itself, as Hugging Face's does, would shift twice: make \
     the shards with shift = false for it",
);
pub const UNSHIFTED: (&str, &str) = (
    "unshifted",
    "labels[i] is input_ids[i] where it is trained on; the trainer has to shift, as Hugging Face's does",
);

/// The label of a token that carries no loss.
const IGNORED: i32 = -100;

/// Rows in a batch of a shard file.
const BATCH: usize = 1024;
/// Bytes buffered in front of all spill files together, and the least and most in front of one.
const BUFFERS: usize = 32 << 20;
const LEAST_BUFFER: usize = 4 << 10;
const MOST_BUFFER: usize = 1 << 20;

/// Writes the rows `order` names to `folder/00000.arrow …`.
#[tracing::instrument(level = "debug", skip_all, fields(folder = %folder.display(), rows = order.len()))]
pub fn write(
    stage: &Shard,
    inputs: &GatherInputs<'_>,
    scan: &RowScan,
    kept: &Kept,
    order: &[u32],
    folder: &Path,
) -> Result<(), StageError> {
    let rows_per_shard = stage.rows_per_shard;
    std::fs::create_dir_all(folder).map_err(|cause| StageError::io(folder, cause))?;
    let count = order.len().div_ceil(rows_per_shard);
    let buffer = (BUFFERS / count.max(1)).clamp(LEAST_BUFFER, MOST_BUFFER);
    let spill =
        |(n, rows): (usize, &[u32])| Spill::new(folder.join(format!("{n:05}.spill")), buffer, rows.len());
    let mut spills: Vec<Spill> = order.chunks(rows_per_shard).enumerate().map(spill).collect();
    let places = Places::new(scan, order, rows_per_shard);
    scatter(stage, inputs, kept, places, &mut spills)?;
    let shards = order.chunks(rows_per_shard);
    for ((n, spill), rows) in spills.into_iter().enumerate().zip(shards) {
        let path = folder.join(format!("{n:05}.arrow"));
        spill.into_shard(scan, &Layout { kept, shift: stage.shift }, rows, &path)?;
    }
    Ok(())
}

/// Where rows go, asked for in the order of the scan.
struct Places<'a> {
    scan: &'a RowScan,
    rows_per_shard: usize,
    /// (row in the scan, place in the order), by row.
    left: std::iter::Peekable<std::vec::IntoIter<(u32, u32)>>,
    /// The next row of the scan.
    next: usize,
}

impl<'a> Places<'a> {
    fn new(scan: &'a RowScan, order: &[u32], rows_per_shard: usize) -> Self {
        let mut places: Vec<(u32, u32)> = order.iter().copied().zip(0..).collect();
        places.sort_unstable();
        Self { scan, rows_per_shard, left: places.into_iter().peekable(), next: 0 }
    }

    /// Whether the scan counted the row of this group, partition and index; then it is the current one.
    fn is_usable(&mut self, (group, partition, index): (u32, u32, u32)) -> bool {
        let found = self.scan.rows.get(self.next);
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
    stage: &Shard,
    inputs: &GatherInputs<'_>,
    kept: &Kept,
    mut places: Places<'_>,
    spills: &mut [Spill],
) -> Result<(), StageError> {
    for (group, view) in views(inputs) {
        let mut columns = vec!["input_ids", if stage.shift { "labels" } else { "train" }, "n_images"];
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
    let labels = labels(batch, row, ids)?;
    if ids.len() != labels.len() {
        let text = format!("a row has {} tokens and {} labels", ids.len(), labels.len());
        return Err(StageError::new(text)
            .help("With shift = false, name the table of `tokenize`, not that of `shift-labels`."));
    }
    let too_long = |_| StageError::new("a row has more than 4 GiB in the columns of `keep`");
    let head = [n_images, u32::try_from(copied.len()).map_err(too_long)?];
    let words = head.into_iter().chain(ids.iter().copied());
    let words = words.chain(labels.iter().map(|label| label.cast_unsigned()));
    let mut bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
    bytes.extend_from_slice(copied);
    Ok(bytes)
}

/// The labels of a row as they are, or those of its tokens that are trained on.
fn labels<'a>(batch: &'a RecordBatch, row: usize, ids: &[u32]) -> Result<Cow<'a, [i32]>, StageError> {
    if batch.column_by_name("train").is_none() {
        return Ok(Cow::Borrowed(items::<Int32Type>(column(batch, "labels")?, row)?));
    }
    let lists: &ListArray = column(batch, "train")?;
    let flags = lists.value(row);
    let flags = flags.as_any().downcast_ref::<BooleanArray>();
    let flags = flags.ok_or_else(|| StageError::new("`train` is not a list of bool"))?;
    let label =
        |(id, trained): (&u32, Option<bool>)| if trained == Some(true) { id.cast_signed() } else { IGNORED };
    // Not zipped to the shorter one: lengths that differ are a mistake.
    let padding = std::iter::repeat_n(IGNORED, flags.len().saturating_sub(ids.len()));
    Ok(Cow::Owned(ids.iter().zip(flags.iter()).map(label).chain(padding).collect()))
}

/// What the files of a shard look like.
struct Layout<'a> {
    kept: &'a Kept,
    shift: bool,
}

/// The rows of one shard in the order in which they were read, as [`row_bytes`] gives them.
struct Spill {
    /// There once the buffer was full.
    path: PathBuf,
    buffer: Vec<u8>,
    most: usize,
    /// Bytes of all rows.
    end: u64,
    /// Where the row of each place begins.
    offsets: Vec<u64>,
}

impl Spill {
    fn new(path: PathBuf, most: usize, rows: usize) -> Self {
        Self { path, buffer: Vec::new(), most, end: 0, offsets: vec![0; rows] }
    }

    /// The buffer grows to what it may hold and no further, unless a single row is longer.
    fn append(&mut self, place: usize, bytes: &[u8]) -> Result<(), StageError> {
        self.offsets[place] = self.end;
        self.end += bytes.len() as u64;
        if self.buffer.len() + bytes.len() > self.most {
            self.flush()?;
        }
        if self.buffer.capacity() < self.most {
            self.buffer.reserve_exact(self.most - self.buffer.len());
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends the buffer to the file, which is open only meanwhile.
    fn flush(&mut self) -> Result<(), StageError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let file = File::options().append(true).create(true).open(&self.path);
        let written = file.and_then(|mut file| file.write_all(&self.buffer));
        self.buffer.clear();
        written.map_err(|cause| StageError::io(&self.path, cause))
    }

    /// Writes the rows in their final order and removes the spill file.
    fn into_shard(
        mut self,
        scan: &RowScan,
        layout: &Layout<'_>,
        rows: &[u32],
        path: &Path,
    ) -> Result<(), StageError> {
        if self.end == self.buffer.len() as u64 {
            let bytes = Cursor::new(std::mem::take(&mut self.buffer));
            return self.write_shard(bytes, scan, layout, rows, path);
        }
        self.flush()?;
        let file = File::open(&self.path).map_err(|cause| StageError::io(&self.path, cause))?;
        self.write_shard(file, scan, layout, rows, path)?;
        std::fs::remove_file(&self.path).map_err(|cause| StageError::io(&self.path, cause))
    }

    fn write_shard(
        &self,
        mut spilled: impl Read + Seek,
        scan: &RowScan,
        layout: &Layout<'_>,
        rows: &[u32],
        path: &Path,
    ) -> Result<(), StageError> {
        let failed = |cause: std::io::Error| StageError::io(&self.path, cause);
        let shard = File::create(path).map_err(|cause| StageError::io(path, cause))?;
        let mut writer = FileWriter::try_new_buffered(shard, &schema(layout))?;
        for (rows, offsets) in rows.chunks(BATCH).zip(self.offsets.chunks(BATCH)) {
            let mut batch = ShardBatch::default();
            for (&row, &offset) in rows.iter().zip(offsets) {
                let length = scan.rows[row as usize].length as usize;
                spilled.seek(SeekFrom::Start(offset)).map_err(failed)?;
                batch.read_row(&mut spilled, layout.kept, length).map_err(failed)?;
            }
            writer.write(&batch.finish(scan, layout, rows)?)?;
        }
        writer.finish()?;
        Ok(())
    }
}

fn schema(Layout { kept, shift }: &Layout<'_>) -> Arc<Schema> {
    let own = [
        Field::new("input_ids", list_of(DataType::UInt32), false),
        Field::new("labels", list_of(DataType::Int32), false),
        Field::new("n_images", DataType::UInt32, false),
        Field::new("row", DataType::Struct(row_fields()), false),
    ];
    let fields = own.into_iter().map(Arc::new).chain(kept.fields().iter().cloned());
    let (labels, note) = if *shift { SHIFTED } else { UNSHIFTED };
    let metadata = [(LABELS.to_owned(), labels.to_owned()), ("note".to_owned(), note.to_owned())];
    Arc::new(Schema::new(fields.collect::<Vec<_>>()).with_metadata(HashMap::from(metadata)))
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

    fn finish(self, scan: &RowScan, layout: &Layout<'_>, rows: &[u32]) -> Result<RecordBatch, StageError> {
        let rows: Vec<_> = rows.iter().map(|row| scan.rows[*row as usize]).collect();
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
        columns.extend(layout.kept.columns(&self.kept)?);
        Ok(RecordBatch::try_new(schema(layout), columns)?)
    }
}
