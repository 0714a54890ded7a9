//! Gathers the parts of keys from a session and from what is known so far.
//!
//! In: a task, and the digests of the outputs that are there. Out: its [`KeyParts`], or `None` while something it needs is
//! not there yet: the key follows from content, and content is only known once it is made.

use crate::StageError;
use crate::graph::NodeIndex;
use crate::key::{InputPart, KeyParts};
use crate::recipe::Read;
use crate::registry::Role;
use crate::session::{Identity, Session};
use crate::stage::{Digest, Units};
use crate::tasks::{Pass, Task, TaskId, Tasks, has_sweep};
use std::collections::BTreeMap;

/// An output that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// Makes keys.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    pub session: &'a Session<'a>,
    pub tasks: &'a Tasks,
    pub known: &'a dyn Known,
}

impl Parts<'_> {
    /// The parts of the key of a task; `None` while something it needs is unknown.
    pub fn of(&self, task: &Task) -> Result<Option<KeyParts>, StageError> {
        let node = task.node;
        match &self.session.graph.nodes[node].stage.role {
            Role::Source(_) => Ok(None),
            Role::Map(_) if task.pass == Pass::First || !has_sweep(self.session, node) => {
                let first = (task.pass == Pass::First).then(|| ("pass".to_owned(), "first".to_owned()));
                self.map(node, task.index, first.into_iter().collect())
            }
            Role::Map(_) => self.swept(task),
            Role::Gather(stage) if stage.units() == Units::PerPartition => self.unit(task),
            Role::Gather(_) => self.whole(node),
            Role::Job(_) => self.job(node),
        }
    }

    /// Puts the key together.
    fn parts(
        &self,
        node: NodeIndex,
        inputs: Vec<InputPart>,
        place: BTreeMap<String, String>,
    ) -> Result<KeyParts, StageError> {
        let Identity { kind, version, params, resources } = self.session.opened(node)?.identity.clone();
        Ok(KeyParts { kind: kind.to_owned(), version, params, resources, inputs, place })
    }

    fn map(
        &self,
        node: NodeIndex,
        partition: usize,
        mut place: BTreeMap<String, String>,
    ) -> Result<Option<KeyParts>, StageError> {
        if self.session.graph.nodes[node].stage.role.parameters().uses_seed() {
            place.insert("seed".to_owned(), self.session.graph.seed.to_string());
        }
        let Some(inputs) = self.inputs(node, 0, partition)? else { return Ok(None) };
        self.parts(node, inputs, place).map(Some)
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

    /// The second pass on partition i sees the first pass of partitions 0 to i.
    fn swept(&self, task: &Task) -> Result<Option<KeyParts>, StageError> {
        let mut before = blake3::Hasher::new();
        for partition in 0..task.index {
            let Some(entry) = self.entry(task.node, Pass::First, partition) else { return Ok(None) };
            before.update(entry.digest.as_bytes());
        }
        let Some(entry) = self.entry(task.node, Pass::First, task.index) else { return Ok(None) };
        let stage = self.session.name(task.node).to_owned();
        let input = InputPart { stage, columns: Vec::new(), digest: entry.digest };
        let before = ("before".to_owned(), before.finalize().to_hex().to_string());
        let pass = ("pass".to_owned(), "second".to_owned());
        self.parts(task.node, vec![input], BTreeMap::from([before, pass])).map(Some)
    }

    fn whole(&self, node: NodeIndex) -> Result<Option<KeyParts>, StageError> {
        let mut inputs = Vec::new();
        let mut place = self.group_places(node);
        for (n, group) in self.session.graph.nodes[node].inputs.iter().enumerate() {
            let partitions = group.tables.first().map_or(0, |table| self.session.labels(*table).len());
            place.insert(format!("partitions of group {n}"), partitions.to_string());
            for partition in 0..partitions {
                let Some(more) = self.inputs(node, n, partition)? else { return Ok(None) };
                inputs.extend(more);
            }
        }
        self.parts(node, inputs, place).map(Some)
    }

    fn unit(&self, task: &Task) -> Result<Option<KeyParts>, StageError> {
        let units = self.session.units(task.node);
        let Some(&(group, partition)) = units.get(task.index) else { return Ok(None) };
        let Some(inputs) = self.inputs(task.node, group, partition)? else { return Ok(None) };
        let Some(first_row) = self.first_row(task.node, group, partition)? else { return Ok(None) };
        let mut place = self.group_places(task.node);
        place.insert("group".to_owned(), group.to_string());
        place.insert("partition".to_owned(), partition.to_string());
        place.insert("first row".to_owned(), first_row.to_string());
        self.parts(task.node, inputs, place).map(Some)
    }

    /// What a gather stage is told of its groups: it may write any of it.
    fn group_places(&self, node: NodeIndex) -> BTreeMap<String, String> {
        let mut place = BTreeMap::from([("seed".to_owned(), self.session.graph.seed.to_string())]);
        for (n, group) in self.session.graph.nodes[node].inputs.iter().enumerate() {
            let tables: Vec<&str> = group.tables.iter().map(|table| self.session.name(*table)).collect();
            place.insert(format!("tables of group {n}"), tables.join(","));
            place.insert(format!("weight of group {n}"), group.weight.to_string());
        }
        place
    }

    /// Rows of a partition of a group.
    pub fn rows(&self, node: NodeIndex, group: usize, partition: usize) -> Result<Option<u64>, StageError> {
        let Some(recipe) = self.session.opened(node)?.recipes.get(group) else { return Ok(None) };
        if let Some(stored) = recipe.stored(self.session.graph).first() {
            return Ok(self.entry(*stored, Pass::Main, partition).map(|entry| entry.rows));
        }
        recipe.leaves.first().map(|leaf| self.session.source_rows(leaf.node, partition)).transpose()
    }

    /// The index of a partition's first row in its table.
    pub fn first_row(
        &self,
        node: NodeIndex,
        group: usize,
        partition: usize,
    ) -> Result<Option<u64>, StageError> {
        let mut first = 0;
        for before in 0..partition {
            let Some(rows) = self.rows(node, group, before)? else { return Ok(None) };
            first += rows;
        }
        Ok(Some(first))
    }

    fn job(&self, node: NodeIndex) -> Result<Option<KeyParts>, StageError> {
        let inputs: Option<Vec<InputPart>> = self.job_inputs(node).into_iter().collect();
        inputs.map(|inputs| self.parts(node, inputs, self.job_place(node))).transpose()
    }

    fn job_place(&self, node: NodeIndex) -> BTreeMap<String, String> {
        let mut place = BTreeMap::from([("seed".to_owned(), self.session.graph.seed.to_string())]);
        for (n, input) in self.session.graph.nodes[node].tables().enumerate() {
            place.insert(format!("units of input {n}"), self.tasks.of(input, Pass::Main).len().to_string());
        }
        place
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
        let own = self.parts(node, Vec::new(), self.job_place(node))?;
        let same = KeyParts { inputs: Vec::new(), ..finished.clone() }.key() == own.key();
        let agrees = |(known, old): (&Option<InputPart>, &InputPart)| {
            known.as_ref().is_none_or(|known| known.digest == old.digest)
        };
        Ok(same && inputs.len() == finished.inputs.len() && inputs.iter().zip(&finished.inputs).all(agrees))
    }

    /// What a node will be made of, as far as can be said before anything is made: raw data and parameters all the way down.
    /// Names the folder in which an unfinished job lies.
    pub fn promise(&self, node: NodeIndex) -> Result<String, StageError> {
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
                digest: self.promise(input)?,
            });
        }
        Ok(self.parts(node, inputs, self.group_places(node))?.key())
    }
}
