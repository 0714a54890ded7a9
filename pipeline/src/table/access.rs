//! Single rows of one partition, in any order: for a job that shuffles.
//!
//! What a recipe reads lies in Arrow files whose batches are mapped when a row of theirs is wanted: stored partitions as they
//! are, columns of a source in a file that is removed with its last reader. So memory holds the rows asked for,
//! however many partitions are open. Derived stages see only those rows; they are pure functions of single rows.

use super::assemble::Assembler;
use super::ipc::ArrowFile;
use super::read::Reader;
use super::rejects::REJECT;
use super::view::with_rejects;
use crate::keys::recipe::{Read, Recipe};
use crate::keys::tasks::Pass;
use crate::spec::error::StageError;
use crate::spec::graph::InputGroup;
use crate::spec::stage::RowAccess;
use crate::store::files::at;
use crate::store::scratch::Unfinished;
use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::ipc::writer::FileWriter;
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

/// The rows of one partition of the table of a node.
pub struct Rows<'a> {
    reader: Reader<'a>,
    /// Only that table.
    group: InputGroup,
    partition: usize,
    /// By the columns asked for.
    open: Mutex<BTreeMap<Vec<String>, Arc<Open>>>,
}

/// What gives some columns.
struct Open {
    assembler: Assembler,
    /// By leaf of the recipe; none where there is no row at all.
    leaves: Vec<(Leaf, Read)>,
}

/// What a table or source of a recipe gives.
struct Leaf {
    /// None where there is no row at all.
    file: Option<ArrowFile>,
    /// Removes a file that was only made for this.
    _spooled: Option<Unfinished>,
}

impl<'a> Rows<'a> {
    /// Everything the table needs must be there.
    pub fn new(reader: Reader<'a>, node: usize, partition: usize) -> Self {
        let group = InputGroup { tables: vec![node], weight: 1.0 };
        Self { reader, group, partition, open: Mutex::default() }
    }

    fn open(&self, columns: &[&str]) -> Result<Arc<Open>, StageError> {
        let wanted: Vec<String> = columns.iter().map(|&column| column.to_owned()).collect();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open.get(&wanted) {
            return Ok(Arc::clone(open));
        }
        let recipe = Arc::new(Recipe::new(self.reader.session.graph, &self.group, columns)?);
        let assembler = Assembler::open(self.reader.session, &recipe)?;
        let mut leaves = Vec::with_capacity(recipe.leaves.len());
        for read in &recipe.leaves {
            leaves.push((self.leaf(read)?, read.clone()));
        }
        let new = Arc::new(Open { assembler, leaves });
        open.insert(wanted, Arc::clone(&new));
        Ok(new)
    }

    fn leaf(&self, read: &Read) -> Result<Leaf, StageError> {
        let Reader { session, tasks, opener } = self.reader;
        if !session.is_stored(read.node) {
            return self.spool(read);
        }
        let task = tasks.id(read.node, Pass::Main, self.partition);
        let task =
            task.ok_or_else(|| StageError::new(format!("there is no partition {}", self.partition)))?;
        let file = opener.open(task, !read.columns.is_empty())?;
        Ok(Leaf { file: Some(file), _spooled: None })
    }

    /// Copies columns of a source, which can only be read in order, to a file that can be read anywhere.
    fn spool(&self, read: &Read) -> Result<Leaf, StageError> {
        let unfinished = self.reader.session.scratch.unfinished("raw.arrow");
        let path = unfinished.path();
        let mut writer = None;
        for batch in self.reader.source(read, self.partition)? {
            let batch = batch?;
            if writer.is_none() {
                let file = at(path, File::create_new(path))?;
                writer = Some(FileWriter::try_new_buffered(file, &batch.schema())?);
            }
            writer.iter_mut().try_for_each(|writer| writer.write(&batch))?;
        }
        let Some(mut writer) = writer else { return Ok(Leaf { file: None, _spooled: None }) };
        writer.finish()?;
        drop(writer);
        let file = ArrowFile::open(path)?;
        Ok(Leaf { file: Some(file), _spooled: Some(unfinished) })
    }
}

impl RowAccess for Rows<'_> {
    fn take(&self, rows: &[usize], columns: &[&str]) -> Result<RecordBatch, StageError> {
        let columns: Vec<&str> = columns.iter().copied().filter(|column| *column != REJECT).collect();
        let open = self.open(&columns)?;
        let leaves: Result<Vec<RecordBatch>, StageError> =
            open.leaves.iter().map(|(leaf, read)| pick(leaf.file.as_ref(), rows, &read.columns)).collect();
        with_rejects(open.assembler.assemble(leaves?)?)
    }
}

/// These rows of a file: the named columns and `reject`.
fn pick(file: Option<&ArrowFile>, rows: &[usize], columns: &[String]) -> Result<RecordBatch, StageError> {
    let mut names: Vec<&str> = columns.iter().map(String::as_str).collect();
    names.push(REJECT);
    let mut places: BTreeMap<usize, usize> = BTreeMap::new();
    let mut batches = Vec::new();
    let mut picked = Vec::with_capacity(rows.len());
    for &row in rows {
        let missing = || StageError::new(format!("the partition has no row {row}"));
        let file = file.ok_or_else(missing)?;
        let (n, within) = file.place(row)?.ok_or_else(missing)?;
        let place = *places.entry(n).or_insert(batches.len());
        if place == batches.len() {
            batches.push(file.batch(n, &names)?);
        }
        picked.push((place, within));
    }
    if batches.is_empty() {
        return Err(StageError::new("no row was asked for"));
    }
    Ok(interleave_record_batch(&batches.iter().collect::<Vec<_>>(), &picked)?)
}
