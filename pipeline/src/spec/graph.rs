//! The checked graph: stages in an order in which every stage comes after its inputs.

use crate::spec::columns::{Column, Columns};
use crate::spec::error::StageError;
use crate::spec::registry::{Role, Stage};
use crate::spec::stage::Settings;
use std::path::PathBuf;

/// The index of a stage in [`Graph::nodes`].
pub type NodeIndex = usize;

/// A manifest that passed every check.
pub struct Graph {
    /// `name` of the manifest.
    pub name: String,
    /// The manifest file as given on the command line.
    pub manifest: PathBuf,
    /// What stands in it.
    pub text: String,
    /// The `K=V` of `--set`.
    pub settings: Vec<String>,
    pub seed: u64,
    /// The folder of the store, or `s3://BUCKET/PREFIX`.
    pub store: PathBuf,
    /// In topological order; among free stages, by name, so that the order in the file does not matter.
    pub nodes: Vec<Node>,
}

/// One stage and its wiring.
pub struct Node {
    pub name: String,
    pub stage: Stage,
    /// Groups of row-aligned inputs; a source has none, a map stage exactly one group, a job one group for each stage that
    /// `from` names.
    pub inputs: Vec<InputGroup>,
    pub budget: RejectBudget,
}

/// Tables that line up by row.
#[derive(Clone, Debug, PartialEq)]
pub struct InputGroup {
    pub tables: Vec<NodeIndex>,
    pub weight: f64,
}

/// When rejects stop a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RejectBudget {
    /// Largest share of a stage's rows that it may reject (0 to 1). Default 0.1.
    pub fraction: f64,
    /// Largest run of rejected rows one after the other. Default 1000.
    pub consecutive: usize,
    /// Most files that may be lost, in whole or from some row on. Default 0.
    pub files: u64,
}

impl Default for RejectBudget {
    fn default() -> Self {
        Self { fraction: 0.1, consecutive: 1000, files: 0 }
    }
}

/// A column somebody may read from a table, and the node that makes it (another than the table's, when it passes through).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    pub column: Column,
    pub made_by: NodeIndex,
}

impl Graph {
    pub fn find(&self, name: &str) -> Option<NodeIndex> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// Every column of the table of `node`: its own, then those that pass through it. Nothing for folders. The column
    /// `reject`, which every table has, is left out.
    pub fn offered(&self, node: NodeIndex) -> Vec<Offered> {
        all_offered(&self.nodes).swap_remove(node)
    }

    /// The node that makes `column` when `group` is read.
    pub fn made_by(&self, group: &InputGroup, column: &str) -> Option<NodeIndex> {
        group_columns(group, &all_offered(&self.nodes))
            .into_iter()
            .find(|offered| offered.column.name == column)
            .map(|offered| offered.made_by)
    }

    /// The tables that the rows of `tables` went through, `tables` among them: the nearest first.
    pub fn makers(&self, tables: &[NodeIndex]) -> Vec<NodeIndex> {
        makers(&self.nodes, tables)
    }

    /// The settings of the stages that the rows of `node`, a gather stage, went through, the nearest first; none of others.
    pub fn settings(&self, node: NodeIndex) -> Result<Vec<Settings>, StageError> {
        if !matches!(self.nodes[node].stage.role, Role::Gather(_)) {
            return Ok(Vec::new());
        }
        let mut all = Vec::new();
        for index in self.makers(&[node]) {
            let Node { name, stage, .. } = &self.nodes[index];
            if let Some((what, value)) = stage.role.parameters().settings()? {
                all.push(Settings { stage: name.clone(), what, value });
            }
        }
        Ok(all)
    }

    /// The column `name` of whatever the rows of `tables` went through, the nearest maker first.
    pub fn upstream_column(&self, tables: &[NodeIndex], name: &str) -> Option<Offered> {
        upstream_columns(&self.nodes, tables).into_iter().find(|offered| offered.column.name == name)
    }

    /// The source whose rows the table of `node` has; none for folders.
    pub fn source_of(&self, node: NodeIndex) -> Option<NodeIndex> {
        source_of(&self.nodes, node)
    }

    /// `nodes` and all they need, in topological order.
    pub fn upstream(&self, nodes: &[NodeIndex]) -> Vec<NodeIndex> {
        upstream(&self.nodes, nodes)
    }

    /// The stage that no manifest names and that goes before `node` ([`crate::spec::stage::MapStage::beside`]): no other names have a dot.
    fn beside(&self, node: NodeIndex) -> Option<NodeIndex> {
        let Node { name, .. } = &self.nodes[node];
        let is_beside = |table: &NodeIndex| {
            self.nodes[*table].name.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('.'))
        };
        self.nodes[node].tables().find(is_beside)
    }

    /// `nodes`, what goes before them unnamed, and all that need them, in topological order.
    pub fn downstream(&self, nodes: &[NodeIndex]) -> Vec<NodeIndex> {
        let mut wanted = vec![false; self.nodes.len()];
        for &node in nodes {
            wanted[node] = true;
            self.beside(node).into_iter().for_each(|beside| wanted[beside] = true);
        }
        for (index, node) in self.nodes.iter().enumerate() {
            wanted[index] |= node.tables().any(|table| wanted[table]);
        }
        (0..self.nodes.len()).filter(|&index| wanted[index]).collect()
    }
}

impl Node {
    /// The inputs of all groups, in order.
    pub fn tables(&self) -> impl Iterator<Item = NodeIndex> + '_ {
        self.inputs.iter().flat_map(|group| group.tables.iter().copied())
    }

    /// The columns this stage writes; none for a folder.
    pub fn output(&self) -> Option<Columns> {
        match &self.stage.role {
            Role::Source(stage) => Some(stage.output()),
            Role::Map(stage) => Some(stage.output()),
            Role::Gather(_) | Role::Job(_) => None,
        }
    }
}

/// [`Graph::offered`] for every node of `nodes`, which are in topological order.
fn all_offered(nodes: &[Node]) -> Vec<Vec<Offered>> {
    let mut all = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let next = offered_by(index, node, &all);
        all.push(next);
    }
    all
}

/// What `node`, the `index`th, offers, given what the nodes before it offer.
pub(crate) fn offered_by(index: NodeIndex, node: &Node, before: &[Vec<Offered>]) -> Vec<Offered> {
    let Some(output) = node.output() else { return Vec::new() };
    let mut all: Vec<Offered> =
        output.iter().map(|column| Offered { column: column.clone(), made_by: index }).collect();
    if let Role::Map(stage) = &node.stage.role
        && stage.passes_through()
    {
        let inherited = node.inputs.iter().flat_map(|group| group_columns(group, before));
        all.extend(inherited.filter(|offered| output.get(&offered.column.name).is_none()));
    }
    all
}

/// The columns of all tables of a group, the first table first. A column that reaches the group along several tables from
/// one maker is listed once; one that different tables make is listed once for each.
pub(crate) fn group_columns(group: &InputGroup, offered: &[Vec<Offered>]) -> Vec<Offered> {
    let mut all: Vec<Offered> = Vec::new();
    for column in group.tables.iter().flat_map(|&table| &offered[table]) {
        if !all.contains(column) {
            all.push(column.clone());
        }
    }
    all
}

/// [`Graph::upstream`] while the graph is being built.
fn upstream(nodes: &[Node], of: &[NodeIndex]) -> Vec<NodeIndex> {
    let mut wanted = vec![false; nodes.len()];
    for &node in of {
        wanted[node] = true;
    }
    for index in (0..nodes.len()).rev() {
        if wanted[index] {
            nodes[index].tables().for_each(|table| wanted[table] = true);
        }
    }
    (0..nodes.len()).filter(|&index| wanted[index]).collect()
}

/// [`Graph::makers`] while the graph is being built.
fn makers(nodes: &[Node], tables: &[NodeIndex]) -> Vec<NodeIndex> {
    let is_table = |node: &NodeIndex| nodes[*node].stage.role.kind().gives_table();
    upstream(nodes, tables).into_iter().filter(is_table).rev().collect()
}

/// Every column that some table the rows of `tables` went through makes, the nearest maker first; each name once.
pub(crate) fn upstream_columns(nodes: &[Node], tables: &[NodeIndex]) -> Vec<Offered> {
    let mut all: Vec<Offered> = Vec::new();
    for made_by in makers(nodes, tables) {
        for column in nodes[made_by].output().iter().flat_map(Columns::iter) {
            if all.iter().all(|known| known.column.name != column.name) {
                all.push(Offered { column: column.clone(), made_by });
            }
        }
    }
    all
}

/// [`Graph::source_of`] while the graph is being built.
pub(crate) fn source_of(nodes: &[Node], node: NodeIndex) -> Option<NodeIndex> {
    match nodes[node].stage.role {
        Role::Source(_) => Some(node),
        Role::Map(_) => nodes[node].tables().next().and_then(|table| source_of(nodes, table)),
        Role::Gather(_) | Role::Job(_) => None,
    }
}
