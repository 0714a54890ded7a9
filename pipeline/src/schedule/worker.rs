//! One worker: takes tasks until none is left. Whatever panics in its turn is an error of the task it took.

use super::run::Run;
use crate::exec::executor::{Committed, TaskError, TaskSpec};
use crate::exec::local::spec;
use crate::keys::tasks::TaskId;
use crate::spec::error::StageError;
use crate::spec::event::Event;
use crate::spec::panics::catch;
use crate::spec::run_error::OverBudget;
use crate::spec::run_error::RunError;
use crate::table::counts::{EXAMPLES, Exceeded};

impl Run<'_> {
    /// Works until there is nothing left to do.
    pub(super) fn work(&self) {
        let batch = |id: TaskId, ready| {
            let stage = self.session.name(self.tasks.all[id].node);
            self.executor.batch(stage, ready)
        };
        loop {
            match self.host.scheduler.take(batch).as_slice() {
                [] => return,
                ids => self.caught(ids, || self.turn(ids)),
            }
        }
    }

    /// Does something for tasks; a panic fails them.
    pub(super) fn caught(&self, ids: &[TaskId], turn: impl FnOnce()) {
        let done = catch("outside its stage", || {
            turn();
            Ok(())
        });
        let Err(cause) = done else { return };
        let open: Vec<TaskId> = ids.iter().copied().filter(|id| self.is_open(*id)).collect();
        // Where all are done, it was something beside them.
        for &id in if open.is_empty() { &ids[..1] } else { &open } {
            let task = &self.tasks.all[id];
            let cause = StageError::new(cause.to_string());
            self.fail(id, self.session.failed(task.node, Some(task.index), cause));
        }
    }

    fn turn(&self, ids: &[TaskId]) {
        let mut asked = Vec::with_capacity(ids.len());
        for &id in ids {
            match self.spec(id) {
                Ok(spec) => asked.push((id, spec)),
                Err(cause) => self.ended(id, cause.into()),
            }
        }
        let (ids, specs): (Vec<TaskId>, Vec<TaskSpec>) = asked.into_iter().unzip();
        let ended = match specs.as_slice() {
            [] => Vec::new(),
            [one] => vec![catch_task(|| self.executor.execute(one))],
            all => self.executor.execute_all(all),
        };
        for (id, ended) in ids.into_iter().zip(ended) {
            match ended {
                Ok(done) => self.complete(id, done),
                Err(TaskError::NotReady) => self.host.scheduler.defer(id, self.session.store.patience()),
                Err(TaskError::Busy) => {
                    self.report_waiting(id);
                    self.host.scheduler.defer(id, self.session.store.patience());
                }
                Err(error) => self.ended(id, error),
            }
        }
    }

    fn spec(&self, id: TaskId) -> Result<TaskSpec, StageError> {
        let task = catch("while its key was made", || spec(&self.builder.keys(), &self.tasks.all[id]))?;
        task.ok_or_else(|| StageError::new("an input is not there"))
    }

    /// Asks the executor.
    pub(super) fn execute(&self, id: TaskId) -> Result<Committed, TaskError> {
        let task = self.spec(id)?;
        catch_task(|| self.executor.execute(&task))
    }

    /// Says once that another process works on a task.
    pub(super) fn report_waiting(&self, id: TaskId) {
        let task = &self.tasks.all[id];
        if self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(id) {
            let label = self.session.label(task.node, task.index);
            self.host.log.event(&Event::Waiting { stage: task.node, label });
        }
    }

    /// The output is there: counts it, reports it, and lets others go on.
    pub(super) fn complete(&self, id: TaskId, done: Committed) {
        let task = &self.tasks.all[id];
        let Committed { entry, counts, reused } = done;
        let (rows, rejected) = (counts.rows, counts.rejected.values().sum());
        let label = self.session.label(task.node, task.index);
        self.host.log.event(&Event::Finished { stage: task.node, label, rows, rejected, reused });
        if self.count(id, counts) {
            self.host.scheduler.done(id, entry, reused);
            self.one_less(task.node);
            self.write_root_sometimes(id);
        }
    }

    pub(super) fn ended(&self, id: TaskId, error: TaskError) {
        let task = &self.tasks.all[id];
        match error {
            // Whatever fails once the run is stopping only fails because it is.
            _ if self.host.scheduler.stopping() => {}
            TaskError::Failed(cause) => {
                let cause = self.advise_on_disk_space(cause);
                self.fail(id, self.session.failed(task.node, Some(task.index), cause));
            }
            TaskError::OverBudget(exceeded) => self.fail_stage(task.node, exceeded),
            TaskError::Stopped | TaskError::Busy | TaskError::NotReady => {}
        }
    }

    /// The error for people, with the ids of the rows.
    pub(super) fn budget_error(&self, exceeded: Exceeded) -> RunError {
        let Exceeded { node, what, examples } = exceeded;
        let examples = examples.into_iter().take(EXAMPLES);
        let examples =
            examples.map(|(partition, row, reason)| self.example(node, partition, row, reason)).collect();
        let node = &self.session.graph.nodes[node];
        let over = OverBudget { stage: node.name.clone(), kind: node.stage.kind, what, examples };
        RunError::Budget(Box::new(over))
    }
}

/// A panic of the executor is an error of the task.
fn catch_task(work: impl FnOnce() -> Result<Committed, TaskError>) -> Result<Committed, TaskError> {
    catch("while it was made", || Ok(work())).unwrap_or_else(|cause| Err(TaskError::Failed(cause)))
}
