//! What one machine keeps for itself beside a store: unfinished files, interrupted jobs, digests of raw files, folders of runs.
//!
//! ```text
//! jobs/<stage>/<key>.partial/     a job that was interrupted and can go on, by its provisional key
//! runs/<time>/                    summary.json, events.jsonl, rejects.jsonl
//! digests/                        digests of raw files, and small values computed from content
//! ledgers/                        values that jobs found out one by one, such as a model's answers
//! content/, probed-<server>       of a bucket: content that was made here or fetched, and that the bucket can be a store
//! tmp/, claims/                   unfinished files and leases; empty when nobody is at work
//! trimmed                         its time says when a run last dropped what is outdated
//! ```
//!
//! Outdated are the folders of all but the newest runs, and values that were not used for long. `gc` drops them, and so does a run
//! before it begins: once there are twice as many folders as stay, or a week after the last time.
//!
//! Nothing of it is needed to use the store, and all of it can be made again. A store in a folder has it in the same folder, so
//! that finished files only have to be renamed; others may have it anywhere.

use super::address::{Kind, Listed, What};
use super::files::{self, at};
use super::scratch::Scratch;
use crate::spec::error::StageError;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Its folders.
const FOLDERS: [&str; 5] = ["runs", "digests", "ledgers", "claims", "tmp"];

/// The newest folders of runs stay.
const RUNS_KEPT: usize = 20;

/// Values computed from content stay as long as they were used within this time.
const VALUES_KEPT: Duration = Duration::from_hours(720);

/// A run looks for unused values no more often than this: it has to look at every one.
const TRIM_EVERY: Duration = Duration::from_hours(168);

/// How the name of an interrupted job's folder ends.
pub const PARTIAL: &str = "partial";

/// A folder of this machine.
#[derive(Debug)]
pub struct Workdir {
    root: PathBuf,
    scratch: Mutex<Option<Arc<Scratch>>>,
}

impl Workdir {
    /// Creates the folders that are not there.
    pub fn open(root: &Path) -> Result<Self, StageError> {
        let root = std::path::absolute(root).map_err(|cause| StageError::io(root, cause))?;
        for folder in FOLDERS {
            let path = root.join(folder);
            at(&path, fs::create_dir_all(&path))?;
        }
        Ok(Self { root, scratch: Mutex::default() })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where unfinished files of this process lie. Made at the first call, which removes what killed processes left.
    pub fn scratch(&self) -> Result<Arc<Scratch>, StageError> {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scratch) = scratch.as_ref() {
            return Ok(Arc::clone(scratch));
        }
        let new = Arc::new(Scratch::create(&self.root)?);
        *scratch = Some(Arc::clone(&new));
        Ok(new)
    }

    /// Where a job works until it is done.
    pub fn unfinished(&self, stage: &str, provisional: &str) -> PathBuf {
        self.root.join("jobs").join(stage).join(format!("{provisional}.{PARTIAL}"))
    }

    /// Where every run has a folder of its own.
    pub fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// Where digests and remembered values lie.
    pub fn digests(&self) -> PathBuf {
        self.root.join("digests")
    }

    /// Where values lie that jobs found out one by one.
    pub fn ledgers(&self) -> PathBuf {
        self.root.join("ledgers")
    }

    /// Where content of a store elsewhere lies.
    pub fn content(&self) -> PathBuf {
        self.root.join("content")
    }

    /// Bytes that can still be written; `None` where that cannot be known.
    #[cfg(unix)]
    pub fn free(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.root).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    #[cfg(not(unix))]
    pub fn free(&self) -> Option<u64> {
        None
    }

    /// Interrupted jobs.
    pub fn interrupted(&self) -> Result<Vec<Listed>, StageError> {
        let mut found = Vec::new();
        for stage in files::entries(&self.root.join("jobs"))? {
            for entry in files::entries(&stage.path())? {
                let path = entry.path();
                if path.extension().is_some_and(|end| end == PARTIAL) {
                    let provisional = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                    let stage = stage.file_name().to_string_lossy().into_owned();
                    found.extend(self.listed(&path, What::Unfinished { stage, provisional })?);
                }
            }
        }
        Ok(found)
    }

    /// What was not used for long: folders of runs, values that can be computed again, content that can be fetched again.
    pub fn outdated(&self) -> Result<Vec<Listed>, StageError> {
        let runs = files::entries(&self.runs())?;
        let runs = runs.iter().rev().skip(RUNS_KEPT).map(fs::DirEntry::path);
        let values = files::entries(&self.digests())?;
        let values = values.iter().map(fs::DirEntry::path).filter(|path| {
            let is_log = path.extension().is_some_and(|end| end == "log");
            !is_log && is_unused(path)
        });
        let ledgers = files::entries(&self.ledgers())?;
        let ledgers = ledgers.iter().map(fs::DirEntry::path).filter(|path| is_unused(path));
        let content = self.kept_content()?;
        let content = content.into_iter().filter(|path| is_unused(path));
        let listed =
            runs.chain(values).chain(ledgers).chain(content).map(|path| self.listed(&path, What::Outdated));
        Ok(listed.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// Files of tables, and attempts at folders.
    fn kept_content(&self) -> Result<Vec<PathBuf>, StageError> {
        let mut found = Vec::new();
        for (kind, depth) in [(Kind::Table, 1), (Kind::Folder, 2)] {
            let mut level = vec![self.content().join(kind.top())];
            for _ in 0..=depth {
                let below = level.iter().map(|folder| files::entries(folder));
                let below = below.collect::<Result<Vec<_>, _>>()?;
                level = below.iter().flatten().map(fs::DirEntry::path).collect();
            }
            found.extend(level);
        }
        Ok(found)
    }

    /// Whether so much may be outdated that a run should drop it.
    pub fn is_trim_due(&self) -> Result<bool, StageError> {
        let is_recent = age(&self.trim_time()).is_some_and(|age| age < TRIM_EVERY);
        Ok(!is_recent || files::entries(&self.runs())?.len() > 2 * RUNS_KEPT)
    }

    /// What is outdated was dropped just now.
    pub fn trimmed(&self) -> Result<(), StageError> {
        let path = self.trim_time();
        at(&path, fs::write(&path, ""))
    }

    fn trim_time(&self) -> PathBuf {
        self.root.join("trimmed")
    }

    /// `None` for what was removed meanwhile.
    fn listed(&self, path: &Path, what: What) -> Result<Option<Listed>, StageError> {
        let name = path.strip_prefix(&self.root).unwrap_or(path).to_owned();
        match files::size(path) {
            Ok(bytes) => Ok(Some(Listed { name, what, bytes, damaged: false, young: false })),
            Err(_) if !path.exists() => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    /// Removes one of [`Workdir::interrupted`] or [`Workdir::outdated`].
    pub fn delete(&self, listed: &Listed) -> Result<(), StageError> {
        files::remove(&self.root.join(&listed.name))
    }

    /// Unfinished files of processes that are gone, relative to the folder.
    pub fn leftovers(&self) -> Result<Vec<PathBuf>, StageError> {
        let entries = files::entries(&self.root.join("tmp"))?.into_iter();
        let is_left = |entry: &fs::DirEntry| {
            let lock = entry.path().with_added_extension("lock");
            let held = File::open(&lock).is_ok_and(|lock| lock.try_lock().is_err());
            entry.path().is_dir() && !held
        };
        Ok(entries.filter(is_left).map(|entry| Path::new("tmp").join(entry.file_name())).collect())
    }
}

/// Whether a value was last used so long ago that it is not kept.
fn is_unused(path: &Path) -> bool {
    age(path).is_some_and(|age| age > VALUES_KEPT)
}

/// How long ago a file was last written.
fn age(path: &Path) -> Option<Duration> {
    let modified = path.metadata().and_then(|file| file.modified()).ok();
    modified.and_then(|time| time.elapsed().ok())
}
