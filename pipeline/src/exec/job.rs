//! Runs a job, which may begin while what it reads is still being made.
//!
//! Its key follows from everything it reads, which may not be known yet when it begins. It works in a folder named by its
//! provisional key (raw data and parameters all the way down), and the folder gets its final name when the key is known. It
//! begins early only when no finished folder agrees with what is known so far; otherwise a training might run for nothing.

use super::builder::{Active, Builder, entry_of_folder};
use super::context::Context;
use super::executor::{Committed, TaskError};
use crate::keys::tasks::{Pass, TaskId};
use crate::spec::error::StageError;
use crate::spec::event::Event;
use crate::spec::panics::catch;
use crate::spec::registry::Role;
use crate::spec::stage::JobStage;
use crate::store::files::at;
use crate::store::key::KeyParts;
use crate::store::record::{FolderRecord, commit_folder, read_record};
use crate::store::{Kind, What};
use std::fs;

impl Builder<'_> {
    /// Finds the output of a job, or makes it. `asked`: its provisional key.
    pub(super) fn execute_job(&self, id: TaskId, asked: &str) -> Result<Committed, TaskError> {
        let node = self.tasks.all[id].node;
        if let Some(found) = self.find_job(id)? {
            return Ok(found);
        }
        if self.keys().parts(&self.tasks.all[id])?.is_none() && !self.may_begin(id)? {
            return Err(TaskError::NotReady);
        }
        let provisional = self.keys().provisional_key(node)?;
        if asked != provisional {
            let name = self.session.name(node);
            let text = format!("`{name}` is asked for as {asked}, but it is {provisional} here");
            return Err(StageError::new(text)
                .help("The manifest, its data or this version differ from those the task was made with.")
                .into());
        }
        let Some(_lease) = self.session.store.lease(self.session.name(node), &provisional)? else {
            return Err(TaskError::Busy);
        };
        match self.find_job(id)? {
            Some(found) => Ok(found),
            None => self.run_job(id, &provisional),
        }
    }

    /// The finished folder, when the key is known and the store has it.
    fn find_job(&self, id: TaskId) -> Result<Option<Committed>, StageError> {
        match self.keys().parts(&self.tasks.all[id])? {
            Some(parts) => self.find(id, &parts.key()),
            None => Ok(None),
        }
    }

    /// Whether the job can begin though not everything it reads is there.
    fn may_begin(&self, id: TaskId) -> Result<bool, StageError> {
        let task = &self.tasks.all[id];
        let node = &self.session.graph.nodes[task.node];
        let has_first = |input| {
            let first = self.tasks.id(input, Pass::Main, 0);
            first.is_some_and(|first| self.host.entry(first).is_some())
        };
        // Whoever begins now waits for the rest, so somebody has to be making it.
        let comes = |need: &TaskId| self.host.entry(*need).is_some() || self.host.pending(*need);
        if !node.tables().all(has_first) || !task.needs.iter().all(comes) {
            return Ok(false);
        }
        let store = self.session.store.as_ref();
        for listed in store.list_stage(Kind::Folder, &node.name)? {
            if let What::Record(address) = &listed.what
                && let Some(record) = read_record::<FolderRecord>(store, address)?
                && self.keys().may_be(task.node, &record.key)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    #[tracing::instrument(level = "debug", skip_all, fields(stage = self.session.name(self.tasks.all[id].node)))]
    fn run_job(&self, id: TaskId, provisional: &str) -> Result<Committed, TaskError> {
        let node = self.tasks.all[id].node;
        let name = self.session.name(node);
        let graph = self.session.graph;
        let Role::Job(stage) = &graph.nodes[node].stage.role else {
            return Err(StageError::new("this is no job").into());
        };
        self.host.event(&Event::Started { stage: node, label: name, rows: None });
        let _active = Active::new(self.host, node);
        let folder = self.session.store.workdir().unfinished(name, provisional);
        at(&folder, fs::create_dir_all(&folder))?;
        let inputs = graph.nodes[node].tables().map(|input| graph.nodes[input].name.clone()).collect();
        let context = Context::new(self, id, inputs, folder.clone());
        let done = catch("while working", || stage.run(&context));
        if self.host.stopping() {
            return Err(TaskError::Stopped);
        }
        done?;
        self.commit_job(id, stage.as_ref(), &folder)
    }

    fn commit_job(
        &self,
        id: TaskId,
        stage: &dyn JobStage,
        folder: &std::path::Path,
    ) -> Result<Committed, TaskError> {
        let parts = self.wait_for_parts(id)?;
        let record = FolderRecord::of(folder, 0, parts, stage.ephemeral())?;
        let node = self.tasks.all[id].node;
        let (name, force) = (self.session.name(node), self.force.contains(&node));
        let record = commit_folder(self.session.store.as_ref(), name, folder, record, force)?;
        let (entry, counts) = entry_of_folder(&record);
        Ok(Committed { entry, counts, reused: false })
    }

    /// A job may end before it has read everything: waits for what is missing, one after the other.
    fn wait_for_parts(&self, id: TaskId) -> Result<KeyParts, TaskError> {
        let task = &self.tasks.all[id];
        for need in task.needs.iter().copied() {
            while self.host.entry(need).is_none() {
                if self.host.stopping() || !self.host.pending(need) {
                    return Err(TaskError::Stopped);
                }
                self.host.wait();
            }
        }
        self.keys().parts(task)?.ok_or(TaskError::Stopped)
    }
}
