//! Makes one partition of the second pass of a map stage, whose verdict on a row depends on the rows before it.
//!
//! The pass runs over the stored output of the first pass in row order. It goes on from partition to partition; where an
//! output in between was found in the store, its rows are shown to the pass again before the next one is written.

use super::Runner;
use super::build::catch;
use super::lane::Halt;
use crate::StageError;
use crate::graph::NodeIndex;
use crate::key::KeyParts;
use crate::observer::Event;
use crate::parts::{Entry, Known};
use crate::stage::{MapStage, Sweep};
use crate::store::record::{DerivedReject, RejectedRow, TableRecord};
use crate::table::rejects;
use crate::table::writer::{Output, TableWriter, stored_schema};
use crate::tally::Tally;
use crate::tasks::{Pass, Task};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// A second pass and how far it is.
pub struct Sweeping {
    next: usize,
    sweep: Box<dyn Sweep>,
}

impl Runner<'_> {
    fn sweeping(&self, node: NodeIndex) -> Arc<Mutex<Option<Sweeping>>> {
        let mut sweeping = self.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(sweeping.entry(node).or_default())
    }

    pub(super) fn build_swept(
        &self,
        task: &Task,
        stage: &dyn MapStage,
        parts: KeyParts,
    ) -> Result<(Entry, Tally), Halt> {
        let cell = self.sweeping(task.node);
        // Taken out, so that a pass that fails half-way is not gone on with.
        let mut held = cell.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sweeping = match held.take().filter(|sweeping| sweeping.next <= task.index) {
            Some(sweeping) => sweeping,
            None => Sweeping {
                next: 0,
                sweep: stage.sweep().ok_or_else(|| StageError::new("a stage without a second pass"))?,
            },
        };
        let schema = stored_schema(&stage.output());
        let mut writer = TableWriter::create(&self.session.scratch, &schema)?;
        for partition in sweeping.next..=task.index {
            let write = (partition == task.index).then_some((&mut writer, &schema));
            self.sweep_partition(task, stage, sweeping.sweep.as_mut(), partition, write)?;
        }
        sweeping.next = task.index + 1;
        *held = Some(sweeping);
        self.commit_table(task, writer, parts)
    }

    /// Shows one partition of the first pass to the second, and writes what it gives where that is wanted.
    fn sweep_partition(
        &self,
        task: &Task,
        stage: &dyn MapStage,
        sweep: &mut dyn Sweep,
        partition: usize,
        mut write: Option<(&mut TableWriter, &SchemaRef)>,
    ) -> Result<(), Halt> {
        let columns = stage.swept();
        let names: Vec<&str> = columns.names().collect();
        let first_pass = self.first_pass(task.node, partition)?;
        let kind = self.session.graph.nodes[task.node].stage.kind;
        let mut first = 0;
        for batch in self.reader().stored(task.node, Pass::First, partition, &names)? {
            if self.board.stopping() {
                return Err(Halt::Stopped);
            }
            let batch = batch?;
            let rows = first..first + batch.num_rows() as u64;
            first = rows.end;
            let output = sweep_batch(kind, sweep, &batch, &rows)?;
            let Some((writer, schema)) = &mut write else { continue };
            let before = rejects::column(&batch)?;
            let mut output = Output::new(&output.0, batch.num_rows(), schema, &before, output.1)?;
            add_first_pass(&mut output, &first_pass, &rows);
            writer.write(output)?;
            self.log.event(&Event::Rows { stage: task.node, rows: rows.end - rows.start });
            self.check_run(task, writer)?;
        }
        Ok(())
    }

    fn first_pass(&self, node: NodeIndex, partition: usize) -> Result<TableRecord, StageError> {
        let missing = || StageError::new(format!("the first pass on partition {partition} is not there"));
        let id = self.tasks.id(node, Pass::First, partition).ok_or_else(missing)?;
        let entry = self.board.entry(id).ok_or_else(missing)?;
        self.session.store.find_table(self.session.name(node), &entry.key)?.ok_or_else(missing)
    }
}

fn sweep_batch(
    kind: &str,
    sweep: &mut dyn Sweep,
    batch: &RecordBatch,
    rows: &Range<u64>,
) -> Result<(RecordBatch, Vec<RejectedRow>), StageError> {
    let mut seen = rejects::earlier(&rejects::column(batch)?);
    let given = catch(&format!("on rows {}..{} of the partition", rows.start, rows.end), || {
        let columns: Vec<usize> =
            (0..batch.num_columns()).filter(|n| batch.schema().field(*n).name() != rejects::REJECT).collect();
        sweep.next(&batch.project(&columns)?, &mut seen)
    })?;
    Ok((given, rejects::new_rows(kind, &seen)))
}

/// What the first pass rejected counts as rejected by the stage.
fn add_first_pass(output: &mut Output, first_pass: &TableRecord, rows: &Range<u64>) {
    let earlier = first_pass.rejects.iter().filter(|reject| rows.contains(&reject.row));
    output
        .rejects
        .extend(earlier.map(|reject| RejectedRow { row: reject.row - rows.start, ..reject.clone() }));
    output.rejects.sort_by_key(|reject| reject.row);
    let derived = first_pass.derived.iter().filter(|reject| rows.contains(&reject.row));
    output
        .derived
        .extend(derived.map(|reject| DerivedReject { row: reject.row - rows.start, ..reject.clone() }));
}
