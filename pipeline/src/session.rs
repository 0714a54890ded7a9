//! A graph whose sources are open and whose resources are hashed: everything that plans, keys and work start from.
//!
//! In: a checked graph and which of its nodes matter. Out: for each of them its identity (what enters its keys), its
//! partitions, its recipes, and, on demand, its opened work.

use crate::StageError;
use crate::columns::Columns;
use crate::digest::FileDigests;
use crate::graph::{Graph, InputGroup, NodeIndex};
use crate::key::canonical;
use crate::recipe::{Recipe, is_stored};
use crate::registry::Role;
use crate::run_error::RunError;
use crate::stage::{Apply, Digest, OpenContext, Source, Units};
use crate::store::Store;
use crate::store::scratch::Scratch;
use crate::table::assemble::Assembler;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The column that names a row to people.
const ID: &str = "id";

/// An open graph.
pub struct Session<'g> {
    pub graph: &'g Graph,
    pub store: Store,
    pub scratch: Arc<Scratch>,
    pub digests: FileDigests,
    pub pool: rayon::ThreadPool,
    nodes: Vec<Option<OpenNode>>,
    /// Keeps `gc` away.
    _lock: File,
}

/// One node that is open.
pub struct OpenNode {
    pub identity: Identity,
    /// What people call its partitions or units.
    pub labels: Vec<String>,
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
}

impl<'g> Session<'g> {
    /// Opens `nodes`, which are in topological order and closed under inputs.
    pub fn open(graph: &'g Graph, nodes: &[NodeIndex], jobs: usize) -> Result<Self, RunError> {
        let store = Store::open(&graph.store).map_err(RunError::Store)?;
        let lock = store.lock_shared().map_err(RunError::Store)?;
        let scratch = Arc::new(Scratch::create(&store).map_err(RunError::Store)?);
        let digests = FileDigests::open(store.clone(), Arc::clone(&scratch), graph.seed);
        let digests = digests.map_err(RunError::Store)?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(jobs.max(1))
            .thread_name(|n| format!("work-{n}"))
            .build()
            .map_err(|cause| {
                RunError::Store(StageError::new(format!("no threads: {cause}")).because(cause))
            })?;
        let empty = graph.nodes.iter().map(|_| None).collect();
        let mut session = Self { graph, store, scratch, digests, pool, nodes: empty, _lock: lock };
        for &node in nodes {
            let open = session.open_node(node).map_err(|cause| session.failed(node, None, cause))?;
            session.nodes[node] = Some(open);
        }
        Ok(session)
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
            (None, Role::Gather(stage)) if stage.units() == Units::PerPartition => self
                .units(index)
                .iter()
                .map(|(group, partition)| self.unit_label(index, *group, *partition))
                .collect(),
            (None, Role::Gather(_)) => vec!["all partitions".to_owned()],
            (None, Role::Job(_)) => vec![node.name.clone()],
            (None, _) => self.labels(self.graph.source_of(index).unwrap_or(index)).to_vec(),
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
        Ok(Identity { kind: stage.kind, version: stage.version, params: canonical(&stage.params), resources })
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
    pub fn units(&self, node: NodeIndex) -> Vec<(usize, usize)> {
        let groups = self.graph.nodes[node].inputs.iter().enumerate();
        groups
            .flat_map(|(n, group)| {
                let partitions = group.tables.first().map_or(0, |table| self.labels(*table).len());
                (0..partitions).map(move |partition| (n, partition))
            })
            .collect()
    }

    /// The open node; `None` for nodes this session leaves out.
    pub fn node(&self, node: NodeIndex) -> Option<&OpenNode> {
        self.nodes.get(node).and_then(Option::as_ref)
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

    /// Says which stage and partition an error comes from.
    pub fn failed(&self, node: NodeIndex, partition: Option<usize>, cause: StageError) -> RunError {
        RunError::Stage {
            stage: self.graph.nodes[node].name.clone(),
            kind: self.graph.nodes[node].stage.kind,
            partition: partition.map(|partition| self.label(node, partition).to_owned()),
            cause,
        }
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
        let content = self.source(node)?.digest(partition, &columns)?;
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
        let ids = self.source(node)?.ids_digest(partition)?;
        Ok(blake3::hash(format!("{} {}", content.to_hex(), ids.to_hex()).as_bytes()))
    }

    /// How many rows a source partition has; remembered by its content.
    pub fn source_rows(&self, node: NodeIndex, partition: usize) -> Result<u64, StageError> {
        let key = format!("rows/{}", self.source_digest(node, partition, &[])?.to_hex());
        let mut count = || {
            let mut rows = 0_u64;
            for batch in self.source(node)?.batches(partition, &[])? {
                rows += batch?.num_rows() as u64;
            }
            Ok(rows.to_le_bytes().to_vec())
        };
        let bytes = self.digests.remembered(&key, &mut count)?;
        let bytes = bytes.try_into().map_err(|_| StageError::new("a remembered row count is broken"))?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The work of a map stage; opened once.
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
        let opened: Arc<dyn Apply> = Arc::from(stage.open(&context)?);
        *work = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Opens the derived stages of a recipe.
    pub fn assembler(&self, recipe: &Arc<Recipe>) -> Result<Assembler, StageError> {
        let mut steps = Vec::with_capacity(recipe.steps.len());
        for step in &recipe.steps {
            steps.push((self.graph.nodes[step.node].stage.kind, self.work(step.node)?));
        }
        let sources = recipe.leaves.iter().map(|leaf| !self.is_stored(leaf.node)).collect();
        Ok(Assembler::new(Arc::clone(recipe), steps, sources))
    }
}

/// What a map stage is opened with. Its seed is 0 unless it says that it uses one, because only then it is in its key.
struct MapContext<'a> {
    digests: &'a FileDigests,
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
