//! `shard`: gather token rows into shuffled files for training and validation.
//!
//! In, per group of tables that line up: `input_ids` list<u32>, `labels` list<i32>, `n_images` u32, and `id` utf8 and the columns
//! of `keep` from wherever they are made; further tables of a group (pixels, features) are not read, only pointed at.
//! Out, a folder: `train/00000.arrow …` and `validation/00000.arrow …` (Arrow IPC files: `input_ids` list<u32>, `labels`
//! list<i32>, `n_images` u32, `row` struct<group: u32, partition: u32, row: u32>, `id` utf8, the columns of `keep` in that
//! order, null where a row has none; the schema's metadata says whether labels are shifted), `shards.json` (counts, also by language and source, and which stored files the row pointers mean) and `rejects.json`
//! (rows left out, by reason). A kept list<utf8> has one value for each question (user turn) of the row.
//!
//! Every choice is a rank: a hash of the seed, the group and the row's index in the whole table. It does not depend on the
//! text, so a new chat template leaves the split as it was, and the same manifest always gives the same files.
//!
//! - **Split**: of each group the round(rows × `validation`) rows of smallest rank. Rejected rows take no place. Rows that share an
//!   image (or a value of the column `group` of `read`) go to the same side, with the rank of the first of them: five captions of an
//!   image, one of them seen in training, would measure memory. With `split = "row"` each row goes by itself.
//! - **Mixing**: `weight` says how often a group's training rows stand in the shards: with 2 each twice, with 0.5 half of
//!   them, with 1.5 each once and half of them twice; which ones is drawn by rank. Validation rows stand there once.
//! - **Order**: by rank. With `shuffle = "partition"` each partition becomes a folder of its own, shuffled in itself, so that
//!   training can start before the last row is read; the split is then taken from each partition.
//! - **Buckets**: with `bucket = "length"`, rows are sorted by length, cut into runs of `bucket_rows`, and the runs are
//!   shuffled: a batch holds rows of like length and wastes little on padding.

mod clusters;
mod folder;
mod kept;
mod left_out;
mod names;
mod order;
mod scan;
mod scatter;

pub use clusters::names as group_names;

use crate::arrays::list_of;
use arrow::datatypes::DataType;
use llavm_pipeline::stage::{
    Estimate, Expected, GatherInputs, GatherStage, Kept, Parameters, StageKind, Units,
};
use llavm_pipeline::{Columns, StageError};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Parameters of `shard`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shard {
    /// Share of the rows kept for validation, from 0 (default) to below 1.
    pub validation: f64,
    /// What goes to one side as a whole: rows that share an image (or a value of `columns.group` of `read`), or each `row` by
    /// itself. Default `group`.
    pub split: Split,
    /// Whether `labels[i]` is the token behind `input_ids[i]`, as `train` and most loss functions want it. `false` is for trainers
    /// that shift by themselves, as Hugging Face's do: the stage then reads the tokens of `tokenize`, without `shift-labels`. Default true.
    pub shift: bool,
    /// Default `global`.
    pub shuffle: Shuffle,
    /// Default `none`.
    pub bucket: Bucket,
    /// Rows of like length in a run, with `bucket = "length"`: the batch size of training or a multiple. Default 64.
    pub bucket_rows: usize,
    /// Most rows of a file. Default 65536.
    pub rows_per_shard: usize,
    /// Columns copied for whoever evaluates, of any stage the rows went through, the nearest first. Default
    /// `["messages", "language", "source"]`, each null where no stage makes it; others must be made by some stage.
    pub keep: Vec<String>,
}

/// What goes to one side of the split as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    Group,
    Row,
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
            split: Split::Group,
            shift: true,
            shuffle: Shuffle::Global,
            bucket: Bucket::None,
            bucket_rows: 64,
            rows_per_shard: 65_536,
            keep: kept::DEFAULT.map(str::to_owned).to_vec(),
        }
    }
}

impl Shard {
    fn splits_by_group(&self) -> bool {
        self.validation > 0.0 && self.split == Split::Group
    }
}

impl StageKind for Shard {
    const KIND: &'static str = "shard";
    const VERSION: u32 = 4;
    const ABOUT: &'static str = "gather token rows into shuffled files for training and validation";
}

impl Parameters for Shard {
    /// Bytes of a row of the samples under `data/`.
    fn estimate(&self, expected: &Expected) -> Option<Estimate> {
        let train =
            |(rows, weight): &(u64, f64)| (*rows as f64 * (1.0 - self.validation) * weight).round() as u64;
        let rows = expected.groups.iter().map(train).sum();
        let kept = expected.groups.iter().map(|(rows, _)| (*rows as f64 * self.validation).round() as u64);
        Some(Estimate { rows, disk: (rows + kept.sum::<u64>()) * 1_200, ..Estimate::default() })
    }

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
        let mut names = kept::OWN.to_vec();
        for name in &self.keep {
            if names.contains(&name.as_str()) {
                wrong.push(("keep", format!("`{name}` is there already")));
            }
            names.push(name);
        }
        wrong
    }
}

impl GatherStage for Shard {
    fn input(&self) -> Columns {
        let tokens = Columns::new().with("input_ids", list_of(DataType::UInt32));
        let tokens = if self.shift {
            tokens.with("labels", list_of(DataType::Int32))
        } else {
            tokens.with("train", list_of(DataType::Boolean))
        };
        tokens.with("n_images", DataType::UInt32)
    }

    fn keeps(&self) -> Vec<Kept> {
        let group = self.splits_by_group().then_some(clusters::GROUP);
        let group = group.filter(|group| !self.keep.iter().any(|name| name == group));
        let names = std::iter::once("id").chain(group).chain(self.keep.iter().map(String::as_str));
        let kept = |name: &str| Kept {
            name: name.to_owned(),
            param: "keep",
            optional: name == "id" || name == clusters::GROUP || kept::DEFAULT.contains(&name),
        };
        names.map(kept).collect()
    }

    fn units(&self) -> Units {
        match self.shuffle {
            Shuffle::Global => Units::Whole,
            Shuffle::Partition => Units::PerPartition,
        }
    }

    fn gather(&self, inputs: &GatherInputs<'_>, output: &Path) -> Result<(), StageError> {
        let mut rejects = left_out::Rejects::create(output)?;
        let mut scan = scan::RowScan::of(self, inputs, &mut rejects)?;
        let splits = order::splits(self, &mut scan, inputs);
        let kept = kept::Kept::new(&self.keep, inputs)?;
        for (name, order) in [("train", &splits.train), ("validation", &splits.validation)] {
            scatter::write(self, inputs, &scan, &kept, order, &output.join(name))?;
        }
        folder::write_index(inputs, &scan, &splits, self, &rejects.by_reason, output)?;
        rejects.finish()
    }
}
