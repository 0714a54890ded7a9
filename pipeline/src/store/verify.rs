//! Checks every stored file against its record, and marks what is damaged, so that the next run makes it again.

use super::digests::{LOG, is_sealed, read_value};
use super::files;
use super::ledger;
use super::record::{FolderRecord, TableRecord, unseal};
use super::roots::Root;
use super::{Address, Kind, Listed, Store, What};
use crate::spec::error::StageError;
use serde::Serialize;
use std::collections::BTreeSet;
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
#[tracing::instrument(level = "debug", skip_all)]
pub fn verify(store: &dyn Store) -> Result<Verification, StageError> {
    // What a run has published and not yet recorded is no stray: while one goes on, strays cannot be recognised.
    let alone = store.lock_exclusive().ok();
    let all = store.list()?;
    let is_alone = alone.is_some();
    drop(alone);
    let _lock = store.lock_shared()?;
    let mut check = Check { store, found: Verification::default(), named: BTreeSet::new() };
    for listed in &all {
        check.record(listed)?;
    }
    check.others(&all, is_alone)?;
    check.roots()?;
    check.values()?;
    check.ledgers()?;
    check.leftovers()?;
    let mut found = check.found;
    found.problems.sort();
    found.problems.dedup();
    Ok(found)
}

struct Check<'a> {
    store: &'a dyn Store,
    found: Verification,
    /// Content that a record names.
    named: BTreeSet<Address>,
}

impl Check<'_> {
    /// Counts a file, and notes what is wrong with it.
    fn add(&mut self, name: PathBuf, bytes: u64, problem: Option<Problem>) {
        self.found.files += 1;
        self.found.bytes += bytes;
        self.found.problems.extend(problem.map(|problem| Finding { path: name, problem }));
    }

    fn record(&mut self, listed: &Listed) -> Result<(), StageError> {
        let What::Record(address) = &listed.what else { return Ok(()) };
        let Some(bytes) = self.store.record(address)? else { return Ok(()) };
        let damaged = match address.kind {
            Kind::Table => match unseal::<TableRecord>(&bytes) {
                Some(record) => {
                    self.table(&Address::table(&address.stage, &record.digest))?;
                    record.key.key() != address.name
                }
                None => true,
            },
            Kind::Folder => match unseal::<FolderRecord>(&bytes) {
                Some(record) => {
                    self.folder(address, &record)?;
                    record.key.key() != address.name
                }
                None => true,
            },
        };
        self.add(listed.name.clone(), listed.bytes, damaged.then_some(Problem::Damaged));
        Ok(())
    }

    fn missing(&mut self, content: &Address) {
        self.add(content.content_name(), 0, Some(Problem::Missing));
    }

    /// Remembers what was found, so that the next run makes damaged content again.
    fn mark(&self, content: &Address, damaged: bool) -> Result<(), StageError> {
        if damaged == self.store.is_damaged(content)? {
            return Ok(());
        }
        tracing::debug!(path = %content.content_name().display(), damaged, "marked");
        self.store.mark(content, damaged)
    }

    fn table(&mut self, content: &Address) -> Result<(), StageError> {
        if !self.named.insert(content.clone()) {
            return Ok(());
        }
        let Some(path) = self.store.reread(content)? else {
            self.missing(content);
            return Ok(());
        };
        let damaged = self.compare(&path, content.content_name(), &content.name)?;
        self.mark(content, damaged)
    }

    fn folder(&mut self, content: &Address, record: &FolderRecord) -> Result<(), StageError> {
        self.named.insert(content.clone());
        let Some(folder) = self.store.reread(content)? else {
            self.missing(content);
            return Ok(());
        };
        let name = content.content_name();
        let mut damaged = false;
        for (file, (digest, _)) in &record.files {
            damaged |= self.compare(&folder.join(file), name.join(file), digest)?;
        }
        let is_known = |file: &PathBuf| record.files.contains_key(file) || record.is_ephemeral(file);
        for file in files::files_below(&folder)?.iter().filter(|file| !is_known(file)) {
            self.add(name.join(file), 0, Some(Problem::Stray));
        }
        self.mark(content, damaged)
    }

    /// Whether a file is not what its digest says.
    fn compare(&mut self, path: &Path, name: PathBuf, digest: &str) -> Result<bool, StageError> {
        let (bytes, problem) = match files::hash_file(path) {
            Ok((hash, bytes)) if hash.to_hex().as_str() == digest => (bytes, None),
            Ok((_, bytes)) => (bytes, Some(Problem::Damaged)),
            Err(cause) if cause.kind() == ErrorKind::NotFound => (0, Some(Problem::Missing)),
            Err(cause) => return Err(StageError::io(path, cause)),
        };
        self.add(name, bytes, problem);
        Ok(problem.is_some())
    }

    /// What no record names, and interrupted jobs.
    fn others(&mut self, all: &[Listed], is_alone: bool) -> Result<(), StageError> {
        for listed in all.iter().filter(|_| is_alone) {
            let is_stray = match &listed.what {
                What::Content(address) => !self.named.contains(address),
                What::Stray => true,
                What::Record(_) | What::Mark | What::Unfinished { .. } | What::Outdated => false,
            };
            if is_stray {
                self.add(listed.name.clone(), listed.bytes, Some(Problem::Stray));
            }
        }
        let interrupted = self.store.workdir().interrupted()?;
        self.found.unfinished.extend(interrupted.into_iter().map(|listed| listed.name));
        Ok(())
    }

    fn roots(&mut self) -> Result<(), StageError> {
        for (name, bytes) in self.store.roots()? {
            let damaged = unseal::<Root>(&bytes).is_none();
            let path = Path::new("index").join(format!("{name}.json"));
            self.add(path, bytes.len() as u64, damaged.then_some(Problem::Damaged));
        }
        Ok(())
    }

    /// Remembered digests and values.
    fn values(&mut self) -> Result<(), StageError> {
        for entry in files::entries(&self.store.workdir().digests())? {
            if entry.file_name() != LOG {
                let path = entry.path();
                let is_list = path.extension().is_some_and(|extension| extension == "jsonl");
                let damaged = if is_list { !is_sealed(&path)? } else { read_value(&path)?.is_none() };
                let bytes = entry.metadata().map_or(0, |file| file.len());
                let name = Path::new("digests").join(entry.file_name());
                self.add(name, bytes, damaged.then_some(Problem::Damaged));
            }
        }
        Ok(())
    }

    /// Values that jobs found out one by one.
    fn ledgers(&mut self) -> Result<(), StageError> {
        for entry in files::entries(&self.store.workdir().ledgers())? {
            let bytes = files::read_if_there(&entry.path())?.unwrap_or_default();
            let name = Path::new("ledgers").join(entry.file_name());
            let damaged = ledger::is_damaged(&bytes);
            self.add(name, bytes.len() as u64, damaged.then_some(Problem::Damaged));
        }
        Ok(())
    }

    /// Unfinished files of processes that are gone.
    fn leftovers(&mut self) -> Result<(), StageError> {
        for path in self.store.workdir().leftovers()? {
            self.found.problems.push(Finding { path, problem: Problem::Leftover });
        }
        Ok(())
    }
}
