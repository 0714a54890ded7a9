//! Jobs: what they are, and what they see of the run.

use super::Parameters;
use crate::spec::error::StageError;
use arrow::array::RecordBatch;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Consumes tables and folders, writes one folder.
pub trait JobStage: Parameters {
    fn run(&self, context: &dyn JobContext) -> Result<(), StageError>;

    /// Files and folders at the top of its output that may differ from run to run (they hold times, or the state of unfinished
    /// work). They are kept beside the others, but are no part of the folder's content digest: what reads the folder is not
    /// made again because of them, and nothing checks them.
    fn ephemeral(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether it asks for [`JobContext::settings`]; then they are in its key.
    fn reads_settings(&self) -> bool {
        false
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
    /// What made input `input`: that stage itself and all it needs, the nearest first.
    fn lineage(&self, input: usize) -> Result<Vec<Lineage>, StageError>;
    /// The settings ([`Parameters::settings`]) of the stages that the rows of input `input`, a gather stage, went through, the
    /// nearest first. Only for a job that says [`JobStage::reads_settings`].
    fn settings(&self, input: usize) -> Result<Vec<Settings>, StageError>;
    /// The manifest and every stage this job depends on, for reports. No part of the key: a report keeps what it was made with.
    fn origin(&self) -> Result<Origin, StageError>;
    /// The values of the ledger `name`, a file name, that this or other jobs have found out. For what costs much and depends on its
    /// key alone: what is asked of it must not change the folder's content.
    fn ledger(&self, name: &str) -> Result<Box<dyn Ledger>, StageError>;
    /// The content digests of everything that this job depends on and no stage made: by stage and name the files that stages read
    /// themselves, and the partitions of sources.
    fn inputs_read(&self) -> Result<BTreeMap<String, BTreeMap<String, String>>, StageError>;
    /// The threads of the run. Work on rows goes here; a job has one thread of its own.
    fn pool(&self) -> &rayon::ThreadPool;
    /// Where to write. Kept when the job is interrupted, so that a later run can go on from what lies there.
    fn output(&self) -> &Path;
    fn seed(&self) -> u64;
    /// True when the user wants the run to end: save and return.
    fn cancelled(&self) -> bool;
    /// Shown on the terminal: fraction done and a line of text.
    fn progress(&self, done: f64, text: &str);
}

/// Values by keys that say all that decides them. They outlive the job's folder and the run, however it ends.
pub trait Ledger: Send {
    /// The value of a key.
    fn get(&self, key: &str) -> Option<&str>;
    /// Writes values down, one line each: once this returns, a process that is killed does not lose them.
    fn add(&mut self, values: &[(String, String)]) -> Result<(), StageError>;
}

/// The rows of one partition.
pub trait RowAccess: Send + Sync {
    /// The named columns, then `reject`, of these rows of the partition, in the order given (a row may be named twice). The
    /// columns are those of the table or of anything its rows went through. Call it with the same columns each time.
    fn take(&self, rows: &[usize], columns: &[&str]) -> Result<RecordBatch, StageError>;
}

/// A stage that something depends on. Its parameters are no business of a job: that may change while the rows stay
/// the same, and the job is not run again; see [`JobContext::settings`].
#[derive(Clone, Debug)]
pub struct Lineage {
    pub name: String,
    pub kind: &'static str,
    /// Content digests of its [`super::Resource`]s, by name.
    pub resources: BTreeMap<String, String>,
    /// The columns it makes; none for folders.
    pub makes: Vec<String>,
    /// The columns its table has: those it makes, then those that pass through it.
    pub columns: Vec<String>,
}

impl Lineage {
    /// Whether it makes a column of this name.
    pub fn makes(&self, column: &str) -> bool {
        self.makes.iter().any(|name| name == column)
    }

    /// Whether its table has a column of this name.
    pub fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|name| name == column)
    }
}

/// What whoever uses some rows later has to repeat.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The stage.
    pub stage: String,
    /// What they are about, whichever kind of stage says so.
    pub what: &'static str,
    pub value: Value,
}

/// Where a report comes from.
#[derive(Clone, Debug, Serialize)]
pub struct Origin {
    /// `name` of the manifest.
    pub name: String,
    /// The manifest as it was written.
    pub text: String,
    pub seed: u64,
    /// The stages the job depends on and the job itself, each after those it needs.
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
