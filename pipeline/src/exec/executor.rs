//! Executors: something that does a task somewhere. Keys name contents, so a task that is done twice does no harm.

use crate::keys::builder::Entry;
use crate::keys::tasks::Pass;
use crate::spec::error::StageError;
use crate::table::counts::{Counts, Exceeded};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Does tasks. Called from several threads, each of which waits until what it asked for is done.
pub trait Executor: Send + Sync {
    fn execute(&self, task: &TaskSpec) -> Result<Committed, TaskError>;

    /// Does several tasks of one stage; how each ended, in order.
    fn execute_all(&self, tasks: &[TaskSpec]) -> Vec<Result<Committed, TaskError>> {
        tasks.iter().map(|task| self.execute(task)).collect()
    }

    /// How many tasks of a stage it wants at once, when so many are ready (of any stage).
    fn batch(&self, _stage: &str, _ready: usize) -> usize {
        1
    }

    /// How many threads may ask at a time; `None` for one more than work on rows.
    fn slots(&self) -> Option<usize> {
        None
    }

    /// How long it may take until this host sees what another has made: network file systems remember for a while that a file is not
    /// there.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether the output under this key was made along with what was asked for.
    fn has_made(&self, _key: &str) -> bool {
        false
    }
}

/// A task, in words that any process understands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    pub manifest: PathBuf,
    pub stage: String,
    pub pass: Pass,
    /// The partition or unit; 0 for a job.
    pub index: usize,
    /// The key of the output; of a job its provisional key, which is known before what it reads is there.
    pub key: String,
}

/// An output that is in the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Committed {
    pub entry: Entry,
    pub counts: Counts,
    /// Whether it was there already.
    pub reused: bool,
}

/// Why a task ended without an output.
#[derive(Debug)]
pub enum TaskError {
    /// Something it needs is not there yet.
    NotReady,
    /// Somebody else is doing it.
    Busy,
    Failed(StageError),
    OverBudget(Exceeded),
    /// The run is stopping; what was begun is discarded.
    Stopped,
}

impl From<StageError> for TaskError {
    fn from(error: StageError) -> Self {
        Self::Failed(error)
    }
}
