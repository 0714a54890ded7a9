//! Makes the folder of a gather unit, and vouches for folders that are opened.

use super::Runner;
use super::build::catch;
use super::lane::Halt;
use crate::StageError;
use crate::graph::NodeIndex;
use crate::key::KeyParts;
use crate::parts::Entry;
use crate::stage::{GatherInputs, GatherStage, Group, PartitionView, Units};
use crate::store::Store;
use crate::store::files::at;
use crate::store::record::FolderRecord;
use crate::table::read::Guard;
use crate::table::view::View;
use crate::tally::Tally;
use crate::tasks::{Pass, Task, TaskId};
use std::fs;
use std::path::PathBuf;

impl Runner<'_> {
    pub(super) fn build_gather(
        &self,
        task: &Task,
        stage: &dyn GatherStage,
        parts: KeyParts,
    ) -> Result<(Entry, Tally), Halt> {
        let units = self.session.units(task.node);
        let wanted = match stage.units() {
            Units::Whole => &units[..],
            Units::PerPartition => units.get(task.index..=task.index).unwrap_or_default(),
        };
        let (inputs, rows) = self.gather_inputs(task.node, wanted)?;
        let unfinished = self.session.scratch.unfinished("folder");
        at(unfinished.path(), fs::create_dir(unfinished.path()))?;
        catch("while gathering", || stage.gather(&inputs, unfinished.path()))?;
        if self.board.stopping() {
            return Err(Halt::Stopped);
        }
        let record = FolderRecord::of(unfinished.path(), rows, parts, &[])?;
        let name = self.session.name(task.node);
        self.session.store.commit_folder(&self.session.scratch, name, unfinished.path(), &record)?;
        Ok(Self::entry_of_folder(&record))
    }

    /// The groups with the wanted partitions, and how many rows those have.
    fn gather_inputs(
        &self,
        node: NodeIndex,
        wanted: &[(usize, usize)],
    ) -> Result<(GatherInputs<'_>, u64), StageError> {
        let parts = self.parts();
        let missing = || StageError::new("an input is not there");
        let (mut groups, mut total) = (Vec::new(), 0);
        for (n, group) in self.session.graph.nodes[node].inputs.iter().enumerate() {
            let mut partitions: Vec<Box<dyn PartitionView + '_>> = Vec::new();
            let mut next = None;
            for &(_, partition) in wanted.iter().filter(|(group, _)| *group == n) {
                let first = match next {
                    Some((before, first)) if before + 1 == partition => first,
                    _ => parts.first_row(node, n, partition)?.ok_or_else(missing)?,
                };
                let rows = parts.rows(node, n, partition)?.ok_or_else(missing)?;
                partitions.push(Box::new(View::new(self.reader(), &parts, group, partition, first, rows)?));
                next = Some((partition, first + rows));
                total += rows;
            }
            let tables = group.tables.iter().map(|table| self.session.name(*table).to_owned()).collect();
            let kept = self.session.kept(node, group);
            groups.push(Group { weight: group.weight, tables, kept, partitions });
        }
        Ok((GatherInputs { groups, seed: self.session.graph.seed }, total))
    }

    pub(super) fn folder_path(&self, id: TaskId, entry: &Entry) -> PathBuf {
        let stage = self.session.name(self.tasks.all[id].node);
        self.session.store.root().join(Store::job_folder(stage, &entry.key))
    }

    /// Whether every file of a folder is as it was written.
    pub(super) fn folder_is_as_written(&self, id: TaskId, entry: &Entry) -> Result<bool, StageError> {
        let stage = self.session.name(self.tasks.all[id].node);
        let Some(record) = self.session.store.find_folder(stage, &entry.key)? else { return Ok(false) };
        let ephemeral: Vec<&str> = record.ephemeral.iter().map(String::as_str).collect();
        let now =
            FolderRecord::of(&self.folder_path(id, entry), record.rows, record.key.clone(), &ephemeral)?;
        Ok(now == record)
    }

    /// Vouches for a folder and for the partitions it may name.
    pub(super) fn open_folder(&self, id: TaskId, entry: &Entry) -> Result<PathBuf, StageError> {
        self.vouched_folder(id, entry)?;
        for need in &self.tasks.all[id].needs {
            let task = &self.tasks.all[*need];
            if task.pass == Pass::Main && !self.is_folder(*need) && self.is_beside(id, task) {
                drop(self.open(*need, true)?);
            }
        }
        Ok(self.folder_path(id, entry))
    }

    /// Whether a partition belongs to a gather unit itself, not only to its place in the table.
    fn is_beside(&self, unit: TaskId, task: &Task) -> bool {
        let unit = &self.tasks.all[unit];
        match self.session.labels(unit.node).len() {
            1 => true,
            _ => self
                .session
                .units(unit.node)
                .get(unit.index)
                .is_some_and(|(_, partition)| *partition == task.index),
        }
    }
}
