//! What a run reports while it runs. The command line turns it into progress bars.

use crate::spec::error::StageError;
use crate::spec::graph::NodeIndex;
use crate::spec::panics::catch;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sees a run happen. Called from many threads, one at a time; must not block for long.
pub trait Observer: Sync {
    fn event(&self, event: &Event<'_>);
}

/// Ignores everything.
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _event: &Event<'_>) {}
}

/// Something happened. `stage` is an index into [`crate::spec::graph::Graph::nodes`].
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
    /// A raw file whose content is not known yet is read: `bytes` of all such files so far. Before anything else runs.
    Hashing { path: &'a Path, bytes: u64 },
    /// Something to know, such as a damaged file that is being made again.
    Warning { stage: NodeIndex, text: &'a str },
}

/// Who sees long work, and who may end it.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    pub observer: &'a dyn Observer,
    pub cancel: &'a AtomicBool,
}

/// Never set.
static NEVER: AtomicBool = AtomicBool::new(false);

impl Watch<'_> {
    /// Nobody sees it, nobody ends it.
    pub fn nobody() -> Self {
        Self { observer: &Silent, cancel: &NEVER }
    }

    /// An observer that panics, because its terminal is gone, stops no work.
    pub fn event(&self, event: &Event<'_>) {
        let seen = catch("in the observer", || {
            self.observer.event(event);
            Ok(())
        });
        if let Err(cause) = seen {
            tracing::debug!("{cause}");
        }
    }

    /// An error when the work should end.
    pub fn go_on(&self) -> Result<(), StageError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(StageError::new("interrupted"));
        }
        Ok(())
    }
}
