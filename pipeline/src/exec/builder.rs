//! What all builds of a process share, and what they see of the run they belong to.

use super::executor::TaskError;
use super::permits::Permits;
use super::shared::{Checked, Progress};
use crate::keys::builder::{Entry, KeyBuilder, Known};
use crate::keys::session::Session;
use crate::keys::tasks::{Pass, TaskId, Tasks, is_sequential};
use crate::spec::error::StageError;
use crate::spec::event::Event;
use crate::spec::graph::NodeIndex;
use crate::spec::registry::Role;
use crate::store::key::KeyParts;
use crate::store::record::{FolderRecord, TableRecord};
use crate::table::counts::Counts;
use crate::table::read::{Opener, Reader};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// Bytes of batches in memory for each thread that works on rows: a dozen batches of pixels.
const BYTES_A_THREAD: u64 = 128 << 20;

/// What builds see of the run they belong to.
pub trait Host: Known {
    fn event(&self, event: &Event<'_>);
    /// One more (1) or one less (-1) task of a node is at work.
    fn active(&self, node: NodeIndex, change: i32);
    /// Whether everybody should finish or discard what is in flight.
    fn stopping(&self) -> bool;
    /// Waits until something changed, or a moment.
    fn wait(&self);
    /// Whether the output of a task may still come.
    fn pending(&self, task: TaskId) -> bool;
}

/// Builds tasks.
pub struct Builder<'a> {
    pub session: &'a Session<'a>,
    pub tasks: &'a Tasks,
    pub host: &'a dyn Host,
    pub permits: Permits,
    /// Nodes whose outputs are made again even if they are there.
    pub force: BTreeSet<NodeIndex>,
    pub(super) checked: Mutex<BTreeMap<TaskId, Arc<Mutex<Checked>>>>,
    pub(super) passes: Mutex<BTreeMap<NodeIndex, Arc<Mutex<Option<Progress>>>>>,
}

impl<'a> Builder<'a> {
    /// `jobs`: threads that work on rows.
    pub fn new(
        session: &'a Session<'a>,
        tasks: &'a Tasks,
        host: &'a dyn Host,
        force: BTreeSet<NodeIndex>,
        jobs: usize,
    ) -> Self {
        let permits = Permits::new(2 * jobs.max(1) + 2, BYTES_A_THREAD * jobs.max(1) as u64);
        Self { session, tasks, host, permits, force, checked: Mutex::default(), passes: Mutex::default() }
    }

    pub fn keys(&self) -> KeyBuilder<'_> {
        KeyBuilder { session: self.session, tasks: self.tasks, known: self.host }
    }

    pub fn reader(&self) -> Reader<'_> {
        Reader { session: self.session, tasks: self.tasks, opener: self as &dyn Opener }
    }

    /// Makes and commits the output of a task. Whoever calls holds its lease.
    #[tracing::instrument(level = "debug", skip_all, fields(stage = self.session.name(self.tasks.all[id].node), index = self.tasks.all[id].index))]
    pub fn build(&self, id: TaskId, parts: KeyParts) -> Result<(Entry, Counts), TaskError> {
        let task = &self.tasks.all[id];
        let label = self.session.label(task.node, task.index);
        let rows = self.rows_ahead(id);
        self.host.event(&Event::Started { stage: task.node, label, rows });
        let _active = Active::new(self.host, task.node);
        let built = match &self.session.graph.nodes[task.node].stage.role {
            Role::Map(stage) if task.pass == Pass::Main && is_sequential(self.session, task.node) => {
                self.build_sequential(task, stage.as_ref(), parts)
            }
            Role::Map(stage) => self.build_map(task, stage.as_ref(), parts),
            Role::Gather(stage) => self.build_gather(task, stage.as_ref(), parts),
            Role::Source(_) | Role::Job(_) => Err(StageError::new("this is no work for a builder").into()),
        };
        let built = built?;
        self.written(id);
        Ok(built)
    }

    /// How many rows a partition has, when a table beside it is there.
    fn rows_ahead(&self, id: TaskId) -> Option<u64> {
        let task = &self.tasks.all[id];
        match &self.session.graph.nodes[task.node].stage.role {
            Role::Map(_) => self.keys().rows(task.node, 0, task.index).ok().flatten(),
            _ => None,
        }
    }

    /// Whether the task's output is a folder.
    pub(super) fn is_folder(&self, id: TaskId) -> bool {
        gives_folder(&self.session.graph.nodes[self.tasks.all[id].node].stage.role)
    }
}

/// A task at work; counted until this is dropped, by a panic too.
pub(super) struct Active<'a> {
    host: &'a dyn Host,
    node: NodeIndex,
}

impl<'a> Active<'a> {
    pub(super) fn new(host: &'a dyn Host, node: NodeIndex) -> Self {
        host.active(node, 1);
        Self { host, node }
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.host.active(self.node, -1);
    }
}

/// Whether a node's outputs are folders.
pub(super) fn gives_folder(role: &Role) -> bool {
    matches!(role, Role::Gather(_) | Role::Job(_))
}

pub(super) fn entry_of(record: &TableRecord) -> (Entry, Counts) {
    let entry = Entry { key: record.key.key(), digest: record.digest.clone(), rows: record.rows };
    (entry, Counts::from(record))
}

pub(super) fn entry_of_folder(record: &FolderRecord) -> (Entry, Counts) {
    let entry = Entry { key: record.key.key(), digest: record.digest.clone(), rows: record.rows };
    (entry, Counts::from(record))
}
