//! A graph whose sources are open and whose resources are hashed: everything that plans, keys and work start from.
//!
//! In: a checked graph and which of its nodes matter. Out: for each of them its identity (what enters its keys), its
//! partitions, its recipes, and, on demand, its opened work.

use crate::keys::cause::SETTINGS;
use crate::keys::recipe::{Recipe, is_stored};
use crate::spec::columns::Columns;
use crate::spec::error::{Origin, StageError};
use crate::spec::event::Watch;
use crate::spec::graph::{Graph, InputGroup, NodeIndex};
use crate::spec::panics::catch;
use crate::spec::registry::Role;
use crate::spec::run_error::RunError;
use crate::spec::shard::Shard;
use crate::spec::stage::{Apply, BatchIterator, Digest, OpenContext, Settings, Source, Units};
use crate::store::digests::FileDigests;
use crate::store::key::canonical;
use crate::store::scratch::Scratch;
use crate::store::{Held, Store};
use arrow::array::RecordBatch;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The column that names a row to people.
const ID: &str = "id";

/// How often a share that another process is at is asked for again.
const AGAIN: Duration = Duration::from_millis(50);

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
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(jobs.max(1))
            .thread_name(|n| format!("work-{n}"))
            .build()
            .map_err(|cause| {
                RunError::Store(StageError::new(format!("no threads: {cause}")).because(cause))
            })?;
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

    /// Opens what a shard has of the sources among `nodes`, so that what is remembered of their raw files is known before all of
    /// them are opened. Waits for a process that is at the same shard.
    pub fn open_share(&self, nodes: &[NodeIndex], shard: Shard, watch: Watch<'_>) -> Result<(), StageError> {
        for &node in nodes {
            let Role::Source(stage) = &self.graph.nodes[node].stage.role else { continue };
            let _lease = self.lease_share(node, shard, watch)?;
            let opened = catch("while opening", || match stage.shared(shard)? {
                Some(part) => self.pool.install(|| part.open(&self.digests)).map(drop),
                None => Ok(()),
            });
            watch.go_on()?;
            // What is wrong with raw files is reported when all of them are opened.
            if let Err(cause) = opened {
                tracing::debug!(stage = self.name(node), %shard, "{cause}");
            }
        }
        Ok(())
    }

    /// How many raw files of the sources among `nodes` have a digest that is not known.
    pub fn unread_files(&self, nodes: &[NodeIndex]) -> Result<usize, StageError> {
        let mut unread = 0;
        for &node in nodes {
            if let Role::Source(stage) = &self.graph.nodes[node].stage.role {
                unread += stage.raw_files()?.iter().filter(|path| !self.digests.is_known(path)).count();
            }
        }
        Ok(unread)
    }

    fn lease_share(&self, node: NodeIndex, shard: Shard, watch: Watch<'_>) -> Result<Held, StageError> {
        let (name, graph) = (self.name(node), self.graph);
        let what = format!("{}\n{:?}\n{name}\n{shard}", graph.manifest.display(), graph.settings);
        let key = blake3::hash(what.as_bytes()).to_hex();
        loop {
            if let Some(lease) = self.store.lease(name, &key)? {
                return Ok(lease);
            }
            watch.go_on()?;
            std::thread::sleep(AGAIN);
        }
    }

    fn open_node(&self, index: NodeIndex) -> Result<OpenNode, StageError> {
        let node = &self.graph.nodes[index];
        let source = match &node.stage.role {
            Role::Source(stage) => Some(self.pool.install(|| stage.open(&self.digests))?),
            _ => None,
        };
        let labels = match (&source, &node.stage.role) {
            (Some(source), _) => {
                source.partitions().iter().map(|partition| partition.label.clone()).collect()
            }
            (None, Role::Gather(stage)) if stage.units() == Units::PerPartition => {
                self.units(index).map(|(group, partition)| self.unit_label(index, group, partition)).collect()
            }
            (None, Role::Gather(_)) => ["all partitions".to_owned()].into(),
            (None, Role::Job(_)) => [node.name.clone()].into(),
            (None, _) => self.shared_labels(self.graph.source_of(index).unwrap_or(index)),
        };
        Ok(OpenNode {
            identity: self.identity(index)?,
            labels,
            recipes: self.recipes(index)?,
            source,
            work: Mutex::new(None),
        })
    }

    fn identity(&self, index: NodeIndex) -> Result<Identity, StageError> {
        let stage = &self.graph.nodes[index].stage;
        let mut resources = BTreeMap::new();
        for resource in stage.role.parameters().resources()? {
            let digest = self.digests.file_digest(&resource.path)?;
            resources.insert(resource.name, digest.to_hex().to_string());
        }
        let settings = self.settings(index)?;
        let (kind, version, params) = (stage.kind, stage.version, canonical(&stage.params));
        Ok(Identity { kind, version, params, resources, settings })
    }

    /// The settings that a job reads, as content: their digests, by what they are.
    fn settings(&self, index: NodeIndex) -> Result<BTreeMap<String, String>, StageError> {
        let node = &self.graph.nodes[index];
        let mut digests: BTreeMap<String, blake3::Hasher> = BTreeMap::new();
        if matches!(&node.stage.role, Role::Job(stage) if stage.reads_settings()) {
            for (n, input) in node.tables().enumerate() {
                for Settings { what, value, .. } in self.graph.settings(input)? {
                    let name = format!("{SETTINGS} {n} {what}");
                    digests.entry(name).or_default().update(canonical(&value).to_string().as_bytes());
                }
            }
        }
        let hex = |hasher: blake3::Hasher| hasher.finalize().to_hex().to_string();
        Ok(digests.into_iter().map(|(name, hasher)| (name, hex(hasher))).collect())
    }

    fn recipes(&self, index: NodeIndex) -> Result<Vec<Arc<Recipe>>, StageError> {
        let node = &self.graph.nodes[index];
        let columns = match &node.stage.role {
            Role::Map(stage) => stage.input(),
            Role::Gather(stage) => stage.input(),
            Role::Source(_) | Role::Job(_) => return Ok(Vec::new()),
        };
        let recipe = |group: &InputGroup| {
            let kept = self.kept(index, group);
            let names = columns.names().chain(kept.names().filter(|name| columns.get(name).is_none()));
            Recipe::new(self.graph, group, &names.collect::<Vec<_>>()).map(Arc::new)
        };
        node.inputs.iter().map(recipe).collect()
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

    /// The digest of the named columns of a source partition, with the kind that reads them.
    pub fn source_digest(
        &self,
        node: NodeIndex,
        partition: usize,
        columns: &[String],
    ) -> Result<Digest, StageError> {
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let content = catch("on a digest", || self.source(node)?.digest(partition, &columns));
        let content = content.map_err(|error| error.at(self.origin(node, partition)))?;
        let stage = &self.graph.nodes[node].stage;
        let text = format!("{} {} {}", stage.kind, stage.version, content.to_hex());
        Ok(blake3::hash(text.as_bytes()))
    }

    /// As [`Session::source_digest`], for a stage that copies ids: a new name of a file does not change it.
    pub fn copied_digest(
        &self,
        node: NodeIndex,
        partition: usize,
        columns: &[String],
    ) -> Result<Digest, StageError> {
        let others: Vec<String> = columns.iter().filter(|column| *column != ID).cloned().collect();
        let content = self.source_digest(node, partition, &others)?;
        if others.len() == columns.len() {
            return Ok(content);
        }
        let ids = catch("on a digest", || self.source(node)?.ids_digest(partition));
        let ids = ids.map_err(|error| error.at(self.origin(node, partition)))?;
        Ok(blake3::hash(format!("{} {}", content.to_hex(), ids.to_hex()).as_bytes()))
    }

    /// The named columns of one partition of a source, and `reject`. A panic of the source is an error.
    pub fn source_batches(
        &self,
        node: NodeIndex,
        partition: usize,
        columns: &[&str],
    ) -> Result<BatchIterator<'_>, StageError> {
        let origin = self.origin(node, partition);
        match catch("while reading", || self.source(node)?.batches(partition, columns)) {
            Ok(batches) => Ok(Box::new(Caught { batches: Some(batches), origin })),
            Err(error) => Err(error.at(origin)),
        }
    }

    /// How many rows a source partition has; remembered by its content.
    pub fn source_rows(&self, node: NodeIndex, partition: usize) -> Result<u64, StageError> {
        let key = format!("rows/{}", self.source_digest(node, partition, &[])?.to_hex());
        let mut count = || {
            let mut rows = 0_u64;
            for batch in self.source_batches(node, partition, &[])? {
                rows += batch?.num_rows() as u64;
            }
            Ok(rows.to_le_bytes().to_vec())
        };
        let bytes = self.digests.remembered(&key, &mut count)?;
        let bytes = bytes.try_into().map_err(|_| StageError::new("a remembered row count is broken"))?;
        Ok(u64::from_le_bytes(bytes))
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

    /// The work of a map stage; opened once, and again after [`Session::close`].
    pub fn work(&self, node: NodeIndex) -> Result<Arc<dyn Apply>, StageError> {
        let Role::Map(stage) = &self.graph.nodes[node].stage.role else {
            return Err(StageError::new(format!("`{}` is no map stage", self.name(node))));
        };
        let mut work = self.opened(node)?.work.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(work) = work.as_ref() {
            return Ok(Arc::clone(work));
        }
        let context =
            MapContext { digests: &self.digests, seed: stage.uses_seed().then_some(self.graph.seed) };
        let opened: Arc<dyn Apply> = Arc::from(catch("while opening", || stage.open(&context))?);
        *work = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Gives the memory of a map stage's work back, a tokenizer's say, once none of its partitions is left to make.
    pub fn close(&self, node: NodeIndex) {
        if let Some(open) = self.node(node) {
            *open.work.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

/// Batches of a source; a panic ends them with an error, and every error names the source.
struct Caught<'a> {
    batches: Option<BatchIterator<'a>>,
    origin: Origin,
}

impl Iterator for Caught<'_> {
    type Item = Result<RecordBatch, StageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut batches = self.batches.take()?;
        let next = catch("while reading", || batches.next().transpose());
        if matches!(next, Ok(Some(_))) {
            self.batches = Some(batches);
        }
        next.map_err(|error| error.at(self.origin.clone())).transpose()
    }
}

/// What a map stage is opened with. Its seed is 0 unless it says that it uses one, because only then it is in its key.
struct MapContext<'a> {
    digests: &'a FileDigests<'a>,
    seed: Option<u64>,
}

impl OpenContext for MapContext<'_> {
    fn file_digest(&self, path: &Path) -> Result<Digest, StageError> {
        self.digests.file_digest(path)
    }

    fn files_digest(&self, memo: &str, paths: &[PathBuf]) -> Result<Digest, StageError> {
        self.digests.files_digest(memo, paths)
    }

    fn remembered(
        &self,
        key: &str,
        compute: &mut dyn FnMut() -> Result<Vec<u8>, StageError>,
    ) -> Result<Vec<u8>, StageError> {
        self.digests.remembered(key, compute)
    }

    fn seed(&self) -> u64 {
        self.seed.unwrap_or(0)
    }
}
