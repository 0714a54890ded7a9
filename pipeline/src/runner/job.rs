//! Runs a job on a thread of its own, so that it can begin while what it reads is still being made.
//!
//! Its key follows from everything it reads, which may not be known yet when it begins. It works in a folder named by its
//! promise (raw data and parameters all the way down), and the folder gets its final name when the key is known. It begins
//! early only when no finished folder agrees with what is known so far; otherwise a training might run for nothing.

use super::Runner;
use super::board::Status;
use super::build::catch;
use super::context::Context;
use super::lane::Halt;
use crate::StageError;
use crate::key::KeyParts;
use crate::observer::Event;
use crate::parts::Entry;
use crate::registry::Role;
use crate::stage::JobStage;
use crate::store::claim::Claim;
use crate::store::files::{self, at};
use crate::store::record::{FolderRecord, read_sealed};
use crate::survey::find;
use crate::tally::Tally;
use crate::tasks::{Pass, TaskId};
use std::fs;

/// What a look at a job led to.
enum Turn {
    Wait,
    Elsewhere,
    Done { entry: Entry, tally: Tally, reused: bool },
}

impl Runner<'_> {
    /// Waits for the job's turn, and runs it.
    pub(super) fn job(&self, id: TaskId) {
        let mut told = false;
        while !self.board.stopping() && self.is_open(id) {
            match self.job_turn(id) {
                Ok(Turn::Wait) => self.board.wait(),
                Ok(Turn::Elsewhere) => {
                    if !std::mem::replace(&mut told, true) {
                        let stage = self.tasks.all[id].node;
                        self.log.event(&Event::Waiting { stage, label: self.session.name(stage) });
                    }
                    self.board.wait();
                }
                Ok(Turn::Done { entry, tally, reused }) => return self.complete(id, entry, tally, reused),
                Err(halt) => return self.halted(id, halt),
            }
        }
    }

    fn job_turn(&self, id: TaskId) -> Result<Turn, Halt> {
        let task = &self.tasks.all[id];
        let Role::Job(stage) = &self.session.graph.nodes[task.node].stage.role else {
            return Err(StageError::new("this is no job").into());
        };
        if let Some(turn) = self.found_job(id)? {
            return Ok(turn);
        }
        if self.parts().of(task)?.is_none() && !self.may_begin(id)? {
            return Ok(Turn::Wait);
        }
        let promise = self.parts().promise(task.node)?;
        let name = self.session.name(task.node);
        let Some(_claim) = Claim::take(&self.session.store.claim_file(name, &promise))? else {
            return Ok(Turn::Elsewhere);
        };
        if let Some(turn) = self.found_job(id)? {
            return Ok(turn);
        }
        self.log.event(&Event::Started { stage: task.node, label: name, rows: None });
        self.log.active(task.node, 1);
        let done = self.run_job(id, stage.as_ref(), &promise);
        self.log.active(task.node, -1);
        let (entry, tally) = done?;
        Ok(Turn::Done { entry, tally, reused: false })
    }

    /// The finished folder, when the key is known and the store has it.
    fn found_job(&self, id: TaskId) -> Result<Option<Turn>, StageError> {
        let task = &self.tasks.all[id];
        if self.force.contains(&task.node) {
            return Ok(None);
        }
        let Some(parts) = self.parts().of(task)? else { return Ok(None) };
        let found = find(self.session, task, &parts.key())?;
        Ok(found.map(|(entry, tally)| Turn::Done { entry, tally, reused: true }))
    }

    /// Whether the job can begin though not everything it reads is there.
    fn may_begin(&self, id: TaskId) -> Result<bool, StageError> {
        let task = &self.tasks.all[id];
        let node = &self.session.graph.nodes[task.node];
        let has_first = |input| {
            let first = self.tasks.id(input, Pass::Main, 0).map(|first| self.board.status(first));
            matches!(first, Some(Status::Done { .. }))
        };
        if !node.tables().all(has_first) {
            return Ok(false);
        }
        for entry in files::entries(&self.session.store.folder("jobs").join(&node.name))? {
            if entry.path().extension().is_some_and(|extension| extension == "json")
                && let Some(record) = read_sealed::<FolderRecord>(&entry.path())?
                && self.parts().may_be(task.node, &record.key)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn run_job(&self, id: TaskId, stage: &dyn JobStage, promise: &str) -> Result<(Entry, Tally), Halt> {
        let node = self.tasks.all[id].node;
        let name = self.session.name(node);
        let folder = self.session.store.partial_folder(name, promise);
        at(&folder, fs::create_dir_all(&folder))?;
        let graph = self.session.graph;
        let inputs = graph.nodes[node].tables().map(|input| graph.nodes[input].name.clone()).collect();
        let context = Context::new(self, id, inputs, folder.clone());
        let done = catch("while working", || stage.run(&context));
        if self.board.stopping() {
            return Err(Halt::Stopped);
        }
        done?;
        let parts = self.wait_for_parts(id)?;
        let record = FolderRecord::of(&folder, 0, parts, stage.ephemeral())?;
        self.session.store.commit_folder(&self.session.scratch, name, &folder, &record)?;
        Ok(Self::entry_of_folder(&record))
    }

    /// A job may end before it has read everything.
    fn wait_for_parts(&self, id: TaskId) -> Result<KeyParts, Halt> {
        loop {
            if let Some(parts) = self.parts().of(&self.tasks.all[id])? {
                return Ok(parts);
            }
            if self.board.stopping() || !self.is_open(id) {
                return Err(Halt::Stopped);
            }
            self.board.wait();
        }
    }
}
