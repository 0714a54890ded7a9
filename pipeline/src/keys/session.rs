//! A graph whose sources are open and whose resources are hashed: everything that plans, keys and work start from.
//!
//! In: a checked graph and which of its nodes matter. Out: for each of them its identity (what enters its keys), its
//! partitions, its recipes, and, on demand, its opened work.
//!
//! | file | what |
//! |---|---|
//! | `session/opening.rs` | one node, opened |
//! | `session/share.rs` | a share of the raw files, read before |
//! | `session/raw.rs` | digests and rows of source partitions |
//! | `session/work.rs` | the work of map stages |

mod opening;
mod raw;
mod share;
mod work;

use crate::keys::recipe::{Recipe, is_stored};
use crate::spec::columns::Columns;
use crate::spec::error::{Origin, StageError};
use crate::spec::event::Watch;
use crate::spec::graph::{Graph, InputGroup, NodeIndex};
use crate::spec::panics::catch;
use crate::spec::registry::Role;
use crate::spec::run_error::RunError;
use crate::spec::stage::{Apply, Digest, Source};
use crate::store::digests::FileDigests;
use crate::store::scratch::Scratch;
use crate::store::{Held, Store};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An open graph.
pub struct Session<'g> {
    pub graph: &'g Graph,
    pub store: Arc<dyn Store>,
    pub scratch: Arc<Scratch>,
    pub digests: FileDigests<'g>,
    pub pool: rayon::ThreadPool,
    nodes: Vec<Option<OpenNode>>,
    /// By table: where each of its partitions begins, as far as that was asked for.
    first_rows: Mutex<BTreeMap<NodeIndex, Vec<u64>>>,
    /// By table: a digest over the digests of so many of its partitions.
    chains: Mutex<BTreeMap<NodeIndex, (usize, blake3::Hasher)>>,
    /// By node: its provisional key, once it was asked for.
    provisional: Mutex<BTreeMap<NodeIndex, String>>,
    /// Keeps `gc` away.
    _lock: Held,
}

/// One node that is open.
pub struct OpenNode {
    pub identity: Identity,
    /// What people call its partitions or units; the tables of one source share theirs.
    pub labels: Arc<[String]>,
    /// By group of tables it reads; none for sources and jobs.
    pub recipes: Vec<Arc<Recipe>>,
    pub source: Option<Box<dyn Source>>,
    work: Mutex<Option<Arc<dyn Apply>>>,
}

/// What of a stage enters its keys.
#[derive(Clone, Debug)]
pub struct Identity {
    pub kind: &'static str,
    pub version: u32,
    pub params: Value,
    /// Content digests by name.
    pub resources: BTreeMap<String, String>,
    /// Digests of the settings that a job reads of the stages behind its inputs, by name.
    pub settings: BTreeMap<String, String>,
}

impl<'g> Session<'g> {
    /// Opens `nodes`, which are in topological order and closed under inputs.
    #[tracing::instrument(level = "debug", name = "open", skip_all)]
    pub fn open(
        graph: &'g Graph,
        store: Arc<dyn Store>,
        nodes: &[NodeIndex],
        jobs: usize,
        watch: Watch<'g>,
    ) -> Result<Self, RunError> {
        let lock = store.lock_shared().map_err(RunError::Store)?;
        let scratch = store.workdir().scratch().map_err(RunError::Store)?;
        let digests = store.workdir().digests();
        let digests = FileDigests::open(digests, Arc::clone(&scratch), graph.seed, watch);
        let digests = digests.map_err(RunError::Store)?;
        let pool = named_pool("work", jobs)?;
        let empty = graph.nodes.iter().map(|_| None).collect();
        let (first_rows, chains, provisional) = (Mutex::default(), Mutex::default(), Mutex::default());
        let mut session = Self {
            graph,
            store,
            scratch,
            digests,
            pool,
            nodes: empty,
            first_rows,
            chains,
            provisional,
            _lock: lock,
        };
        for &node in nodes {
            if watch.go_on().is_err() {
                return Err(RunError::Interrupted { finished: 0, left: nodes.len() });
            }
            let open = catch("while opening", || session.open_node(node));
            let open = open.map_err(|cause| match watch.go_on() {
                Ok(()) => session.failed(node, None, cause),
                Err(_) => RunError::Interrupted { finished: 0, left: nodes.len() },
            })?;
            tracing::debug!(stage = session.name(node), partitions = open.labels.len(), "opened");
            session.nodes[node] = Some(open);
        }
        Ok(session)
    }

    /// What a gather stage copies from the rows of a group.
    pub fn kept(&self, index: NodeIndex, group: &InputGroup) -> Columns {
        let Role::Gather(stage) = &self.graph.nodes[index].stage.role else { return Columns::new() };
        let found = stage
            .keeps()
            .into_iter()
            .filter_map(|kept| self.graph.upstream_column(&group.tables, &kept.name));
        found.fold(Columns::new(), |all, found| all.with(&found.column.name, found.column.data_type))
    }

    fn unit_label(&self, node: NodeIndex, group: usize, partition: usize) -> String {
        let table = self.graph.nodes[node].inputs.get(group).and_then(|group| group.tables.first());
        let label = table.and_then(|table| self.labels(*table).get(partition));
        label.cloned().unwrap_or_else(|| partition.to_string())
    }

    /// The units of a gather stage that works partition by partition: group and partition in it.
    pub fn units(&self, node: NodeIndex) -> impl Iterator<Item = (usize, usize)> + '_ {
        let groups = 0..self.graph.nodes[node].inputs.len();
        groups.flat_map(move |group| {
            (0..self.partitions_of(node, group)).map(move |partition| (group, partition))
        })
    }

    /// One of [`Session::units`].
    pub fn unit(&self, node: NodeIndex, mut index: usize) -> Option<(usize, usize)> {
        for group in 0..self.graph.nodes[node].inputs.len() {
            let partitions = self.partitions_of(node, group);
            if index < partitions {
                return Some((group, index));
            }
            index -= partitions;
        }
        None
    }

    /// How many partitions the tables of a group have.
    pub fn partitions_of(&self, node: NodeIndex, group: usize) -> usize {
        let table = self.graph.nodes[node].inputs.get(group).and_then(|group| group.tables.first());
        table.map_or(0, |table| self.labels(*table).len())
    }

    /// The open node; `None` for nodes this session leaves out.
    pub fn node(&self, node: NodeIndex) -> Option<&OpenNode> {
        self.nodes.get(node).and_then(Option::as_ref)
    }

    fn shared_labels(&self, node: NodeIndex) -> Arc<[String]> {
        self.node(node).map_or_else(Arc::default, |node| Arc::clone(&node.labels))
    }

    /// What people call the partitions of a node.
    pub fn labels(&self, node: NodeIndex) -> &[String] {
        self.node(node).map_or(&[], |node| &node.labels)
    }

    pub fn label(&self, node: NodeIndex, partition: usize) -> &str {
        self.labels(node).get(partition).map_or("", String::as_str)
    }

    pub fn name(&self, node: NodeIndex) -> &str {
        &self.graph.nodes[node].name
    }

    pub fn is_stored(&self, node: NodeIndex) -> bool {
        is_stored(&self.graph.nodes[node])
    }

    /// Says which stage and partition an error comes from: where it began, or else where it was noticed.
    pub fn failed(&self, node: NodeIndex, partition: Option<usize>, cause: StageError) -> RunError {
        if cause.origin().is_some() {
            return cause.into();
        }
        RunError::Stage {
            stage: self.graph.nodes[node].name.clone(),
            kind: self.graph.nodes[node].stage.kind,
            partition: partition.map(|partition| self.label(node, partition).to_owned()),
            cause,
        }
    }

    fn origin(&self, node: NodeIndex, partition: usize) -> Origin {
        let (stage, kind) = (self.name(node).to_owned(), self.graph.nodes[node].stage.kind);
        Origin { stage, kind, partition: self.label(node, partition).to_owned() }
    }

    /// What a source has to say of its rows.
    pub fn notes(&self, node: NodeIndex) -> &[String] {
        let source = self.node(node).and_then(|open| open.source.as_deref());
        source.map_or(&[], |source| source.notes())
    }

    /// A node of the graph that must be open.
    pub fn opened(&self, node: NodeIndex) -> Result<&OpenNode, StageError> {
        let name = self.graph.nodes.get(node).map_or("", |node| &node.name);
        self.node(node).ok_or_else(|| StageError::new(format!("`{name}` is not open")))
    }

    pub fn source(&self, node: NodeIndex) -> Result<&dyn Source, StageError> {
        let source = self.opened(node)?.source.as_deref();
        source.ok_or_else(|| StageError::new(format!("`{}` is no source", self.name(node))))
    }

    /// The index of the first row of a partition of a table, when `rows` knows how many each partition before it has. What it
    /// said is kept: a partition is counted once, however many come behind it.
    pub fn first_row(
        &self,
        table: NodeIndex,
        partition: usize,
        rows: impl Fn(usize) -> Result<Option<u64>, StageError>,
    ) -> Result<Option<u64>, StageError> {
        loop {
            let counted =
                match self.first_rows(table, |firsts| firsts.get(partition).copied().ok_or(firsts.len())) {
                    Ok(first) => return Ok(Some(first)),
                    Err(known) => known - 1,
                };
            // Not while the lock is held: counting may use the pool, whose threads may come here meanwhile.
            let Some(more) = rows(counted)? else { return Ok(None) };
            self.first_rows(table, |firsts| {
                if firsts.len() == counted + 1 {
                    firsts.push(firsts[counted] + more);
                }
            });
        }
    }

    fn first_rows<T>(&self, table: NodeIndex, look: impl FnOnce(&mut Vec<u64>) -> T) -> T {
        let mut all = self.first_rows.lock().unwrap_or_else(PoisonError::into_inner);
        look(all.entry(table).or_insert_with(|| vec![0]))
    }

    /// The provisional key of a node, which `make` works out once: it follows from all raw data.
    pub fn provisional(
        &self,
        node: NodeIndex,
        make: impl FnOnce() -> Result<String, StageError>,
    ) -> Result<String, StageError> {
        let known = self.known_provisional().get(&node).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let made = make()?;
        self.known_provisional().insert(node, made.clone());
        Ok(made)
    }

    fn known_provisional(&self) -> MutexGuard<'_, BTreeMap<NodeIndex, String>> {
        self.provisional.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A digest over the digests of the first `count` partitions of a table, when `digest` knows them all. Asked in order, each
    /// is hashed once.
    pub fn chain(
        &self,
        table: NodeIndex,
        count: usize,
        digest: impl Fn(usize) -> Option<String>,
    ) -> Option<Digest> {
        let mut all = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, hasher) = all.entry(table).or_default();
        if *done > count {
            (*done, *hasher) = (0, blake3::Hasher::new());
        }
        while *done < count {
            hasher.update(digest(*done)?.as_bytes());
            *done += 1;
        }
        Some(hasher.finalize())
    }
}

/// A pool of so many threads.
pub fn named_pool(name: &'static str, threads: usize) -> Result<rayon::ThreadPool, RunError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1));
    let pool = pool.thread_name(move |n| format!("{name}-{n}")).build();
    pool.map_err(|cause| RunError::Store(StageError::new(format!("no threads: {cause}")).because(cause)))
}
