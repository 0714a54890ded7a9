//! The store: a folder of finished files under content addresses, shared by any number of processes.
//!
//! ```text
//! tables/<stage>/<digest>.arrow   one partition of a table, named by the content
//! tables/<stage>/<key>.json       its commit record: this key gives that file
//! jobs/<stage>/<key>/             the folder of a gather unit or a job, and <key>.json, its commit record
//! jobs/<stage>/<promise>.partial/ a job that was interrupted and can go on
//! index/<manifest>.json           which keys a manifest last stood for
//! runs/<time>/                    summary.json, events.jsonl, rejects.jsonl
//! digests/                        digests of raw files, and small values computed from content
//! claims/, tmp/, lock             who is working on what; empty when nobody is
//! ```
//!
//! A partition is named by its content and not by its key, because token shards name the pixel files they point at: when a
//! changed parameter gives the same pixels under another key, shards stay as they are and what they name stays there.
//!
//! Every file is written under `tmp/`, synced, renamed to its final name, and only then is its record written in the same
//! way. So a file under a final name is whole, and a record means that the file is there. Records are sealed: a flipped bit
//! in one is noticed when it is read.

pub mod claim;
pub mod files;
pub mod index;
pub mod record;
pub mod scratch;

use crate::StageError;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Longest manifest name that names its index file.
const LONGEST_NAME: usize = 100;

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Creates the folders that are not there.
    pub fn open(root: &Path) -> Result<Self, StageError> {
        let root = std::path::absolute(root).map_err(|cause| StageError::io(root, cause))?;
        for folder in ["tables", "jobs", "index", "runs", "digests", "claims", "tmp"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(|cause| {
                StageError::io(&path, cause)
                    .help("`store` in the manifest must be a folder that can be written.")
            })?;
        }
        Ok(Self { root })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A folder of the store, such as `tables`.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The file of a partition relative to the store.
    pub fn table_file(stage: &str, digest: &str) -> PathBuf {
        Path::new("tables").join(stage).join(format!("{digest}.arrow"))
    }

    pub fn table_record(&self, stage: &str, key: &str) -> PathBuf {
        self.folder("tables").join(stage).join(format!("{key}.json"))
    }

    /// The folder of a gather unit or a job relative to the store.
    pub fn job_folder(stage: &str, key: &str) -> PathBuf {
        Path::new("jobs").join(stage).join(key)
    }

    /// Where a job works until it is done.
    pub fn partial_folder(&self, stage: &str, promise: &str) -> PathBuf {
        self.folder("jobs").join(stage).join(format!("{promise}.partial"))
    }

    pub fn job_record(&self, stage: &str, key: &str) -> PathBuf {
        self.folder("jobs").join(stage).join(format!("{key}.json"))
    }

    pub fn claim_file(&self, stage: &str, key: &str) -> PathBuf {
        self.folder("claims").join(format!("{stage}-{key}"))
    }

    /// Names that are no plain file name get one.
    pub fn index_file(&self, manifest: &str) -> PathBuf {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let mut name = manifest.replace(|c| !is_plain(c), "_");
        if name != manifest || name.len() > LONGEST_NAME {
            name = format!("_{}", blake3::hash(manifest.as_bytes()).to_hex());
        }
        self.folder("index").join(format!("{name}.json"))
    }

    /// Held by everybody who writes; [`Store::lock_alone`] waits for nobody.
    pub fn lock_shared(&self) -> Result<File, StageError> {
        let (path, file) = self.lock_file()?;
        file.lock_shared().map_err(|cause| StageError::io(&path, cause))?;
        Ok(file)
    }

    /// For removing files: refused while a run uses the store.
    pub fn lock_alone(&self) -> Result<File, StageError> {
        let (path, file) = self.lock_file()?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => {
                let text = format!("{} is in use by a run", self.root.display());
                Err(StageError::new(text).help("Wait for the run to end, or stop it."))
            }
            Err(fs::TryLockError::Error(cause)) => Err(StageError::io(&path, cause)),
        }
    }

    fn lock_file(&self) -> Result<(PathBuf, File), StageError> {
        let path = self.root.join("lock");
        let options = File::options().create(true).truncate(false).write(true).open(&path);
        options.map(|file| (path.clone(), file)).map_err(|cause| StageError::io(&path, cause))
    }
}
