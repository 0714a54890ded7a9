//! How the rows of a group of tables are put together: which stored tables and sources are read, which derived stages are
//! applied to what was read, and where each wanted column comes from.
//!
//! In: a graph, a group of tables that line up, the wanted columns. Out: a [`Recipe`], the same for every partition. It also
//! says what enters the key of whoever reads: the tables in [`Recipe::reads`], each with the columns read from it, so that
//! the key of a text stage does not depend on images that lie in the same source.

use crate::spec::error::StageError;
use crate::spec::graph::{Graph, InputGroup, Node, NodeIndex};
use crate::spec::registry::Role;
use crate::spec::stage::MapStage;
use std::sync::Arc;

/// Columns read from one table; `reject` is always read too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub node: NodeIndex,
    /// Each once, in the order first wanted.
    pub columns: Vec<String>,
}

/// A derived map stage to apply.
#[derive(Clone, Debug)]
pub struct Step {
    pub node: NodeIndex,
    pub inputs: Wanted,
}

/// What a stage or step is handed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The columns in order.
    pub columns: Vec<String>,
    /// First the tables of the group, in order, then those whose columns pass through one of them. A row's reject is the
    /// first one found in this order.
    pub reads: Vec<Read>,
}

/// How to get the wanted columns of a group.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    pub wanted: Wanted,
    /// Stored tables and sources, with all columns that anything below needs.
    pub leaves: Vec<Read>,
    /// Derived stages, each after those it needs.
    pub steps: Vec<Step>,
}

impl Recipe {
    /// The columns must be offered by the tables of the group, or made by something their rows went through.
    pub fn new(graph: &Graph, group: &InputGroup, columns: &[&str]) -> Result<Self, StageError> {
        let mut recipe = Self { wanted: wanted(graph, group, columns)?, ..Self::default() };
        recipe.gather(graph, recipe.wanted.reads.clone())?;
        Ok(recipe)
    }

    /// The nodes whose rejects show up only here, because their rows are not stored.
    pub fn derived(&self, graph: &Graph) -> Vec<NodeIndex> {
        let sources = self.leaves.iter().map(|leaf| leaf.node).filter(|node| !is_stored(&graph.nodes[*node]));
        sources.chain(self.steps.iter().map(|step| step.node)).collect()
    }

    /// The stored tables that must be there before the rows can be put together.
    pub fn stored(&self, graph: &Graph) -> Vec<NodeIndex> {
        self.leaves.iter().map(|leaf| leaf.node).filter(|node| is_stored(&graph.nodes[*node])).collect()
    }

    fn gather(&mut self, graph: &Graph, reads: Vec<Read>) -> Result<(), StageError> {
        for read in reads {
            let node = &graph.nodes[read.node];
            match derived_stage(node) {
                None => add(&mut self.leaves, read.node, &read.columns),
                Some(_) if self.steps.iter().any(|step| step.node == read.node) => {}
                Some(stage) => {
                    let inputs = map_inputs(graph, read.node, stage.as_ref())?;
                    self.gather(graph, inputs.reads.clone())?;
                    self.steps.push(Step { node: read.node, inputs });
                }
            }
        }
        Ok(())
    }
}

/// What a map stage is handed.
pub fn map_inputs(graph: &Graph, node: NodeIndex, stage: &dyn MapStage) -> Result<Wanted, StageError> {
    let input = stage.input();
    let columns: Vec<&str> = input.names().collect();
    wanted(graph, map_group(graph, node)?, &columns)
}

/// The one group of tables a map stage reads.
pub fn map_group(graph: &Graph, node: NodeIndex) -> Result<&InputGroup, StageError> {
    graph.nodes[node].inputs.first().ok_or_else(|| StageError::new("a map stage without an input"))
}

fn wanted(graph: &Graph, group: &InputGroup, columns: &[&str]) -> Result<Wanted, StageError> {
    let mut reads: Vec<Read> = Vec::new();
    group.tables.iter().for_each(|table| add(&mut reads, *table, &[]));
    for &column in columns {
        let maker = graph
            .made_by(group, column)
            .or_else(|| graph.upstream_column(&group.tables, column).map(|found| found.made_by))
            .ok_or_else(|| StageError::new(format!("no table it reads has the column `{column}`")))?;
        add(&mut reads, maker, &[column.to_owned()]);
    }
    Ok(Wanted { columns: columns.iter().map(|&column| column.to_owned()).collect(), reads })
}

fn add(reads: &mut Vec<Read>, node: NodeIndex, columns: &[String]) {
    if !reads.iter().any(|read| read.node == node) {
        reads.push(Read { node, columns: Vec::new() });
    }
    if let Some(read) = reads.iter_mut().find(|read| read.node == node) {
        let new: Vec<String> =
            columns.iter().filter(|column| !read.columns.contains(column)).cloned().collect();
        read.columns.extend(new);
    }
}

/// Whether the rows of this node lie in the store. A stage with a second pass is always stored: its verdicts on a partition
/// cannot be had without the partitions before it.
pub fn is_stored(node: &Node) -> bool {
    match &node.stage.role {
        Role::Map(stage) => stage.stored() || stage.sequential().is_some(),
        _ => false,
    }
}

/// The map stage of a node whose rows are not stored.
fn derived_stage(node: &Node) -> Option<&Arc<dyn MapStage>> {
    match &node.stage.role {
        Role::Map(stage) if !is_stored(node) => Some(stage),
        _ => None,
    }
}
