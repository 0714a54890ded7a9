//! Holds rejects against the budgets of the manifest.
//!
//! Partitions are counted in their order, whichever is finished first: a stage is over its budget when, after some partition,
//! too large a share of the rows up to there was rejected. So the same data ends the same way in every run. A stage that is
//! over its budget is reported once.

use crate::keys::session::Session;
use crate::keys::tasks::{Pass, Task};
use crate::spec::graph::{Graph, NodeIndex, RejectBudget};
use crate::spec::registry::Role;
use crate::spec::rejects::Reason;
use crate::table::counts::{Counts, Derived, EXAMPLES, Exceeded, on_purpose};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Rows of a stage before a share of them means anything.
const ENOUGH_ROWS: u64 = 100;

/// What is counted for one partition of a node.
#[derive(Default)]
struct Share {
    usable: u64,
    rejected: u64,
    files: u64,
    longest_run: u64,
    /// Row and reason.
    first: Vec<(u64, Reason)>,
}

/// What is counted for one node.
#[derive(Default)]
struct Counted {
    /// Partitions whose turn has not come.
    waiting: BTreeMap<usize, Share>,
    /// The next partition.
    next: usize,
    usable: u64,
    rejected: u64,
    files: u64,
    /// Partition, row and reason.
    first: Vec<(usize, u64, Reason)>,
    is_over: bool,
}

/// Holds rejects against budgets.
pub struct Ledger {
    nodes: Mutex<Vec<Counted>>,
}

impl Ledger {
    pub fn new(graph: &Graph) -> Self {
        Self { nodes: Mutex::new(graph.nodes.iter().map(|_| Counted::default()).collect()) }
    }

    /// Counts a finished partition; the budgets that are exceeded now and were not before.
    pub fn add(&self, session: &Session<'_>, task: &Task, counts: &Counts) -> Vec<Exceeded> {
        let is_map = matches!(&session.graph.nodes[task.node].stage.role, Role::Map(_));
        if !is_map || task.pass == Pass::Intermediate {
            return Vec::new();
        }
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let own = Share {
            usable: counts.usable,
            rejected: counts.rejected.values().sum(),
            files: 0,
            longest_run: counts.longest_run,
            first: counts.first.clone(),
        };
        let mut exceeded: Vec<Exceeded> =
            nodes[task.node].add(session, task.node, task.index, own).into_iter().collect();
        for (maker, node) in derived(session, task.node).into_iter().enumerate() {
            if first_reader(session, node) == Some(task.node) {
                let Derived { rows: rejected, files, first } =
                    counts.derived.get(&maker).cloned().unwrap_or_default();
                let share = Share { usable: counts.rows, rejected, files, longest_run: 0, first };
                exceeded.extend(nodes[node].add(session, node, task.index, share));
            }
        }
        exceeded
    }
}

/// The derived stages that are applied when a node reads.
fn derived(session: &Session<'_>, node: NodeIndex) -> Vec<NodeIndex> {
    let recipe = session.node(node).and_then(|open| open.recipes.first());
    recipe.map(|recipe| recipe.derived(session.graph)).unwrap_or_default()
}

/// The stored stage whose counts stand for a derived one, which several may read.
fn first_reader(session: &Session<'_>, node: NodeIndex) -> Option<NodeIndex> {
    (0..session.graph.nodes.len())
        .find(|reader| session.is_stored(*reader) && derived(session, *reader).contains(&node))
}

impl Counted {
    fn add(
        &mut self,
        session: &Session<'_>,
        node: NodeIndex,
        partition: usize,
        share: Share,
    ) -> Option<Exceeded> {
        if partition >= self.next {
            self.waiting.entry(partition).or_insert(share);
        }
        while let Some(share) = self.waiting.remove(&self.next) {
            self.usable += share.usable;
            self.rejected += share.rejected;
            self.files += share.files;
            self.keep_examples(share.first);
            self.next += 1;
            if let Some(what) = self.over(session, node, share.longest_run) {
                self.is_over = true;
                return Some(Exceeded { node, what, examples: self.examples(session, node) });
            }
        }
        None
    }

    /// The first ones; lost files, of which there are few, before rows.
    fn keep_examples(&mut self, first: Vec<(u64, Reason)>) {
        for (row, reason) in first {
            if self.first.len() < EXAMPLES {
                self.first.push((self.next, row, reason));
            } else if reason.is_lost_file()
                && let Some(last) = self.first.iter_mut().rev().find(|(_, _, reason)| !reason.is_lost_file())
            {
                *last = (self.next, row, reason);
            }
        }
    }

    /// What is shown of them: only lost files where those are too many.
    fn examples(&self, session: &Session<'_>, node: NodeIndex) -> Vec<(usize, u64, Reason)> {
        let lost_too_many = self.files > session.graph.nodes[node].budget.files;
        let shown = self.first.iter().filter(|(_, _, reason)| !lost_too_many || reason.is_lost_file());
        shown.cloned().collect()
    }

    /// What exceeds the budget, if anything does.
    fn over(&self, session: &Session<'_>, node: NodeIndex, run: u64) -> Option<String> {
        if self.is_over || on_purpose(session.graph, node) {
            return None;
        }
        let RejectBudget { fraction, consecutive, files: most_files } = session.graph.nodes[node].budget;
        let Self { usable, rejected, files, .. } = self;
        let is_all = self.next >= session.labels(node).len();
        let share = *rejected as f64 / (*usable).max(1) as f64;
        if *files > most_files {
            let s = if *files == 1 { "" } else { "s" };
            Some(format!(
                "{files} file{s} that could not be read to the end, more than {most_files} (`files`)"
            ))
        } else if run > consecutive as u64 {
            Some(format!("{run} rows one after the other, more than {consecutive}"))
        } else if (*usable >= ENOUGH_ROWS || is_all) && share > fraction {
            Some(format!(
                "{rejected} of {usable} rows ({:.1}%), more than {}%",
                share * 100.0,
                fraction * 100.0
            ))
        } else {
            None
        }
    }
}
