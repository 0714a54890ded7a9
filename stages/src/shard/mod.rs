//! `shard`: gather token rows into shuffled files for training and validation.
//!
//! In, per group of tables that line up: `input_ids` list<u32>, `labels` list<i32>, `n_images` u32; further tables of a group
//! (pixels, features) are not read, only pointed at.
//! Out, a folder: `train/00000.arrow …` and `validation/00000.arrow …` (Arrow IPC files: `input_ids` list<u32>, `labels`
//! list<i32>, `n_images` u32, `row` struct<group: u32, partition: u32, row: u32>), `shards.json` (counts, and which stored
//! files the row pointers mean) and `rejects.json` (rows left out, by reason).
//!
//! Every choice is a rank: a hash of the seed, the group and the row's index in the whole table. It does not depend on the
//! text, so a new chat template leaves the split as it was, and the same manifest always gives the same files.
//!
//! - **Split**: of each group the round(rows × `validation`) rows of smallest rank. Rejected rows take no place.
//! - **Mixing**: `weight` says how often a group's training rows stand in the shards: with 2 each twice, with 0.5 half of
//!   them, with 1.5 each once and half of them twice; which ones is drawn by rank. Validation rows stand there once.
//! - **Order**: by rank. With `shuffle = "partition"` each partition becomes a folder of its own, shuffled in itself, so that
//!   training can start before the last row is read; the split is then taken from each partition.
//! - **Buckets**: with `bucket = "length"`, rows are sorted by length, cut into runs of `bucket_rows`, and the runs are
//!   shuffled: a batch holds rows of like length and wastes little on padding.

mod folder;
mod order;
mod scatter;
mod survey;

use crate::arrays::list_of;
use arrow::datatypes::DataType;
use llavm_pipeline::stage::{GatherInputs, GatherStage, Parameters, StageKind, Units};
use llavm_pipeline::{Columns, StageError};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Parameters of `shard`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shard {
    /// Share of the rows kept for validation, from 0 (default) to below 1.
    pub validation: f64,
    /// Default `global`.
    pub shuffle: Shuffle,
    /// Default `none`.
    pub bucket: Bucket,
    /// Rows of like length in a run, with `bucket = "length"`: the batch size of training or a multiple. Default 64.
    pub bucket_rows: usize,
    /// Most rows of a file. Default 65536.
    pub rows_per_shard: usize,
}

/// Which rows are shuffled among each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shuffle {
    /// All.
    Global,
    /// Those of a partition: training can start on the first one while the others are being prepared.
    Partition,
}

/// Which rows stand next to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bucket {
    /// Any.
    None,
    /// Rows of like length.
    Length,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            validation: 0.0,
            shuffle: Shuffle::Global,
            bucket: Bucket::None,
            bucket_rows: 64,
            rows_per_shard: 65_536,
        }
    }
}

impl StageKind for Shard {
    const KIND: &'static str = "shard";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "gather token rows into shuffled files for training and validation";
    const PARAMS: &'static [&'static str] =
        &["validation", "shuffle", "bucket", "bucket_rows", "rows_per_shard"];
}

impl Parameters for Shard {
    fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        if !(0.0..1.0).contains(&self.validation) {
            wrong.push(("validation", "must be from 0 to below 1, a share of the rows".to_owned()));
        }
        if self.bucket_rows == 0 {
            wrong.push(("bucket_rows", "must be at least 1".to_owned()));
        }
        if self.rows_per_shard == 0 {
            wrong.push(("rows_per_shard", "must be at least 1".to_owned()));
        }
        wrong
    }
}

impl GatherStage for Shard {
    fn input(&self) -> Columns {
        Columns::new()
            .with("input_ids", list_of(DataType::UInt32))
            .with("labels", list_of(DataType::Int32))
            .with("n_images", DataType::UInt32)
    }

    fn units(&self) -> Units {
        match self.shuffle {
            Shuffle::Global => Units::Whole,
            Shuffle::Partition => Units::PerPartition,
        }
    }

    fn gather(&self, inputs: &GatherInputs<'_>, output: &Path) -> Result<(), StageError> {
        let survey = survey::Survey::of(inputs)?;
        let splits = order::splits(self, &survey, inputs);
        for (name, order) in [("train", &splits.train), ("validation", &splits.validation)] {
            scatter::write(inputs, &survey, order, self.rows_per_shard, &output.join(name))?;
        }
        folder::write_indexes(inputs, &survey, &splits, self.rows_per_shard, output)
    }
}
