//! How far every stage of a manifest is.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The content of `llavm status --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// In the order of the graph.
    pub stages: Vec<StageStatus>,
}

/// How far one stage is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageStatus {
    pub name: String,
    pub kind: String,
    pub state: State,
    /// Partitions of the table, units of a gather stage, 1 for a job.
    pub partitions: usize,
    /// How many of them are there.
    pub ready: usize,
    /// Rows of the partitions that are there.
    pub rows: u64,
    /// New rejects of this stage among them, by `kind/code`.
    pub rejected: BTreeMap<String, u64>,
    /// The stored files that are there, Arrow or job outputs.
    pub files: Vec<PathBuf>,
}

/// The state of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Every partition is there.
    Ready,
    /// Some partitions are there.
    Partial,
    /// Nothing is there.
    Missing,
    /// Computed whenever it is read; never stored.
    Derived,
}
