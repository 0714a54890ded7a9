//! First pass of `shard`: which rows there are, how long they are, and which are left out for what reason.

use crate::arrays::column;
use arrow::array::{Array, ListArray, RecordBatch, StringArray};
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{GatherInputs, PartitionView};
use serde::Serialize;

/// A row that can be used: all that is kept of it in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Tokens.
    pub length: u32,
    pub group: u32,
    /// The partition's index in its table.
    pub partition: u32,
    /// The row's index in its partition.
    pub index: u32,
}

/// A row that is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    pub group: u32,
    pub partition: u32,
    pub row: u32,
    /// `<kind>/<code>: <detail>` of the stage that rejected it first.
    pub reason: String,
}

/// What the first pass found.
#[derive(Debug, Default)]
pub struct Survey {
    /// By group, partition and row.
    pub rows: Vec<Row>,
    pub left_out: Vec<LeftOut>,
}

/// Group and partition views in the order of [`Survey::rows`].
pub fn views<'a>(inputs: &'a GatherInputs<'_>) -> impl Iterator<Item = (u32, &'a dyn PartitionView)> {
    inputs.groups.iter().enumerate().flat_map(|(group, tables)| {
        tables.partitions.iter().map(move |view| (group as u32, view.as_ref() as &dyn PartitionView))
    })
}

impl Survey {
    pub fn of(inputs: &GatherInputs<'_>) -> Result<Self, StageError> {
        let mut survey = Self::default();
        for (group, view) in views(inputs) {
            let mut first = 0;
            for batch in view.batches(&["input_ids"])? {
                let batch = batch?;
                survey.add(&batch, Row { length: 0, group, partition: view.index() as u32, index: first })?;
                first += batch.num_rows() as u32;
            }
        }
        Ok(survey)
    }

    fn add(&mut self, batch: &RecordBatch, first: Row) -> Result<(), StageError> {
        let tokens: &ListArray = column(batch, "input_ids")?;
        let rejects: &StringArray = column(batch, "reject")?;
        for n in 0..batch.num_rows() {
            let row = first.index + n as u32;
            if tokens.is_valid(n) && rejects.is_null(n) {
                self.rows.push(Row { length: tokens.value_length(n) as u32, index: row, ..first });
            } else {
                let reason = if rejects.is_valid(n) { rejects.value(n) } else { "shard/no-tokens: null" };
                let Row { group, partition, .. } = first;
                self.left_out.push(LeftOut { group, partition, row, reason: reason.to_owned() });
            }
        }
        Ok(())
    }
}
