//! The rows that are evaluated: drawn by seed from a split of the token shards.
//!
//! In: `<split>/NNNNN.arrow` of every unit of a shard folder (see `shard`). Out: [`Row`]s, in the order of the shards.

use super::prediction::COLUMNS;
use crate::arrays::{column, item_range, items};
use crate::messages::{self, MessageRows};
use arrow::array::{Array, ArrayRef, ListArray, RecordBatch, StringArray, StructArray, UInt32Array};
use arrow::datatypes::{Int32Type, UInt32Type};
use arrow::ipc::reader::FileReader;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use llavm_pipeline::StageError;
use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use std::fs::File;
use std::path::{Path, PathBuf};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said, `<image>` where the image goes.
    pub content: String,
    /// JSON text of the tools on offer, beside the first turn.
    pub tools: Option<String>,
}

/// The value of a slice column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// One for the whole row.
    Row(Option<String>),
    /// One for each question.
    Questions(Vec<Option<String>>),
}

/// One row of the shards.
#[derive(Clone, Debug)]
pub struct Row {
    /// Of the source.
    pub id: String,
    /// Where its images lie: group of tables, partition, row in it.
    pub place: Place,
    /// Images.
    pub n_images: u32,
    /// Token ids of the whole conversation but the last.
    pub input_ids: Vec<u32>,
    /// The token that follows each id, or a negative number where none is trained on.
    pub labels: Vec<i32>,
    /// The conversation; empty when the shards do not keep `messages`.
    pub turns: Vec<Turn>,
    /// By slice column.
    pub slices: Vec<Cell>,
    /// All right answers to the final question, where a column lists them.
    pub references: Vec<String>,
}

impl Row {
    /// Takes the last slice column as the list of right answers.
    pub fn take_references(&mut self) {
        self.references = match self.slices.pop() {
            Some(Cell::Questions(texts)) => texts.into_iter().flatten().collect(),
            Some(Cell::Row(text)) => text.into_iter().collect(),
            None => Vec::new(),
        };
    }
}

/// Where a row's tables have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Of the shard stage's groups.
    pub group: usize,
    /// Of the group's tables.
    pub partition: usize,
    /// In the partition.
    pub row: usize,
}

/// Draws `samples` rows (all, when there are fewer) of `split` from the shard folders `units`.
pub fn draw(
    units: &[PathBuf],
    split: &str,
    samples: usize,
    seed: u64,
    slices: &[String],
) -> Result<Vec<Row>, StageError> {
    let mut files = Vec::new();
    for unit in units {
        files.extend(files_of(&unit.join(split))?);
    }
    let mut total = 0;
    for file in &files {
        total += read(file)?.try_fold(0, |rows, batch| Ok::<_, StageError>(rows + batch?.num_rows()))?;
    }
    if total == 0 {
        return Err(StageError::new(format!("the shards have no rows in `{split}`"))
            .help("Give the shard stage a share for `validation`, or evaluate another `split`."));
    }
    let mut chosen =
        index::sample(&mut ChaCha8Rng::seed_from_u64(seed), total, samples.min(total)).into_vec();
    chosen.sort_unstable();
    let mut chosen = chosen.into_iter().peekable();
    let (mut rows, mut first) = (Vec::new(), 0);
    for file in &files {
        for batch in read(file)? {
            let batch = batch?;
            let reader = Batch::of(&batch, slices).map_err(|error| in_file(file, &error))?;
            while let Some(row) = chosen.next_if(|row| *row < first + batch.num_rows()) {
                rows.push(reader.row(row - first).map_err(|error| in_file(file, &error))?);
            }
            first += batch.num_rows();
        }
    }
    Ok(rows)
}

fn in_file(file: &Path, error: &StageError) -> StageError {
    let named = StageError::new(format!("{}: {error}", file.display()));
    match error.advice() {
        Some(advice) => named.help(advice),
        None => named,
    }
}

/// `NNNNN.arrow` in order.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>, StageError> {
    let failed = |cause| StageError::io(folder, cause);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        files.push(entry.map_err(failed)?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "arrow"));
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<impl Iterator<Item = Result<RecordBatch, StageError>>, StageError> {
    let opened = File::open(file).map_err(|cause| StageError::io(file, cause))?;
    Ok(FileReader::try_new_buffered(opened, None)?.map(|batch| Ok(batch?)))
}

/// The columns of a shard file's batch.
struct Batch<'a> {
    id: &'a StringArray,
    pointer: &'a StructArray,
    n_images: &'a UInt32Array,
    input_ids: &'a ListArray,
    labels: &'a ListArray,
    messages: Option<&'a ListArray>,
    slices: Vec<&'a ArrayRef>,
}

impl<'a> Batch<'a> {
    fn of(batch: &'a RecordBatch, slices: &[String]) -> Result<Self, StageError> {
        let slice = |name: &String| {
            batch.column_by_name(name).ok_or_else(|| {
                let kept: Vec<String> =
                    batch.schema().fields().iter().map(|field| field.name().clone()).collect();
                StageError::new(format!("the shards have no column `{name}`")).help(format!(
                    "Add it to `keep` of the shard stage; the shards have {}.",
                    kept.join(", ")
                ))
            })
        };
        Ok(Self {
            id: column(batch, "id")?,
            pointer: column(batch, "row")?,
            n_images: column(batch, "n_images")?,
            input_ids: column(batch, "input_ids")?,
            labels: column(batch, "labels")?,
            messages: column(batch, "messages").ok(),
            slices: slices.iter().map(slice).collect::<Result<_, _>>()?,
        })
    }

    fn row(&self, row: usize) -> Result<Row, StageError> {
        let part = |name: &str| -> Result<usize, StageError> {
            let part = self.pointer.column_by_name(name);
            let part = part.and_then(|part| part.as_any().downcast_ref::<UInt32Array>());
            let wrong = || StageError::new("`row` is not struct<group: u32, partition: u32, row: u32>");
            Ok(part.ok_or_else(wrong)?.value(row) as usize)
        };
        Ok(Row {
            id: self.id.value(row).to_owned(),
            place: Place { group: part("group")?, partition: part("partition")?, row: part("row")? },
            n_images: self.n_images.value(row),
            input_ids: items::<UInt32Type>(self.input_ids, row)?.to_vec(),
            labels: items::<Int32Type>(self.labels, row)?.to_vec(),
            turns: self.messages.map_or(Ok(Vec::new()), |messages| turns(messages, row))?,
            slices: self.slices.iter().map(|values| cell(values, row)).collect::<Result<_, _>>()?,
            references: Vec::new(),
        })
    }
}

fn turns(messages: &ListArray, row: usize) -> Result<Vec<Turn>, StageError> {
    let wrong = || StageError::new("`messages` is not list<struct<role: utf8, content: utf8, …>>");
    let rows = MessageRows::of_lists(messages).ok_or_else(wrong)?;
    let turn = |turn: messages::Turn<'_>| Turn {
        role: turn.role.to_owned(),
        content: turn.content.to_owned(),
        tools: turn.tools.map(str::to_owned),
    };
    Ok(rows.row(row).into_iter().flatten().map(turn).collect())
}

/// A value as text, or one text per question of a list.
fn cell(values: &ArrayRef, row: usize) -> Result<Cell, StageError> {
    if values.is_null(row) {
        return Ok(Cell::Row(None));
    }
    match values.as_any().downcast_ref::<ListArray>() {
        None => Ok(Cell::Row(text(values, row)?)),
        Some(lists) => item_range(lists, row)
            .map(|at| text(lists.values(), at))
            .collect::<Result<_, _>>()
            .map(Cell::Questions),
    }
}

fn text(values: &ArrayRef, at: usize) -> Result<Option<String>, StageError> {
    let formatter = ArrayFormatter::try_new(values, &FormatOptions::default())?;
    Ok(values.is_valid(at).then(|| formatter.value(at).to_string()))
}

/// Whether a slice may be called so in `predictions.parquet`.
pub fn may_slice(name: &str) -> bool {
    !COLUMNS.contains(&name)
}
