//! Makes one partition of a sequential pass, whose verdict on a row depends on the rows before it.
//!
//! The pass runs over the stored intermediate columns in row order. It goes on from partition to partition; where an
//! output in between was found in the store, its rows are shown to the pass again before the next one is written.

use super::builder::Builder;
use super::executor::TaskError;
use super::shared::Progress;
use crate::keys::builder::Entry;
use crate::keys::tasks::{Pass, Task};
use crate::spec::error::StageError;
use crate::spec::event::Event;
use crate::spec::graph::NodeIndex;
use crate::spec::panics::catch;
use crate::spec::stage::{MapStage, SequentialPass};
use crate::store::key::KeyParts;
use crate::store::record::find_table;
use crate::store::record::{DerivedReject, RejectedRow, TableRecord};
use crate::table::counts::Counts;
use crate::table::rejects;
use crate::table::writer::{Output, TableWriter, stored_schema};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

impl Builder<'_> {
    fn pass(&self, node: NodeIndex) -> Arc<Mutex<Option<Progress>>> {
        let mut passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(passes.entry(node).or_default())
    }

    pub(super) fn build_sequential(
        &self,
        task: &Task,
        stage: &dyn MapStage,
        parts: KeyParts,
    ) -> Result<(Entry, Counts), TaskError> {
        let cell = self.pass(task.node);
        // Taken out, so that a pass that fails half-way is not gone on with.
        let mut held = cell.lock().unwrap_or_else(PoisonError::into_inner);
        let mut progress = match held.take().filter(|progress| progress.next <= task.index) {
            Some(progress) => progress,
            None => Progress {
                next: 0,
                pass: stage
                    .sequential()
                    .ok_or_else(|| StageError::new("a stage without a sequential pass"))?,
            },
        };
        let schema = stored_schema(&stage.output());
        let mut writer = TableWriter::create(&self.session.scratch, &schema)?;
        for partition in progress.next..=task.index {
            let write = (partition == task.index).then_some((&mut writer, &schema));
            self.pass_over(task, stage, progress.pass.as_mut(), partition, write)?;
        }
        progress.next = task.index + 1;
        // What it has seen may be a hash of every row: behind the last partition nobody needs it.
        *held = (progress.next < self.session.labels(task.node).len()).then_some(progress);
        self.commit_table(task, writer, parts)
    }

    /// Shows the intermediate columns of one partition to the pass, and writes what it gives where that is wanted.
    fn pass_over(
        &self,
        task: &Task,
        stage: &dyn MapStage,
        pass: &mut dyn SequentialPass,
        partition: usize,
        mut write: Option<(&mut TableWriter, &SchemaRef)>,
    ) -> Result<(), TaskError> {
        let columns = stage.intermediate();
        let names: Vec<&str> = columns.names().collect();
        let intermediate = self.intermediate(task.node, partition)?;
        let kind = self.session.graph.nodes[task.node].stage.kind;
        pass.begin(partition);
        let mut first = 0;
        for batch in self.reader().stored(task.node, Pass::Intermediate, partition, &names)? {
            if self.host.stopping() {
                return Err(TaskError::Stopped);
            }
            let batch = batch?;
            let rows = first..first + batch.num_rows() as u64;
            first = rows.end;
            let output = pass_batch(kind, pass, &batch, &rows)?;
            let Some((writer, schema)) = &mut write else { continue };
            let before = rejects::column(&batch)?;
            let mut output = Output::new(&output.0, batch.num_rows(), schema, &before, output.1)?;
            add_intermediate(&mut output, &intermediate, &rows);
            writer.write(output)?;
            self.host.event(&Event::Rows { stage: task.node, rows: rows.end - rows.start });
            self.check_run(task, writer)?;
        }
        Ok(())
    }

    fn intermediate(&self, node: NodeIndex, partition: usize) -> Result<TableRecord, StageError> {
        let missing = || StageError::new(format!("the first pass over partition {partition} is not there"));
        let id = self.tasks.id(node, Pass::Intermediate, partition).ok_or_else(missing)?;
        let entry = self.host.entry(id).ok_or_else(missing)?;
        find_table(self.session.store.as_ref(), self.session.name(node), &entry.key)?.ok_or_else(missing)
    }
}

fn pass_batch(
    kind: &str,
    pass: &mut dyn SequentialPass,
    batch: &RecordBatch,
    rows: &Range<u64>,
) -> Result<(RecordBatch, Vec<RejectedRow>), StageError> {
    let mut seen = rejects::earlier(&rejects::column(batch)?);
    let given = catch(&format!("on rows {}..{} of the partition", rows.start, rows.end), || {
        let columns: Vec<usize> =
            (0..batch.num_columns()).filter(|n| batch.schema().field(*n).name() != rejects::REJECT).collect();
        pass.next(&batch.project(&columns)?, &mut seen)
    })?;
    Ok((given, rejects::new_rows(kind, &seen)))
}

/// What was rejected before the pass counts as rejected by the stage.
fn add_intermediate(output: &mut Output, intermediate: &TableRecord, rows: &Range<u64>) {
    let earlier = intermediate.rejects.iter().filter(|reject| rows.contains(&reject.row));
    output
        .rejects
        .extend(earlier.map(|reject| RejectedRow { row: reject.row - rows.start, ..reject.clone() }));
    output.rejects.sort_by_key(|reject| reject.row);
    let derived = intermediate.derived.iter().filter(|reject| rows.contains(&reject.row));
    output
        .derived
        .extend(derived.map(|reject| DerivedReject { row: reject.row - rows.start, ..reject.clone() }));
}
