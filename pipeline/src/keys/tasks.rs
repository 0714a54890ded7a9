//! The pieces of work of a session: one per partition of a stored table, per gather unit, per job.
//!
//! A stage with a sequential pass has two pieces per partition: its intermediate columns are stored like a table of its own,
//! and the passes over them form a chain, because each needs the rows before it.

use crate::keys::recipe::Recipe;
use crate::keys::session::Session;
use crate::spec::graph::NodeIndex;
use crate::spec::registry::Role;
use crate::spec::stage::Units;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// An index into [`Tasks::all`].
pub type TaskId = usize;

/// Which pass of a map stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pass {
    /// The hidden table of intermediate columns in front of a sequential pass.
    Intermediate,
    /// What the stage gives.
    Main,
}

/// One piece of work.
#[derive(Clone, Debug)]
pub struct Task {
    pub node: NodeIndex,
    pub pass: Pass,
    /// The partition, or the unit of a gather stage; 0 for a job.
    pub index: usize,
    /// What must be there before: the outputs it reads.
    pub needs: Vec<TaskId>,
    /// What must be there too, from the first task of a table on: a unit of a gather stage knows where its rows stand once the
    /// partitions before it are there. A range, because lists of them would grow with the square of their number.
    pub behind: Range<TaskId>,
}

/// All pieces of work in an order in which each comes after what it needs.
#[derive(Debug, Default)]
pub struct Tasks {
    pub all: Vec<Task>,
    /// By node: its first and its main pass.
    ranges: Vec<[Range<TaskId>; 2]>,
}

impl Tasks {
    pub fn new(session: &Session<'_>) -> Self {
        let mut tasks = Self::default();
        for node in 0..session.graph.nodes.len() {
            let start = tasks.all.len();
            let first = if is_sequential(session, node) {
                tasks.add(session, node, Pass::Intermediate)
            } else {
                start..start
            };
            tasks.ranges.push([first, 0..0]);
            let main = tasks.add(session, node, Pass::Main);
            tasks.ranges[node][1] = main;
        }
        tasks
    }

    fn add(&mut self, session: &Session<'_>, node: NodeIndex, pass: Pass) -> Range<TaskId> {
        let start = self.all.len();
        if let Some(open) = session.node(node) {
            let is_work = !matches!(session.graph.nodes[node].stage.role, Role::Source(_) | Role::Map(_));
            let count = if is_work || session.is_stored(node) { open.labels.len() } else { 0 };
            for index in 0..count {
                let mut needs = self.needs(session, node, pass, index, start);
                needs.sort_unstable();
                needs.dedup();
                let behind = self.behind(session, node, index);
                self.all.push(Task { node, pass, index, needs, behind });
            }
        }
        start..self.all.len()
    }

    /// `start` is the first task of this pass of this node.
    fn needs(
        &self,
        session: &Session<'_>,
        node: NodeIndex,
        pass: Pass,
        index: usize,
        start: TaskId,
    ) -> Vec<TaskId> {
        let recipes = session.node(node).map_or(&[][..], |open| &open.recipes);
        match &session.graph.nodes[node].stage.role {
            Role::Source(_) => Vec::new(),
            Role::Map(_) if pass == Pass::Main && is_sequential(session, node) => {
                let before = index.checked_sub(1).map(|before| start + before);
                self.id(node, Pass::Intermediate, index).into_iter().chain(before).collect()
            }
            Role::Map(_) => {
                recipes.iter().flat_map(|recipe| self.leaves(session, recipe, index..index + 1)).collect()
            }
            Role::Gather(stage) if stage.units() == Units::PerPartition => {
                let Some((group, partition)) = session.unit(node, index) else { return Vec::new() };
                let group = recipes.get(group).into_iter();
                group.flat_map(|recipe| self.leaves(session, recipe, partition..partition + 1)).collect()
            }
            Role::Gather(_) => {
                recipes.iter().flat_map(|recipe| self.leaves(session, recipe, 0..usize::MAX)).collect()
            }
            Role::Job(_) => {
                session.graph.nodes[node].tables().flat_map(|input| self.of(input, Pass::Main)).collect()
            }
        }
    }

    /// The partitions before that of a gather unit.
    fn behind(&self, session: &Session<'_>, node: NodeIndex, index: usize) -> Range<TaskId> {
        let Role::Gather(stage) = &session.graph.nodes[node].stage.role else { return 0..0 };
        if stage.units() == Units::Whole {
            return 0..0;
        }
        let recipes = session.node(node).map_or(&[][..], |open| &open.recipes);
        let found = session.unit(node, index).and_then(|(group, partition)| {
            let counted = *recipes.get(group)?.stored(session.graph).first()?;
            Some(self.of(counted, Pass::Main)).map(|all| all.start..(all.start + partition).min(all.end))
        });
        found.unwrap_or(0..0)
    }

    fn leaves(&self, session: &Session<'_>, recipe: &Recipe, partitions: Range<usize>) -> Vec<TaskId> {
        let stored = recipe.stored(session.graph).into_iter();
        stored
            .flat_map(|node| {
                let all = self.of(node, Pass::Main);
                let end = all.start.saturating_add(partitions.end).min(all.end);
                (all.start + partitions.start).min(end)..end
            })
            .collect()
    }

    /// The tasks of a node in order of partitions.
    pub fn of(&self, node: NodeIndex, pass: Pass) -> Range<TaskId> {
        self.ranges.get(node).map_or(0..0, |ranges| ranges[usize::from(pass == Pass::Main)].clone())
    }

    pub fn id(&self, node: NodeIndex, pass: Pass, index: usize) -> Option<TaskId> {
        let range = self.of(node, pass);
        (index < range.len()).then(|| range.start + index)
    }
}

/// Whether a stage has a sequential pass.
pub fn is_sequential(session: &Session<'_>, node: NodeIndex) -> bool {
    matches!(&session.graph.nodes[node].stage.role, Role::Map(stage) if stage.sequential().is_some())
}

/// Whether a task is the next of the same partition behind another, or of a sequential pass: a process that has done that one can
/// go on with it.
pub fn follows(session: &Session<'_>, done: &Task, task: &Task) -> bool {
    let is_pass = |task: &Task| task.pass == Pass::Main && is_sequential(session, task.node);
    let is_map = matches!(session.graph.nodes[task.node].stage.role, Role::Map(_));
    let is_next = if is_pass(done) { task.node == done.node } else { !is_pass(task) };
    is_map && is_next
}
