//! A store that keeps nothing but keys: what was made is there, whatever its content, and every request is counted as the same
//! question would be asked of a bucket. For planning without work.

use crate::spec::error::StageError;
use crate::store::key::KeyParts;
use crate::store::record::{FolderRecord, TableRecord, seal};
use crate::store::workdir::Workdir;
use crate::store::{Address, Commit, Held, Kind, Listed, Store, files};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub struct KeysOnly {
    workdir: Workdir,
    /// Rows of every partition.
    rows: u64,
    /// Digests of stage and key of all that was made.
    made: Mutex<HashSet<[u8; 32]>>,
    /// One change of a root at a time. Roots lie in files: they are no memory of whoever plans.
    roots: Mutex<()>,
    /// By kind of request: GET, HEAD, LIST, PUT, DELETE.
    requests: Mutex<BTreeMap<&'static str, u64>>,
    /// Whether the marks of damaged content were asked for.
    listed: Mutex<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name(stage: &str, key: &str) -> [u8; 32] {
    blake3::hash(format!("{stage}\n{key}").as_bytes()).into()
}

impl KeysOnly {
    /// `workdir`: a folder of this machine. `rows`: of every partition.
    pub fn open(workdir: &Path, rows: u64) -> Result<Arc<Self>, StageError> {
        let workdir = Workdir::open(workdir)?;
        let (made, roots, requests, listed) =
            (Mutex::default(), Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Arc::new(Self { workdir, rows, made, roots, requests, listed }))
    }

    /// From now on, the output of a stage under this key is there.
    pub fn make(&self, stage: &str, key: &str) {
        lock(&self.made).insert(name(stage, key));
    }

    /// How many outputs are there.
    pub fn made(&self) -> usize {
        lock(&self.made).len()
    }

    /// Requests so far, by kind; counts again from here.
    pub fn take_requests(&self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut lock(&self.requests))
    }

    fn count(&self, kind: &'static str) {
        *lock(&self.requests).entry(kind).or_default() += 1;
    }

    fn root_path(&self, name: &str) -> PathBuf {
        self.workdir.root().join(format!("{name}.json"))
    }

    fn is_there(&self, address: &Address) -> bool {
        lock(&self.made).contains(&name(&address.stage, &address.name))
    }

    /// What a record says; its content has the name of its key.
    fn seal(&self, address: &Address) -> Result<Vec<u8>, StageError> {
        let (rows, digest) = (self.rows, address.name.clone());
        let key = KeyParts {
            kind: String::new(),
            version: 0,
            params: Value::Null,
            resources: BTreeMap::new(),
            inputs: Vec::new(),
            context: BTreeMap::new(),
        };
        if address.kind == Kind::Folder {
            let (files, ephemeral) = (BTreeMap::new(), Vec::new());
            return seal(&FolderRecord { rows, bytes: 0, digest, files, ephemeral, key });
        }
        seal(&TableRecord {
            rows,
            batches: 1,
            bytes: 1,
            reject_digest: digest.clone(),
            digest,
            usable: rows,
            longest_run: 0,
            rejects: Vec::new(),
            derived: Vec::new(),
            key,
        })
    }
}

fn nothing() -> StageError {
    StageError::new("a store that keeps nothing but keys has no content")
}

impl Store for KeysOnly {
    fn name(&self) -> String {
        "nothing but keys".to_owned()
    }

    fn free(&self) -> Option<u64> {
        None
    }

    fn workdir(&self) -> &Workdir {
        &self.workdir
    }

    fn content(&self, _address: &Address) -> Result<Option<PathBuf>, StageError> {
        Ok(None)
    }

    fn reread(&self, _address: &Address) -> Result<Option<PathBuf>, StageError> {
        Ok(None)
    }

    fn sizes(&self, address: &Address) -> Result<Option<BTreeMap<PathBuf, u64>>, StageError> {
        self.count(if address.kind == Kind::Table { "HEAD" } else { "LIST" });
        Ok(self.is_there(address).then(|| BTreeMap::from([(PathBuf::new(), 1)])))
    }

    fn commit(&self, _commit: &Commit<'_>) -> Result<Vec<u8>, StageError> {
        Err(nothing())
    }

    fn mark(&self, _address: &Address, _damaged: bool) -> Result<(), StageError> {
        Ok(())
    }

    fn is_damaged(&self, _address: &Address) -> Result<bool, StageError> {
        if !std::mem::replace(&mut *lock(&self.listed), true) {
            self.count("LIST");
        }
        Ok(false)
    }

    fn record(&self, address: &Address) -> Result<Option<Vec<u8>>, StageError> {
        self.count("GET");
        self.is_there(address).then(|| self.seal(address)).transpose()
    }

    fn forget(&self, _address: &Address) -> Result<(), StageError> {
        Err(nothing())
    }

    fn list(&self) -> Result<Vec<Listed>, StageError> {
        Err(nothing())
    }

    fn list_stage(&self, _kind: Kind, _stage: &str) -> Result<Vec<Listed>, StageError> {
        Err(nothing())
    }

    fn delete(&self, _listed: &Listed) -> Result<(), StageError> {
        Err(nothing())
    }

    fn roots(&self) -> Result<Vec<(String, Vec<u8>)>, StageError> {
        self.count("LIST");
        Ok(Vec::new())
    }

    fn root(&self, name: &str) -> Result<Option<Vec<u8>>, StageError> {
        self.count("GET");
        files::read_if_there(&self.root_path(name))
    }

    fn change_root(
        &self,
        name: &str,
        change: &mut dyn FnMut(Option<Vec<u8>>) -> Result<Option<Vec<u8>>, StageError>,
    ) -> Result<(), StageError> {
        self.count("GET");
        let (_alone, path) = (lock(&self.roots), self.root_path(name));
        if let Some(new) = change(files::read_if_there(&path)?)? {
            self.count("PUT");
            self.workdir.scratch()?.write(&path, &new)?;
        }
        Ok(())
    }

    fn delete_root(&self, name: &str) -> Result<(), StageError> {
        self.count("DELETE");
        files::remove(&self.root_path(name))
    }

    fn lease(&self, _stage: &str, _key: &str) -> Result<Option<Held>, StageError> {
        Ok(Some(Box::new(())))
    }

    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// A lease that is taken and given back, and a look for who removes things.
    fn lock_shared(&self) -> Result<Held, StageError> {
        ["PUT", "HEAD", "DELETE"].into_iter().for_each(|kind| self.count(kind));
        Ok(Box::new(()))
    }

    fn lock_exclusive(&self) -> Result<Held, StageError> {
        Err(nothing())
    }
}
