//! The executor of this process.

use super::builder::Builder;
use super::executor::{Committed, Executor, TaskError, TaskSpec};
use crate::keys::builder::KeyBuilder;
use crate::keys::tasks::{Task, TaskId};
use crate::spec::error::StageError;
use crate::table::find::find;

impl Executor for Builder<'_> {
    /// Finds the output of a task, or makes it.
    fn execute(&self, spec: &TaskSpec) -> Result<Committed, TaskError> {
        let id = self.task(spec)?;
        let task = &self.tasks.all[id];
        if self.session.graph.nodes[task.node].stage.role.is_job() {
            return self.execute_job(id, &spec.key);
        }
        let Some(parts) = self.keys().parts(task)? else { return Err(TaskError::NotReady) };
        same_key(spec, &parts.key())?;
        if let Some(found) = self.find(id, &spec.key)? {
            tracing::trace!(stage = spec.stage, index = spec.index, "found");
            return Ok(found);
        }
        let Some(_lease) = self.session.store.lease(&spec.stage, &spec.key)? else {
            tracing::debug!(stage = spec.stage, index = spec.index, "another process holds the lease");
            return Err(TaskError::Busy);
        };
        // Another process may have finished it between the lookup and the lease.
        if let Some(found) = self.find(id, &spec.key)? {
            return Ok(found);
        }
        let (entry, counts) = self.build(id, parts)?;
        Ok(Committed { entry, counts, reused: false })
    }
}

impl Builder<'_> {
    pub fn task(&self, spec: &TaskSpec) -> Result<TaskId, StageError> {
        let TaskSpec { stage, pass, index, .. } = spec;
        let node = self.session.graph.find(stage);
        let id = node.and_then(|node| self.tasks.id(node, *pass, *index));
        id.ok_or_else(|| StageError::new(format!("the manifest has no task {index} of a stage `{stage}`")))
    }

    /// The output under this key, unless it is to be made again.
    pub(super) fn find(&self, id: TaskId, key: &str) -> Result<Option<Committed>, StageError> {
        let task = &self.tasks.all[id];
        if self.force.contains(&task.node) {
            return Ok(None);
        }
        let found = find(self.session, task, key)?;
        Ok(found.map(|(entry, counts)| Committed { entry, counts, reused: true }))
    }
}

/// What a task is called everywhere; `None` while its key is unknown.
pub fn spec(keys: &KeyBuilder<'_>, task: &Task) -> Result<Option<TaskSpec>, StageError> {
    let node = &keys.session.graph.nodes[task.node];
    let key = if node.stage.role.is_job() {
        Some(keys.provisional_key(task.node)?)
    } else {
        keys.parts(task)?.map(|parts| parts.key())
    };
    let manifest = keys.session.graph.manifest.clone();
    let (stage, pass, index) = (node.name.clone(), task.pass, task.index);
    Ok(key.map(|key| TaskSpec { manifest, stage, pass, index, key }))
}

/// The key that whoever asks has worked out must be the one that is worked out here.
pub(super) fn same_key(spec: &TaskSpec, key: &str) -> Result<(), StageError> {
    if spec.key == key {
        return Ok(());
    }
    let text = format!(
        "task {} of `{}` is asked for as {}, but its key is {key} here",
        spec.index, spec.stage, spec.key
    );
    Err(StageError::new(text)
        .help("The manifest, its data or this version differ from those the task was made with."))
}
