//! The checked graph: stages in an order in which every stage comes after its inputs.

use crate::registry::Stage;
use std::path::PathBuf;

/// The index of a stage in [`Graph::nodes`].
pub type NodeIndex = usize;

/// A manifest that passed every check.
pub struct Graph {
    /// `name` of the manifest.
    pub name: String,
    /// The manifest file as given on the command line.
    pub manifest: PathBuf,
    pub seed: u64,
    /// The folder of the store.
    pub store: PathBuf,
    /// In topological order; among free stages, by name, so that the order in the file does not matter.
    pub nodes: Vec<Node>,
}

/// One stage and its wiring.
pub struct Node {
    pub name: String,
    pub stage: Stage,
    /// Groups of row-aligned inputs; a source has none, a map stage exactly one group.
    pub inputs: Vec<InputGroup>,
    pub budget: RejectBudget,
}

/// Tables that line up by row.
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
}
