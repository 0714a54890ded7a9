//! Which rows go to training and validation, how often, and in which order.
//!
//! Weights repeat or thin out rows rather than drawing with replacement: an epoch has a known number of rows, and each row's number
//! of copies differs by at most one. With `shuffle = "partition"` no other row is known, and the hash of a row's image decides its side.

use super::clusters::Clusters;
use super::scan::{Row, RowScan, views};
use super::{Bucket, Shard, Shuffle};
use llavm_pipeline::stage::GatherInputs;
use std::collections::{BTreeMap, HashSet};

/// Indexes into [`RowScan::rows`], in the order of the shards.
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
pub fn splits(stage: &Shard, scan: &mut RowScan, inputs: &GatherInputs<'_>) -> Splits {
    let first_rows: BTreeMap<(u32, u32), u64> =
        views(inputs).map(|(group, view)| ((group, view.index() as u32), view.first_row())).collect();
    let global =
        |row: &Row| first_rows.get(&(row.group, row.partition)).copied().unwrap_or(0) + u64::from(row.index);
    let validation = validation(stage, scan, inputs, &global);
    // Nothing asks for sets of rows any more.
    scan.clusters = Clusters::default();
    let mut splits = Splits::default();
    for (index, row) in (0..).zip(&scan.rows) {
        if validation[index as usize] {
            splits.validation.push(index);
        } else {
            let weight = inputs.groups.get(row.group as usize).map_or(1.0, |group| group.weight);
            splits.train.extend(std::iter::repeat_n(index, weight.trunc() as usize));
        }
    }
    for (number, group) in (0..).zip(&inputs.groups).filter(|(_, group)| group.weight.fract() > 0.0) {
        let rows = train_rows(scan, &validation, number);
        splits.thin_out(scan, inputs.seed, number, group.weight.fract(), rows, &global);
    }
    splits.train = arrange(stage, scan, inputs.seed, splits.train, &global);
    splits.validation = arrange(stage, scan, inputs.seed, splits.validation, &global);
    splits
}

/// The training rows of a group.
fn train_rows(scan: &RowScan, validation: &[bool], group: u32) -> Vec<u32> {
    let rows = (0_u32..).zip(&scan.rows).zip(validation);
    rows.filter(|((_, row), held_out)| row.group == group && !**held_out)
        .map(|((index, _), _)| index)
        .collect()
}

/// By row: whether it is kept for validation.
fn validation(
    stage: &Shard,
    scan: &mut RowScan,
    inputs: &GatherInputs<'_>,
    global: &impl Fn(&Row) -> u64,
) -> Vec<bool> {
    if stage.shuffle == Shuffle::Partition && scan.clusters.any() {
        return by_hash(stage, scan, inputs.seed, global);
    }
    let roots = scan.clusters.roots();
    // By the row that stands for a set.
    let mut sizes = vec![0_u32; roots.len()];
    roots.iter().for_each(|root| sizes[*root as usize] += 1);
    let mut chosen: HashSet<u32> = HashSet::new();
    let mut start = 0;
    for rows in scan.rows.chunk_by(|a, b| a.group == b.group) {
        let range = start..start + rows.len() as u32;
        start = range.end;
        let number = rows.first().map_or(0, |row| row.group);
        let first = inputs.groups.get(number as usize).and_then(|group| group.partitions.first());
        let wanted = share(first.map_or(0, |view| view.first_row()), rows.len(), stage.validation);
        let rank = |row: u32| {
            let root = roots[row as usize];
            let first = &scan.rows[root as usize];
            (rank(inputs.seed, Purpose::Split, first.group, global(first), 0), root, row)
        };
        let mut ranked: Vec<(u64, u32, u32)> = range.clone().map(rank).collect();
        ranked.sort_unstable();
        let ranked: Vec<u32> = ranked.into_iter().map(|(_, _, row)| row).collect();
        choose(&ranked, &roots, &sizes, wanted, &mut chosen);
    }
    roots.iter().map(|root| chosen.contains(root)).collect()
}

/// Adds sets of rows until `wanted` of these rows are chosen. A set that is larger than that would take the place of all others: it stays in
/// training, unless there is no other.
fn choose(ranked: &[u32], roots: &[u32], sizes: &[u32], wanted: usize, chosen: &mut HashSet<u32>) {
    let root = |row: &u32| roots[*row as usize];
    let mut count = ranked.iter().filter(|row| chosen.contains(&root(row))).count();
    for rows in ranked.chunk_by(|a, b| root(a) == root(b)) {
        let Some(root) = rows.first().map(root).filter(|root| !chosen.contains(root)) else { continue };
        if count >= wanted {
            return;
        }
        if sizes[root as usize] as usize <= wanted {
            chosen.insert(root);
            count += rows.len();
        }
    }
    if count == 0 && wanted > 0 {
        let smallest = ranked.iter().map(root).min_by_key(|root| sizes[*root as usize]);
        chosen.extend(smallest.filter(|root| (sizes[*root as usize] as usize) < ranked.len()));
    }
}

/// Partition by partition, no other row is known: what a row is grouped by decides its side by itself, so that the share is met only on
/// average.
fn by_hash(stage: &Shard, scan: &RowScan, seed: u64, global: &impl Fn(&Row) -> u64) -> Vec<bool> {
    let side = |(index, row): (u32, &Row)| {
        let rank = match scan.clusters.hash(index) {
            Some(hash) => rank(seed, Purpose::Split, u32::MAX, hash, 0),
            None => rank(seed, Purpose::Split, row.group, global(row), 0),
        };
        (rank as f64) < stage.validation * u64::MAX as f64
    };
    (0..).zip(&scan.rows).map(side).collect()
}

/// How many of `rows` rows, the first of which is row `first` of its table, are kept for validation: rounded such that the
/// partitions of a table, taken one by one, have together as many as the table.
fn share(first: u64, rows: usize, validation: f64) -> usize {
    let up_to = |row: u64| (row as f64 * validation).round() as usize;
    up_to(first + rows as u64) - up_to(first)
}

impl Splits {
    /// Adds a share of the training rows of a group once more; which ones is drawn by rank.
    fn thin_out(
        &mut self,
        scan: &RowScan,
        seed: u64,
        group: u32,
        share: f64,
        mut rows: Vec<u32>,
        global: &impl Fn(&Row) -> u64,
    ) {
        let more = (rows.len() as f64 * share).round() as usize;
        rows.sort_by_cached_key(|index| {
            rank(seed, Purpose::Weight, group, global(&scan.rows[*index as usize]), 0)
        });
        self.train.extend(&rows[..more]);
    }
}

/// Shuffles and buckets the rows of a split.
fn arrange(
    stage: &Shard,
    scan: &RowScan,
    seed: u64,
    mut chosen: Vec<u32>,
    global: &impl Fn(&Row) -> u64,
) -> Vec<u32> {
    chosen.sort_unstable();
    let mut ranked: Vec<(u64, u32)> = Vec::with_capacity(chosen.len());
    for copies in chosen.chunk_by(|a, b| a == b) {
        for (copy, &index) in (0..).zip(copies) {
            let row = &scan.rows[index as usize];
            ranked.push((rank(seed, Purpose::Order, row.group, global(row), copy), index));
        }
    }
    ranked.sort_unstable();
    let order: Vec<u32> = ranked.into_iter().map(|(_, index)| index).collect();
    match stage.bucket {
        Bucket::None => order,
        Bucket::Length => bucket(scan, seed, stage.bucket_rows, order),
    }
}

/// Runs of rows of like length, the runs in random order. Rows of equal length keep their random order. A last run that is
/// not full stays last, so that every batch is cut out of one run.
fn bucket(scan: &RowScan, seed: u64, rows: usize, mut order: Vec<u32>) -> Vec<u32> {
    order.sort_by_key(|&index| scan.rows[index as usize].length);
    let runs = order.chunks_exact(rows);
    let rest = runs.remainder();
    let mut runs: Vec<(u64, &[u32])> =
        (0..).zip(runs).map(|(n, run)| (rank(seed, Purpose::Bucket, 0, n, 0), run)).collect();
    runs.sort_by_key(|(rank, _)| *rank);
    runs.into_iter().map(|(_, run)| run).chain([rest]).flatten().copied().collect()
}
