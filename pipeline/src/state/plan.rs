//! What a run would do, worked out without running anything.

use super::causes::{LastRoot, causes};
use super::lookup::{Cached, Snapshot};
use crate::keys::cause::Cause;
use crate::keys::tasks::Pass;
use crate::spec::error::StageError;
use crate::spec::graph::NodeIndex;
use crate::spec::registry::Role;
use serde::Serialize;
use std::collections::BTreeSet;
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

/// Sums a lookup up, stage by stage.
pub fn plan(snapshot: &Snapshot<'_>, force: &BTreeSet<NodeIndex>) -> Result<Plan, StageError> {
    let Snapshot { session, tasks, found } = snapshot;
    let root = LastRoot::read(session)?;
    let found = &found.cached;
    let nodes = (0..session.graph.nodes.len()).filter(|node| session.node(*node).is_some());
    let stages: Result<Vec<StagePlan>, StageError> = nodes
        .map(|node| {
            let range = tasks.of(node, Pass::Main);
            let count = |wanted: fn(&Cached) -> bool| range.clone().filter(|id| wanted(&found[*id])).count();
            let is_table = matches!(session.graph.nodes[node].stage.role, Role::Source(_) | Role::Map(_));
            let cause = first_cause(snapshot, &root, node)?;
            Ok(StagePlan {
                name: session.name(node).to_owned(),
                kind: session.graph.nodes[node].stage.kind.to_owned(),
                stored: !is_table || session.is_stored(node),
                partitions: session.labels(node).len(),
                reuse: count(|found| matches!(found, Cached::There(_))),
                run: count(|found| matches!(found, Cached::Run)),
                unknown: count(|found| matches!(found, Cached::Unknown)),
                cause: if force.contains(&node) { Some(Cause::Forced) } else { cause },
            })
        })
        .collect();
    Ok(Plan { stages: stages? })
}

fn first_cause(
    snapshot: &Snapshot<'_>,
    root: &LastRoot,
    node: NodeIndex,
) -> Result<Option<Cause>, StageError> {
    let Snapshot { tasks, found, .. } = snapshot;
    for pass in [Pass::Intermediate, Pass::Main] {
        for id in tasks.of(node, pass) {
            if matches!(found.cached[id], Cached::Run) {
                return Ok(causes(snapshot, root, &tasks.all[id])?.into_iter().next());
            }
        }
    }
    Ok(None)
}
