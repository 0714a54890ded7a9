//! Which rows go to training and validation, how often, and in which order.

use super::survey::{Row, Survey, views};
use super::{Bucket, Shard};
use llavm_pipeline::stage::GatherInputs;
use std::collections::BTreeMap;

/// Indexes into [`Survey::rows`], in the order of the shards.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Splits {
    pub train: Vec<u32>,
    pub validation: Vec<u32>,
}

/// What a rank decides; different purposes draw independently.
#[derive(Clone, Copy)]
enum Purpose {
    Split,
    Weight,
    Order,
    Bucket,
}

/// A number that looks random and depends on its arguments only. `row` is counted over the whole table.
fn rank(seed: u64, purpose: Purpose, group: u32, row: u64, copy: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in [seed, purpose as u64, u64::from(group), row, copy] {
        hasher.update(&part.to_le_bytes());
    }
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Splits, mixes, shuffles and buckets.
pub fn splits(stage: &Shard, survey: &Survey, inputs: &GatherInputs<'_>) -> Splits {
    let first_rows: BTreeMap<(u32, u32), u64> =
        views(inputs).map(|(group, view)| ((group, view.index() as u32), view.first_row())).collect();
    let global =
        |row: &Row| first_rows.get(&(row.group, row.partition)).copied().unwrap_or(0) + u64::from(row.index);
    let mut splits = Splits::default();
    let mut start = 0;
    for group in survey.rows.chunk_by(|a, b| a.group == b.group) {
        let rows: Vec<(u32, u64)> = (start..).zip(group.iter().map(global)).collect();
        start += group.len() as u32;
        let number = group.first().map_or(0, |row| row.group);
        let weight = inputs.groups.get(number as usize).map_or(1.0, |group| group.weight);
        let first = inputs.groups.get(number as usize).and_then(|group| group.partitions.first());
        let n_validation = share(first.map_or(0, |view| view.first_row()), rows.len(), stage.validation);
        splits.add_group(n_validation, inputs.seed, number, weight, rows);
    }
    splits.train = arrange(stage, survey, inputs.seed, splits.train, &global);
    splits.validation = arrange(stage, survey, inputs.seed, splits.validation, &global);
    splits
}

/// How many of `rows` rows, the first of which is row `first` of its table, are kept for validation: rounded such that the
/// partitions of a table, taken one by one, have together as many as the table.
fn share(first: u64, rows: usize, validation: f64) -> usize {
    let up_to = |row: u64| (row as f64 * validation).round() as usize;
    up_to(first + rows as u64) - up_to(first)
}

impl Splits {
    /// `rows`: index into the survey and index in the whole table.
    fn add_group(
        &mut self,
        n_validation: usize,
        seed: u64,
        group: u32,
        weight: f64,
        mut rows: Vec<(u32, u64)>,
    ) {
        rows.sort_by_cached_key(|(_, row)| rank(seed, Purpose::Split, group, *row, 0));
        let mut train = rows.split_off(n_validation.min(rows.len()));
        self.validation.extend(rows.iter().map(|(index, _)| index));
        for _ in 0..weight.trunc() as usize {
            self.train.extend(train.iter().map(|(index, _)| index));
        }
        train.sort_by_cached_key(|(_, row)| rank(seed, Purpose::Weight, group, *row, 0));
        let more = (train.len() as f64 * weight.fract()).round() as usize;
        self.train.extend(train[..more].iter().map(|(index, _)| index));
    }
}

/// Shuffles and buckets the rows of a split.
fn arrange(
    stage: &Shard,
    survey: &Survey,
    seed: u64,
    mut chosen: Vec<u32>,
    global: &impl Fn(&Row) -> u64,
) -> Vec<u32> {
    chosen.sort_unstable();
    let mut ranked: Vec<(u64, u32)> = Vec::with_capacity(chosen.len());
    for copies in chosen.chunk_by(|a, b| a == b) {
        for (copy, &index) in (0..).zip(copies) {
            let row = &survey.rows[index as usize];
            ranked.push((rank(seed, Purpose::Order, row.group, global(row), copy), index));
        }
    }
    ranked.sort_unstable();
    let order: Vec<u32> = ranked.into_iter().map(|(_, index)| index).collect();
    match stage.bucket {
        Bucket::None => order,
        Bucket::Length => bucket(survey, seed, stage.bucket_rows, order),
    }
}

/// Runs of rows of like length, the runs in random order. Rows of equal length keep their random order. A last run that is
/// not full stays last, so that every batch is cut out of one run.
fn bucket(survey: &Survey, seed: u64, rows: usize, mut order: Vec<u32>) -> Vec<u32> {
    order.sort_by_key(|&index| survey.rows[index as usize].length);
    let runs = order.chunks_exact(rows);
    let rest = runs.remainder();
    let mut runs: Vec<(u64, &[u32])> =
        (0..).zip(runs).map(|(n, run)| (rank(seed, Purpose::Bucket, 0, n, 0), run)).collect();
    runs.sort_by_key(|(rank, _)| *rank);
    runs.into_iter().map(|(_, run)| run).chain([rest]).flatten().copied().collect()
}
