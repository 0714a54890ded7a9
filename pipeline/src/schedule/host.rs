//! What builds see of a run: the scheduler's state, and the log.

use super::events::Log;
use super::scheduler::{Scheduler, Status};
use crate::exec::builder::Host;
use crate::keys::builder::{Entry, Known};
use crate::keys::tasks::TaskId;
use crate::spec::event::Event;
use crate::spec::graph::NodeIndex;

/// The two that every part of a run shares.
pub struct RunHost<'a> {
    pub scheduler: Scheduler<'a>,
    pub log: Log<'a>,
}

impl Known for RunHost<'_> {
    fn entry(&self, task: TaskId) -> Option<Entry> {
        self.scheduler.entry(task)
    }
}

impl Host for RunHost<'_> {
    fn event(&self, event: &Event<'_>) {
        self.log.event(event);
    }

    fn active(&self, node: NodeIndex, change: i32) {
        self.log.active(node, change);
    }

    fn stopping(&self) -> bool {
        self.scheduler.stopping()
    }

    fn wait(&self) {
        self.scheduler.wait();
    }

    fn pending(&self, task: TaskId) -> bool {
        matches!(self.scheduler.status(task), Status::Waiting | Status::Open)
    }
}
