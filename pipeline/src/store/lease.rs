//! A lease: this process is making that output. The lock of a file, so that a killed process holds nothing.
//!
//! The file is removed while its lock is held, and a lock on a file that was removed meanwhile counts for nothing; so no two
//! processes ever hold the same lease.

use super::identity::is_same;
use crate::spec::error::StageError;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a lease that somebody else holds is asked for again.
const AGAIN: Duration = Duration::from_millis(5);

/// Held as long as this lives.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    _lock: File,
}

impl Lease {
    /// `None` when somebody else holds the lease.
    pub fn take(path: &Path) -> Result<Option<Self>, StageError> {
        let failed = |cause| StageError::io(path, cause);
        loop {
            let file = File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(cause)) => return Err(failed(cause)),
                Ok(()) if is_same(&file, path).map_err(failed)? => {
                    return Ok(Some(Self { path: path.to_owned(), _lock: file }));
                }
                Ok(()) => {}
            }
        }
    }
}

impl Lease {
    /// Waits until nobody else holds it. For work that takes moments.
    pub fn wait(path: &Path) -> Result<Self, StageError> {
        loop {
            if let Some(lease) = Self::take(path)? {
                return Ok(lease);
            }
            std::thread::sleep(AGAIN);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A file that stays behind is removed when the next run begins.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_held_by_one_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        let first = Lease::take(&path).unwrap();
        assert!(first.is_some());
        assert!(Lease::take(&path).unwrap().is_none());
        drop(first);
        assert!(!path.exists());
        assert!(Lease::take(&path).unwrap().is_some());
    }

    #[test]
    fn of_many_threads_at_most_one_holds_a_lease_at_a_time() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        let (inside, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        if let Some(lease) = Lease::take(&path).unwrap() {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            taken.fetch_add(1, Ordering::SeqCst);
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(lease);
                        }
                    }
                });
            }
        });
        assert!(taken.load(Ordering::SeqCst) > 0);
    }
}
