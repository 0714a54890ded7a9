//! The engine as a library: plan, run and look at what a checked graph makes.

use crate::Graph;
use crate::columns::Column;
use crate::inspect::explain::Explanation;
use crate::inspect::gc::Collected;
use crate::inspect::status::Status;
use crate::inspect::verify::Verification;
use crate::observer::Observer;
use crate::plan::Plan;
use crate::run_error::RunError;
use crate::summary::Summary;
use arrow::array::RecordBatch;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// How a run is done; nothing here changes what it makes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads that work on rows.
    pub jobs: usize,
    /// Only this stage and what it needs.
    pub until: Option<String>,
    /// Only this stage and what needs it; everything before it must be there.
    pub from: Option<String>,
    /// Stages that are made again though they are there.
    pub force: Vec<String>,
    /// After a failure, go on with everything that does not need what failed.
    pub keep_going: bool,
}

impl Default for Options {
    fn default() -> Self {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        Self { jobs, until: None, from: None, force: Vec::new(), keep_going: false }
    }
}

/// A graph and its store.
pub struct Engine {
    graph: Graph,
    options: Options,
}

/// How a run ended: what it did, and what went wrong.
#[derive(Debug)]
pub struct Finished {
    pub summary: Summary,
    /// The folder of the run: `summary.json`, `events.jsonl`, `rejects.jsonl`.
    pub folder: PathBuf,
    /// Empty when everything asked for is there. With `keep_going` there may be several.
    pub errors: Vec<RunError>,
}

impl Engine {
    /// Checks the stage names in `options`; touches no file.
    pub fn open(graph: Graph, options: Options) -> Result<Self, RunError> {
        Ok(Self { graph, options })
    }

    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What [`Engine::run`] would do.
    pub fn plan(&self) -> Result<Plan, RunError> {
        todo!()
    }

    /// Makes everything that is not there. Set `cancel` to stop: partitions in flight are discarded, finished ones kept.
    pub fn run(&self, _observer: &dyn Observer, _cancel: &AtomicBool) -> Result<Finished, RunError> {
        todo!()
    }

    pub fn status(&self) -> Result<Status, RunError> {
        todo!()
    }

    pub fn explain(&self, _stage: &str) -> Result<Explanation, RunError> {
        todo!()
    }

    /// Compares every file of the store with its record. Needs no raw file.
    pub fn verify(&self) -> Result<Verification, RunError> {
        todo!()
    }

    /// Drops what no manifest of the store refers to; with `dry_run`, only lists it. Needs no raw file.
    pub fn gc(&self, _dry_run: bool) -> Result<Collected, RunError> {
        todo!()
    }

    /// The table of `stage` as it is now: stored partitions are read, derived ones computed.
    pub fn table(&self, _stage: &str) -> Result<Table<'_>, RunError> {
        todo!()
    }

    /// The finished folders of a gather or job stage, in order.
    pub fn folders(&self, _stage: &str) -> Result<Vec<PathBuf>, RunError> {
        todo!()
    }
}

/// The rows of a table.
pub struct Table<'a> {
    engine: &'a Engine,
}

impl Table<'_> {
    /// What [`Table::read`] can be asked for: the columns of the stage and of everything its rows went through, `id` among
    /// them. The nearest maker of a name wins.
    pub fn columns(&self) -> Vec<Column> {
        todo!("{}", self.engine.graph.name)
    }

    pub fn partitions(&self) -> usize {
        todo!()
    }

    /// Rows `first..first + count` (fewer at the end of the table): the named columns in order, then `reject`.
    pub fn read(&self, _first: u64, _count: usize, _columns: &[&str]) -> Result<RecordBatch, RunError> {
        todo!()
    }
}
