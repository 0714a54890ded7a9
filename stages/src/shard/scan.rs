//! First pass of `shard`: which rows there are, how long they are, and which are left out for what reason.

use super::Shard;
use super::clusters::{Clusters, GROUP, names};
use super::left_out::{LeftOut, Rejects};
use super::names::Names;
use crate::arrays::column;
use arrow::array::{Array, BooleanArray, ListArray, RecordBatch, StringArray};
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{GatherInputs, PartitionView};

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
    /// Numbers in [`RowScan::languages`] and [`RowScan::sources`].
    pub language: u16,
    pub source: u16,
}

/// What the first pass found.
#[derive(Debug, Default)]
pub struct RowScan {
    /// By group, partition and row.
    pub rows: Vec<Row>,
    pub languages: Names,
    pub sources: Names,
    /// Of [`RowScan::rows`], when the split keeps rows together.
    pub clusters: Clusters,
}

/// Group and partition views in the order of [`RowScan::rows`].
pub fn views<'a>(inputs: &'a GatherInputs<'_>) -> impl Iterator<Item = (u32, &'a dyn PartitionView)> {
    inputs.groups.iter().enumerate().flat_map(|(group, tables)| {
        tables.partitions.iter().map(move |view| (group as u32, view.as_ref() as &dyn PartitionView))
    })
}

impl RowScan {
    /// Rows that are left out go to `rejects`.
    pub fn of(stage: &Shard, inputs: &GatherInputs<'_>, left_out: &mut Rejects) -> Result<Self, StageError> {
        // A vector that grows by doubling would take half as much again.
        let most = views(inputs).map(|(_, view)| view.rows()).sum();
        let mut scan = Self { rows: Vec::with_capacity(most), ..Self::default() };
        for (group, view) in views(inputs) {
            let (partition, mut first) = (view.index() as u32, 0);
            let kept = inputs.groups.get(group as usize).map(|group| &group.kept);
            let counted =
                COUNTED.into_iter().filter(|name| kept.is_some_and(|kept| kept.get(name).is_some()));
            let grouped = stage.splits_by_group().then_some(GROUP);
            let grouped = grouped.filter(|name| kept.is_some_and(|kept| kept.get(name).is_some()));
            let trained = (!stage.shift).then_some("train");
            let columns: Vec<&str> =
                std::iter::once("input_ids").chain(counted).chain(grouped).chain(trained).collect();
            for batch in view.batches(&columns)? {
                let batch = batch?;
                scan.add(&batch, Row { group, partition, index: first, ..Row::default() }, left_out)?;
                first += batch.num_rows() as u32;
            }
        }
        Ok(scan)
    }

    fn add(&mut self, batch: &RecordBatch, first: Row, left_out: &mut Rejects) -> Result<(), StageError> {
        let tokens: &ListArray = column(batch, "input_ids")?;
        let rejects: &StringArray = column(batch, "reject")?;
        let [languages, sources] = COUNTED;
        let (languages, sources) = (self.languages.of(batch, languages)?, self.sources.of(batch, sources)?);
        for n in 0..batch.num_rows() {
            let row = first.index + n as u32;
            let nothing = tokens.is_valid(n) && is_untrained(batch, n)?;
            if tokens.is_valid(n) && rejects.is_null(n) && !nothing {
                let names = names(batch, n);
                self.clusters.push(&names.iter().map(String::as_str).collect::<Vec<_>>());
                let length = tokens.value_length(n) as u32;
                let (language, source) = (languages[n], sources[n]);
                self.rows.push(Row { length, index: row, language, source, ..first });
            } else {
                let reason = match () {
                    () if rejects.is_valid(n) => rejects.value(n),
                    () if nothing => "shard/nothing-to-train: no token of the row is trained on",
                    () => "shard/no-tokens: null",
                };
                let Row { group, partition, .. } = first;
                left_out.push(LeftOut { group, partition, row, reason })?;
            }
        }
        Ok(())
    }
}

/// Whether the batch says of each token whether it is trained on, and of none of this row that it is.
fn is_untrained(batch: &RecordBatch, row: usize) -> Result<bool, StageError> {
    if batch.column_by_name("train").is_none() {
        return Ok(false);
    }
    let lists: &ListArray = column(batch, "train")?;
    let flags = lists.value(row);
    let flags = flags.as_any().downcast_ref::<BooleanArray>();
    Ok(flags.is_none_or(|flags| flags.true_count() == 0))
}
