//! What a run tells while it runs. The command line turns it into progress bars.

use crate::graph::NodeIndex;

/// Sees a run happen. Called from many threads; must not block for long.
pub trait Observer: Sync {
    fn event(&self, event: &Event<'_>);
}

/// Ignores everything.
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _event: &Event<'_>) {}
}

/// Something happened. `stage` is an index into [`crate::Graph::nodes`].
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// Once per stage that has work units, before anything runs: how many of its `partitions` are there already. The others
    /// may still turn out to need no work.
    Planned { stage: NodeIndex, partitions: usize, reused: usize },
    /// A partition is being made. `rows` is how many it has, where that is known already.
    Started { stage: NodeIndex, label: &'a str, rows: Option<u64> },
    /// Another batch of a partition is written.
    Rows { stage: NodeIndex, rows: u64 },
    /// A partition is there: made by this run, or found (`reused`).
    Finished { stage: NodeIndex, label: &'a str, rows: u64, rejected: u64, reused: bool },
    /// How far a job is, from 0 to 1, and what it says.
    Progress { stage: NodeIndex, done: f64, text: &'a str },
    /// Another process works on a partition that is needed here; it is waited for.
    Waiting { stage: NodeIndex, label: &'a str },
    /// A partition failed.
    Failed { stage: NodeIndex, label: &'a str, error: &'a str },
    /// Something to know, such as a damaged file that is being made again.
    Warning { stage: NodeIndex, text: &'a str },
}
