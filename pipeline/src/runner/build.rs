//! Makes the output of one task. Whoever calls holds its claim.

use super::Runner;
use super::lane::Halt;
use crate::StageError;
use crate::key::KeyParts;
use crate::observer::Event;
use crate::parts::Entry;
use crate::registry::Role;
use crate::tally::Tally;
use crate::tasks::{Pass, TaskId, has_sweep};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

impl Runner<'_> {
    /// Makes and publishes the output of a task.
    pub(super) fn build(&self, id: TaskId, parts: KeyParts) -> Result<(Entry, Tally), Halt> {
        let task = &self.tasks.all[id];
        let label = self.session.label(task.node, task.index);
        let rows = self.rows_ahead(id);
        self.log.event(&Event::Started { stage: task.node, label, rows });
        self.log.active(task.node, 1);
        let built = match &self.session.graph.nodes[task.node].stage.role {
            Role::Map(stage) if task.pass == Pass::Main && has_sweep(self.session, task.node) => {
                self.build_swept(task, stage.as_ref(), parts)
            }
            Role::Map(stage) => self.build_map(task, stage.as_ref(), parts),
            Role::Gather(stage) => self.build_gather(task, stage.as_ref(), parts),
            Role::Source(_) | Role::Job(_) => Err(StageError::new("this is no work for a lane").into()),
        };
        self.log.active(task.node, -1);
        let built = built?;
        self.vouch(id);
        Ok(built)
    }

    /// How many rows a partition has, when a table beside it is there.
    fn rows_ahead(&self, id: TaskId) -> Option<u64> {
        let task = &self.tasks.all[id];
        match &self.session.graph.nodes[task.node].stage.role {
            Role::Map(_) => self.parts().rows(task.node, 0, task.index).ok().flatten(),
            _ => None,
        }
    }
}

/// Turns a panic of a stage into an error; the stage's state is thrown away by the caller.
pub(super) fn catch<T>(what: &str, work: impl FnOnce() -> Result<T, StageError>) -> Result<T, StageError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = format!("it panicked {what}: {}", message(panic.as_ref()));
        Err(StageError::new(text).help("This is a bug in the stage; please report it with the row."))
    })
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
