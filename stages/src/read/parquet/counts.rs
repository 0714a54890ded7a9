//! How many images each row has, without reading their bytes.
//!
//! | what a row group's metadata says | what is read |
//! |---|---|
//! | statistics: no null, or nothing but nulls | nothing |
//! | a struct whose bytes are there wherever the struct is | the levels of another field (`path`) |
//! | some images missing | the levels of the images' column, whose pages have to be loaded for that, once |
//! | anything else, such as bytes in one row and a path in another, or a file in a bucket | `None`: the cells have to be read |
//!
//! What is found is remembered by the file's content.

use super::guarded::guarded;
use super::layout::Layout;
use crate::read::raw::CHUNK_ROWS;
use crate::read::section::Section;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{Digest, OpenContext};
use llavm_pipeline::storage::remote::is_remote;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::ByteArrayType;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::RowGroupReader;
use parquet::file::serialized_reader::SerializedRowGroupReader;
use rayon::prelude::*;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Raised when the same file gets other counts.
const VERSION: u32 = 1;
/// Rows whose levels are looked at together.
const STEP: usize = CHUNK_ROWS;

/// Rows one after the other that have the same number of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    images: u32,
    rows: u32,
}

/// By row group: the counts, where they are known.
#[derive(Debug, PartialEq, Eq)]
pub struct Counts(Vec<Option<Vec<Run>>>);

impl Counts {
    /// The counts of the column `name`; `file` is the file's digest.
    pub fn new(
        path: &Path,
        metadata: &ParquetMetaData,
        (name, layout): (&str, &Layout),
        file: Digest,
        context: &dyn OpenContext,
    ) -> Result<Self, StageError> {
        let by_statistics = |group| same(group, layout);
        let reported: Vec<_> = metadata.row_groups().iter().map(by_statistics).collect();
        // Of a file elsewhere no column is read for this: its cells are, when they are wanted.
        if reported.iter().all(Option::is_some) || is_remote(path) {
            return Ok(Self(reported));
        }
        let key = format!("read/counts/{VERSION}/{}/{name}", file.to_hex());
        let mut compute = || {
            let counts = reported.par_iter().enumerate().map(|(group, reported)| {
                reported.clone().or_else(|| by_levels(path, metadata, group, layout))
            });
            Ok(Self(counts.collect()).encode())
        };
        let remembered = context.remembered(&key, &mut compute)?;
        let decoded = match Self::decode(&remembered) {
            None => Self::decode(&compute()?),
            decoded => decoded,
        };
        Ok(decoded.unwrap_or(Self(reported)))
    }

    /// The counts of rows `rows` of a row group.
    pub fn of(&self, group: usize, rows: Range<u64>) -> Option<Vec<u32>> {
        let runs = self.0.get(group)?.as_ref()?;
        let each = runs.iter().flat_map(|run| std::iter::repeat_n(run.images, run.rows as usize));
        let counts: Vec<u32> =
            each.skip(rows.start as usize).take((rows.end - rows.start) as usize).collect();
        (counts.len() as u64 == rows.end - rows.start).then_some(counts)
    }

    /// For each row group the number of its runs (`u32::MAX` where they are not known), then the runs.
    fn encode(&self) -> Vec<u8> {
        let mut numbers: Vec<u32> = Vec::new();
        for runs in &self.0 {
            numbers.push(runs.as_ref().map_or(u32::MAX, |runs| runs.len() as u32));
            numbers.extend(runs.iter().flatten().flat_map(|run| [run.images, run.rows]));
        }
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<4>();
        let mut numbers = numbers.iter().map(|number| u32::from_le_bytes(*number));
        let mut groups = Vec::new();
        while let Some(runs) = numbers.next() {
            let mut run = || Some(Run { images: numbers.next()?, rows: numbers.next()? });
            groups.push(match runs {
                u32::MAX => None,
                runs => Some((0..runs).map(|_| run()).collect::<Option<_>>()?),
            });
        }
        rest.is_empty().then_some(Self(groups))
    }
}

/// The count that all rows of a group share, from its statistics.
fn same(group: &RowGroupMetaData, layout: &Layout) -> Option<Vec<Run>> {
    let rows = group.num_rows();
    let each = |images| Some(vec![Run { images, rows: u32::try_from(rows).ok()? }]);
    let bytes = group.columns().get(layout.bytes)?;
    let is_list = bytes.column_descr().max_rep_level() > 0;
    let max_level = bytes.column_descr().max_def_level();
    if !is_list && (max_level == 0 || nulls(bytes) == Some(0)) {
        return each(1);
    }
    // Of lists, writers do not agree on what counts as null; a histogram says which entries are images.
    let there = bytes.definition_level_histogram().and_then(|levels| levels.values().last().copied());
    if is_list && bytes.num_values() == rows && there == Some(rows) {
        return each(1);
    }
    let is_empty = |leaf: usize| {
        let chunk = group.columns().get(leaf);
        chunk.is_some_and(|chunk| chunk.num_values() == rows && nulls(chunk) == Some(rows))
    };
    if is_empty(layout.bytes) && layout.path.is_none_or(is_empty) { each(0) } else { None }
}

fn nulls(chunk: &ColumnChunkMetaData) -> Option<i64> {
    chunk.statistics()?.null_count_opt().and_then(|nulls| i64::try_from(nulls).ok())
}

/// The counts of a row group from the levels of its columns.
fn by_levels(file: &Path, metadata: &ParquetMetaData, group: usize, layout: &Layout) -> Option<Vec<Run>> {
    let chunks = metadata.row_group(group).columns();
    let max_level = |leaf: usize| chunks.get(leaf).map(|chunk| chunk.column_descr().max_def_level());
    let read = |leaf: usize, level: i16| levels(file, metadata, group, leaf, level).ok();
    let bytes = || read(layout.bytes, max_level(layout.bytes)?);
    let Some(path) = layout.path else { return bytes().map(|found| found.runs) };
    let optional = chunks.get(path)?.column_descr().self_type().is_optional();
    let structs = read(path, max_level(path)? - i16::from(optional))?;
    let absent = |leaf: usize| nulls(&chunks[leaf]).or_else(|| Some(read(leaf, max_level(leaf)?)?.below));
    if absent(layout.bytes)? == structs.below {
        return Some(structs.runs);
    }
    // Where there are no paths, what has no bytes is no image.
    let no_paths = absent(path)? == chunks[path].num_values();
    if no_paths { bytes().map(|found| found.runs) } else { None }
}

/// Entries of a column, by row.
#[derive(Debug, Default)]
struct Levels {
    /// How many entries of each row reach the level.
    runs: Vec<Run>,
    /// How many entries of the row group do not.
    below: i64,
}

impl Levels {
    fn push(&mut self, images: u32) {
        match self.runs.last_mut() {
            Some(run) if run.images == images => run.rows += 1,
            _ => self.runs.push(Run { images, rows: 1 }),
        }
    }
}

/// Reads the levels of one column chunk; its values are passed over.
fn levels(
    path: &Path,
    metadata: &ParquetMetaData,
    group: usize,
    leaf: usize,
    level: i16,
) -> Result<Levels, String> {
    guarded(|| {
        let index = metadata.page_index_for_row_group(group);
        let properties = Arc::new(ReaderProperties::builder().build());
        let row_group = metadata.row_group(group);
        let file = Arc::new(Section::open(path)?);
        let reader = SerializedRowGroupReader::new(file, row_group, index, properties)?;
        let ColumnReader::ByteArrayColumnReader(mut column) = reader.get_column_reader(leaf)? else {
            return Err(ParquetError::General("neither text nor bytes".to_owned()));
        };
        let found = passed_over(&mut column, row_group.column(leaf), level)?;
        let rows: i64 = found.runs.iter().map(|run| i64::from(run.rows)).sum();
        if rows == row_group.num_rows() {
            Ok(found)
        } else {
            Err(ParquetError::General("too few rows".to_owned()))
        }
    })
}

fn passed_over(
    column: &mut ColumnReaderImpl<ByteArrayType>,
    chunk: &ColumnChunkMetaData,
    level: i16,
) -> Result<Levels, ParquetError> {
    let is_list = chunk.column_descr().max_rep_level() > 0;
    let mut found = Levels::default();
    let (mut definitions, mut repetitions, mut values) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let lists = is_list.then_some(&mut repetitions);
        let (rows, _, _) = column.read_records(STEP, Some(&mut definitions), lists, &mut values)?;
        if rows == 0 {
            return Ok(found);
        }
        let mut images = 0;
        for (n, definition) in definitions.iter().enumerate() {
            if n > 0 && repetitions.get(n).is_none_or(|repetition| *repetition == 0) {
                found.push(std::mem::take(&mut images));
            }
            images += u32::from(*definition >= level);
            found.below += i64::from(*definition < level);
        }
        found.push(images);
        definitions.clear();
        repetitions.clear();
        values.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_survive_being_stored() {
        let runs = vec![Run { images: 1, rows: 3 }, Run { images: 0, rows: 2 }];
        let counts = Counts(vec![Some(runs), None, Some(vec![])]);
        assert_eq!(counts.of(0, 2..5), Some(vec![1, 0, 0]));
        assert_eq!((counts.of(0, 2..6), counts.of(1, 0..1)), (None, None));
        assert_eq!(Counts::decode(&counts.encode()), Some(counts));
        assert_eq!(Counts::decode(&[1, 0, 0, 0, 7]), None);
    }
}
