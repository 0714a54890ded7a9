//! Makes the folder of a gather unit, and compares folders with their records before they are opened.

use super::builder::{Builder, entry_of_folder};
use super::executor::TaskError;
use crate::keys::builder::Entry;
use crate::keys::tasks::{Pass, Task, TaskId};
use crate::spec::error::StageError;
use crate::spec::graph::NodeIndex;
use crate::spec::panics::catch;
use crate::spec::stage::{GatherInputs, GatherStage, Group, PartitionView, Units};
use crate::store::Address;
use crate::store::files::at;
use crate::store::key::KeyParts;
use crate::store::record::{FolderRecord, commit_folder, find_folder};
use crate::table::counts::Counts;
use crate::table::read::Opener;
use crate::table::view::View;
use std::fs;
use std::path::PathBuf;

impl Builder<'_> {
    pub(super) fn build_gather(
        &self,
        task: &Task,
        stage: &dyn GatherStage,
        parts: KeyParts,
    ) -> Result<(Entry, Counts), TaskError> {
        let wanted: Vec<(usize, usize)> = match stage.units() {
            Units::Whole => self.session.units(task.node).collect(),
            Units::PerPartition => self.session.unit(task.node, task.index).into_iter().collect(),
        };
        let (inputs, rows) = self.gather_inputs(task.node, &wanted)?;
        let unfinished = self.session.scratch.unfinished("folder");
        at(unfinished.path(), fs::create_dir(unfinished.path()))?;
        catch("while gathering", || stage.gather(&inputs, unfinished.path()))?;
        if self.host.stopping() {
            return Err(TaskError::Stopped);
        }
        let record = FolderRecord::of(unfinished.path(), rows, parts, &[])?;
        let (name, force) = (self.session.name(task.node), self.force.contains(&task.node));
        let record = commit_folder(self.session.store.as_ref(), name, unfinished.path(), record, force)?;
        Ok(entry_of_folder(&record))
    }

    /// The groups with the wanted partitions, and how many rows those have.
    fn gather_inputs(
        &self,
        node: NodeIndex,
        wanted: &[(usize, usize)],
    ) -> Result<(GatherInputs<'_>, u64), StageError> {
        let keys = self.keys();
        let missing = || StageError::new("an input is not there");
        let (mut groups, mut total) = (Vec::new(), 0);
        for (n, group) in self.session.graph.nodes[node].inputs.iter().enumerate() {
            let mut partitions: Vec<Box<dyn PartitionView + '_>> = Vec::new();
            let mut next = None;
            for &(_, partition) in wanted.iter().filter(|(group, _)| *group == n) {
                let first = match next {
                    Some((before, first)) if before + 1 == partition => first,
                    _ => keys.first_row(node, n, partition)?.ok_or_else(missing)?,
                };
                let rows = keys.rows(node, n, partition)?.ok_or_else(missing)?;
                partitions.push(Box::new(View::new(self.reader(), &keys, group, partition, first, rows)?));
                next = Some((partition, first + rows));
                total += rows;
            }
            let tables = group.tables.iter().map(|table| self.session.name(*table).to_owned()).collect();
            let kept = self.session.kept(node, group);
            groups.push(Group { weight: group.weight, tables, kept, partitions });
        }
        Ok((GatherInputs { groups, seed: self.session.graph.seed }, total))
    }

    /// The folder of an output that is there.
    pub(super) fn folder_path(&self, id: TaskId, entry: &Entry) -> Result<PathBuf, StageError> {
        let content = Address::folder(self.session.name(self.tasks.all[id].node), &entry.key);
        let missing = || {
            let name = content.content_name();
            StageError::new(format!("{} is missing", name.display()))
                .help("Run the same command again to make it again.")
        };
        self.session.store.content(&content)?.ok_or_else(missing)
    }

    /// Whether every file of a folder is as it was written.
    pub(super) fn folder_is_as_written(&self, id: TaskId, entry: &Entry) -> Result<bool, StageError> {
        let stage = self.session.name(self.tasks.all[id].node);
        let Some(record) = find_folder(self.session.store.as_ref(), stage, &entry.key)? else {
            return Ok(false);
        };
        let ephemeral: Vec<&str> = record.ephemeral.iter().map(String::as_str).collect();
        let folder = self.folder_path(id, entry)?;
        Ok(FolderRecord::of(&folder, record.rows, record.key.clone(), &ephemeral)? == record)
    }

    /// A folder whose content, and that of the partitions it may name, was compared with the records.
    pub(super) fn open_folder(&self, id: TaskId, entry: &Entry) -> Result<PathBuf, StageError> {
        self.check_folder(id, entry)?;
        for need in &self.tasks.all[id].needs {
            if self.tasks.all[*need].pass == Pass::Main && !self.is_folder(*need) {
                drop(self.open(*need, true)?);
            }
        }
        self.folder_path(id, entry)
    }
}
