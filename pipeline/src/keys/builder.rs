//! Key builder: gathers the parts of keys from a session and from what is known so far.
//!
//! In: a task, and the digests of the outputs that are there. Out: its [`KeyParts`], or `None` while something it needs is
//! not there yet: the key follows from content, and content is only known once it is made.

use crate::keys::recipe::Read;
use crate::keys::session::{Identity, Session};
use crate::keys::tasks::{Pass, Task, TaskId, Tasks, is_sequential};
use crate::spec::error::StageError;
use crate::spec::graph::NodeIndex;
use crate::spec::registry::Role;
use crate::spec::stage::{Digest, Units};
use crate::store::key::{InputPart, KeyParts};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// An output that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub key: String,
    /// The content digest of the file, or of all files of a folder.
    pub digest: String,
    pub rows: u64,
}

/// What is known of outputs.
pub trait Known: Sync {
    fn entry(&self, task: TaskId) -> Option<Entry>;
}

/// Outputs that were found, by task; nothing is forgotten.
#[derive(Default)]
pub struct Entries(Vec<OnceLock<Entry>>);

impl Entries {
    pub fn new(tasks: usize) -> Self {
        Self((0..tasks).map(|_| OnceLock::new()).collect())
    }

    pub fn add(&self, task: TaskId, entry: Entry) {
        if let Some(cell) = self.0.get(task) {
            cell.get_or_init(|| entry);
        }
    }
}

impl Known for Entries {
    fn entry(&self, task: TaskId) -> Option<Entry> {
        self.0.get(task).and_then(OnceLock::get).cloned()
    }
}

/// Gathers the parts of keys.
#[derive(Clone, Copy)]
pub struct KeyBuilder<'a> {
    pub session: &'a Session<'a>,
    pub tasks: &'a Tasks,
    pub known: &'a dyn Known,
}

impl KeyBuilder<'_> {
    /// The parts of the key of a task; `None` while something it needs is unknown.
    pub fn parts(&self, task: &Task) -> Result<Option<KeyParts>, StageError> {
        let node = task.node;
        match &self.session.graph.nodes[node].stage.role {
            Role::Source(_) => Ok(None),
            Role::Map(_) if task.pass == Pass::Intermediate || !is_sequential(self.session, node) => {
                let first =
                    (task.pass == Pass::Intermediate).then(|| ("pass".to_owned(), "first".to_owned()));
                self.map(node, task.index, first.into_iter().collect())
            }
            Role::Map(_) => self.sequential(task),
            Role::Gather(stage) if stage.units() == Units::PerPartition => self.unit(task),
            Role::Gather(_) => self.whole(node),
            Role::Job(_) => self.job(node),
        }
    }

    /// Puts the key together.
    fn key_parts(
        &self,
        node: NodeIndex,
        inputs: Vec<InputPart>,
        context: BTreeMap<String, String>,
    ) -> Result<KeyParts, StageError> {
        let Identity { kind, version, params, resources, .. } = self.session.opened(node)?.identity.clone();
        Ok(KeyParts { kind: kind.to_owned(), version, params, resources, inputs, context })
    }

    fn map(
        &self,
        node: NodeIndex,
        partition: usize,
        mut context: BTreeMap<String, String>,
    ) -> Result<Option<KeyParts>, StageError> {
        if self.session.graph.nodes[node].stage.role.parameters().uses_seed() {
            context.insert("seed".to_owned(), self.session.graph.seed.to_string());
        }
        let Some(inputs) = self.inputs(node, 0, partition)? else { return Ok(None) };
        self.key_parts(node, inputs, context).map(Some)
    }

    /// What a node reads of one partition of one of its groups.
    fn inputs(
        &self,
        node: NodeIndex,
        group: usize,
        partition: usize,
    ) -> Result<Option<Vec<InputPart>>, StageError> {
        let recipe = self.session.opened(node)?.recipes.get(group);
        let recipe = recipe.ok_or_else(|| StageError::new(format!("there is no group {group}")))?;
        let gathers = matches!(self.session.graph.nodes[node].stage.role, Role::Gather(_));
        let mut inputs = Vec::with_capacity(recipe.wanted.reads.len());
        for read in &recipe.wanted.reads {
            let is_source = matches!(self.session.graph.nodes[read.node].stage.role, Role::Source(_));
            let digest = if gathers && is_source {
                Some(self.session.copied_digest(read.node, partition, &read.columns)?.to_hex().to_string())
            } else {
                self.digest(read, partition)?
            };
            let Some(digest) = digest else { return Ok(None) };
            inputs.push(InputPart {
                stage: self.session.name(read.node).to_owned(),
                columns: read.columns.clone(),
                digest,
            });
        }
        Ok(Some(inputs))
    }

    /// The digest of a table's partition: of the columns read for a source, of the file for a stored table, the key for a
    /// derived one.
    pub fn digest(&self, read: &Read, partition: usize) -> Result<Option<String>, StageError> {
        let hex = |digest: Digest| digest.to_hex().to_string();
        match &self.session.graph.nodes[read.node].stage.role {
            Role::Source(_) => {
                self.session.source_digest(read.node, partition, &read.columns).map(hex).map(Some)
            }
            Role::Map(_) if !self.session.is_stored(read.node) => {
                Ok(self.map(read.node, partition, BTreeMap::new())?.map(|parts| parts.key()))
            }
            _ => Ok(self.entry(read.node, Pass::Main, partition).map(|entry| entry.digest)),
        }
    }

    fn entry(&self, node: NodeIndex, pass: Pass, index: usize) -> Option<Entry> {
        self.tasks.id(node, pass, index).and_then(|task| self.known.entry(task))
    }

    /// The sequential pass on partition i sees the intermediate columns of partitions 0 to i.
    fn sequential(&self, task: &Task) -> Result<Option<KeyParts>, StageError> {
        let digest = |partition| Some(self.entry(task.node, Pass::Intermediate, partition)?.digest);
        let Some(before) = self.session.chain(task.node, task.index, digest) else { return Ok(None) };
        let Some(entry) = self.entry(task.node, Pass::Intermediate, task.index) else { return Ok(None) };
        let stage = self.session.name(task.node).to_owned();
        let input = InputPart { stage, columns: Vec::new(), digest: entry.digest };
        let before = ("before".to_owned(), before.to_hex().to_string());
        let pass = ("pass".to_owned(), "second".to_owned());
        self.key_parts(task.node, vec![input], BTreeMap::from([before, pass])).map(Some)
    }

    fn whole(&self, node: NodeIndex) -> Result<Option<KeyParts>, StageError> {
        let mut inputs = Vec::new();
        let mut context = self.group_context(node);
        for n in 0..self.session.graph.nodes[node].inputs.len() {
            let partitions = self.session.partitions_of(node, n);
            context.insert(format!("partitions of group {n}"), partitions.to_string());
            for partition in 0..partitions {
                let Some(more) = self.inputs(node, n, partition)? else { return Ok(None) };
                inputs.extend(more);
            }
        }
        self.key_parts(node, inputs, context).map(Some)
    }

    fn unit(&self, task: &Task) -> Result<Option<KeyParts>, StageError> {
        let Some((group, partition)) = self.session.unit(task.node, task.index) else { return Ok(None) };
        let Some(inputs) = self.inputs(task.node, group, partition)? else { return Ok(None) };
        let Some(first_row) = self.first_row(task.node, group, partition)? else { return Ok(None) };
        let mut context = self.group_context(task.node);
        context.insert("group".to_owned(), group.to_string());
        context.insert("partition".to_owned(), partition.to_string());
        context.insert("first row".to_owned(), first_row.to_string());
        self.key_parts(task.node, inputs, context).map(Some)
    }

    /// What a gather stage sees of its groups: it may write any of it.
    fn group_context(&self, node: NodeIndex) -> BTreeMap<String, String> {
        let mut context = BTreeMap::from([("seed".to_owned(), self.session.graph.seed.to_string())]);
        for (n, group) in self.session.graph.nodes[node].inputs.iter().enumerate() {
            let tables: Vec<&str> = group.tables.iter().map(|table| self.session.name(*table)).collect();
            context.insert(format!("tables of group {n}"), tables.join(","));
            context.insert(format!("weight of group {n}"), group.weight.to_string());
        }
        context
    }

    /// The table whose rows are counted to say how many a group has.
    fn counted(&self, node: NodeIndex, group: usize) -> Result<Option<NodeIndex>, StageError> {
        let Some(recipe) = self.session.opened(node)?.recipes.get(group) else { return Ok(None) };
        let stored = recipe.stored(self.session.graph).first().copied();
        Ok(stored.or_else(|| recipe.leaves.first().map(|leaf| leaf.node)))
    }

    fn rows_of(&self, counted: NodeIndex, partition: usize) -> Result<Option<u64>, StageError> {
        if self.session.is_stored(counted) {
            return Ok(self.entry(counted, Pass::Main, partition).map(|entry| entry.rows));
        }
        self.session.source_rows(counted, partition).map(Some)
    }

    /// Rows of a partition of a group.
    pub fn rows(&self, node: NodeIndex, group: usize, partition: usize) -> Result<Option<u64>, StageError> {
        let counted = self.counted(node, group)?;
        counted.map_or(Ok(None), |counted| self.rows_of(counted, partition))
    }

    /// The index of a partition's first row in its table.
    pub fn first_row(
        &self,
        node: NodeIndex,
        group: usize,
        partition: usize,
    ) -> Result<Option<u64>, StageError> {
        let counted = self.counted(node, group)?;
        counted.map_or(Ok(None), |counted| {
            self.session.first_row(counted, partition, |before| self.rows_of(counted, before))
        })
    }

    fn job(&self, node: NodeIndex) -> Result<Option<KeyParts>, StageError> {
        let inputs: Option<Vec<InputPart>> = self.job_inputs(node).into_iter().collect();
        let Some(inputs) = inputs else { return Ok(None) };
        self.key_parts(node, inputs, self.job_context(node)?).map(Some)
    }

    fn job_context(&self, node: NodeIndex) -> Result<BTreeMap<String, String>, StageError> {
        let mut context = BTreeMap::from([("seed".to_owned(), self.session.graph.seed.to_string())]);
        for (n, input) in self.session.graph.nodes[node].tables().enumerate() {
            context.insert(format!("units of input {n}"), self.tasks.of(input, Pass::Main).len().to_string());
        }
        context.extend(self.session.opened(node)?.identity.settings.clone());
        Ok(context)
    }

    /// The folders a job reads, in order; `None` where one is not there yet.
    fn job_inputs(&self, node: NodeIndex) -> Vec<Option<InputPart>> {
        let mut inputs = Vec::new();
        for input in self.session.graph.nodes[node].tables() {
            for task in self.tasks.of(input, Pass::Main) {
                let stage = self.session.name(input).to_owned();
                let part = |entry: Entry| InputPart { stage, columns: Vec::new(), digest: entry.digest };
                inputs.push(self.known.entry(task).map(part));
            }
        }
        inputs
    }

    /// Whether a finished job with these parts may be the one that is asked for, as far as is known by now.
    pub fn may_be(&self, node: NodeIndex, finished: &KeyParts) -> Result<bool, StageError> {
        let inputs = self.job_inputs(node);
        let own = self.key_parts(node, Vec::new(), self.job_context(node)?)?;
        let same = KeyParts { inputs: Vec::new(), ..finished.clone() }.key() == own.key();
        let agrees = |(known, old): (&Option<InputPart>, &InputPart)| {
            known.as_ref().is_none_or(|known| known.digest == old.digest)
        };
        Ok(same && inputs.len() == finished.inputs.len() && inputs.iter().zip(&finished.inputs).all(agrees))
    }

    /// What a node will be made of, as far as can be said before anything is made: raw data and parameters all the way down.
    /// Names the folder in which an unfinished job lies.
    pub fn provisional_key(&self, node: NodeIndex) -> Result<String, StageError> {
        self.session.provisional(node, || self.make_provisional_key(node))
    }

    fn make_provisional_key(&self, node: NodeIndex) -> Result<String, StageError> {
        if let Role::Source(stage) = &self.session.graph.nodes[node].stage.role {
            // Ids name files; a renamed file must not make a training begin anew.
            let columns: Vec<String> =
                stage.output().names().filter(|name| *name != "id").map(str::to_owned).collect();
            let mut all = blake3::Hasher::new();
            for partition in 0..self.session.labels(node).len() {
                all.update(self.session.source_digest(node, partition, &columns)?.as_bytes());
            }
            return Ok(all.finalize().to_hex().to_string());
        }
        let mut inputs = Vec::new();
        for input in self.session.graph.nodes[node].tables() {
            inputs.push(InputPart {
                stage: String::new(),
                columns: Vec::new(),
                digest: self.provisional_key(input)?,
            });
        }
        Ok(self.key_parts(node, inputs, self.group_context(node))?.key())
    }
}
