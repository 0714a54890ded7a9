//! What of a session's outputs is there already.
//!
//! Goes through the tasks in order. Where everything a task needs is there, its key is known, and the store says whether its
//! output is. Where it is not, everything after it is unknown: what is made may turn out the same as before.

use crate::StageError;
use crate::graph::NodeIndex;
use crate::inspect::explain::Cause;
use crate::key::KeyParts;
use crate::parts::{Entry, Parts};
use crate::plan::{Plan, StagePlan};
use crate::registry::Role;
use crate::run_error::RunError;
use crate::runner::board::Board;
use crate::session::Session;
use crate::stage::Digest;
use crate::store::index::Index;
use crate::tally::Tally;
use crate::tasks::{Pass, Task, Tasks};
use std::collections::BTreeSet;

/// What is known of one task.
#[derive(Clone, Debug)]
pub enum Found {
    /// Its output is there.
    There(Tally),
    /// Its output has to be made.
    Run(KeyParts),
    /// Something it needs has to be made first.
    Unknown,
}

/// Looks up every task; what is there is marked as done on the board. `force` lists nodes whose outputs do not count.
pub fn survey(
    session: &Session<'_>,
    tasks: &Tasks,
    board: &Board<'_>,
    force: &BTreeSet<NodeIndex>,
) -> Result<Vec<Found>, RunError> {
    let parts = Parts { session, tasks, known: board };
    let mut found = Vec::with_capacity(tasks.all.len());
    for (id, task) in tasks.all.iter().enumerate() {
        let fail = |cause| session.failed(task.node, Some(task.index), cause);
        let Some(parts) = parts.of(task).map_err(fail)? else {
            found.push(Found::Unknown);
            continue;
        };
        let there = if force.contains(&task.node) {
            None
        } else {
            find(session, task, &parts.key()).map_err(fail)?
        };
        found.push(match there {
            Some((entry, tally)) => {
                board.done(id, entry, true);
                Found::There(tally)
            }
            None => Found::Run(parts),
        });
    }
    Ok(found)
}

/// The output of a task, when it is in the store under this key.
pub fn find(session: &Session<'_>, task: &Task, key: &str) -> Result<Option<(Entry, Tally)>, StageError> {
    let name = session.name(task.node);
    let (digest, tally) = match &session.graph.nodes[task.node].stage.role {
        Role::Source(_) => return Ok(None),
        Role::Map(_) => match session.store.find_table(name, key)? {
            Some(record) => (record.digest.clone(), Tally::from(&record)),
            None => return Ok(None),
        },
        Role::Gather(_) | Role::Job(_) => match session.store.find_folder(name, key)? {
            Some(record) => (record.digest.clone(), Tally::from(&record)),
            None => return Ok(None),
        },
    };
    // A sealed record holds what was written; this only guards against a writer of another version.
    if Digest::from_hex(&digest).is_err() {
        return Ok(None);
    }
    Ok(Some((Entry { key: key.to_owned(), digest, rows: tally.rows }, tally)))
}

/// Sums a survey up, stage by stage.
pub fn plan(
    session: &Session<'_>,
    tasks: &Tasks,
    found: &[Found],
    force: &BTreeSet<NodeIndex>,
) -> Result<Plan, RunError> {
    let index = session.store.read_index(&session.graph.name).map_err(RunError::Store)?;
    let nodes = (0..session.graph.nodes.len()).filter(|node| session.node(*node).is_some());
    let stages: Result<Vec<StagePlan>, StageError> = nodes
        .map(|node| {
            let range = tasks.of(node, Pass::Main);
            let count = |wanted: fn(&Found) -> bool| range.clone().filter(|id| wanted(&found[*id])).count();
            let is_table = matches!(session.graph.nodes[node].stage.role, Role::Source(_) | Role::Map(_));
            let cause = first_cause(session, &index, tasks, found, node)?;
            Ok(StagePlan {
                name: session.name(node).to_owned(),
                kind: session.graph.nodes[node].stage.kind.to_owned(),
                stored: !is_table || session.is_stored(node),
                partitions: session.labels(node).len(),
                reuse: count(|found| matches!(found, Found::There(_))),
                run: count(|found| matches!(found, Found::Run(_))),
                unknown: count(|found| matches!(found, Found::Unknown)),
                cause: if force.contains(&node) { Some(Cause::Forced) } else { cause },
            })
        })
        .collect();
    Ok(Plan { stages: stages.map_err(RunError::Store)? })
}

fn first_cause(
    session: &Session<'_>,
    index: &Index,
    tasks: &Tasks,
    found: &[Found],
    node: NodeIndex,
) -> Result<Option<Cause>, StageError> {
    for pass in [Pass::First, Pass::Main] {
        for id in tasks.of(node, pass) {
            if let Found::Run(parts) = &found[id] {
                return Ok(causes(session, index, &tasks.all[id], parts)?.into_iter().next());
            }
        }
    }
    Ok(None)
}

/// Why a task that has to run does: what changed since its manifest was last run.
pub fn causes(
    session: &Session<'_>,
    index: &Index,
    task: &Task,
    parts: &KeyParts,
) -> Result<Vec<Cause>, StageError> {
    let name = session.name(task.node);
    let known = index.stages.get(name).and_then(|stage| {
        let outputs = if task.pass == Pass::First { &stage.first_pass } else { &stage.outputs };
        let label = session.label(task.node, task.index);
        let same_place = outputs.get(task.index).and_then(Option::as_ref);
        same_place
            .filter(|known| known.label == label)
            .or_else(|| outputs.iter().flatten().find(|known| known.label == label))
    });
    let Some(known) = known else { return Ok(vec![Cause::New]) };
    if known.key == parts.key() {
        return Ok(vec![Cause::Missing]);
    }
    let is_table = matches!(session.graph.nodes[task.node].stage.role, Role::Source(_) | Role::Map(_));
    let record = if is_table {
        session.store.table_record(name, &known.key)
    } else {
        session.store.job_record(name, &known.key)
    };
    let old = crate::store::record::read_sealed::<WithKey>(&record)?;
    let changes = old.map(|old| parts.changes_since(&old.key)).unwrap_or_default();
    Ok(if changes.is_empty() { vec![Cause::Missing] } else { changes })
}

/// The part of any record that says what its key was made of.
#[derive(serde::Deserialize)]
struct WithKey {
    key: KeyParts,
}
