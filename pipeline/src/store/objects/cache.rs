//! Content of a bucket on this machine. Names follow from content, so what is here is never out of date.
//!
//! ```text
//! content/tables/<stage>/<digest>.arrow
//! content/jobs/<stage>/<key>/<attempt>/
//! ```

use crate::spec::error::StageError;
use crate::store::files::{self, publish};
use crate::store::scratch::Scratch;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How exact it is known when content was last used.
const USED_WITHIN: Duration = Duration::from_hours(24);

/// A folder of content.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What is here under a name.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        let path = self.place(name);
        let metadata = fs::metadata(&path).ok()?;
        let age = metadata.modified().ok().and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age > USED_WITHIN) {
            // `gc` drops what was not used for long. Where the time cannot be set, nothing is dropped either.
            let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        }
        Some(path)
    }

    /// Moves a whole file or folder here. What lies under the name is replaced; who has mapped it keeps what is mapped.
    pub fn adopt(&self, name: &str, whole: &Path, scratch: &Scratch) -> Result<PathBuf, StageError> {
        let path = self.place(name);
        if path.is_dir() {
            let old = scratch.unfinished("old");
            // Another process may have taken it away already.
            if fs::rename(&path, old.path()).is_err() && path.exists() {
                files::remove(&path)?;
            }
        }
        match publish(whole, &path) {
            // Another process was first with the same content.
            Err(_) if path.is_dir() && whole.is_dir() => files::remove(whole)?,
            published => published?,
        }
        Ok(path)
    }

    pub fn remove(&self, name: &str) -> Result<(), StageError> {
        files::remove(&self.place(name))
    }
}
