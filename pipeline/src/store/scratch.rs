//! Where unfinished files lie: `tmp/<run>/`, guarded by the locked file `tmp/<run>.lock`.
//!
//! A process that is killed releases its lock; the next one to open the store removes what it left.

use super::files::{self, at, publish};
use super::lease::Lease;
use crate::spec::error::StageError;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The folder of this process for unfinished files; removed at the end.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    next: AtomicU64,
    /// Dropped after the folder is gone.
    _lock: Lease,
}

impl Scratch {
    /// Removes what killed processes left, and makes a new folder.
    pub fn create(store: &Path) -> Result<Self, StageError> {
        clean(store)?;
        let tmp = store.join("tmp");
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for n in 0_u32.. {
            let name = format!("{}-{}-{n}", since.as_nanos(), std::process::id());
            let folder = tmp.join(&name);
            if let Some(lock) = Lease::take(&tmp.join(format!("{name}.lock")))?
                && !folder.exists()
            {
                at(&folder, fs::create_dir(&folder))?;
                return Ok(Self { folder, next: AtomicU64::new(0), _lock: lock });
            }
        }
        Err(StageError::new(format!("{}: no free name", tmp.display())))
    }

    /// For files without a name.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a whole file so that it is either there and complete, or not there.
    pub fn write(&self, target: &Path, bytes: &[u8]) -> Result<(), StageError> {
        let unfinished = self.unfinished("file");
        let path = unfinished.path();
        let written = File::create_new(path).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        at(target, written)?;
        publish(path, target)
    }

    /// A path nobody else uses; what lies there is removed when the value is dropped.
    pub fn unfinished(&self, name: &str) -> Unfinished {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        Unfinished { path: self.folder.join(format!("{n}-{name}")) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is removed when the next run begins.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A file or folder that is being written.
#[derive(Debug)]
pub struct Unfinished {
    path: PathBuf,
}

impl Unfinished {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Not there any more when it was published.
        let _ = files::remove(&self.path);
    }
}

/// Removes the leftovers of processes that are gone: unfinished files and leases.
fn clean(store: &Path) -> Result<(), StageError> {
    for entry in files::entries(&store.join("tmp"))? {
        let path = entry.path();
        let is_lock = path.extension().is_some_and(|extension| extension == "lock");
        let (lock, folder) = if is_lock {
            (path.clone(), path.with_extension(""))
        } else {
            (path.with_added_extension("lock"), path.clone())
        };
        if let Some(_dead) = Lease::take(&lock)? {
            files::remove(&folder)?;
        }
    }
    for entry in files::entries(&store.join("claims"))? {
        drop(Lease::take(&entry.path())?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_of_the_dead_are_removed_and_those_of_the_living_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path();
        fs::create_dir(store.join("tmp")).unwrap();
        fs::create_dir(store.join("claims")).unwrap();
        let living = Scratch::create(store).unwrap();
        let kept = living.unfinished("kept");
        fs::write(kept.path(), b"x").unwrap();
        let dead = store.join("tmp").join("dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("half"), b"y").unwrap();
        fs::write(store.join("tmp").join("dead.lock"), b"").unwrap();
        fs::write(store.join("claims").join("stage-key"), b"").unwrap();

        drop(Scratch::create(store).unwrap());
        assert!(kept.path().exists());
        assert!(!dead.exists());
        assert_eq!(files::entries(&store.join("tmp")).unwrap().len(), 2, "one folder and its lock");
        assert!(files::entries(&store.join("claims")).unwrap().is_empty());

        drop((kept, living));
        assert!(files::entries(&store.join("tmp")).unwrap().is_empty());
    }
}
