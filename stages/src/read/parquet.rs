//! Parquet: only the columns asked for, only the row groups of the partition, 128 rows in memory (and large dictionaries, once).
//!
//! A partition's digest is that of the columns asked for, and images are counted without their bytes where that can be done.
//!
//! A page that cannot be decoded costs the rows of its batch: they are rejected with the reader's own words, and reading
//! goes on behind them.

mod chunks;
mod counts;
mod guarded;
mod layout;
mod levels;
mod page_rows;
mod selected;

use super::arrow_value::{flatten, row_value};
use super::raw::{CHUNK_ROWS, Chunk, ChunkIterator, Failed, RawColumn, RawFile, Request, Split, reject};
use super::section::Section;
use super::value::Value;
use arrow::array::RecordBatch;
use chunks::Chunks;
use counts::Counts;
use guarded::guarded;
use layout::Layout;
use llavm_pipeline::StageError;
use llavm_pipeline::rejects::Reject;
use llavm_pipeline::stage::{Digest, OpenContext};
use page_rows::PageRows;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, RowSelection,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;
pub use selected::Dictionaries;
use selected::{Group, Selected, is_large};
use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A Parquet file whose footer has been read.
pub struct Parquet {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
    digest: Digest,
    splits: Vec<Split>,
    columns: Vec<RawColumn>,
    chunks: Chunks,
    /// Of the image column.
    counts: Option<Counts>,
    dictionaries: Arc<Dictionaries>,
    page_rows: Arc<PageRows>,
}

impl Parquet {
    /// Errors of the outer result concern the disk, of the inner one the file's content.
    pub fn open(
        path: &Path,
        partition_rows: u64,
        dictionaries: &Arc<Dictionaries>,
        context: &dyn OpenContext,
    ) -> Result<Result<Self, String>, StageError> {
        let file = Section::open(path).map_err(|cause| StageError::io(path, cause))?;
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
        let splits = splits(u64::try_from(rows).unwrap_or(0), partition_rows.max(1), digest);
        let mut columns = Vec::new();
        metadata.schema().fields().iter().for_each(|field| flatten("", field, &mut columns));
        let (path, chunks, dictionaries) = (path.to_owned(), Chunks::default(), Arc::clone(dictionaries));
        let page_rows = Arc::default();
        Ok(Ok(Self {
            path,
            metadata,
            digest,
            splits,
            columns,
            chunks,
            counts: None,
            dictionaries,
            page_rows,
        }))
    }

    /// The root columns that a request names, by their places.
    fn roots<'a>(&'a self, request: &'a Request) -> impl Iterator<Item = (usize, &'a str)> {
        let fields = self.metadata.schema().fields().iter().enumerate();
        fields
            .map(|(root, field)| (root, field.name().as_str()))
            .filter(|(_, name)| request.wants_column(name))
    }

    fn leaves(&self, root: usize) -> impl Iterator<Item = usize> {
        let schema = self.metadata.parquet_schema();
        (0..schema.num_columns()).filter(move |leaf| schema.get_column_root_idx(*leaf) == root)
    }

    /// The row groups that hold any of `rows`, and which of their rows these are.
    fn groups(&self, rows: Range<u64>) -> impl Iterator<Item = (usize, Range<u64>)> {
        let mut start = 0;
        self.metadata.metadata().row_groups().iter().enumerate().filter_map(move |(group, metadata)| {
            let first = start;
            start += u64::try_from(metadata.num_rows()).unwrap_or(0);
            let (from, to) = (rows.start.max(first), rows.end.min(start));
            (from < to).then(|| (group, from - first..to - first))
        })
    }

    /// How many images the rows of a split have, when nothing else is asked of the image column.
    fn counted(&self, split: &Split, request: &Request) -> Option<Vec<u32>> {
        request.counted.as_ref()?;
        let counts = self.counts.as_ref()?;
        let mut all = Vec::with_capacity((split.rows.end - split.rows.start) as usize);
        for (group, rows) in self.groups(split.rows.clone()) {
            all.extend(counts.of(group, rows)?);
        }
        Some(all)
    }

    /// A reader of the given rows of the file, all of them wanted.
    fn reader(&self, rows: &[u64], columns: &[usize]) -> Result<ParquetRecordBatchReader, String> {
        let file = Section::open(&self.path).map_err(|cause| cause.to_string())?;
        let (groups, selection) = self.selection(rows);
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), columns.iter().copied());
        let (metadata, dictionaries) = (Arc::clone(self.metadata.metadata()), Arc::clone(&self.dictionaries));
        let as_views = is_dense(rows) || self.have_large_dictionary(&groups, columns);
        let skips = selection.iter().next().is_some_and(|first| first.skip);
        let (file, page_rows) = (Arc::new(file), Arc::clone(&self.page_rows));
        let shared = Selected { file, metadata, groups, dictionaries, page_rows, skips, as_views };
        let schema = self.metadata.schema().fields();
        guarded(|| shared.reader(schema, mask, CHUNK_ROWS, selection))
    }

    fn have_large_dictionary(&self, groups: &[Group], columns: &[usize]) -> bool {
        let metadata = self.metadata.metadata();
        let large =
            |leaf: usize| groups.iter().any(|group| is_large(metadata.row_group(group.index).column(leaf)));
        columns.iter().flat_map(|root| self.leaves(*root)).any(large)
    }

    /// The row group that holds these rows of the file.
    fn group(&self, index: usize, rows: Range<u64>) -> Group {
        let touched = |split: &&Split| split.rows.start < rows.end && rows.start < split.rows.end;
        Group { file: self.digest, index, partitions: self.splits.iter().filter(touched).count() }
    }

    /// The row groups that hold any of `rows` (ascending), and the rows within these groups.
    fn selection(&self, rows: &[u64]) -> (Vec<Group>, RowSelection) {
        let (mut groups, mut ranges): (Vec<Group>, Vec<Range<usize>>) = (Vec::new(), Vec::new());
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
                groups.push(self.group(group, start..start + length));
                base += length as usize;
            }
            start += length;
        }
        (groups, RowSelection::from_consecutive_ranges(ranges.into_iter(), base))
    }
}

impl RawFile for Parquet {
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

    fn prepare(
        &mut self,
        request: &Request,
        image: Option<&str>,
        context: &dyn OpenContext,
    ) -> Result<(), StageError> {
        let leaves: Vec<usize> = self.roots(request).flat_map(|(root, _)| self.leaves(root)).collect();
        let metadata = self.metadata.metadata();
        self.chunks = Chunks::new(&self.path, metadata, self.digest, &leaves, context)?;
        let layout = image.and_then(|name| Some((name, Layout::find(self.metadata.schema(), name)?)));
        if let Some((name, layout)) = layout {
            self.counts = Some(Counts::new(&self.path, metadata, (name, &layout), self.digest, context)?);
        }
        Ok(())
    }

    fn digest(&self, index: usize, request: &Request) -> Option<Digest> {
        let split = self.splits.get(index)?;
        let counts = self.counted(split, request);
        let mut hasher = blake3::Hasher::new();
        for (group, rows) in self.groups(split.rows.clone()) {
            hasher.update(&rows.start.to_le_bytes()).update(&rows.end.to_le_bytes());
            let roots = self.roots(request);
            let read = roots.filter(|(_, name)| counts.is_none() || !request.counts(name));
            for leaf in read.flat_map(|(root, _)| self.leaves(root)) {
                // A column that nobody announced: all bytes decide.
                let Some(chunk) = self.chunks.digest(leaf, group) else { return Some(split.digest) };
                hasher.update(chunk.as_bytes());
            }
        }
        for count in counts.iter().flatten() {
            hasher.update(&count.to_le_bytes());
        }
        Some(hasher.finalize())
    }

    fn read(&self, split: usize, request: Request) -> Result<ChunkIterator<'_>, StageError> {
        let split = self.splits.get(split).ok_or_else(|| StageError::new("no such split"))?;
        let rows = (split.rows.end - split.rows.start) as usize;
        let wanted = (0..rows.min(request.limit.unwrap_or(rows))).filter(|row| request.wants(*row)).collect();
        let counts = self.counted(split, &request);
        let roots = self.roots(&request);
        let columns = roots.filter(|(_, name)| counts.is_none() || !request.counts(name));
        let columns = columns.map(|(root, _)| root).collect();
        let counts = counts.zip(request.counted);
        Ok(Box::new(Rows {
            file: self,
            first: split.rows.start,
            wanted,
            columns,
            counts,
            next: 0,
            reader: None,
        }))
    }
}

/// Whether most rows between the first and the last are wanted, so that pages hold little else.
fn is_dense(rows: &[u64]) -> bool {
    let span = rows.last().zip(rows.first()).map_or(0, |(last, first)| last - first);
    span < 2 * rows.len() as u64
}

fn splits(rows: u64, every: u64, file: Digest) -> Vec<Split> {
    let split = |start: u64| {
        let end = rows.min(start + every);
        let mut hasher = blake3::Hasher::new();
        hasher.update(file.as_bytes()).update(&start.to_le_bytes()).update(&end.to_le_bytes());
        Split { rows: start..end, digest: hasher.finalize() }
    };
    (0..rows.div_ceil(every)).map(|index| split(index * every)).collect()
}

struct Rows<'a> {
    file: &'a Parquet,
    /// Row of the file at which the split begins.
    first: u64,
    /// Rows of the split to read, ascending, and how many of them are done.
    wanted: Vec<usize>,
    next: usize,
    columns: Vec<usize>,
    /// By row of the split: the number of images in the column of that name, which is not read.
    counts: Option<(Vec<u32>, Arc<str>)>,
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
            Ok(batch) => {
                let counts = self.counts.as_ref().map(|(counts, name)| {
                    (rows.iter().filter_map(|row| counts.get(*row).copied()).collect(), Arc::clone(name))
                });
                Box::new(Batch { rows, cells: batch, counts })
            }
            Err(cause) => Box::new(Failed { rows, reject: reject("corrupt-page", cause) }),
        }))
    }
}

struct Batch {
    rows: Vec<usize>,
    cells: RecordBatch,
    /// Images of each row in a column that was not read, and its name.
    counts: Option<(Vec<u32>, Arc<str>)>,
}

impl Chunk for Batch {
    fn rows(&self) -> &[usize] {
        &self.rows
    }

    fn value(&self, index: usize) -> Result<Value<'_>, Reject> {
        let mut row = row_value(&self.cells, index);
        if let (Value::Object(fields), Some((counts, name))) = (&mut row, &self.counts) {
            let images = counts.get(index).copied().unwrap_or(0);
            let images = std::iter::repeat_n(Value::Bytes(Cow::Borrowed(&[])), images as usize);
            fields.push((Cow::Borrowed(&**name), Value::List(images.collect())));
        }
        Ok(row)
    }
}
