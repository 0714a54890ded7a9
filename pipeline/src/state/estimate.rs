//! What a run would take: rows are counted, everything else follows from what the stages say of themselves.

use crate::keys::session::Session;
use crate::spec::error::StageError;
use crate::spec::graph::NodeIndex;
use crate::spec::registry::Role;
use crate::spec::stage::{Estimate, Expected};

/// What one stage is expected to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageEstimate {
    pub name: String,
    pub kind: &'static str,
    /// Rows it gives; of a gather stage those to train on.
    pub rows: u64,
    /// Disk, memory and steps; `None` where the stage says nothing.
    pub estimate: Option<Estimate>,
}

/// Every open stage, in the order of the graph.
pub fn estimates(session: &Session<'_>) -> Result<Vec<StageEstimate>, StageError> {
    let mut rows = vec![0; session.graph.nodes.len()];
    let mut all = Vec::new();
    for (index, node) in session.graph.nodes.iter().enumerate() {
        if session.node(index).is_none() {
            continue;
        }
        let groups = node.inputs.iter().map(|group| {
            let first = group.tables.first().map_or(0, |table: &NodeIndex| rows[*table]);
            (first, group.weight)
        });
        let expected = Expected { groups: groups.collect() };
        let estimate = node.stage.role.parameters().estimate(&expected);
        rows[index] = match (&node.stage.role, estimate) {
            (Role::Source(_), _) => counted(session, index)?,
            (_, Some(estimate)) => estimate.rows,
            (_, None) => expected.rows(),
        };
        all.push(StageEstimate {
            name: node.name.clone(),
            kind: node.stage.kind,
            rows: rows[index],
            estimate,
        });
    }
    Ok(all)
}

fn counted(session: &Session<'_>, source: NodeIndex) -> Result<u64, StageError> {
    (0..session.labels(source).len()).map(|partition| session.source_rows(source, partition)).sum()
}
