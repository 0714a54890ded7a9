//! `shift-labels`: pair each token with the one that follows it.
//!
//! In: `input_ids` list<u32>, `train` list<bool>, one entry per token, n >= 2; `n_images` u32.
//! Out: `input_ids` list<u32> (n-1: the last dropped), `labels` list<i32> (n-1: the first dropped, `ignore_index` where
//! `train` is false), `n_images` as it came.

use crate::arrays::{Lists, column, counts_of_kept, item_range, items, list_of};
use arrow::array::{Array, ArrayRef, BooleanArray, Int32Array, ListArray, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, UInt32Type};
use llavm_pipeline::stage::{Apply, Estimate, Expected, MapStage, OpenContext, Parameters, StageKind};
use llavm_pipeline::{Columns, Rejects, StageError};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Parameters of `shift-labels`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShiftLabels {
    /// Label of positions that carry no loss. Default -100, the value cross-entropy ignores.
    pub ignore_index: i32,
}

impl Default for ShiftLabels {
    fn default() -> Self {
        Self { ignore_index: -100 }
    }
}

impl StageKind for ShiftLabels {
    const KIND: &'static str = "shift-labels";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "pair each token with the one that follows it";
}

impl Parameters for ShiftLabels {
    /// Bytes of a row of the samples under `data/`.
    fn estimate(&self, expected: &Expected) -> Option<Estimate> {
        Some(Estimate::table(expected, 800))
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        if self.ignore_index < 0 {
            return Vec::new();
        }
        vec![("ignore_index", "must be negative, for every other number is the id of a token".to_owned())]
    }
}

impl MapStage for ShiftLabels {
    fn input(&self) -> Columns {
        Columns::new()
            .with("input_ids", list_of(DataType::UInt32))
            .with("train", list_of(DataType::Boolean))
            .with("n_images", DataType::UInt32)
    }

    fn output(&self) -> Columns {
        Columns::new()
            .with("input_ids", list_of(DataType::UInt32))
            .with("labels", list_of(DataType::Int32))
            .with("n_images", DataType::UInt32)
    }

    fn open(&self, _context: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError> {
        Ok(Box::new(self.clone()))
    }
}

impl Apply for ShiftLabels {
    fn apply(&self, rows: &RecordBatch, rejects: &mut Rejects) -> Result<RecordBatch, StageError> {
        let tokens: &ListArray = column(rows, "input_ids")?;
        let train: &ListArray = column(rows, "train")?;
        let n_images: &UInt32Array = column(rows, "n_images")?;
        let mut shifted = Shifted::with_capacity(rows.num_rows(), tokens.values().len());
        for row in 0..rows.num_rows() {
            if !rejects.is_rejected(row) {
                let ids = items::<UInt32Type>(tokens, row)?;
                let trained = trained(train, row)?;
                match self.shift(ids, &trained, &mut shifted) {
                    Ok(()) => continue,
                    Err((code, detail)) => rejects.reject(row, code, detail),
                }
            }
            shifted.lists.push_null();
        }
        shifted.finish(self, counts_of_kept(n_images, rejects))
    }
}

impl ShiftLabels {
    fn shift(&self, ids: &[u32], train: &[bool], out: &mut Shifted) -> Result<(), (&'static str, String)> {
        let (Some((_, inputs)), Some((_, targets))) = (ids.split_last(), ids.split_first()) else {
            return Err(("too-short", "the row has no tokens".to_owned()));
        };
        let targets = targets.iter().zip(train.iter().skip(1));
        if !targets.clone().any(|(_, &train)| train) {
            let detail = format!("none of the row's {} tokens is trained on", ids.len());
            return Err(("nothing-to-train", detail));
        }
        out.labels
            .extend(targets.map(|(&id, &train)| if train { id.cast_signed() } else { self.ignore_index }));
        out.input_ids.extend_from_slice(inputs);
        out.lists.push(inputs.len());
        Ok(())
    }
}

fn trained(lists: &ListArray, row: usize) -> Result<Vec<bool>, StageError> {
    let flags = lists.values().as_any().downcast_ref::<BooleanArray>();
    let flags = flags.ok_or_else(|| StageError::new("`train` is not a list of bool"))?;
    Ok(item_range(lists, row).map(|item| flags.value(item)).collect())
}

/// The output columns while they grow.
struct Shifted {
    input_ids: Vec<u32>,
    labels: Vec<i32>,
    lists: Lists,
}

impl Shifted {
    fn with_capacity(rows: usize, tokens: usize) -> Self {
        Self {
            input_ids: Vec::with_capacity(tokens),
            labels: Vec::with_capacity(tokens),
            lists: Lists::with_capacity(rows),
        }
    }

    fn finish(self, stage: &ShiftLabels, n_images: ArrayRef) -> Result<RecordBatch, StageError> {
        let input_ids = self.lists.finish(Arc::new(UInt32Array::from(self.input_ids)))?;
        let labels = self.lists.finish(Arc::new(Int32Array::from(self.labels)))?;
        let columns = vec![input_ids, labels, n_images];
        Ok(RecordBatch::try_new(stage.output().schema(), columns)?)
    }
}
