//! `shards.json` of a shard folder: what is in it.

use super::Shard;
use super::order::Splits;
use super::scan::RowScan;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{self, GatherInputs, PartitionView};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// `shards.json`.
#[derive(Serialize)]
struct Shards<'a> {
    /// Whether labels are those of the next token, as training wants them.
    shifted: bool,
    train: Split,
    validation: Split,
    /// Rows left out, by `<kind>/<code>`.
    rejected: BTreeMap<String, u64>,
    groups: Vec<Group<'a>>,
}

#[derive(Debug, Serialize)]
struct Split {
    rows: u64,
    tokens: u64,
    /// Rows of each file, in order: `<split>/00000.arrow` and so on.
    shards: Vec<u64>,
    /// Rows of each group.
    groups: Vec<u64>,
    /// Rows by language and by source, where the rows say it and `keep` has the column.
    languages: BTreeMap<String, u64>,
    sources: BTreeMap<String, u64>,
}

/// What `row.group` counts.
#[derive(Serialize)]
struct Group<'a> {
    /// The stages whose tables line up.
    tables: &'a [String],
    weight: f64,
    /// Rows of the tables, used or not.
    rows: u64,
    #[serde(serialize_with = "one_by_one")]
    partitions: &'a [Box<dyn PartitionView + 'a>],
}

/// What `row.partition` names.
#[derive(Debug, Serialize)]
struct Partition {
    index: usize,
    first_row: u64,
    rows: usize,
    /// For each table: its stored file relative to the store (null: derived, computed when it is read) and its digest.
    files: Vec<Option<String>>,
    digests: Vec<String>,
}

/// Writes `shards.json`.
pub fn write_index(
    inputs: &GatherInputs<'_>,
    scan: &RowScan,
    splits: &Splits,
    stage: &Shard,
    rejected: &BTreeMap<String, u64>,
    output: &Path,
) -> Result<(), StageError> {
    let rows_per_shard = stage.rows_per_shard;
    let split = |order: &[u32]| Split::of(scan, order, inputs.groups.len(), rows_per_shard);
    let shards = Shards {
        shifted: stage.shift,
        train: split(&splits.train),
        validation: split(&splits.validation),
        rejected: rejected.clone(),
        groups: groups(inputs),
    };
    write(&output.join("shards.json"), &shards)
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), StageError> {
    let written = File::create(path).and_then(|file| {
        let mut file = BufWriter::new(file);
        serde_json::to_writer_pretty(&mut file, value)?;
        file.write_all(b"\n")?;
        file.flush()
    });
    written.map_err(|cause| StageError::io(path, cause))
}

impl Split {
    fn of(scan: &RowScan, order: &[u32], n_groups: usize, rows_per_shard: usize) -> Self {
        let mut groups = vec![0; n_groups];
        let mut tokens = 0;
        for row in order.iter().map(|index| scan.rows[*index as usize]) {
            groups[row.group as usize] += 1;
            tokens += u64::from(row.length);
        }
        let shards = order.chunks(rows_per_shard).map(|shard| shard.len() as u64).collect();
        let rows = || order.iter().map(|index| scan.rows[*index as usize]);
        let languages = scan.languages.counts(rows().map(|row| row.language));
        let sources = scan.sources.counts(rows().map(|row| row.source));
        Self { rows: order.len() as u64, tokens, shards, groups, languages, sources }
    }
}

fn groups<'a>(inputs: &'a GatherInputs<'_>) -> Vec<Group<'a>> {
    let group = |group: &'a stage::Group<'_>| Group {
        tables: &group.tables,
        weight: group.weight,
        rows: group.partitions.iter().map(|view| view.rows() as u64).sum(),
        partitions: &group.partitions,
    };
    inputs.groups.iter().map(group).collect()
}

/// What each partition is called is made up as it is written: there may be very many.
fn one_by_one<S: Serializer>(
    partitions: &[Box<dyn PartitionView + '_>],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(partitions.iter().map(|view| {
        let files = view.files().into_iter();
        Partition {
            index: view.index(),
            first_row: view.first_row(),
            rows: view.rows(),
            files: files.map(|file| file.map(|file| file.to_string_lossy().into_owned())).collect(),
            digests: view.digests().iter().map(|digest| digest.to_hex().to_string()).collect(),
        }
    }))
}
