//! What a run would do, worked out without running anything.

use crate::inspect::explain::Cause;
use serde::Serialize;
use std::fmt;

/// What a run would do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// In the order of the graph; stages that `--until` or `--from` leave out are not listed.
    pub stages: Vec<StagePlan>,
}

/// What a run would do with one stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StagePlan {
    pub name: String,
    pub kind: String,
    /// False for sources and map stages that are computed whenever they are read.
    pub stored: bool,
    pub partitions: usize,
    /// Found in the store.
    pub reuse: usize,
    /// Have to be made.
    pub run: usize,
    /// Depend on partitions that have to be made first; nothing runs where those turn out the same.
    pub unknown: usize,
    /// Why the first partition that runs does.
    pub cause: Option<Cause>,
}

impl Plan {
    /// Whether a run would do nothing.
    pub fn is_empty(&self) -> bool {
        self.stages.iter().all(|stage| stage.run == 0 && stage.unknown == 0)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.stages.iter().map(|stage| stage.name.chars().count()).max().unwrap_or(0);
        self.stages.iter().try_for_each(|stage| writeln!(f, "{:width$}  {stage}", stage.name))
    }
}

impl fmt::Display for StagePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.stored {
            return write!(f, "computed when read ({})", self.kind);
        }
        let counts = [("reuse", self.reuse), ("run", self.run), ("depends on the above", self.unknown)];
        let counts: Vec<String> =
            counts.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{what} {n}")).collect();
        write!(f, "{} of {} ({})", counts.join(", "), self.partitions, self.kind)?;
        self.cause.as_ref().map_or(Ok(()), |cause| write!(f, ": {cause}"))
    }
}
