//! Puts the rows of one batch together: joins the batches read from several tables, and applies derived stages.
//!
//! In: one batch per leaf of a [`Recipe`], all of the same rows. Out: the wanted columns, the reject column, and what derived
//! stages rejected. Pure; called on the worker threads.

use super::rejects;
use crate::StageError;
use crate::graph::NodeIndex;
use crate::recipe::{Recipe, Wanted};
use crate::stage::{Apply, BatchIterator};
use crate::store::record::DerivedReject;
use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{Field, Schema};
use std::sync::Arc;

/// A recipe whose derived stages are open.
pub struct Assembler {
    recipe: Arc<Recipe>,
    /// By step: the kind's name and its work.
    steps: Vec<(&'static str, Arc<dyn Apply>)>,
    /// By leaf: whether it is a source, whose rejects are nowhere stored.
    sources: Vec<bool>,
}

/// Rows ready for a stage.
pub struct Assembled {
    pub rows: RecordBatch,
    pub rejects: StringArray,
    /// By row of the batch.
    pub derived: Vec<DerivedReject>,
}

/// What is known of a table for the rows of this batch.
struct Piece {
    node: NodeIndex,
    rows: RecordBatch,
    rejects: StringArray,
}

impl Assembler {
    pub fn new(recipe: Arc<Recipe>, steps: Vec<(&'static str, Arc<dyn Apply>)>, sources: Vec<bool>) -> Self {
        Self { recipe, steps, sources }
    }

    pub fn assemble(&self, leaves: Vec<RecordBatch>) -> Result<Assembled, StageError> {
        let rows = leaves.first().map_or(0, RecordBatch::num_rows);
        let mut derived = Vec::new();
        let mut pieces = Vec::with_capacity(leaves.len() + self.steps.len());
        let mut makers = 0;
        for ((leaf, batch), is_source) in self.recipe.leaves.iter().zip(leaves).zip(&self.sources) {
            let rejects = rejects::column(&batch)?;
            if *is_source {
                derived.extend(reasons(makers, &rejects));
                makers += 1;
            }
            pieces.push(Piece { node: leaf.node, rows: batch, rejects });
        }
        for (n, (step, (kind, apply))) in self.recipe.steps.iter().zip(&self.steps).enumerate() {
            let (input, before) = join(&pieces, &step.inputs, rows)?;
            let mut seen = rejects::earlier(&before);
            let output = apply.apply(&input, &mut seen)?;
            if output.num_rows() != rows {
                return Err(StageError::new(format!("{kind} gave {} rows for {rows}", output.num_rows())));
            }
            let new = rejects::new_rows(kind, &seen);
            derived.extend(new.iter().map(|reject| DerivedReject {
                maker: makers + n,
                row: reject.row,
                reason: rejects::reason(reject),
            }));
            pieces.push(Piece { node: step.node, rows: output, rejects: rejects::after(&before, &new) });
        }
        let (rows, rejects) = join(&pieces, &self.recipe.wanted, rows)?;
        Ok(Assembled { rows, rejects, derived })
    }
}

fn reasons(maker: usize, column: &StringArray) -> Vec<DerivedReject> {
    let rejected = (0..column.len()).filter(|row| column.is_valid(*row));
    rejected
        .map(|row| DerivedReject { maker, row: row as u64, reason: column.value(row).to_owned() })
        .collect()
}

fn join(pieces: &[Piece], wanted: &Wanted, rows: usize) -> Result<(RecordBatch, StringArray), StageError> {
    let piece = |node: NodeIndex| pieces.iter().find(|piece| piece.node == node);
    let mut fields = Vec::with_capacity(wanted.columns.len());
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(wanted.columns.len());
    for name in &wanted.columns {
        let read = wanted.reads.iter().find(|read| read.columns.contains(name));
        let array = read.and_then(|read| piece(read.node)).and_then(|piece| piece.rows.column_by_name(name));
        let array = array.ok_or_else(|| StageError::new(format!("the column `{name}` was not given")))?;
        fields.push(Field::new(name, array.data_type().clone(), true));
        arrays.push(Arc::clone(array));
    }
    let columns: Vec<&StringArray> =
        wanted.reads.iter().filter_map(|read| piece(read.node)).map(|piece| &piece.rejects).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?;
    Ok((batch, rejects::first_of(&columns, rows)))
}

/// The batches of all leaves side by side; they must have the same rows.
pub struct Leaves<'a> {
    readers: Vec<BatchIterator<'a>>,
    /// For the error: the stages.
    names: Vec<String>,
}

impl<'a> Leaves<'a> {
    pub fn new(readers: Vec<BatchIterator<'a>>, names: Vec<String>) -> Self {
        Self { readers, names }
    }
}

impl Iterator for Leaves<'_> {
    type Item = Result<Vec<RecordBatch>, StageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let given: Vec<Option<_>> = self.readers.iter_mut().map(Iterator::next).collect();
        if given.iter().all(Option::is_none) {
            return None;
        }
        let rows = |batch: &Option<Result<RecordBatch, StageError>>| match batch {
            Some(Ok(batch)) => Some(batch.num_rows()),
            _ => None,
        };
        let counts: Vec<Option<usize>> = given.iter().map(rows).collect();
        let batches: Result<Vec<RecordBatch>, StageError> = given.into_iter().flatten().collect();
        Some(batches.and_then(|batches| {
            if counts.windows(2).all(|pair| pair[0] == pair[1]) {
                return Ok(batches);
            }
            let names = self.names.join(" and ");
            Err(StageError::new(format!("{names} do not line up: their batches have {counts:?} rows")))
        }))
    }
}
