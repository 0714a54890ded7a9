//! Opens what a recipe reads: sources, and stored partitions through an [`Opener`] that compares them with their records.

use super::assemble::Leaves;
use super::ipc::ArrowFile;
use super::rejects::{REJECT, field};
use crate::keys::recipe::{Read, Recipe};
use crate::keys::session::Session;
use crate::keys::tasks::{Pass, TaskId, Tasks};
use crate::spec::error::StageError;
use crate::spec::stage::BatchIterator;
use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::Schema;
use std::sync::Arc;

/// Opens stored partitions whose content was compared with their record.
pub trait Opener: Sync {
    /// With `whole`, all bytes of the file were compared, otherwise only the column `reject`.
    fn open(&self, task: TaskId, whole: bool) -> Result<ArrowFile, StageError>;

    /// The column `reject` of a partition whose file would have to be fetched first, where its record tells all of it.
    fn told(&self, _task: TaskId) -> Result<Option<StringArray>, StageError> {
        Ok(None)
    }
}

/// What reads tables.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    pub session: &'a Session<'a>,
    pub tasks: &'a Tasks,
    pub opener: &'a dyn Opener,
}

impl<'a> Reader<'a> {
    /// The batches of one partition of everything a recipe reads.
    pub fn leaves(&self, recipe: &Recipe, partition: usize) -> Result<Leaves<'a>, StageError> {
        let mut readers = Vec::with_capacity(recipe.leaves.len());
        for read in &recipe.leaves {
            readers.push(self.leaf(read, partition)?);
        }
        let names = recipe.leaves.iter().map(|read| format!("`{}`", self.session.name(read.node))).collect();
        Ok(Leaves::new(readers, names))
    }

    fn leaf(&self, read: &Read, partition: usize) -> Result<BatchIterator<'a>, StageError> {
        let columns: Vec<&str> = read.columns.iter().map(String::as_str).collect();
        if self.session.is_stored(read.node) {
            return self.stored(read.node, Pass::Main, partition, &columns);
        }
        self.source(read, partition)
    }

    /// The columns read of a partition of a source, and `reject`.
    pub fn source(&self, read: &Read, partition: usize) -> Result<BatchIterator<'a>, StageError> {
        let columns: Vec<&str> = read.columns.iter().map(String::as_str).collect();
        let name = self.session.name(read.node);
        let batches = self.session.source_batches(read.node, partition, &columns);
        let batches = batches.map_err(|cause| in_stage(name, cause))?;
        Ok(Box::new(batches.map(move |batch| batch.map_err(|cause| in_stage(name, cause)))))
    }

    /// The named columns and `reject` of a stored partition.
    pub fn stored(
        &self,
        node: usize,
        pass: Pass,
        partition: usize,
        columns: &[&str],
    ) -> Result<BatchIterator<'a>, StageError> {
        let task = self.tasks.id(node, pass, partition);
        let task = task.ok_or_else(|| StageError::new(format!("there is no partition {partition}")))?;
        if columns.is_empty()
            && let Some(rejects) = self.opener.told(task)?
        {
            let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field()])), vec![Arc::new(rejects)]);
            return Ok(Box::new(std::iter::once(batch.map_err(StageError::from))));
        }
        let mut all = columns.to_vec();
        all.push(REJECT);
        Ok(self.opener.open(task, !columns.is_empty())?.into_batches(&all))
    }
}

/// Says which source an error comes from, when another stage meets it.
fn in_stage(name: &str, cause: StageError) -> StageError {
    let advice = cause.advice().map(str::to_owned);
    let error = StageError::new(format!("while reading `{name}`: {cause}")).because(cause);
    match advice {
        Some(advice) => error.help(advice),
        None => error,
    }
}
