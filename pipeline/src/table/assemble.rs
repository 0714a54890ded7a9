//! Puts the rows of one batch together: joins the batches read from several tables, and applies derived stages.
//!
//! In: one batch per leaf of a [`Recipe`], all of the same rows. Out: the wanted columns, the reject column, and what derived
//! stages rejected. Pure; called on the worker threads.

use super::rejects;
use crate::keys::recipe::{Recipe, Wanted};
use crate::keys::session::Session;
use crate::spec::error::StageError;
use crate::spec::graph::NodeIndex;
use crate::spec::stage::{Apply, BatchIterator};
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
struct TableBatch {
    node: NodeIndex,
    rows: RecordBatch,
    rejects: StringArray,
}

impl Assembler {
    /// Opens the derived stages of a recipe.
    pub fn open(session: &Session<'_>, recipe: &Arc<Recipe>) -> Result<Self, StageError> {
        let mut steps = Vec::with_capacity(recipe.steps.len());
        for step in &recipe.steps {
            steps.push((session.graph.nodes[step.node].stage.kind, session.work(step.node)?));
        }
        let sources = recipe.leaves.iter().map(|leaf| !session.is_stored(leaf.node)).collect();
        Ok(Self { recipe: Arc::clone(recipe), steps, sources })
    }

    pub fn assemble(&self, leaves: Vec<RecordBatch>) -> Result<Assembled, StageError> {
        let rows = leaves.first().map_or(0, RecordBatch::num_rows);
        let mut derived = Vec::new();
        let mut tables = Vec::with_capacity(leaves.len() + self.steps.len());
        let mut makers = 0;
        for ((leaf, batch), is_source) in self.recipe.leaves.iter().zip(leaves).zip(&self.sources) {
            let rejects = rejects::column(&batch)?;
            if *is_source {
                derived.extend(reasons(makers, &rejects));
                makers += 1;
            }
            tables.push(TableBatch { node: leaf.node, rows: batch, rejects });
        }
        for (n, (step, (kind, apply))) in self.recipe.steps.iter().zip(&self.steps).enumerate() {
            let (input, before) = join(&tables, &step.inputs, rows)?;
            let mut seen = rejects::earlier(&before);
            let output = apply.apply(&input, &mut seen)?;
            if output.num_rows() != rows {
                return Err(StageError::new(format!("{kind} gave {} rows for {rows}", output.num_rows())));
            }
            let new = rejects::new_rows(kind, &seen);
            derived.extend(new.iter().map(|reject| DerivedReject {
                maker: makers + n,
                row: reject.row,
                reason: reject.reason.clone(),
            }));
            tables.push(TableBatch { node: step.node, rows: output, rejects: rejects::after(&before, &new) });
        }
        let (rows, rejects) = join(&tables, &self.recipe.wanted, rows)?;
        Ok(Assembled { rows, rejects, derived })
    }
}

fn reasons(maker: usize, column: &StringArray) -> Vec<DerivedReject> {
    let rejected = (0..column.len()).filter(|row| column.is_valid(*row));
    rejected.map(|row| DerivedReject { maker, row: row as u64, reason: column.value(row).into() }).collect()
}

fn join(
    tables: &[TableBatch],
    wanted: &Wanted,
    rows: usize,
) -> Result<(RecordBatch, StringArray), StageError> {
    let table = |node: NodeIndex| tables.iter().find(|table| table.node == node);
    let mut fields = Vec::with_capacity(wanted.columns.len());
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(wanted.columns.len());
    for name in &wanted.columns {
        let read = wanted.reads.iter().find(|read| read.columns.contains(name));
        let array = read.and_then(|read| table(read.node)).and_then(|table| table.rows.column_by_name(name));
        let array = array.ok_or_else(|| StageError::new(format!("the column `{name}` was not given")))?;
        fields.push(Field::new(name, array.data_type().clone(), true));
        arrays.push(Arc::clone(array));
    }
    let columns: Vec<&StringArray> =
        wanted.reads.iter().filter_map(|read| table(read.node)).map(|table| &table.rejects).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?;
    Ok((batch, rejects::first_of(&columns, rows)))
}

/// The batches of all leaves side by side. They must have the same rows, which need not be cut in the same places: a source ends a batch
/// early where its images are large.
pub struct Leaves<'a> {
    readers: Vec<BatchIterator<'a>>,
    /// For the error: the stages.
    names: Vec<String>,
    /// By reader: what is left of its last batch.
    rests: Vec<Option<RecordBatch>>,
}

impl<'a> Leaves<'a> {
    pub fn new(readers: Vec<BatchIterator<'a>>, names: Vec<String>) -> Self {
        let rests = readers.iter().map(|_| None).collect();
        Self { readers, names, rests }
    }

    /// Takes the next batch of each reader that has nothing left.
    fn fill(&mut self) -> Result<(), StageError> {
        for (reader, rest) in self.readers.iter_mut().zip(&mut self.rests) {
            while rest.as_ref().is_none_or(|rest| rest.num_rows() == 0) {
                if let Some(batch) = reader.next().transpose()? {
                    *rest = Some(batch);
                } else {
                    *rest = None;
                    break;
                }
            }
        }
        Ok(())
    }

    fn cut(&mut self) -> Result<Option<Vec<RecordBatch>>, StageError> {
        self.fill()?;
        let counts: Vec<usize> =
            self.rests.iter().map(|rest| rest.as_ref().map_or(0, RecordBatch::num_rows)).collect();
        let rows = counts.iter().copied().min().unwrap_or(0);
        if rows == 0 && counts.iter().all(|count| *count == 0) {
            return Ok(None);
        }
        if rows == 0 {
            let names = self.names.join(" and ");
            return Err(StageError::new(format!(
                "{names} do not line up: at the end they have {counts:?} rows left"
            )));
        }
        let batches = self.rests.iter_mut().flatten().map(|rest| {
            let batch = rest.slice(0, rows);
            *rest = rest.slice(rows, rest.num_rows() - rows);
            batch
        });
        Ok(Some(batches.collect()))
    }
}

impl Iterator for Leaves<'_> {
    type Item = Result<Vec<RecordBatch>, StageError>;

    /// Nothing follows an error.
    fn next(&mut self) -> Option<Self::Item> {
        let cut = self.cut();
        if cut.is_err() {
            self.readers.clear();
            self.rests.clear();
        }
        cut.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::UInt32Array;

    /// Numbers from 0 on in batches of these sizes.
    fn reader(sizes: &[usize]) -> BatchIterator<'static> {
        let mut start = 0;
        let batches: Vec<_> = sizes
            .iter()
            .map(|size| {
                let numbers = UInt32Array::from_iter_values(start..start + *size as u32);
                start += *size as u32;
                Ok(RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef)])?)
            })
            .collect();
        Box::new(batches.into_iter())
    }

    fn leaves(sizes: &[&[usize]]) -> Leaves<'static> {
        let names = sizes.iter().map(|_| "rows".to_owned()).collect();
        Leaves::new(sizes.iter().map(|sizes| reader(sizes)).collect(), names)
    }

    #[test]
    fn batches_that_are_cut_in_other_places_are_put_side_by_side() {
        let mut seen = Vec::new();
        for batches in leaves(&[&[4, 4, 1], &[3, 0, 5, 1], &[9]]) {
            let batches = batches.unwrap();
            assert!(batches.windows(2).all(|pair| pair[0] == pair[1]), "{batches:?}");
            seen.push(batches[0].num_rows());
        }
        assert_eq!(seen, [3, 1, 4, 1]);
    }

    #[test]
    fn tables_of_other_lengths_do_not_line_up() {
        let error = leaves(&[&[4, 4], &[4, 3]]).last().unwrap().unwrap_err();
        assert!(error.to_string().contains("do not line up"), "{error}");
    }
}
