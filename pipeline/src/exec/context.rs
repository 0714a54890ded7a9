//! What a job sees of the run it is part of.

use super::builder::{Builder, gives_folder};
use crate::keys::builder::Entry;
use crate::keys::recipe::Recipe;
use crate::keys::tasks::{Pass, TaskId};
use crate::spec::columns::Columns;
use crate::spec::error::StageError;
use crate::spec::event::Event;
use crate::spec::graph::{InputGroup, Node, NodeIndex};
use crate::spec::registry::Role;
use crate::spec::stage::{JobContext, Ledger, Lineage, Origin, OriginStage, RowAccess, Settings};
use crate::store::key::canonical;
use crate::store::ledger::LedgerFile;
use crate::table::access::Rows;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a job sees.
pub struct Context<'a> {
    builder: &'a Builder<'a>,
    id: TaskId,
    inputs: Vec<String>,
    folder: PathBuf,
}

impl<'a> Context<'a> {
    pub fn new(builder: &'a Builder<'a>, id: TaskId, inputs: Vec<String>, folder: PathBuf) -> Self {
        Self { builder, id, inputs, folder }
    }

    fn node(&self) -> NodeIndex {
        self.builder.tasks.all[self.id].node
    }

    /// The node of an input.
    fn input(&self, input: usize) -> Result<NodeIndex, StageError> {
        let graph = self.builder.session.graph;
        let node = graph.nodes[self.node()].tables().nth(input);
        node.filter(|node| gives_folder(&graph.nodes[*node].stage.role))
            .ok_or_else(|| StageError::new(format!("there is no input {input} that is a folder")))
    }

    /// A table of a gather stage that is an input.
    fn table(&self, input: usize, group: usize, table: usize) -> Result<NodeIndex, StageError> {
        let gather = &self.builder.session.graph.nodes[self.input(input)?];
        let found = match &gather.stage.role {
            Role::Gather(_) => gather.inputs.get(group).and_then(|group| group.tables.get(table)),
            _ => None,
        };
        let name = &gather.name;
        found
            .copied()
            .ok_or_else(|| StageError::new(format!("`{name}` has no table {table} in a group {group}")))
    }

    /// Waits until an output is there.
    fn wait_for(&self, id: TaskId) -> Result<Entry, StageError> {
        let Builder { session, tasks, host, .. } = self.builder;
        loop {
            if let Some(entry) = host.entry(id) {
                return Ok(entry);
            }
            if !host.pending(id) {
                let name = session.name(tasks.all[id].node);
                return Err(StageError::new(format!("its input `{name}` failed")));
            }
            if host.stopping() {
                return Err(StageError::new("the run is stopping"));
            }
            host.wait();
        }
    }

    /// The columns of the table of a node, by name.
    fn columns(&self, node: NodeIndex) -> Vec<String> {
        self.builder.session.graph.offered(node).into_iter().map(|offered| offered.column.name).collect()
    }

    fn origin_of(&self, index: NodeIndex, node: &Node) -> OriginStage {
        let Builder { session, tasks, host, .. } = self.builder;
        let entries: Option<Vec<Entry>> = tasks.of(index, Pass::Main).map(|task| host.entry(task)).collect();
        let entries = entries.unwrap_or_default();
        OriginStage {
            name: node.name.clone(),
            kind: node.stage.kind,
            version: node.stage.version,
            params: canonical(&node.stage.params),
            from: node.tables().map(|table| session.name(table).to_owned()).collect(),
            partitions: session.labels(index).len(),
            rows: entries.iter().map(|entry| entry.rows).sum(),
            key: together(entries.iter().map(|entry| entry.key.as_str())),
            digest: together(entries.iter().map(|entry| entry.digest.as_str())),
        }
    }
}

/// The only one, or the digest of several; none of none.
fn together<'a>(all: impl Iterator<Item = &'a str>) -> Option<String> {
    let all: Vec<&str> = all.collect();
    match all.as_slice() {
        [] => None,
        [only] => Some((*only).to_owned()),
        several => Some(blake3::hash(several.concat().as_bytes()).to_hex().to_string()),
    }
}

impl JobContext for Context<'_> {
    fn inputs(&self) -> &[String] {
        &self.inputs
    }

    fn folder(&self, input: usize, unit: usize) -> Result<Option<PathBuf>, StageError> {
        let Some(id) = self.builder.tasks.id(self.input(input)?, Pass::Main, unit) else { return Ok(None) };
        let entry = self.wait_for(id)?;
        self.builder.open_folder(id, &entry).map(Some)
    }

    fn rows(
        &self,
        input: usize,
        group: usize,
        table: usize,
        partition: usize,
    ) -> Result<Box<dyn RowAccess + '_>, StageError> {
        let Builder { session, tasks, .. } = self.builder;
        let node = self.table(input, group, table)?;
        let columns = self.columns(node);
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let group = InputGroup { tables: vec![node], weight: 1.0 };
        for stored in Recipe::new(session.graph, &group, &columns)?.stored(session.graph) {
            if let Some(id) = tasks.id(stored, Pass::Main, partition) {
                self.wait_for(id)?;
            }
        }
        Ok(Box::new(Rows::new(self.builder.reader(), node, partition)))
    }

    fn lineage(&self, input: usize) -> Result<Vec<Lineage>, StageError> {
        let session = self.builder.session;
        let graph = session.graph;
        let upstream = graph.upstream(&[self.input(input)?]).into_iter().rev();
        upstream
            .map(|index| {
                let node = &graph.nodes[index];
                Ok(Lineage {
                    name: node.name.clone(),
                    kind: node.stage.kind,
                    resources: session.opened(index)?.identity.resources.clone(),
                    makes: node.output().iter().flat_map(Columns::names).map(str::to_owned).collect(),
                    columns: self.columns(index),
                })
            })
            .collect()
    }

    fn settings(&self, input: usize) -> Result<Vec<Settings>, StageError> {
        let graph = self.builder.session.graph;
        let node = &graph.nodes[self.node()];
        match &node.stage.role {
            Role::Job(stage) if stage.reads_settings() => graph.settings(self.input(input)?),
            _ => Err(StageError::new(format!("`{}` does not say that it reads settings", node.stage.kind))),
        }
    }

    fn origin(&self) -> Result<Origin, StageError> {
        let graph = self.builder.session.graph;
        let upstream = graph.upstream(&[self.node()]).into_iter();
        let stages = upstream.map(|index| self.origin_of(index, &graph.nodes[index])).collect();
        Ok(Origin { name: graph.name.clone(), text: graph.text.clone(), seed: graph.seed, stages })
    }

    fn ledger(&self, name: &str) -> Result<Box<dyn Ledger>, StageError> {
        let workdir = self.builder.session.store.workdir();
        Ok(Box::new(LedgerFile::open(&workdir.ledgers(), name, &workdir.scratch()?)?))
    }

    fn inputs_read(&self) -> Result<BTreeMap<String, BTreeMap<String, String>>, StageError> {
        let session = self.builder.session;
        let graph = session.graph;
        let mut all = BTreeMap::new();
        for index in graph.upstream(&[self.node()]) {
            let node = &graph.nodes[index];
            let mut inputs = session.opened(index)?.identity.resources.clone();
            if matches!(node.stage.role, Role::Source(_)) {
                let columns: Vec<String> =
                    node.output().iter().flat_map(Columns::names).map(str::to_owned).collect();
                for (partition, label) in session.labels(index).iter().enumerate() {
                    let digest = session.source_digest(index, partition, &columns)?;
                    inputs.insert(label.clone(), digest.to_hex().to_string());
                }
            }
            if !inputs.is_empty() {
                all.insert(node.name.clone(), inputs);
            }
        }
        Ok(all)
    }

    fn pool(&self) -> &rayon::ThreadPool {
        &self.builder.session.pool
    }

    fn output(&self) -> &Path {
        &self.folder
    }

    fn seed(&self) -> u64 {
        self.builder.session.graph.seed
    }

    fn cancelled(&self) -> bool {
        self.builder.host.stopping()
    }

    fn progress(&self, done: f64, text: &str) {
        self.builder.host.event(&Event::Progress { stage: self.node(), done, text });
    }
}
