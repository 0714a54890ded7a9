//! Token shards as they lie on the disk, mapped: which rows a split has, and each row's tokens.

use crate::arrays::{column, item_range, items};
use crate::segments::USER;
use arrow::array::{Array, ListArray, RecordBatch, StringArray, StructArray, UInt32Array};
use arrow::datatypes::{Int32Type, UInt32Type};
use llavm_pipeline::stage::JobContext;
use llavm_pipeline::{ArrowFile, StageError};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What training reads of each row.
const COLUMNS: [&str; 4] = ["input_ids", "labels", "n_images", "row"];

/// The folders of a shard stage: one, or one for each partition of its tables.
pub struct Units<'a> {
    context: &'a dyn JobContext,
    input: usize,
    opened: Mutex<Vec<Option<Arc<Unit>>>>,
}

/// One folder of shards.
pub struct Unit {
    pub train: Split,
    pub validation: Split,
    /// The tables of each group, by stage name.
    pub tables: Vec<Vec<String>>,
}

/// The rows of one split, in the order of its files.
pub struct Split {
    files: Vec<ArrowFile>,
    batches: Vec<Batch>,
    rows: usize,
}

/// One record batch of a file.
struct Batch {
    first: usize,
    file: usize,
    number: usize,
    rows: RecordBatch,
}

/// The tokens of a row, and where its images are.
pub struct TokenRow<'a> {
    pub input_ids: &'a [u32],
    pub labels: &'a [i32],
    pub n_images: u32,
    pub at: Place,
}

/// A row of the tables behind the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub group: u32,
    pub partition: u32,
    pub row: u32,
}

/// What is read of `shards.json`.
#[derive(Deserialize)]
struct Index {
    groups: Vec<IndexGroup>,
    #[serde(default = "yes")]
    shifted: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct IndexGroup {
    tables: Vec<String>,
}

impl<'a> Units<'a> {
    /// The folders of input `input`.
    pub fn new(context: &'a dyn JobContext, input: usize) -> Self {
        Self { context, input, opened: Mutex::default() }
    }

    /// Folder `n`, waited for; `None` when there are no more.
    pub fn get(&self, n: usize) -> Result<Option<Arc<Unit>>, StageError> {
        let known = self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(n).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let unit = match self.context.folder(self.input, n)? {
            Some(folder) => Some(Arc::new(Unit::open(&folder)?)),
            None => None,
        };
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.len() == n {
            opened.push(unit.clone());
        }
        Ok(unit)
    }

    /// All folders, waited for.
    pub fn all(&self) -> Result<Vec<Arc<Unit>>, StageError> {
        let mut units = Vec::new();
        while let Some(unit) = self.get(units.len())? {
            units.push(unit);
        }
        Ok(units)
    }
}

impl Unit {
    fn open(folder: &Path) -> Result<Self, StageError> {
        let path = folder.join("shards.json");
        let text = std::fs::read(&path).map_err(|cause| StageError::io(&path, cause))?;
        let index: Index = serde_json::from_slice(&text)
            .map_err(|cause| StageError::new(format!("{}: {cause}", path.display())))?;
        if !index.shifted {
            let text = format!("{}: the labels of these shards are not shifted", folder.display());
            return Err(StageError::new(text).help(
                "Set shift = true in the stage `shard`, or leave it out: training does not shift by itself.",
            ));
        }
        Ok(Self {
            train: Split::open(&folder.join("train"))?,
            validation: Split::open(&folder.join("validation"))?,
            tables: index.groups.into_iter().map(|group| group.tables).collect(),
        })
    }
}

impl Split {
    fn open(folder: &Path) -> Result<Self, StageError> {
        let mut split = Self { files: Vec::new(), batches: Vec::new(), rows: 0 };
        for path in arrow_files(folder)? {
            let file = ArrowFile::open(&path)?;
            for number in 0..file.batches() {
                let rows = file.batch(number, &COLUMNS)?;
                let first = split.rows;
                split.rows += rows.num_rows();
                split.batches.push(Batch { first, file: split.files.len(), number, rows });
            }
            split.files.push(file);
        }
        Ok(split)
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Tokens of each row.
    pub fn lengths(&self) -> Result<Vec<u32>, StageError> {
        let mut lengths = Vec::with_capacity(self.rows);
        for batch in &self.batches {
            let ids: &ListArray = column(&batch.rows, "input_ids")?;
            lengths.extend((0..ids.len()).map(|row| ids.value_length(row) as u32));
        }
        Ok(lengths)
    }

    /// Row `row`, which must be below [`Split::rows`].
    pub fn row(&self, row: usize) -> Result<TokenRow<'_>, StageError> {
        let (batch, row) = self.batch(row)?;
        let rows = &batch.rows;
        let (ids, labels): (&ListArray, &ListArray) = (column(rows, "input_ids")?, column(rows, "labels")?);
        let n_images: &UInt32Array = column(rows, "n_images")?;
        let place: &StructArray = column(rows, "row")?;
        let part = |name: &str| -> Result<u32, StageError> {
            let column = place.column_by_name(name).and_then(|part| part.as_any().downcast_ref());
            let column: &UInt32Array =
                column.ok_or_else(|| StageError::new(format!("the shards have no `row.{name}`")))?;
            Ok(column.value(row))
        };
        Ok(TokenRow {
            input_ids: items::<UInt32Type>(ids, row)?,
            labels: items::<Int32Type>(labels, row)?,
            n_images: n_images.value(row),
            at: Place { group: part("group")?, partition: part("partition")?, row: part("row")? },
        })
    }

    /// The first question of each of the first `most` rows that have images; `None` when the shards keep no `messages`.
    pub fn first_questions(&self, most: usize) -> Result<Option<Vec<String>>, StageError> {
        let mut questions = Vec::new();
        for batch in &self.batches {
            let file =
                self.files.get(batch.file).ok_or_else(|| StageError::new("a shard file is not there"))?;
            let Ok(rows) = file.batch(batch.number, &["n_images", "messages"]) else { return Ok(None) };
            let messages: &ListArray = column(&rows, "messages")?;
            let n_images: &UInt32Array = column(&rows, "n_images")?;
            let turns = messages.values().as_any().downcast_ref::<StructArray>();
            let text = |name: &str| turns?.column_by_name(name)?.as_any().downcast_ref::<StringArray>();
            let (Some(roles), Some(contents)) = (text("role"), text("content")) else { return Ok(None) };
            for row in (0..rows.num_rows()).filter(|row| n_images.value(*row) > 0 && messages.is_valid(*row))
            {
                if questions.len() == most {
                    return Ok(Some(questions));
                }
                let first = item_range(messages, row).find(|turn| roles.value(*turn) == USER);
                questions.extend(first.map(|turn| contents.value(turn).to_owned()));
            }
        }
        Ok(Some(questions))
    }

    /// What the data set calls row `row`.
    pub fn id(&self, row: usize) -> Result<String, StageError> {
        let (batch, row) = self.batch(row)?;
        let file = self.files.get(batch.file).ok_or_else(|| StageError::new("a shard file is not there"))?;
        let ids = file.batch(batch.number, &["id"])?;
        let ids: &StringArray = column(&ids, "id")?;
        Ok(if ids.is_valid(row) { ids.value(row).to_owned() } else { "without id".to_owned() })
    }

    /// The batch of row `row`, and the row in it.
    fn batch(&self, row: usize) -> Result<(&Batch, usize), StageError> {
        let n = self.batches.partition_point(|batch| batch.first <= row);
        let batch = n.checked_sub(1).and_then(|n| self.batches.get(n)).filter(|_| row < self.rows);
        let batch = batch.ok_or_else(|| StageError::new(format!("the shards have no row {row}")))?;
        Ok((batch, row - batch.first))
    }
}

/// The files of a split by name; none when the folder is not there.
fn arrow_files(folder: &Path) -> Result<Vec<PathBuf>, StageError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let failed = |cause| StageError::io(folder, cause);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "arrow") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
