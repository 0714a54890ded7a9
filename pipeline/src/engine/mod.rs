//! The engine as a library: plan, run and look at what a checked graph makes.

mod table;

use crate::exec::executor::{Executor, TaskSpec};
use crate::exec::local::spec;
use crate::keys::session::Session;
use crate::keys::tasks::Tasks;
use crate::schedule::options::{Finished, Options};
use crate::schedule::rehearsal::{self, Cluster, Rehearsed};
use crate::schedule::run::{self, Scope};
use crate::schedule::work::{Ended, WorkOptions, work};
use crate::spec::error::StageError;
use crate::spec::event::{Observer, Watch};
use crate::spec::graph::{Graph, NodeIndex};
use crate::spec::run_error::RunError;
use crate::spec::shard::Shard;
use crate::state::estimate::{StageEstimate, estimates};
use crate::state::explain::{Explanation, explain};
use crate::state::lookup::{Cached, Snapshot, lookup};
use crate::state::plan::{Plan, plan};
use crate::state::status::{Status, status};
use crate::store::gc::{self, Collected, Keep};
use crate::store::open;
use crate::store::verify::{Verification, verify};
use crate::store::{Address, Store};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
pub use table::Table;

/// A graph and its store.
pub struct Engine {
    graph: Graph,
    options: Options,
    /// Where results are kept, if not in the folder that the graph names.
    store: Option<Arc<dyn Store>>,
    /// Who does the tasks of a run, if not this process.
    executor: Option<Arc<dyn Executor>>,
    /// The nodes that matter, in topological order and closed under inputs.
    nodes: Vec<NodeIndex>,
    may_run: BTreeSet<NodeIndex>,
    force: BTreeSet<NodeIndex>,
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
        let (store, executor) = (None, None);
        let (force, may_run) = (force?, may_run.into_iter().collect());
        Ok(Self { graph, options, store, executor, nodes, may_run, force })
    }

    /// The same engine on another store than the folder that the graph names.
    #[must_use]
    pub fn with_store(self, store: Arc<dyn Store>) -> Self {
        Self { store: Some(store), ..self }
    }

    /// The same engine, whose runs hand their tasks to `executor`. What it says is done counts once the store has its record.
    #[must_use]
    pub fn with_executor(self, executor: Arc<dyn Executor>) -> Self {
        Self { executor: Some(executor), ..self }
    }

    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What [`Engine::run`] would do.
    pub fn plan(&self) -> Result<Plan, RunError> {
        self.snapshot(&self.nodes, &self.force, |snapshot| plan(snapshot, &self.force))
    }

    /// What making all of it would take, whatever is there already. Counts the rows of the sources.
    pub fn estimate(&self) -> Result<Vec<StageEstimate>, RunError> {
        let session = self.open_session(&self.nodes, Watch::nobody())?;
        estimates(&session).map_err(RunError::from)
    }

    /// Makes everything that is not there. Set `cancel` to stop: partitions in flight are discarded, finished ones kept.
    pub fn run(&self, observer: &dyn Observer, cancel: &AtomicBool) -> Result<Finished, RunError> {
        let (store, watch) = (self.open_store()?, Watch { observer, cancel });
        gc::trim(store.as_ref()).map_err(RunError::Store)?;
        if self.executor.is_some() || self.options.shard.is_some() {
            store.check_shareable().map_err(RunError::Store)?;
        }
        if let Some(shard) = self.options.shard {
            self.share_sources(shard.from_here(), watch)?;
        }
        let session = Session::open(&self.graph, store, &self.nodes, self.options.jobs, watch)?;
        let tasks = Tasks::new(&session);
        let scope = Scope { may_run: self.may_run.clone(), force: self.force.clone() };
        run::run(&session, &tasks, scope, &self.options, self.executor.as_deref(), watch)
    }

    /// A run in the time that `cluster` makes up, without doing anything. Jobs are left out.
    pub fn rehearse(&self, cluster: &mut dyn Cluster) -> Result<Rehearsed, RunError> {
        let session = self.open_session(&self.nodes, Watch::nobody())?;
        let tasks = Tasks::new(&session);
        Ok(rehearsal::rehearse(&session, &tasks, cluster))
    }

    /// Refuses a store that hosts cannot share.
    pub fn check_shareable(&self) -> Result<(), RunError> {
        self.open_store()?.check_shareable().map_err(RunError::Store)
    }

    /// Raw files of the sources that have to be read before anything else, because nothing is remembered of them.
    pub fn unread_files(&self) -> Result<usize, RunError> {
        let session = self.open_session(&[], Watch::nobody())?;
        session.unread_files(&self.nodes).map_err(RunError::from)
    }

    /// Reads the raw files that are a shard's, so that whoever opens all of them finds what is to be known of their content.
    pub fn read_ahead(
        &self,
        shard: Shard,
        observer: &dyn Observer,
        cancel: &AtomicBool,
    ) -> Result<(), RunError> {
        self.share_sources(std::iter::once(shard), Watch { observer, cancel })
    }

    /// Finds out what is remembered of the raw files that are these shards'.
    fn share_sources(&self, shards: impl Iterator<Item = Shard>, watch: Watch<'_>) -> Result<(), RunError> {
        let session = self.open_session(&[], watch)?;
        for shard in shards {
            session.open_share(&self.nodes, shard, watch).map_err(|cause| match watch.go_on() {
                Ok(()) => cause.into(),
                Err(_) => RunError::Interrupted { finished: 0, left: self.nodes.len() },
            })?;
        }
        Ok(())
    }

    /// The tasks that can be done now, for [`Engine::work`] of any process.
    pub fn ready(&self) -> Result<Vec<TaskSpec>, RunError> {
        self.snapshot(&self.nodes, &self.force, |snapshot| {
            let Snapshot { tasks, found, .. } = snapshot;
            let keys = snapshot.keys();
            let ready = tasks.all.iter().zip(&found.cached).filter(|(_, cached)| **cached == Cached::Run);
            let specs = ready.map(|(task, _)| spec(&keys, task));
            Ok(specs.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
        })
    }

    /// The tasks whose output was made, and is damaged or missing now.
    fn lost(&self) -> Result<Vec<TaskSpec>, RunError> {
        self.snapshot(&self.nodes, &BTreeSet::new(), |snapshot| {
            let Snapshot { session, tasks, found } = snapshot;
            let keys = snapshot.keys();
            let mut lost = Vec::new();
            for (task, cached) in tasks.all.iter().zip(&found.cached) {
                let parts = if *cached == Cached::Run { keys.parts(task)? } else { None };
                let Some(parts) = parts else { continue };
                let (stage, key) = (session.name(task.node), parts.key());
                let is_table = session.graph.nodes[task.node].stage.role.kind().gives_table();
                let record =
                    if is_table { Address::table(stage, &key) } else { Address::folder(stage, &key) };
                if session.store.record(&record)?.is_some() {
                    lost.extend(spec(&keys, task)?);
                }
            }
            Ok(lost)
        })
    }

    /// Makes again what [`Engine::verify`] found damaged or missing, and nothing else; `report` is called with how each ended.
    pub fn repair(
        &self,
        observer: &dyn Observer,
        cancel: &AtomicBool,
        report: &(dyn Fn(&TaskSpec, &Ended) + Sync),
    ) -> Result<(), RunError> {
        let mut before = Vec::new();
        loop {
            // What needs something that is lost is only looked at once that is there again.
            let lost = self.lost()?;
            if lost.is_empty() || lost == before || cancel.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.work(&lost, false, observer, cancel, report)?;
            before = lost;
        }
    }

    /// Does single tasks, and with `follow` what can be done behind each; `report` is called with how each ended.
    pub fn work(
        &self,
        specs: &[TaskSpec],
        follow: bool,
        observer: &dyn Observer,
        cancel: &AtomicBool,
        report: &(dyn Fn(&TaskSpec, &Ended) + Sync),
    ) -> Result<(), RunError> {
        let session = self.open_session(&self.nodes, Watch { observer, cancel })?;
        let tasks = Tasks::new(&session);
        let options = WorkOptions { jobs: self.options.jobs, follow };
        work(&session, &tasks, specs, options, observer, cancel, report);
        Ok(())
    }

    pub fn status(&self) -> Result<Status, RunError> {
        let all: Vec<NodeIndex> = (0..self.graph.nodes.len()).collect();
        self.snapshot(&all, &BTreeSet::new(), status)
    }

    pub fn explain(&self, stage: &str) -> Result<Explanation, RunError> {
        let node = find(&self.graph, stage)?;
        let nodes = self.graph.upstream(&[node]);
        self.snapshot(&nodes, &self.force, |snapshot| explain(snapshot, node, &self.force))
    }

    /// Compares every file of the store with its record. What is damaged is marked, and made again by the next run that
    /// wants it. Needs no raw file.
    pub fn verify(&self) -> Result<Verification, RunError> {
        self.existing_store().and_then(|store| verify(store.as_ref())).map_err(RunError::from)
    }

    /// What [`Engine::collect`] would drop. Needs no raw file.
    pub fn unused(&self, keep: Keep) -> Result<Collected, RunError> {
        self.existing_store().and_then(|store| gc::list(store.as_ref(), keep)).map_err(RunError::from)
    }

    /// Drops what `listed` names, if still no manifest of the store stands for it.
    pub fn collect(&self, keep: Keep, listed: &Collected) -> Result<Collected, RunError> {
        let store = self.existing_store().map_err(RunError::from)?;
        gc::collect(store.as_ref(), keep, listed).map_err(RunError::from)
    }

    fn existing_store(&self) -> Result<Arc<dyn Store>, StageError> {
        match &self.store {
            Some(store) => Ok(Arc::clone(store)),
            None => open::existing(&self.graph.store),
        }
    }

    fn open_store(&self) -> Result<Arc<dyn Store>, RunError> {
        match &self.store {
            Some(store) => Ok(Arc::clone(store)),
            None => open::open(&self.graph.store).map_err(RunError::Store),
        }
    }

    /// The table of `stage` as it is now: stored partitions are read, derived ones computed.
    pub fn table(&self, stage: &str) -> Result<Table<'_>, RunError> {
        self.open_table(vec![find(&self.graph, stage)?])
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
        groups.map(|group| self.open_table(group.tables.clone())).collect()
    }

    fn open_table(&self, nodes: Vec<NodeIndex>) -> Result<Table<'_>, RunError> {
        Table::open(&self.graph, self.open_store()?, nodes, self.options.jobs)
    }

    /// The finished folders of a gather or job stage, in order.
    pub fn folders(&self, stage: &str) -> Result<Vec<PathBuf>, RunError> {
        let node = find(&self.graph, stage)?;
        self.snapshot(&self.graph.upstream(&[node]), &BTreeSet::new(), |snapshot| snapshot.folders(node))
    }

    fn open_session<'s>(&'s self, nodes: &[NodeIndex], watch: Watch<'s>) -> Result<Session<'s>, RunError> {
        Session::open(&self.graph, self.open_store()?, nodes, self.options.jobs, watch)
    }

    /// Opens everything and looks up what is there.
    fn snapshot<T>(
        &self,
        nodes: &[NodeIndex],
        force: &BTreeSet<NodeIndex>,
        then: impl FnOnce(&Snapshot<'_>) -> Result<T, StageError>,
    ) -> Result<T, RunError> {
        let session = self.open_session(nodes, Watch::nobody())?;
        let tasks = Tasks::new(&session);
        let found = lookup(&session, &tasks, force)?;
        then(&Snapshot { session: &session, tasks: &tasks, found }).map_err(RunError::from)
    }
}

fn find(graph: &Graph, name: &str) -> Result<NodeIndex, RunError> {
    graph.find(name).ok_or_else(|| RunError::NoSuchStage {
        name: name.to_owned(),
        known: graph.nodes.iter().map(|node| node.name.clone()).collect(),
    })
}
