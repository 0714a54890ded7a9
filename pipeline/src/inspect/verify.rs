//! Checks every stored file against its record.

use crate::StageError;
use crate::digest::read_value;
use crate::store::Store;
use crate::store::files;
use crate::store::index::Index;
use crate::store::record::{FolderRecord, TableRecord, read_sealed};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What a look at every file of the store found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Files whose content was compared with its record.
    pub files: usize,
    pub bytes: u64,
    /// In the order of their paths.
    pub problems: Vec<Finding>,
    /// Folders of jobs that were interrupted and can go on; no problem.
    pub unfinished: Vec<PathBuf>,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// Relative to the store.
    pub path: PathBuf,
    pub problem: Problem,
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// The content is not what was written: a flipped bit, a cut-off file.
    Damaged,
    /// A record names a file that is not there.
    Missing,
    /// No record names the file.
    Stray,
    /// An unfinished file of a run that was killed.
    Leftover,
}

/// Looks at every file of a store.
pub(crate) fn verify(store: &Store) -> Result<Verification, StageError> {
    let _lock = store.lock_shared()?;
    let mut found = Verification::default();
    for stage in files::entries(&store.folder("tables"))? {
        tables(store, &stage.path(), &mut found)?;
    }
    for stage in files::entries(&store.folder("jobs"))? {
        jobs(store, &stage.path(), &mut found)?;
    }
    for entry in files::entries(&store.folder("index"))? {
        let whole = read_sealed::<Index>(&entry.path())?.is_some();
        found.add(store, &entry.path(), (!whole).then_some(Problem::Damaged));
    }
    for entry in files::entries(&store.folder("digests"))? {
        if entry.file_name() != "files.log" {
            let whole = read_value(&entry.path())?.is_some();
            found.add(store, &entry.path(), (!whole).then_some(Problem::Damaged));
        }
    }
    leftovers(store, &mut found)?;
    found.problems.sort();
    Ok(found)
}

impl Verification {
    /// Counts a file, and notes what is wrong with it.
    fn add(&mut self, store: &Store, path: &Path, problem: Option<Problem>) {
        self.files += 1;
        self.bytes += path.metadata().map_or(0, |file| file.len());
        let path = path.strip_prefix(store.root()).unwrap_or(path).to_owned();
        self.problems.extend(problem.map(|problem| Finding { path, problem }));
    }

    fn compare(&mut self, store: &Store, path: &Path, digest: &str) -> Result<(), StageError> {
        let problem = match files::hash_file(path) {
            Ok((hash, _)) if hash.to_hex().as_str() == digest => None,
            Ok(_) => Some(Problem::Damaged),
            Err(cause) if cause.kind() == ErrorKind::NotFound => Some(Problem::Missing),
            Err(cause) => return Err(StageError::io(path, cause)),
        };
        self.add(store, path, problem);
        Ok(())
    }
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

/// The records and files of one stage's table.
fn tables(store: &Store, folder: &Path, found: &mut Verification) -> Result<(), StageError> {
    let paths: Vec<PathBuf> = files::entries(folder)?.iter().map(fs::DirEntry::path).collect();
    let mut named = BTreeSet::new();
    for path in paths.iter().filter(|path| is_json(path)) {
        let record = read_sealed::<TableRecord>(path)?;
        let is_own = record
            .as_ref()
            .is_none_or(|record| path.file_stem().is_some_and(|key| *key == *record.key.key()));
        found.add(store, path, (record.is_none() || !is_own).then_some(Problem::Damaged));
        if let Some(record) = record {
            named.insert(folder.join(format!("{}.arrow", record.digest)));
        }
    }
    for path in &named {
        let digest = path.file_stem().unwrap_or_default().to_string_lossy();
        found.compare(store, path, &digest)?;
    }
    for path in paths.iter().filter(|path| !is_json(path) && !named.contains(*path)) {
        found.add(store, path, Some(Problem::Stray));
    }
    Ok(())
}

/// The records and folders of one gather or job stage.
fn jobs(store: &Store, stage: &Path, found: &mut Verification) -> Result<(), StageError> {
    let paths: Vec<PathBuf> = files::entries(stage)?.iter().map(fs::DirEntry::path).collect();
    let mut named = BTreeSet::new();
    for path in paths.iter().filter(|path| is_json(path)) {
        let record = read_sealed::<FolderRecord>(path)?;
        found.add(store, path, record.is_none().then_some(Problem::Damaged));
        let Some(record) = record else { continue };
        let folder = path.with_extension("");
        for (file, (digest, _)) in &record.files {
            found.compare(store, &folder.join(file), digest)?;
        }
        if folder.is_dir() {
            let is_known = |file: &PathBuf| record.files.contains_key(file) || record.is_ephemeral(file);
            for file in files::files_below(&folder)?.iter().filter(|file| !is_known(file)) {
                found.add(store, &folder.join(file), Some(Problem::Stray));
            }
        }
        named.insert(folder);
    }
    for path in paths.iter().filter(|path| !is_json(path) && !named.contains(*path)) {
        if path.extension().is_some_and(|extension| extension == "partial") {
            found.unfinished.push(path.strip_prefix(store.root()).unwrap_or(path).to_owned());
        } else {
            found.add(store, path, Some(Problem::Stray));
        }
    }
    Ok(())
}

/// Unfinished files of processes that are gone.
fn leftovers(store: &Store, found: &mut Verification) -> Result<(), StageError> {
    for entry in files::entries(&store.folder("tmp"))? {
        let path = entry.path();
        if path.is_dir() {
            let lock = path.with_added_extension("lock");
            let held = File::open(&lock).is_ok_and(|lock| lock.try_lock().is_err());
            found.problems.extend((!held).then(|| Finding {
                path: path.strip_prefix(store.root()).unwrap_or(&path).to_owned(),
                problem: Problem::Leftover,
            }));
        }
    }
    Ok(())
}
