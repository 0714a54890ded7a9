//! What a cache asks of its file system beyond files and folders, and what some file systems do not have: locks (NFS without
//! a lock daemon, FUSE, some clusters' scratch) and symbolic links (exFAT, SMB, object storage).

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

/// Locks and links.
pub trait Disk: std::fmt::Debug + Send + Sync {
    /// Takes an exclusive lock on an open file, if it is free.
    fn try_lock(&self, file: &File) -> Result<(), TryLockError>;

    /// Makes a symbolic link at `at`.
    fn symlink(&self, target: &Path, at: &Path) -> io::Result<()>;
}

/// The file system as it is.
#[derive(Debug)]
pub struct Native;

impl Disk for Native {
    fn try_lock(&self, file: &File) -> Result<(), TryLockError> {
        file.try_lock()
    }

    #[cfg(unix)]
    fn symlink(&self, target: &Path, at: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, at)
    }

    #[cfg(not(unix))]
    fn symlink(&self, _target: &Path, _at: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The file system without its links (`HF_HUB_DISABLE_SYMLINKS`).
#[derive(Debug)]
pub struct Linkless;

impl Disk for Linkless {
    fn try_lock(&self, file: &File) -> Result<(), TryLockError> {
        Native.try_lock(file)
    }

    fn symlink(&self, _target: &Path, _at: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
