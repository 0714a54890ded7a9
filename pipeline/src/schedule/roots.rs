//! Writes down what the manifest stands for now: its root in the store.

use super::run::Run;
use super::scheduler::Status;
use super::written::Written;
use crate::keys::builder::{Entry, Known as _};
use crate::keys::tasks::{Pass, TaskId};
use crate::spec::error::StageError;
use crate::store::roots::{self, Known, Root, StageRoot};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often the root is written while a run goes on.
const ROOT_EVERY: Duration = Duration::from_secs(2);

/// A root grows with the number of partitions: this many times as long as it took to write, it is not written again.
const ROOT_PAUSE: u32 = 50;

impl Run<'_> {
    /// Writes the root when it was not written for a while.
    pub(super) fn write_root_sometimes(&self, id: TaskId) {
        // One worker writes it; the others go on.
        let Ok(mut written) = self.root_written.try_lock() else { return };
        if written.at.elapsed() < ROOT_EVERY.max(written.took * ROOT_PAUSE) {
            return;
        }
        let start = Instant::now();
        let done = self.write_root();
        *written = Written { at: Instant::now(), took: start.elapsed() };
        drop(written);
        if let Err(cause) = done {
            let task = &self.tasks.all[id];
            self.fail(id, self.session.failed(task.node, Some(task.index), cause));
        }
    }

    /// Writes down which keys the manifest stands for now. Where that is not known yet, what stood there stays.
    pub(super) fn write_root(&self) -> Result<(), StageError> {
        let graph = self.session.graph;
        tracing::trace!(manifest = %graph.manifest.display(), "writing the root");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let root = Root::new(&graph.manifest, &graph.settings);
        roots::change(self.session.store.as_ref(), &root, |root| {
            let mut stages = std::mem::take(&mut root.stages);
            for (node, stage) in graph.nodes.iter().enumerate() {
                let before = stages.remove(&stage.name).unwrap_or_default();
                let is_open = self.session.node(node).is_some();
                let now = if is_open { self.stage_root(node, before)? } else { before };
                root.stages.insert(stage.name.clone(), now);
            }
            root.time = now;
            Ok(())
        })
    }

    fn stage_root(&self, node: usize, before: StageRoot) -> Result<StageRoot, StageError> {
        let stage = &self.session.graph.nodes[node].stage;
        let known = |pass, before: Vec<Option<Known>>| -> Vec<Option<Known>> {
            let range = self.tasks.of(node, pass);
            let all_known =
                range.clone().all(|id| matches!(self.host.scheduler.status(id), Status::Done { .. }));
            let mut known: Vec<Option<Known>> = range
                .clone()
                .map(|id| self.known(id).or_else(|| before.get(id - range.start).cloned().flatten()))
                .collect();
            if !all_known {
                known.extend(before.into_iter().skip(range.len()));
            }
            known
        };
        let is_job = stage.role.is_job();
        Ok(StageRoot {
            kind: stage.kind.to_owned(),
            outputs: known(Pass::Main, before.outputs),
            intermediate: known(Pass::Intermediate, before.intermediate),
            provisional: is_job.then(|| self.builder.keys().provisional_key(node)).transpose()?,
        })
    }

    fn known(&self, id: TaskId) -> Option<Known> {
        let task = &self.tasks.all[id];
        let Entry { key, digest, rows } = self.host.scheduler.entry(id)?;
        Some(Known { label: self.session.label(task.node, task.index).to_owned(), key, digest, rows })
    }
}
