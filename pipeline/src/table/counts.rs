//! Counts of rows and rejects, small enough to keep for every partition.

use crate::spec::graph::{Graph, NodeIndex};
use crate::spec::registry::Role;
use crate::spec::rejects::Reason;
use crate::store::record::{FolderRecord, TableRecord};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Rejects kept as examples for each partition and stage.
pub const EXAMPLES: usize = 5;

/// What one output counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    pub rows: u64,
    pub bytes: u64,
    /// Rows that no earlier stage had rejected.
    pub usable: u64,
    pub longest_run: u64,
    /// By `kind/code`.
    pub rejected: BTreeMap<String, u64>,
    /// Row and reason of the first rejects.
    pub first: Vec<(u64, Reason)>,
    /// By derived stage (index into [`crate::keys::recipe::Recipe::derived`]): what it rejected.
    pub derived: BTreeMap<usize, Derived>,
}

/// What a derived stage rejected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Derived {
    pub rows: u64,
    /// Those of the rows that stand for the rest of a file.
    pub files: u64,
    /// Row and reason of the first rejects.
    pub first: Vec<(u64, Reason)>,
}

impl Derived {
    fn add(&mut self, row: u64, reason: &Reason) {
        self.rows += 1;
        self.files += u64::from(reason.is_lost_file());
        // Lost files are named before rows: there are few of them.
        if self.first.len() < EXAMPLES {
            self.first.push((row, reason.clone()));
        } else if reason.is_lost_file()
            && let Some(last) = self.first.iter_mut().rev().find(|(_, reason)| !reason.is_lost_file())
        {
            *last = (row, reason.clone());
        }
    }
}

impl From<&TableRecord> for Counts {
    fn from(record: &TableRecord) -> Self {
        let mut derived: BTreeMap<usize, Derived> = BTreeMap::new();
        for reject in &record.derived {
            derived.entry(reject.maker).or_default().add(reject.row, &reject.reason);
        }
        let first = record.rejects.iter().take(EXAMPLES);
        Self {
            rows: record.rows,
            bytes: record.bytes,
            usable: record.usable,
            longest_run: record.longest_run,
            rejected: record.counts(),
            first: first.map(|reject| (reject.row, reject.reason.clone())).collect(),
            derived,
        }
    }
}

impl From<&FolderRecord> for Counts {
    fn from(record: &FolderRecord) -> Self {
        Self { rows: record.rows, bytes: record.bytes, usable: record.rows, ..Self::default() }
    }
}

/// A budget that was exceeded.
#[derive(Debug)]
pub struct Exceeded {
    pub node: NodeIndex,
    /// "214 of 2048 rows (10.4%), more than 10%".
    pub what: String,
    /// Partition, row and reason.
    pub examples: Vec<(usize, u64, Reason)>,
}

/// Whether the rejects of a node are what the user asked for.
pub fn on_purpose(graph: &Graph, node: NodeIndex) -> bool {
    matches!(&graph.nodes[node].stage.role, Role::Map(stage) if stage.rejects_on_purpose())
}
