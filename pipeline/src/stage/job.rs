//! Jobs: what they are, and what they see of the run.

use super::{Parameters, Resource};
use crate::error::StageError;
use arrow::array::RecordBatch;
use serde::Serialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Consumes tables and folders, writes one folder.
pub trait JobStage: Parameters {
    fn run(&self, context: &dyn JobContext) -> Result<(), StageError>;

    /// Files and folders at the top of its output that may differ from run to run (they hold times, or the state of unfinished
    /// work). They are kept beside the others, but are no part of the folder's content digest: what reads the folder is not
    /// made again because of them, and nobody vouches for them.
    fn ephemeral(&self) -> &'static [&'static str] {
        &[]
    }
}

/// What a job sees of the world.
pub trait JobContext: Sync {
    /// The stage names of its inputs: those `from` names, then those of [`super::StageKind::LINKS`].
    fn inputs(&self) -> &[String];
    /// The folder of input `n` (a gather or job stage), waiting for it if it is still being made. For a gather stage with
    /// [`super::Units::PerPartition`], unit `unit`; `None` when there are no more units.
    fn folder(&self, input: usize, unit: usize) -> Result<Option<PathBuf>, StageError>;
    /// Single rows, in any order, of a partition behind input `input`, a gather stage: of table `table` (an index into the
    /// group's list) of its group `group`. Waits for the partition if it is still being made.
    ///
    /// A stored partition is compared with its record once and then mapped into memory. Of a derived one the raw columns are
    /// kept at hand, and its stages are applied to the rows asked for.
    fn rows(
        &self,
        input: usize,
        group: usize,
        table: usize,
        partition: usize,
    ) -> Result<Box<dyn RowAccess + '_>, StageError>;
    /// Does to rows of one's own what the run did to those of the source: passes `rows`, which have the columns of the source
    /// that this needs, through the map stages behind that table, filters left out. Gives the table's columns and `reject`.
    fn replay(
        &self,
        input: usize,
        group: usize,
        table: usize,
        rows: &RecordBatch,
    ) -> Result<RecordBatch, StageError>;
    /// What made input `input`: that stage itself and all it needs, the nearest first.
    fn lineage(&self, input: usize) -> Result<Vec<Lineage>, StageError>;
    /// The manifest and every stage this job hangs on, for reports. No part of the key: a report keeps what it was made with.
    fn origin(&self) -> Result<Origin, StageError>;
    /// The threads of the run. Work on rows goes here; a job has one thread of its own.
    fn pool(&self) -> &rayon::ThreadPool;
    /// Where to write. Kept when the job is interrupted, so that a later run can go on from what lies there.
    fn output(&self) -> &Path;
    /// The store's root, which file names in shards are relative to.
    fn store(&self) -> &Path;
    fn seed(&self) -> u64;
    /// True when the user wants the run to end: save and return.
    fn cancelled(&self) -> bool;
    /// Shown on the terminal: fraction done and a line of text.
    fn progress(&self, done: f64, text: &str);
}

/// The rows of one partition.
pub trait RowAccess: Send + Sync {
    /// The named columns, then `reject`, of these rows of the partition, in the order given (a row may be named twice). The
    /// columns are those of the table or of anything its rows went through. Call it with the same columns each time.
    fn take(&self, rows: &[usize], columns: &[&str]) -> Result<RecordBatch, StageError>;
}

/// A stage that something hangs on.
#[derive(Clone, Debug)]
pub struct Lineage {
    pub name: String,
    pub kind: &'static str,
    pub version: u32,
    /// Canonical, defaults filled in; without paths.
    pub params: Value,
    /// The files whose content decides its output: where the tokenizer is, for example.
    pub resources: Vec<Resource>,
}

/// Where a report comes from.
#[derive(Clone, Debug, Serialize)]
pub struct Origin {
    /// `name` of the manifest.
    pub name: String,
    /// The manifest as it was written.
    pub text: String,
    pub seed: u64,
    /// The stages the job hangs on and the job itself, each after those it needs.
    pub stages: Vec<OriginStage>,
}

/// One stage of an [`Origin`].
#[derive(Clone, Debug, Serialize)]
pub struct OriginStage {
    pub name: String,
    pub kind: &'static str,
    pub version: u32,
    /// Canonical, defaults filled in; without paths.
    pub params: Value,
    /// The stages it reads.
    pub from: Vec<String>,
    /// Partitions of a table, units of a gather stage, 1 for a job.
    pub partitions: usize,
    /// Rows that are there; 0 for what is never stored.
    pub rows: u64,
    /// The key of its output, or, of several partitions, the digest of all keys. `None` for what is never stored or not
    /// there yet.
    pub key: Option<String>,
    /// The content digest of its output, or, of several partitions, the digest of all digests.
    pub digest: Option<String>,
}
