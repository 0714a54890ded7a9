//! Cache lookup: what of a session's outputs is there already.
//!
//! Goes through the tasks in order. Where everything a task needs is there, its key is known, and the store says whether its
//! output is. Where it is not, everything after it is unknown: what is made may turn out the same as before.

use crate::keys::builder::{Entries, KeyBuilder};
use crate::keys::session::{Session, named_pool};
use crate::keys::tasks::{Pass, TaskId, Tasks, is_sequential};
use crate::spec::graph::NodeIndex;
use crate::spec::run_error::RunError;
use crate::table::counts::Counts;
use crate::table::find::find;
use rayon::prelude::*;
use std::collections::BTreeSet;

/// What is known of one task.
#[derive(Clone, Debug, PartialEq)]
pub enum Cached {
    /// Its output is there.
    There(Counts),
    /// Its output has to be made.
    Run,
    /// Something it needs has to be made first.
    Unknown,
}

/// What is there.
pub struct Lookup {
    /// By task.
    pub cached: Vec<Cached>,
    /// The outputs that are there.
    pub entries: Entries,
}

/// What there is, before anything runs.
pub struct Snapshot<'a> {
    pub session: &'a Session<'a>,
    pub tasks: &'a Tasks,
    pub found: Lookup,
}

impl Snapshot<'_> {
    /// The keys of what is there, and of what can be worked on.
    pub fn keys(&self) -> KeyBuilder<'_> {
        KeyBuilder { session: self.session, tasks: self.tasks, known: &self.found.entries }
    }
}

/// Looks up every task. `force` lists nodes whose outputs do not count.
#[tracing::instrument(level = "debug", skip_all, fields(tasks = tasks.all.len()))]
pub fn lookup(session: &Session<'_>, tasks: &Tasks, force: &BTreeSet<NodeIndex>) -> Result<Lookup, RunError> {
    let entries = Entries::new(tasks.all.len());
    let mut cached = Vec::with_capacity(tasks.all.len());
    let asking = session.store.at_once().map(|threads| named_pool("lookup", threads)).transpose()?;
    let pool = asking.as_ref().unwrap_or(&session.pool);
    for node in 0..session.graph.nodes.len() {
        for pass in [Pass::Intermediate, Pass::Main] {
            let one = |id| look(session, tasks, &entries, force, id);
            // A sequential pass is a chain; other partitions do not depend on each other.
            let found: Vec<Result<Cached, RunError>> = if pass == Pass::Main && is_sequential(session, node) {
                tasks.of(node, pass).map(one).collect()
            } else {
                pool.install(|| tasks.of(node, pass).into_par_iter().map(one).collect())
            };
            for one in found {
                cached.push(one?);
            }
        }
    }
    let there = cached.iter().filter(|cached| matches!(cached, Cached::There(_))).count();
    tracing::debug!(there, "looked up");
    Ok(Lookup { cached, entries })
}

fn look(
    session: &Session<'_>,
    tasks: &Tasks,
    entries: &Entries,
    force: &BTreeSet<NodeIndex>,
    id: TaskId,
) -> Result<Cached, RunError> {
    let task = &tasks.all[id];
    let fail = |cause| session.failed(task.node, Some(task.index), cause);
    let keys = KeyBuilder { session, tasks, known: entries };
    let Some(parts) = keys.parts(task).map_err(fail)? else { return Ok(Cached::Unknown) };
    if force.contains(&task.node) {
        return Ok(Cached::Run);
    }
    Ok(match find(session, task, &parts.key()).map_err(fail)? {
        Some((entry, counts)) => {
            entries.add(id, entry);
            Cached::There(counts)
        }
        None => Cached::Run,
    })
}
