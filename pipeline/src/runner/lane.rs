//! One lane: takes tasks until none is left.

use super::{Runner, gives_folder};
use crate::observer::Event;
use crate::parts::Entry;
use crate::run_error::RunError;
use crate::store::claim::Claim;
use crate::store::record::{FolderRecord, TableRecord};
use crate::survey::find;
use crate::tally::{EXAMPLES, Exceeded, Tally};
use crate::tasks::TaskId;
use crate::{StageError, run_error::OverBudget};

/// Why a piece of work ended without an output.
#[derive(Debug)]
pub enum Halt {
    Failed(StageError),
    OverBudget(Exceeded),
    /// The run is stopping; what was begun is discarded.
    Stopped,
}

impl From<StageError> for Halt {
    fn from(error: StageError) -> Self {
        Self::Failed(error)
    }
}

/// What became of a task.
enum Turn {
    Done {
        entry: Entry,
        tally: Tally,
        reused: bool,
    },
    /// Another process works on it.
    Elsewhere,
}

impl Runner<'_> {
    /// Works until there is nothing left to do.
    pub(super) fn lane(&self) {
        while let Some(id) = self.board.take() {
            match self.turn(id) {
                Ok(Turn::Done { entry, tally, reused }) => self.complete(id, entry, tally, reused),
                Ok(Turn::Elsewhere) => {
                    let task = &self.tasks.all[id];
                    let label = self.session.label(task.node, task.index);
                    self.log.event(&Event::Waiting { stage: task.node, label });
                    self.board.defer(id);
                }
                Err(halt) => self.halted(id, halt),
            }
        }
    }

    /// The output is there: counts it, tells it, and lets others go on.
    pub(super) fn complete(&self, id: TaskId, entry: Entry, tally: Tally, reused: bool) {
        let task = &self.tasks.all[id];
        let (rows, rejected) = (tally.rows, tally.rejected.values().sum());
        let label = self.session.label(task.node, task.index);
        self.log.event(&Event::Finished { stage: task.node, label, rows, rejected, reused });
        if self.count(id, tally) {
            self.board.done(id, entry, reused);
            self.write_index_sometimes(id);
        }
    }

    pub(super) fn halted(&self, id: TaskId, halt: Halt) {
        let task = &self.tasks.all[id];
        match halt {
            // Whatever fails once the run is stopping only fails because it is.
            _ if self.board.stopping() => {}
            Halt::Failed(cause) => {
                let cause = self.advise_on_room(cause);
                self.fail(id, self.session.failed(task.node, Some(task.index), cause));
            }
            Halt::OverBudget(exceeded) => self.fail(id, self.over_budget(exceeded)),
            Halt::Stopped => {}
        }
    }

    /// Finds the output of a task, or makes it.
    fn turn(&self, id: TaskId) -> Result<Turn, Halt> {
        let task = &self.tasks.all[id];
        let parts = self.parts().of(task)?.ok_or_else(|| StageError::new("an input is not there"))?;
        let key = parts.key();
        let forced = self.force.contains(&task.node);
        if !forced && let Some((entry, tally)) = find(self.session, task, &key)? {
            return Ok(Turn::Done { entry, tally, reused: true });
        }
        let Some(_claim) = Claim::take(&self.session.store.claim_file(self.session.name(task.node), &key))?
        else {
            return Ok(Turn::Elsewhere);
        };
        // Another process may have finished it between the look and the claim.
        if !forced && let Some((entry, tally)) = find(self.session, task, &key)? {
            return Ok(Turn::Done { entry, tally, reused: true });
        }
        let (entry, tally) = self.build(id, parts)?;
        Ok(Turn::Done { entry, tally, reused: false })
    }

    pub(super) fn entry_of(record: &TableRecord) -> (Entry, Tally) {
        let entry = Entry { key: record.key.key(), digest: record.digest.clone(), rows: record.rows };
        (entry, Tally::from(record))
    }

    pub(super) fn entry_of_folder(record: &FolderRecord) -> (Entry, Tally) {
        let entry = Entry { key: record.key.key(), digest: record.digest.clone(), rows: record.rows };
        (entry, Tally::from(record))
    }

    /// The error for people, with the ids of the rows.
    pub(super) fn over_budget(&self, exceeded: Exceeded) -> RunError {
        let Exceeded { node, what, examples } = exceeded;
        let examples = examples.into_iter().take(EXAMPLES);
        let examples =
            examples.map(|(partition, row, reason)| self.example(node, partition, row, reason)).collect();
        let node = &self.session.graph.nodes[node];
        let over = OverBudget { stage: node.name.clone(), kind: node.stage.kind, what, examples };
        RunError::Budget(Box::new(over))
    }

    /// Whether the task's output is a folder.
    pub(super) fn is_folder(&self, id: TaskId) -> bool {
        gives_folder(&self.session.graph.nodes[self.tasks.all[id].node].stage.role)
    }
}
