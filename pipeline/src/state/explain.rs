//! Why a stage would run.

use super::causes::{LastRoot, causes as causes_of};
use super::lookup::{Cached, Snapshot};
use crate::keys::cause::Cause;
use crate::keys::tasks::{Pass, Task, TaskId};
use crate::spec::error::StageError;
use crate::spec::graph::NodeIndex;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

/// What a run would do with one stage, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    pub stage: String,
    pub kind: String,
    pub partitions: usize,
    /// How many of them are there.
    pub reused: usize,
    /// Why the others would run; equal causes are one entry.
    pub causes: Vec<Caused>,
}

/// A cause and the partitions it concerns.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Caused {
    pub cause: Cause,
    /// Labels of the partitions.
    pub partitions: Vec<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, kind, partitions, reused, causes } = self;
        write!(f, "{stage} ({kind}): {reused} of {partitions} partitions are there")?;
        for Caused { cause, partitions } in causes {
            write!(f, "\n  {}: {cause}", some_of(partitions))?;
        }
        Ok(())
    }
}

/// The first labels and how many more.
fn some_of(labels: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = labels.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match labels.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Why a stage would run.
pub fn explain(
    snapshot: &Snapshot<'_>,
    node: NodeIndex,
    force: &BTreeSet<NodeIndex>,
) -> Result<Explanation, StageError> {
    let Snapshot { session, tasks, found } = snapshot;
    let root = LastRoot::read(session)?;
    let upstream = Upstream::new(snapshot, &root)?;
    let mut causes: Vec<(Cause, BTreeSet<usize>)> = Vec::new();
    let ids = tasks.of(node, Pass::Intermediate).chain(tasks.of(node, Pass::Main));
    for id in ids {
        let task = &tasks.all[id];
        let why = match &found.cached[id] {
            Cached::There(_) => continue,
            _ if force.contains(&node) => vec![Cause::Forced],
            Cached::Run => upstream.own(id),
            Cached::Unknown => upstream.of(id),
        };
        for cause in why {
            match causes.iter_mut().find(|(known, _)| *known == cause) {
                Some((_, partitions)) => _ = partitions.insert(task.index),
                None => causes.push((cause, BTreeSet::from([task.index]))),
            }
        }
    }
    let is_there = |id: &TaskId| matches!(found.cached[*id], Cached::There(_));
    let labels = |partitions: BTreeSet<usize>| {
        partitions.into_iter().map(|partition| session.label(node, partition).to_owned()).collect()
    };
    Ok(Explanation {
        stage: session.name(node).to_owned(),
        kind: session.graph.nodes[node].stage.kind.to_owned(),
        partitions: session.labels(node).len(),
        reused: tasks.of(node, Pass::Main).filter(is_there).count(),
        causes: causes
            .into_iter()
            .map(|(cause, partitions)| Caused { cause, partitions: labels(partitions) })
            .collect(),
    })
}

/// What has to run before anything can be said of a task, and why that has to. Every task is looked at once.
struct Upstream<'a> {
    snapshot: &'a Snapshot<'a>,
    /// Different causes, each with the stage that has to run.
    causes: Vec<(NodeIndex, Cause)>,
    /// By task: which of them keep it, or make it run itself.
    by_task: Vec<Rc<BTreeSet<usize>>>,
}

impl<'a> Upstream<'a> {
    fn new(snapshot: &'a Snapshot<'a>, root: &LastRoot) -> Result<Self, StageError> {
        let Snapshot { tasks, found, .. } = snapshot;
        let mut upstream = Self { snapshot, causes: Vec::new(), by_task: Vec::new() };
        let mut behind = BTreeMap::new();
        // Each task comes after what it needs.
        for (id, task) in tasks.all.iter().enumerate() {
            let causes = match &found.cached[id] {
                Cached::Run => causes_of(snapshot, root, task)?
                    .into_iter()
                    .map(|cause| upstream.number(task.node, cause))
                    .collect::<BTreeSet<_>>()
                    .into(),
                Cached::Unknown => upstream.union(task, &mut behind),
                Cached::There(_) => Rc::default(),
            };
            upstream.by_task.push(causes);
        }
        Ok(upstream)
    }

    fn number(&mut self, node: NodeIndex, cause: Cause) -> usize {
        let known = self.causes.iter().position(|(at, known)| *at == node && *known == cause);
        known.unwrap_or_else(|| {
            self.causes.push((node, cause));
            self.causes.len() - 1
        })
    }

    /// The causes of all that a task needs. `behind` has, by the first task of a table, those of so many of its tasks.
    fn union(
        &self,
        task: &Task,
        behind: &mut BTreeMap<TaskId, (TaskId, Rc<BTreeSet<usize>>)>,
    ) -> Rc<BTreeSet<usize>> {
        let mut all: Rc<BTreeSet<usize>> = Rc::default();
        if !task.behind.is_empty() {
            let start = task.behind.start;
            let (done, causes) = behind.entry(start).or_insert_with(|| (start, Rc::default()));
            while *done < task.behind.end {
                add(causes, &self.by_task[*done]);
                *done += 1;
            }
            all = Rc::clone(causes);
        }
        task.needs.iter().for_each(|need| add(&mut all, &self.by_task[*need]));
        all
    }

    /// Why a task that can be worked on has to run.
    fn own(&self, id: TaskId) -> Vec<Cause> {
        self.by_task[id].iter().map(|n| self.causes[*n].1.clone()).collect()
    }

    /// What has to run before a task, and why.
    fn of(&self, id: TaskId) -> Vec<Cause> {
        let mut by_node: BTreeMap<NodeIndex, Vec<Cause>> = BTreeMap::new();
        for (node, cause) in self.by_task[id].iter().map(|n| &self.causes[*n]) {
            by_node.entry(*node).or_default().push(cause.clone());
        }
        let name = |node| self.snapshot.session.name(node).to_owned();
        by_node.into_iter().map(|(node, causes)| Cause::Upstream { stage: name(node), causes }).collect()
    }
}

/// Mostly the causes of one task are those of the next.
fn add(all: &mut Rc<BTreeSet<usize>>, more: &Rc<BTreeSet<usize>>) {
    if !more.is_subset(all) {
        Rc::make_mut(all).extend(more.iter());
    }
}
