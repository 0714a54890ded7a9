//! The engine as a library: plan, run and look at what a checked graph makes.

mod table;

use crate::Graph;
use crate::StageError;
use crate::graph::NodeIndex;
use crate::inspect::estimate::{StageEstimate, estimates};
use crate::inspect::explain::{Explanation, explain};
use crate::inspect::gc::{Collected, collect};
use crate::inspect::status::{Status, status};
use crate::inspect::verify::{Verification, verify};
use crate::observer::Observer;
use crate::plan::Plan;
use crate::run_error::RunError;
use crate::runner::board::Board;
use crate::runner::{self, Scope};
use crate::session::Session;
use crate::store::Store;
use crate::summary::Summary;
use crate::survey::{Found, plan, survey};
use crate::tasks::Tasks;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
pub use table::Table;

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
    /// The nodes that matter, in topological order and closed under inputs.
    nodes: Vec<NodeIndex>,
    may_run: BTreeSet<NodeIndex>,
    force: BTreeSet<NodeIndex>,
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
        let all: Vec<NodeIndex> = (0..graph.nodes.len()).collect();
        let until = options.until.as_deref().map(|name| find(&graph, name)).transpose()?;
        let from = options.from.as_deref().map(|name| find(&graph, name)).transpose()?;
        let force: Result<BTreeSet<NodeIndex>, RunError> =
            options.force.iter().map(|name| find(&graph, name)).collect();
        let ends = match (until, from) {
            (Some(until), _) => vec![until],
            (None, Some(from)) => graph.downstream(&[from]),
            (None, None) => all.clone(),
        };
        let nodes = graph.upstream(&ends);
        let may_run = from.map_or(all, |from| graph.downstream(&[from]));
        Ok(Self { force: force?, may_run: may_run.into_iter().collect(), nodes, graph, options })
    }

    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What [`Engine::run`] would do.
    pub fn plan(&self) -> Result<Plan, RunError> {
        self.look(&self.nodes, &self.force, |look| plan(look.session, look.tasks, &look.found, &self.force))
    }

    /// What making all of it would take, whatever is there already. Counts the rows of the sources.
    pub fn estimate(&self) -> Result<Vec<StageEstimate>, RunError> {
        let session = Session::open(&self.graph, &self.nodes, self.options.jobs)?;
        estimates(&session).map_err(RunError::Store)
    }

    /// Makes everything that is not there. Set `cancel` to stop: partitions in flight are discarded, finished ones kept.
    pub fn run(&self, observer: &dyn Observer, cancel: &AtomicBool) -> Result<Finished, RunError> {
        let session = Session::open(&self.graph, &self.nodes, self.options.jobs)?;
        let tasks = Tasks::new(&session);
        let scope = Scope { may_run: self.may_run.clone(), force: self.force.clone() };
        runner::run(&session, &tasks, scope, &self.options, observer, cancel)
    }

    pub fn status(&self) -> Result<Status, RunError> {
        let all: Vec<NodeIndex> = (0..self.graph.nodes.len()).collect();
        self.look(&all, &BTreeSet::new(), |look| status(look).map_err(RunError::Store))
    }

    pub fn explain(&self, stage: &str) -> Result<Explanation, RunError> {
        let node = find(&self.graph, stage)?;
        self.look(&self.graph.upstream(&[node]), &self.force, |look| {
            explain(look, node, &self.force).map_err(RunError::Store)
        })
    }

    /// Compares every file of the store with its record. Needs no raw file.
    pub fn verify(&self) -> Result<Verification, RunError> {
        Store::open(&self.graph.store).and_then(|store| verify(&store)).map_err(RunError::Store)
    }

    /// Drops what no manifest of the store refers to; with `dry_run`, only lists it. Needs no raw file.
    pub fn gc(&self, dry_run: bool) -> Result<Collected, RunError> {
        Store::open(&self.graph.store).and_then(|store| collect(&store, dry_run)).map_err(RunError::Store)
    }

    /// The table of `stage` as it is now: stored partitions are read, derived ones computed.
    pub fn table(&self, stage: &str) -> Result<Table<'_>, RunError> {
        Table::open(&self.graph, vec![find(&self.graph, stage)?], self.options.jobs)
    }

    /// The rows that `stage` works on: its own table, or, of a gather stage or a job, the tables it takes, a group at a time. Inputs
    /// that are folders give none.
    pub fn rows_of(&self, stage: &str) -> Result<Vec<Table<'_>>, RunError> {
        let node = &self.graph.nodes[find(&self.graph, stage)?];
        if node.output().is_some() {
            return Ok(vec![self.table(stage)?]);
        }
        let is_table = |node: &NodeIndex| self.graph.nodes[*node].output().is_some();
        let groups = node.inputs.iter().filter(|group| group.tables.iter().all(is_table));
        groups.map(|group| Table::open(&self.graph, group.tables.clone(), self.options.jobs)).collect()
    }

    /// The finished folders of a gather or job stage, in order.
    pub fn folders(&self, stage: &str) -> Result<Vec<PathBuf>, RunError> {
        let node = find(&self.graph, stage)?;
        self.look(&self.graph.upstream(&[node]), &BTreeSet::new(), |look| {
            Ok(look.folders(node).into_iter().map(|folder| look.session.store.root().join(folder)).collect())
        })
    }

    fn look<T>(
        &self,
        nodes: &[NodeIndex],
        force: &BTreeSet<NodeIndex>,
        then: impl FnOnce(&Look<'_>) -> Result<T, RunError>,
    ) -> Result<T, RunError> {
        let session = Session::open(&self.graph, nodes, self.options.jobs)?;
        let tasks = Tasks::new(&session);
        let never = AtomicBool::new(false);
        let board = Board::new(&tasks, vec![false; tasks.all.len()], &never);
        let found = survey(&session, &tasks, &board, force)?;
        then(&Look { session: &session, tasks: &tasks, board: &board, found })
    }
}

/// What there is, before anything runs.
pub(crate) struct Look<'a> {
    pub session: &'a Session<'a>,
    pub tasks: &'a Tasks,
    pub board: &'a Board<'a>,
    /// By task.
    pub found: Vec<Found>,
}

fn find(graph: &Graph, name: &str) -> Result<NodeIndex, RunError> {
    graph.find(name).ok_or_else(|| RunError::NoSuchStage {
        name: name.to_owned(),
        known: graph.nodes.iter().map(|node| node.name.clone()).collect(),
    })
}

/// An error of a look at the store.
impl From<StageError> for RunError {
    fn from(cause: StageError) -> Self {
        Self::Store(cause)
    }
}
