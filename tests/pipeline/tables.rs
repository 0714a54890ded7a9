//! The store's files, and the token shards in it, as a reader outside the project sees them.

use crate::project::Project;
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, UInt32Type};
use arrow::ipc::reader::FileReader;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// All files under `folder`, as paths relative to it, sorted.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The bytes of every result in a store: what `tables/` and `jobs/` hold.
pub fn results(store: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let kept = |path: &PathBuf| path.starts_with("tables") || path.starts_with("jobs");
    files(store)
        .into_iter()
        .filter(kept)
        .map(|path| (path.clone(), fs::read(store.join(&path)).unwrap()))
        .collect()
}

/// Fails with the names of files that only one side has or whose bytes differ, never with their contents.
pub fn assert_same(left: &BTreeMap<PathBuf, Vec<u8>>, right: &BTreeMap<PathBuf, Vec<u8>>) {
    let only_left: Vec<_> = left.keys().filter(|path| !right.contains_key(*path)).collect();
    let only_right: Vec<_> = right.keys().filter(|path| !left.contains_key(*path)).collect();
    let differ: Vec<_> =
        left.iter().filter(|(path, bytes)| right.get(*path).is_some_and(|other| other != *bytes)).collect();
    let differ: Vec<_> = differ.into_iter().map(|(path, _)| path).collect();
    assert!(
        only_left.is_empty() && only_right.is_empty(),
        "only left: {only_left:?}\nonly right: {only_right:?}"
    );
    assert!(differ.is_empty(), "differ: {differ:?}");
    assert!(!left.is_empty(), "nothing to compare");
}

/// The batches of an Arrow IPC file.
pub fn batches(path: &Path) -> Vec<RecordBatch> {
    let file = File::open(path).unwrap();
    FileReader::try_new(file, None).unwrap().collect::<Result<_, _>>().unwrap()
}

/// A row of a token shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    pub input_ids: Vec<u32>,
    pub labels: Vec<i32>,
    pub n_images: u32,
    /// Group, partition and row that the tokens come from, and whose images belong to them.
    pub place: (u64, u64, u64),
}

/// The folder of a shard stage, as `status --json` tells it.
pub fn shards_folder(project: &Project, manifest: &str, stage: &str) -> PathBuf {
    let files = stage_files(project, manifest, stage);
    let index = files.iter().find(|file| file.ends_with("shards.json"));
    index.unwrap_or_else(|| panic!("no shards.json in {files:?}")).parent().unwrap().to_owned()
}

/// The stored files of a stage, as `status --json` tells them.
pub fn stage_files(project: &Project, manifest: &str, stage: &str) -> Vec<PathBuf> {
    let status: Value = serde_json::from_str(&project.stdout(&["status", manifest, "--json"])).unwrap();
    let stages = status["stages"].as_array().unwrap();
    let stage = stages.iter().find(|entry| entry["name"] == stage).unwrap();
    stage["files"].as_array().unwrap().iter().map(|file| project.path(file.as_str().unwrap())).collect()
}

/// The rows of `train` or `validation`, file after file.
pub fn tokens_of_split(shards: &Path, split: &str) -> Vec<Tokens> {
    let folder = shards.join(split);
    let files = if folder.is_dir() { files(&folder) } else { Vec::new() };
    let batches = files.iter().flat_map(|file| batches(&folder.join(file)));
    batches
        .flat_map(|batch| (0..batch.num_rows()).map(|row| tokens(&batch, row)).collect::<Vec<_>>())
        .collect()
}

fn tokens(batch: &RecordBatch, row: usize) -> Tokens {
    let list = |name: &str| batch.column_by_name(name).unwrap().as_list::<i32>().value(row);
    let place = batch.column_by_name("row").unwrap().as_struct();
    let part =
        |name: &str| u64::from(place.column_by_name(name).unwrap().as_primitive::<UInt32Type>().value(row));
    Tokens {
        input_ids: list("input_ids").as_primitive::<UInt32Type>().values().to_vec(),
        labels: list("labels").as_primitive::<Int32Type>().values().to_vec(),
        n_images: batch.column_by_name("n_images").unwrap().as_primitive::<UInt32Type>().value(row),
        place: (part("group"), part("partition"), part("row")),
    }
}
