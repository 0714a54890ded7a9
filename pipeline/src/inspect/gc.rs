//! Drops what no manifest of the store refers to.

use crate::StageError;
use crate::store::Store;
use crate::store::files::{self, at};
use crate::store::scratch::Scratch;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What was dropped, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Relative to the store, in the order of their paths.
    pub dropped: Vec<Dropped>,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Bytes of the tables and folders that stay.
    pub kept: u64,
}

/// A file or folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    pub path: PathBuf,
    pub bytes: u64,
}

/// Drops, or only lists, what no index refers to. Refused while a run uses the store.
pub(crate) fn collect(store: &Store, dry_run: bool) -> Result<Collected, StageError> {
    let _lock = store.lock_alone()?;
    let kept = referred(store)?;
    let mut found = Collected::default();
    for top in ["tables", "jobs"] {
        for stage in files::entries(&store.folder(top))? {
            for entry in files::entries(&stage.path())? {
                let path = entry.path();
                let bytes = size(&path)?;
                if kept.contains(&path) {
                    found.kept += bytes;
                    continue;
                }
                let relative = path.strip_prefix(store.root()).unwrap_or(&path).to_owned();
                found.bytes += bytes;
                found.dropped.push(Dropped { path: relative, bytes });
            }
        }
    }
    if !dry_run {
        // Records go before what they name: a killed gc leaves no record without its file.
        let (records, others): (Vec<&Dropped>, Vec<&Dropped>) = found
            .dropped
            .iter()
            .partition(|dropped| dropped.path.extension().is_some_and(|end| end == "json"));
        for dropped in records.into_iter().chain(others) {
            files::remove(&store.root().join(&dropped.path))?;
        }
        drop(Scratch::create(store)?);
    }
    Ok(found)
}

/// Bytes that no manifest refers to, nor `known`: stage, key and digest of outputs. Runs may go on meanwhile.
pub(crate) fn unused<'a>(
    store: &Store,
    known: impl Iterator<Item = (&'a str, String, String)>,
) -> Result<u64, StageError> {
    let mut kept = referred(store)?;
    known.for_each(|(stage, key, digest)| kept.extend(paths(store, stage, &key, &digest)));
    let mut bytes = 0;
    for top in ["tables", "jobs"] {
        for stage in files::entries(&store.folder(top))? {
            for entry in files::entries(&stage.path())? {
                let path = entry.path();
                bytes += if kept.contains(&path) { 0 } else { size(&path)? };
            }
        }
    }
    Ok(bytes)
}

/// Every file and folder that the manifests of the store stand for.
fn referred(store: &Store) -> Result<BTreeSet<PathBuf>, StageError> {
    let mut kept = BTreeSet::new();
    for index in store.indexes()? {
        for (stage, known) in &index.stages {
            for output in known.outputs.iter().chain(&known.first_pass).flatten() {
                kept.extend(paths(store, stage, &output.key, &output.digest));
            }
            kept.extend(known.promise.iter().map(|promise| store.partial_folder(stage, promise)));
        }
    }
    Ok(kept)
}

/// Where an output of a stage and its record lie, table or folder.
fn paths(store: &Store, stage: &str, key: &str, digest: &str) -> [PathBuf; 4] {
    [
        store.table_record(stage, key),
        store.root().join(Store::table_file(stage, digest)),
        store.job_record(stage, key),
        store.root().join(Store::job_folder(stage, key)),
    ]
}

fn size(path: &Path) -> Result<u64, StageError> {
    let bytes = |path: &Path| at(path, path.metadata()).map(|file| file.len());
    if !path.is_dir() {
        return bytes(path);
    }
    files::files_below(path)?.iter().map(|file| bytes(&path.join(file))).sum()
}
