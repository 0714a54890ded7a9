//! What a job sees of the run it is part of.

use super::Runner;
use super::board::Status;
use super::gives_folder;
use crate::StageError;
use crate::graph::{InputGroup, Node, NodeIndex};
use crate::key::canonical;
use crate::observer::Event;
use crate::parts::{Entry, Known};
use crate::recipe::Recipe;
use crate::registry::Role;
use crate::stage::{JobContext, Lineage, Origin, OriginStage, RowAccess};
use crate::table::access::Rows;
use crate::table::{rejects, view};
use crate::tasks::{Pass, TaskId};
use arrow::array::RecordBatch;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a job sees.
pub struct Context<'a> {
    runner: &'a Runner<'a>,
    id: TaskId,
    inputs: Vec<String>,
    folder: PathBuf,
}

impl<'a> Context<'a> {
    pub fn new(runner: &'a Runner<'a>, id: TaskId, inputs: Vec<String>, folder: PathBuf) -> Self {
        Self { runner, id, inputs, folder }
    }

    fn node(&self) -> NodeIndex {
        self.runner.tasks.all[self.id].node
    }

    /// The node of an input.
    fn input(&self, input: usize) -> Result<NodeIndex, StageError> {
        let graph = self.runner.session.graph;
        let node = graph.nodes[self.node()].tables().nth(input);
        node.filter(|node| gives_folder(&graph.nodes[*node].stage.role))
            .ok_or_else(|| StageError::new(format!("there is no input {input} that is a folder")))
    }

    /// A table of a gather stage that is an input.
    fn table(&self, input: usize, group: usize, table: usize) -> Result<NodeIndex, StageError> {
        let gather = &self.runner.session.graph.nodes[self.input(input)?];
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
        let Runner { session, tasks, board, .. } = self.runner;
        loop {
            match board.status(id) {
                Status::Done { entry, .. } => return Ok(entry),
                Status::Failed | Status::Skipped => {
                    let name = session.name(tasks.all[id].node);
                    return Err(StageError::new(format!("its input `{name}` failed")));
                }
                _ if board.stopping() => return Err(StageError::new("the run is stopping")),
                _ => board.wait(),
            }
        }
    }

    /// The columns of the table of a node, by name.
    fn columns(&self, node: NodeIndex) -> Vec<String> {
        self.runner.session.graph.offered(node).into_iter().map(|offered| offered.column.name).collect()
    }

    fn origin_of(&self, index: NodeIndex, node: &Node) -> OriginStage {
        let Runner { session, tasks, board, .. } = self.runner;
        let entries: Option<Vec<Entry>> = tasks.of(index, Pass::Main).map(|task| board.entry(task)).collect();
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
        let Some(id) = self.runner.tasks.id(self.input(input)?, Pass::Main, unit) else { return Ok(None) };
        let entry = self.wait_for(id)?;
        self.runner.open_folder(id, &entry).map(Some)
    }

    fn rows(
        &self,
        input: usize,
        group: usize,
        table: usize,
        partition: usize,
    ) -> Result<Box<dyn RowAccess + '_>, StageError> {
        let Runner { session, tasks, .. } = self.runner;
        let node = self.table(input, group, table)?;
        let columns = self.columns(node);
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let group = InputGroup { tables: vec![node], weight: 1.0 };
        for stored in Recipe::new(session.graph, &group, &columns)?.stored(session.graph) {
            if let Some(id) = tasks.id(stored, Pass::Main, partition) {
                self.wait_for(id)?;
            }
        }
        Ok(Box::new(Rows::new(self.runner.reader(), node, partition)))
    }

    fn replay(
        &self,
        input: usize,
        group: usize,
        table: usize,
        rows: &RecordBatch,
    ) -> Result<RecordBatch, StageError> {
        let session = self.runner.session;
        let node = self.table(input, group, table)?;
        let columns = self.columns(node);
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let group = InputGroup { tables: vec![node], weight: 1.0 };
        let recipe = Arc::new(Recipe::replay(session.graph, &group, &columns)?);
        let rows = rejects::with_column(rows)?;
        let leaves = recipe.leaves.iter().map(|_| rows.clone()).collect();
        view::with_rejects(session.assembler(&recipe)?.assemble(leaves)?)
    }

    fn lineage(&self, input: usize) -> Result<Vec<Lineage>, StageError> {
        let graph = self.runner.session.graph;
        let upstream = graph.upstream(&[self.input(input)?]).into_iter().rev();
        upstream
            .map(|index| {
                let Node { name, stage, .. } = &graph.nodes[index];
                Ok(Lineage {
                    name: name.clone(),
                    kind: stage.kind,
                    version: stage.version,
                    params: canonical(&stage.params),
                    resources: stage.role.parameters().resources()?,
                })
            })
            .collect()
    }

    fn origin(&self) -> Result<Origin, StageError> {
        let graph = self.runner.session.graph;
        let upstream = graph.upstream(&[self.node()]).into_iter();
        let stages = upstream.map(|index| self.origin_of(index, &graph.nodes[index])).collect();
        Ok(Origin { name: graph.name.clone(), text: graph.text.clone(), seed: graph.seed, stages })
    }

    fn pool(&self) -> &rayon::ThreadPool {
        &self.runner.session.pool
    }

    fn output(&self) -> &Path {
        &self.folder
    }

    fn store(&self) -> &Path {
        self.runner.session.store.root()
    }

    fn seed(&self) -> u64 {
        self.runner.session.graph.seed
    }

    fn cancelled(&self) -> bool {
        self.runner.board.stopping()
    }

    fn progress(&self, done: f64, text: &str) {
        self.runner.log.event(&Event::Progress { stage: self.node(), done, text });
    }
}
