//! Publishes finished partitions and keeps the index of the manifest.

use super::Runner;
use super::board::Status;
use super::lane::Halt;
use crate::StageError;
use crate::key::KeyParts;
use crate::parts::{Entry, Known as _};
use crate::store::index::{Index, Known, StageIndex};
use crate::table::writer::TableWriter;
use crate::tally::Tally;
use crate::tasks::{Pass, Task, TaskId};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// How often the index is written while a run goes on.
const INDEX_EVERY: Duration = Duration::from_secs(2);

impl Runner<'_> {
    pub(super) fn commit_table(
        &self,
        task: &Task,
        writer: TableWriter,
        parts: KeyParts,
    ) -> Result<(Entry, Tally), Halt> {
        let (file, record) = writer.finish(parts)?;
        let name = self.session.name(task.node);
        self.session.store.commit_table(&self.session.scratch, name, file.path(), &record)?;
        Ok(Self::entry_of(&record))
    }

    /// Writes the index when it was not written for a while.
    pub(super) fn write_index_sometimes(&self, id: TaskId) {
        let mut indexed = self.indexed.lock().unwrap_or_else(PoisonError::into_inner);
        if indexed.elapsed() < INDEX_EVERY {
            return;
        }
        *indexed = Instant::now();
        if let Err(cause) = self.write_index() {
            let task = &self.tasks.all[id];
            self.fail(id, self.session.failed(task.node, Some(task.index), cause));
        }
    }

    /// Writes down which keys the manifest stands for now. Where that is not known yet, what stood there stays.
    pub(super) fn write_index(&self) -> Result<(), StageError> {
        let name = &self.session.graph.name;
        let old = self.session.store.read_index(name)?;
        let mut index = Index::default();
        for (node, stage) in self.session.graph.nodes.iter().enumerate() {
            let before = old.stages.get(&stage.name).cloned().unwrap_or_default();
            let now =
                if self.session.node(node).is_some() { self.stage_index(node, before)? } else { before };
            index.stages.insert(stage.name.clone(), now);
        }
        if index == old {
            return Ok(());
        }
        self.session.store.write_index(&self.session.scratch, name, &index)
    }

    fn stage_index(&self, node: usize, before: StageIndex) -> Result<StageIndex, StageError> {
        let stage = &self.session.graph.nodes[node].stage;
        let known = |pass, before: Vec<Option<Known>>| -> Vec<Option<Known>> {
            let range = self.tasks.of(node, pass);
            let all_known = range.clone().all(|id| matches!(self.board.status(id), Status::Done { .. }));
            let mut known: Vec<Option<Known>> = range
                .clone()
                .map(|id| self.known(id).or_else(|| before.get(id - range.start).cloned().flatten()))
                .collect();
            if !all_known {
                known.extend(before.into_iter().skip(range.len()));
            }
            known
        };
        Ok(StageIndex {
            kind: stage.kind.to_owned(),
            outputs: known(Pass::Main, before.outputs),
            first_pass: known(Pass::First, before.first_pass),
            promise: if stage.role.is_job() { Some(self.parts().promise(node)?) } else { None },
        })
    }

    fn known(&self, id: TaskId) -> Option<Known> {
        let task = &self.tasks.all[id];
        let Entry { key, digest, rows } = self.board.entry(id)?;
        Some(Known { label: self.session.label(task.node, task.index).to_owned(), key, digest, rows })
    }
}
