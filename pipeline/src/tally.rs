//! Counts of rows and rejects, small enough to keep for every partition, and the budgets they are held against.

use crate::graph::{Graph, NodeIndex, RejectBudget};
use crate::registry::Role;
use crate::session::Session;
use crate::store::record::{FolderRecord, TableRecord};
use crate::table::rejects;
use crate::tasks::{Pass, Task};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Rejects kept as examples for each partition and stage.
pub const EXAMPLES: usize = 5;

/// Rows of a stage before a share of them means anything.
const ENOUGH_ROWS: u64 = 100;

/// What one output counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    pub rows: u64,
    pub bytes: u64,
    /// Rows that no earlier stage had rejected.
    pub usable: u64,
    pub longest_run: u64,
    /// By `kind/code`.
    pub rejected: BTreeMap<String, u64>,
    /// Row and reason of the first rejects.
    pub first: Vec<(u64, String)>,
    /// By derived stage (index into [`crate::recipe::Recipe::derived`]): how many rows, and the first.
    pub derived: BTreeMap<usize, (u64, Vec<(u64, String)>)>,
}

impl From<&TableRecord> for Tally {
    fn from(record: &TableRecord) -> Self {
        let mut derived: BTreeMap<usize, (u64, Vec<(u64, String)>)> = BTreeMap::new();
        for reject in &record.derived {
            let (count, first) = derived.entry(reject.maker).or_default();
            *count += 1;
            if first.len() < EXAMPLES {
                first.push((reject.row, reject.reason.clone()));
            }
        }
        let first = record.rejects.iter().take(EXAMPLES);
        Self {
            rows: record.rows,
            bytes: record.bytes,
            usable: record.usable,
            longest_run: record.longest_run,
            rejected: record.counts(),
            first: first.map(|reject| (reject.row, rejects::reason(reject))).collect(),
            derived,
        }
    }
}

impl From<&FolderRecord> for Tally {
    fn from(record: &FolderRecord) -> Self {
        Self { rows: record.rows, bytes: record.bytes, usable: record.rows, ..Self::default() }
    }
}

/// What is counted for one partition of a node.
#[derive(Default)]
struct Share {
    usable: u64,
    rejected: u64,
    /// Row and reason.
    first: Vec<(u64, String)>,
}

/// What is counted for one node.
#[derive(Default)]
struct Counted {
    partitions: BTreeMap<usize, Share>,
    usable: u64,
    rejected: u64,
}

impl Counted {
    /// Several readers of a derived table count the same rows; the largest count stands.
    fn add(&mut self, partition: usize, usable: u64, rejected: u64, first: &[(u64, String)]) {
        let share = self.partitions.entry(partition).or_default();
        if rejected > share.rejected || share.usable == 0 {
            self.usable = self.usable - share.usable + usable;
            self.rejected = self.rejected - share.rejected + rejected;
            *share = Share { usable, rejected, first: first.to_vec() };
        }
    }
}

/// A budget that was exceeded.
#[derive(Debug)]
pub struct Exceeded {
    pub node: NodeIndex,
    /// "214 of 2048 rows (10.4%), more than 10%".
    pub what: String,
    /// Partition, row and reason.
    pub examples: Vec<(usize, u64, String)>,
}

/// Holds rejects against budgets.
pub struct Ledger {
    nodes: Mutex<Vec<Counted>>,
}

impl Ledger {
    pub fn new(graph: &Graph) -> Self {
        Self { nodes: Mutex::new(graph.nodes.iter().map(|_| Counted::default()).collect()) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Counted>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a finished partition; the first budget that it exceeds.
    pub fn add(&self, session: &Session<'_>, task: &Task, tally: &Tally) -> Option<Exceeded> {
        let Role::Map(_) = &session.graph.nodes[task.node].stage.role else { return None };
        if task.pass == Pass::First {
            return None;
        }
        let mut nodes = self.lock();
        let rejected = tally.rejected.values().sum();
        nodes[task.node].add(task.index, tally.usable, rejected, &tally.first);
        let derived = session.node(task.node).and_then(|open| open.recipes.first());
        let derived = derived.map(|recipe| recipe.derived(session.graph)).unwrap_or_default();
        for (maker, node) in derived.iter().enumerate() {
            let none = (0, Vec::new());
            let (rejected, first) = tally.derived.get(&maker).unwrap_or(&none);
            nodes[*node].add(task.index, tally.rows, *rejected, first);
        }
        let run = tally.longest_run;
        let own = over(session, &nodes, task.node, run);
        own.or_else(|| derived.iter().find_map(|node| over(session, &nodes, *node, 0)))
    }
}

/// What exceeds the budget of a node, if anything does.
fn over(session: &Session<'_>, nodes: &[Counted], node: NodeIndex, run: u64) -> Option<Exceeded> {
    if on_purpose(session.graph, node) {
        return None;
    }
    let RejectBudget { fraction, consecutive } = session.graph.nodes[node].budget;
    let Counted { partitions, usable, rejected } = &nodes[node];
    let is_all = partitions.len() >= session.labels(node).len();
    let share = *rejected as f64 / (*usable).max(1) as f64;
    let what = if run > consecutive as u64 {
        format!("{run} rows one after the other, more than {consecutive}")
    } else if (*usable >= ENOUGH_ROWS || is_all) && share > fraction {
        format!("{rejected} of {usable} rows ({:.1}%), more than {}%", share * 100.0, fraction * 100.0)
    } else {
        return None;
    };
    let examples = partitions.iter().flat_map(|(partition, share)| {
        share.first.iter().map(|(row, reason)| (*partition, *row, reason.clone()))
    });
    Some(Exceeded { node, what, examples: examples.take(EXAMPLES).collect() })
}

/// Whether the rejects of a node are what the user asked for.
pub fn on_purpose(graph: &Graph, node: NodeIndex) -> bool {
    matches!(&graph.nodes[node].stage.role, Role::Map(stage) if stage.rejects_on_purpose())
}
