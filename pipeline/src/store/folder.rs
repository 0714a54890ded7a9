//! A store in a folder.
//!
//! ```text
//! tables/<stage>/<digest>.arrow   one partition of a table, named by the content
//! tables/<stage>/<key>.json       its commit record: this key gives that file
//! jobs/<stage>/<key>/             the folder of a gather unit or a job, and <key>.json, its commit record
//! tables/<stage>/<digest>.damaged the file is not what was written: the next run makes it again (in jobs/ too)
//! index/<root>.json               roots: which records a manifest stands for
//! claims/, lock                   leases
//! ```
//!
//! What machines keep for themselves ([`Workdir`]) lies in the same folder.
//!
//! Every file is written under `tmp/`, synced and renamed to its final name. So a file under a final name is whole.

use super::files::{self, at};
use super::lease::Lease;
use super::workdir::{PARTIAL, Workdir};
use super::{Address, Commit, Held, Kind, Listed, Store, What, shareable};
use crate::spec::error::StageError;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The folders of a store.
const FOLDERS: [&str; 3] = ["tables", "jobs", "index"];

/// How often a lease that somebody else holds is asked for: asking is a system call.
const PATIENCE: Duration = Duration::from_millis(50);

/// A store on a disk.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    workdir: Workdir,
}

impl Folder {
    /// Creates the folders that are not there.
    pub fn open(root: &Path) -> Result<Arc<Self>, StageError> {
        let root = std::path::absolute(root).map_err(|cause| StageError::io(root, cause))?;
        for folder in FOLDERS {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(|cause| {
                StageError::io(&path, cause)
                    .help("`store` in the manifest must be a folder that can be written.")
            })?;
        }
        let workdir = Workdir::open(&root)?;
        Ok(Arc::new(Self { root, workdir }))
    }

    /// The store that is there already; for what only looks at one or removes from it.
    pub fn existing(root: &Path) -> Result<Arc<Self>, StageError> {
        if root.join("tables").is_dir() {
            return Self::open(root);
        }
        let text = format!("there is no store at {}", root.display());
        Err(StageError::new(text).help("`store` in the manifest names it; a run creates it."))
    }

    fn content_path(&self, address: &Address) -> PathBuf {
        self.root.join(address.content_name())
    }

    fn record_path(&self, address: &Address) -> PathBuf {
        self.root.join(address.record_name())
    }

    fn mark_path(&self, address: &Address) -> PathBuf {
        self.root.join(address.mark_name())
    }

    fn root_path(&self, name: &str) -> PathBuf {
        self.root.join("index").join(format!("{name}.json"))
    }

    fn lock_file(&self) -> Result<(PathBuf, File), StageError> {
        let path = self.root.join("lock");
        let options = File::options().create(true).truncate(false).write(true).open(&path);
        options.map(|file| (path.clone(), file)).map_err(|cause| StageError::io(&path, cause))
    }

    fn put(&self, address: &Address, from: &Path) -> Result<(), StageError> {
        let target = self.content_path(address);
        if address.kind == Kind::Folder {
            files::remove(&target)?;
        }
        files::publish(from, &target)?;
        // Killed between the two, the next run makes it once more.
        files::remove(&self.mark_path(address))
    }

    /// `None` for what was removed meanwhile.
    fn listed(&self, kind: Kind, stage: &str, path: &Path) -> Result<Option<Listed>, StageError> {
        let name = path.strip_prefix(&self.root).unwrap_or(path).to_owned();
        let what = what(kind, stage, path);
        let damaged = matches!(&what, What::Content(address) if self.mark_path(address).exists());
        match files::size(path) {
            Ok(bytes) => Ok(Some(Listed { name, what, bytes, damaged, young: false })),
            Err(_) if !path.exists() => Ok(None),
            Err(cause) => Err(cause),
        }
    }
}

/// What lies under a path of the folder of a stage.
fn what(kind: Kind, stage: &str, path: &Path) -> What {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let address = || Address { kind, stage: stage.to_owned(), name: stem.clone() };
    match (kind, path.extension().and_then(|end| end.to_str())) {
        (_, Some("json")) => What::Record(address()),
        (Kind::Table, Some("arrow")) | (Kind::Folder, None) => What::Content(address()),
        (_, Some("damaged")) => What::Mark,
        _ => What::Stray,
    }
}

impl Store for Folder {
    fn name(&self) -> String {
        self.root.display().to_string()
    }

    fn free(&self) -> Option<u64> {
        self.workdir.free()
    }

    fn workdir(&self) -> &Workdir {
        &self.workdir
    }

    fn content(&self, address: &Address) -> Result<Option<PathBuf>, StageError> {
        let path = self.content_path(address);
        Ok(path.exists().then_some(path))
    }

    fn reread(&self, address: &Address) -> Result<Option<PathBuf>, StageError> {
        self.content(address)
    }

    fn sizes(&self, address: &Address) -> Result<Option<BTreeMap<PathBuf, u64>>, StageError> {
        let content = self.content_path(address);
        let inner = match (address.kind, content.is_dir()) {
            (Kind::Folder, false) => return Ok(None),
            (Kind::Folder, true) => files::files_below(&content)?,
            (Kind::Table, _) => vec![PathBuf::new()],
        };
        let mut sizes = BTreeMap::new();
        for inner in inner {
            let path = if inner.as_os_str().is_empty() { content.clone() } else { content.join(&inner) };
            match path.metadata() {
                Ok(file) => sizes.insert(inner, file.len()),
                Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
                Err(cause) => return Err(StageError::io(&path, cause)),
            };
        }
        Ok(Some(sizes))
    }

    /// Whoever commits holds the lease, so there is nobody else.
    fn commit(&self, commit: &Commit<'_>) -> Result<Vec<u8>, StageError> {
        if commit.content.kind == Kind::Folder {
            self.forget(commit.record)?;
        }
        self.put(commit.content, commit.from)?;
        self.workdir.scratch()?.write(&self.record_path(commit.record), commit.bytes)?;
        Ok(commit.bytes.to_vec())
    }

    fn mark(&self, address: &Address, damaged: bool) -> Result<(), StageError> {
        let mark = self.mark_path(address);
        if damaged { at(&mark, File::create(&mark).map(drop)) } else { files::remove(&mark) }
    }

    fn is_damaged(&self, address: &Address) -> Result<bool, StageError> {
        let mark = self.mark_path(address);
        at(&mark, mark.try_exists())
    }

    fn record(&self, address: &Address) -> Result<Option<Vec<u8>>, StageError> {
        files::read_if_there(&self.record_path(address))
    }

    fn forget(&self, address: &Address) -> Result<(), StageError> {
        files::remove(&self.record_path(address))
    }

    fn list(&self) -> Result<Vec<Listed>, StageError> {
        let mut all = Vec::new();
        for kind in [Kind::Folder, Kind::Table] {
            for stage in files::entries(&self.root.join(kind.top()))? {
                let name = stage.file_name().to_string_lossy().into_owned();
                all.extend(self.list_stage(kind, &name)?);
            }
        }
        Ok(all)
    }

    fn list_stage(&self, kind: Kind, stage: &str) -> Result<Vec<Listed>, StageError> {
        let entries = files::entries(&self.root.join(kind.top()).join(stage))?;
        // Interrupted jobs are the workdir's.
        let is_own =
            |path: &PathBuf| kind == Kind::Table || path.extension().is_none_or(|end| end != PARTIAL);
        let paths = entries.iter().map(fs::DirEntry::path).filter(is_own);
        let listed = paths.map(|path| self.listed(kind, stage, &path));
        Ok(listed.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    fn delete(&self, listed: &Listed) -> Result<(), StageError> {
        files::remove(&self.root.join(&listed.name))?;
        match &listed.what {
            What::Content(address) => files::remove(&self.mark_path(address)),
            _ => Ok(()),
        }
    }

    fn roots(&self) -> Result<Vec<(String, Vec<u8>)>, StageError> {
        let mut roots = Vec::new();
        for entry in files::entries(&self.root.join("index"))? {
            let path = entry.path();
            if path.extension().is_some_and(|end| end == "json")
                && let Some(bytes) = files::read_if_there(&path)?
            {
                roots.push((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), bytes));
            }
        }
        Ok(roots)
    }

    fn root(&self, name: &str) -> Result<Option<Vec<u8>>, StageError> {
        files::read_if_there(&self.root_path(name))
    }

    fn change_root(
        &self,
        name: &str,
        change: &mut dyn FnMut(Option<Vec<u8>>) -> Result<Option<Vec<u8>>, StageError>,
    ) -> Result<(), StageError> {
        let path = self.root_path(name);
        let _lease = Lease::wait(&path.with_extension("lock"))?;
        match change(files::read_if_there(&path)?)? {
            Some(bytes) => self.workdir.scratch()?.write(&path, &bytes),
            None => Ok(()),
        }
    }

    fn delete_root(&self, name: &str) -> Result<(), StageError> {
        files::remove(&self.root_path(name))
    }

    fn check_shareable(&self) -> Result<(), StageError> {
        shareable::check(&self.root)
    }

    fn lease(&self, stage: &str, key: &str) -> Result<Option<Held>, StageError> {
        let lease = Lease::take(&self.root.join("claims").join(format!("{stage}-{key}")))?;
        Ok(lease.map(|lease| Box::new(lease) as Held))
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn lock_shared(&self) -> Result<Held, StageError> {
        let (path, file) = self.lock_file()?;
        at(&path, file.lock_shared())?;
        Ok(Box::new(file))
    }

    fn lock_exclusive(&self) -> Result<Held, StageError> {
        let (path, file) = self.lock_file()?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(fs::TryLockError::WouldBlock) => {
                let text = format!("{} is in use by a run", self.root.display());
                Err(StageError::new(text).help("Wait for the run to end, or stop it."))
            }
            Err(fs::TryLockError::Error(cause)) => Err(StageError::io(&path, cause)),
        }
    }
}
