//! First pass of `shard`: which rows there are, how long they are, and which are left out for what reason.

use super::names::Names;
use crate::arrays::column;
use arrow::array::{Array, ListArray, RecordBatch, StringArray};
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{GatherInputs, PartitionView};
use serde::Serialize;

/// Kept columns by which rows are counted, where `keep` has them.
const COUNTED: [&str; 2] = ["language", "source"];

/// A row that can be used: all that is kept of it in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Tokens.
    pub length: u32,
    pub group: u32,
    /// The partition's index in its table.
    pub partition: u32,
    /// The row's index in its partition.
    pub index: u32,
    /// Numbers in [`Survey::languages`] and [`Survey::sources`].
    pub language: u16,
    pub source: u16,
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
    pub languages: Names,
    pub sources: Names,
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
            let (partition, mut first) = (view.index() as u32, 0);
            let kept = inputs.groups.get(group as usize).map(|group| &group.kept);
            let counted =
                COUNTED.into_iter().filter(|name| kept.is_some_and(|kept| kept.get(name).is_some()));
            let columns: Vec<&str> = std::iter::once("input_ids").chain(counted).collect();
            for batch in view.batches(&columns)? {
                let batch = batch?;
                survey.add(&batch, Row { group, partition, index: first, ..Row::default() })?;
                first += batch.num_rows() as u32;
            }
        }
        Ok(survey)
    }

    fn add(&mut self, batch: &RecordBatch, first: Row) -> Result<(), StageError> {
        let tokens: &ListArray = column(batch, "input_ids")?;
        let rejects: &StringArray = column(batch, "reject")?;
        let [languages, sources] = COUNTED;
        let (languages, sources) = (self.languages.of(batch, languages)?, self.sources.of(batch, sources)?);
        for n in 0..batch.num_rows() {
            let row = first.index + n as u32;
            if tokens.is_valid(n) && rejects.is_null(n) {
                let length = tokens.value_length(n) as u32;
                let (language, source) = (languages[n], sources[n]);
                self.rows.push(Row { length, index: row, language, source, ..first });
            } else {
                let reason = if rejects.is_valid(n) { rejects.value(n) } else { "shard/no-tokens: null" };
                let Row { group, partition, .. } = first;
                self.left_out.push(LeftOut { group, partition, row, reason: reason.to_owned() });
            }
        }
        Ok(())
    }
}
