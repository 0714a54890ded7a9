//! A store in a bucket of an object storage, shared by machines that share nothing else.
//!
//! ```text
//! tables/<stage>/<digest>.arrow         one partition of a table, named by the content
//! tables/<stage>/<key>.json             its commit record: this key gives that content
//! jobs/<stage>/<key>/<attempt>/<file>   a file of the folder of a gather unit or a job
//! jobs/<stage>/<key>.json               its commit record; the record's own digest names the attempt
//! damaged/<name of content>             the content is not what was written: the next run makes it again
//! index/<root>.json                     roots: which records a manifest stands for
//! claims/, locks/                       leases
//! ```
//!
//! What makes it right, whatever fails or is done twice:
//!
//! - An object is there as a whole or not at all, large ones too (multipart).
//! - Content comes before its record, under a name that follows from it, so that putting it again puts the same.
//! - A record is put if absent. Of several at once one wins, and all go on with it. An answer that was lost shows as a record
//!   that is there and is ours.
//! - A root is put over the version that was read, or read again.
//! - Leases only save work. What nobody names is dropped while nobody holds one, and only when it is older than
//!   [`Limits::young`], should a machine have slept.
//!
//! | file | what |
//! |---|---|
//! | `account.rs` | which server, and who asks |
//! | `face.rs` | a blocking face for requests |
//! | `client.rs`, `transfer.rs` | objects; whole files, in parts |
//! | `trouble.rs` | errors in words |
//! | `probe.rs` | refuses a bucket without conditional puts |
//! | `lease.rs` | leases |
//! | `names.rs` | names of objects, and what a name says |
//! | `publish.rs` | content, records and roots on their way into the bucket |
//! | `listing.rs` | what lies there |
//! | `users.rs` | who uses it, and who removes things |
//! | `cache.rs` | content on this machine, which training maps |
//! | `remote.rs` | raw files in buckets, which are no part of a store |

pub mod account;
mod cache;
mod client;
mod face;
mod lease;
mod listing;
mod names;
mod probe;
mod publish;
pub mod remote;
mod transfer;
mod trouble;
mod users;

use super::files;
use super::place::Place;
use super::workdir::Workdir;
use super::{Address, Commit, Held, Kind, Listed, Store, What};
use crate::spec::error::StageError;
use account::Account;
use cache::Cache;
use client::{Client, Named};
use lease::Leases;
use names::{DAMAGED, address_of, attempt, content_key, mark_key, root_key, text};
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, PutMode};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Sizes and times.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes sent or fetched at once; larger files go in several parts.
    pub part: u64,
    /// How long a lease lasts that nobody renews.
    pub lease: Duration,
    /// How long to wait before a lease is asked for again.
    pub patience: Duration,
    /// What is not older is never dropped.
    pub young: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            part: 8 << 20,
            lease: Duration::from_secs(20),
            patience: Duration::from_secs(1),
            young: Duration::from_hours(1),
        }
    }
}

/// A store in a bucket.
#[derive(Debug)]
pub struct Objects {
    client: Arc<Client>,
    leases: Leases,
    limits: Limits,
    workdir: Workdir,
    cache: Cache,
    /// Content that is damaged, as the store said when it was first asked and this process since.
    damaged: Mutex<Option<BTreeSet<Address>>>,
    /// By folder: the attempt that its record named when it was last read.
    attempts: Mutex<BTreeMap<Address, String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Objects {
    /// The store at `place`. The first time on this machine, the bucket is asked whether it can be one.
    pub fn open(place: &Place, account: &Account, workdir: &Path) -> Result<Arc<Self>, StageError> {
        let (name, server) = (place.name(), account.server());
        let failed = |error| trouble::explained(&name, &server, error);
        let bucket = account.connect(place).map_err(failed)?;
        let store: Arc<dyn ObjectStore> = match place.prefix.as_str() {
            "" => Arc::new(bucket),
            prefix => {
                Arc::new(PrefixStore::new(bucket, Key::parse(prefix).map_err(|cause| failed(cause.into()))?))
            }
        };
        let objects = Self::over(store, &name, &server, workdir, Limits::default())?;
        let known = objects.workdir.root().join(format!("probed-{}", attempt(server.as_bytes())));
        if !known.exists() {
            objects.probe()?;
            objects.workdir.scratch()?.write(&known, b"")?;
        }
        Ok(objects)
    }

    /// A store over anything that keeps objects. `workdir`: a folder of this machine.
    pub fn over(
        store: Arc<dyn ObjectStore>,
        name: &str,
        server: &str,
        workdir: &Path,
        limits: Limits,
    ) -> Result<Arc<Self>, StageError> {
        let client = Arc::new(Client::new(store, name.to_owned(), server.to_owned())?);
        let workdir = Workdir::open(workdir)?;
        let cache = Cache::new(workdir.content());
        let leases = Leases::new(Arc::clone(&client), limits.lease);
        let (damaged, attempts) = (Mutex::default(), Mutex::default());
        Ok(Arc::new(Self { client, leases, limits, workdir, cache, damaged, attempts }))
    }

    /// An error when the bucket has no conditional puts.
    pub fn probe(&self) -> Result<(), StageError> {
        probe::probe(&self.client, &self.leases.unique())
    }

    /// What people call it.
    pub fn address(&self) -> &str {
        &self.client.name
    }

    /// Whether nothing was ever put there.
    pub fn is_empty(&self) -> Result<bool, StageError> {
        Ok(!self.client.has_any("index")?
            && !self.client.has_any("tables")?
            && !self.client.has_any("jobs")?)
    }

    /// The attempt that holds a folder; `None` while there is no record. `again`: ask, whatever is known.
    fn attempt(&self, address: &Address, again: bool) -> Result<Option<String>, StageError> {
        if address.kind == Kind::Table {
            return Ok(Some(String::new()));
        }
        let known = lock(&self.attempts).get(address).cloned();
        if known.is_some() && !again {
            return Ok(known);
        }
        Ok(self.record(address)?.map(|bytes| attempt(&bytes)))
    }

    /// The objects of content that is there, by what stands behind its name, and the name; none when it is not there.
    fn parts(&self, address: &Address) -> Result<Option<(String, Vec<Named>)>, StageError> {
        for again in [false, true] {
            let Some(attempt) = self.attempt(address, again)? else { return Ok(None) };
            let key = content_key(address, &attempt);
            let found = match address.kind {
                Kind::Table => self.client.head(&key)?.into_iter().collect(),
                Kind::Folder => self.client.list(&key)?,
            };
            if !found.is_empty() {
                return Ok(Some((key, found)));
            }
            if address.kind == Kind::Table {
                break;
            }
        }
        Ok(None)
    }

    /// Downloads content that is there.
    fn fetch(&self, address: &Address) -> Result<Option<PathBuf>, StageError> {
        let scratch = self.workdir.scratch()?;
        let unfinished = scratch.unfinished("content");
        let part = self.limits.part;
        let key = if address.kind == Kind::Table {
            let key = content_key(address, "");
            if !transfer::download(&self.client, &key, unfinished.path(), part)? {
                return Ok(None);
            }
            key
        } else {
            let Some((key, files)) = self.parts(address)? else { return Ok(None) };
            for Named { key: file, bytes, .. } in &files {
                let to = unfinished.path().join(file.strip_prefix(&format!("{key}/")).unwrap_or(file));
                if *bytes == 0 {
                    scratch.write(&to, b"")?;
                } else if !transfer::download(&self.client, file, &to, part)? {
                    return Ok(None);
                }
            }
            key
        };
        self.cache.adopt(&key, unfinished.path(), &scratch).map(Some)
    }

    fn remember(&self, record: &Address, bytes: &[u8]) {
        if record.kind == Kind::Folder {
            lock(&self.attempts).insert(record.clone(), attempt(bytes));
        }
    }

    /// Content that is damaged.
    fn damaged(&self) -> Result<MutexGuard<'_, Option<BTreeSet<Address>>>, StageError> {
        let mut damaged = lock(&self.damaged);
        if damaged.is_none() {
            let marks = self.client.list(DAMAGED)?;
            *damaged = Some(
                marks.iter().filter_map(|mark| address_of(mark.key.strip_prefix("damaged/")?)).collect(),
            );
        }
        Ok(damaged)
    }
}

impl Store for Objects {
    fn name(&self) -> String {
        self.client.name.clone()
    }

    fn free(&self) -> Option<u64> {
        self.workdir.free()
    }

    fn workdir(&self) -> &Workdir {
        &self.workdir
    }

    fn content(&self, address: &Address) -> Result<Option<PathBuf>, StageError> {
        let Some(attempt) = self.attempt(address, false)? else { return Ok(None) };
        match self.cache.find(&content_key(address, &attempt)) {
            Some(here) => Ok(Some(here)),
            None => self.fetch(address),
        }
    }

    fn is_here(&self, address: &Address) -> bool {
        let attempt = self.attempt(address, false).ok().flatten();
        attempt.is_some_and(|attempt| self.cache.find(&content_key(address, &attempt)).is_some())
    }

    fn reread(&self, address: &Address) -> Result<Option<PathBuf>, StageError> {
        self.attempt(address, true)?;
        self.fetch(address)
    }

    fn sizes(&self, address: &Address) -> Result<Option<BTreeMap<PathBuf, u64>>, StageError> {
        let Some((key, found)) = self.parts(address)? else { return Ok(None) };
        let inner = |named: &Named| {
            let inner = named.key.strip_prefix(&key).unwrap_or_default();
            PathBuf::from(inner.trim_start_matches('/'))
        };
        Ok(Some(found.iter().map(|named| (inner(named), named.bytes)).collect()))
    }

    fn commit(&self, commit: &Commit<'_>) -> Result<Vec<u8>, StageError> {
        let key = content_key(commit.content, &attempt(commit.bytes));
        self.put_content(commit, &key)?;
        let stands = self.put_record(commit)?;
        self.remember(commit.record, &stands);
        if stands == commit.bytes || commit.content.kind == Kind::Table {
            self.mark(commit.content, false)?;
            self.cache.adopt(&key, commit.from, self.workdir.scratch()?.as_ref())?;
        } else {
            files::remove(commit.from)?;
        }
        Ok(stands)
    }

    fn mark(&self, address: &Address, damaged: bool) -> Result<(), StageError> {
        let mut marks = self.damaged()?;
        let Some(marks) = marks.as_mut() else { return Ok(()) };
        if damaged {
            self.client.put(&mark_key(address), bytes::Bytes::from_static(b"damaged"), PutMode::Overwrite)?;
            marks.insert(address.clone());
        } else if marks.contains(address) {
            self.client.delete([mark_key(address)])?;
            marks.remove(address);
        }
        Ok(())
    }

    fn is_damaged(&self, address: &Address) -> Result<bool, StageError> {
        Ok(self.damaged()?.as_ref().is_some_and(|marks| marks.contains(address)))
    }

    fn record(&self, address: &Address) -> Result<Option<Vec<u8>>, StageError> {
        let found = self.client.get(&text(&address.record_name()))?.map(|object| object.bytes.to_vec());
        match &found {
            Some(bytes) => self.remember(address, bytes),
            None => drop(lock(&self.attempts).remove(address)),
        }
        Ok(found)
    }

    fn forget(&self, address: &Address) -> Result<(), StageError> {
        lock(&self.attempts).remove(address);
        self.client.delete([text(&address.record_name())])
    }

    fn list(&self) -> Result<Vec<Listed>, StageError> {
        let mut all = self.listed(Kind::Folder, Kind::Folder.top())?;
        all.extend(self.listed(Kind::Table, Kind::Table.top())?);
        Ok(all)
    }

    fn list_stage(&self, kind: Kind, stage: &str) -> Result<Vec<Listed>, StageError> {
        self.listed(kind, &format!("{}/{stage}", kind.top()))
    }

    fn delete(&self, listed: &Listed) -> Result<(), StageError> {
        let name = text(&listed.name);
        if listed.name.iter().count() == 4 {
            self.client.delete(self.client.list(&name)?.into_iter().map(|named| named.key))?;
        } else {
            self.client.delete([name.clone()])?;
        }
        if let What::Content(address) = &listed.what {
            self.mark(address, false)?;
        }
        self.cache.remove(&name)
    }

    fn roots(&self) -> Result<Vec<(String, Vec<u8>)>, StageError> {
        let mut roots = Vec::new();
        for named in self.client.list("index")? {
            let name = named.key.strip_prefix("index/").and_then(|name| name.strip_suffix(".json"));
            if let Some(name) = name
                && let Some(object) = self.client.get(&named.key)?
            {
                roots.push((name.to_owned(), object.bytes.to_vec()));
            }
        }
        Ok(roots)
    }

    fn root(&self, name: &str) -> Result<Option<Vec<u8>>, StageError> {
        Ok(self.client.get(&root_key(name))?.map(|object| object.bytes.to_vec()))
    }

    fn change_root(
        &self,
        name: &str,
        change: &mut dyn FnMut(Option<Vec<u8>>) -> Result<Option<Vec<u8>>, StageError>,
    ) -> Result<(), StageError> {
        self.change_object(&root_key(name), change)
    }

    fn delete_root(&self, name: &str) -> Result<(), StageError> {
        self.client.delete([root_key(name)])
    }

    fn at_once(&self) -> Option<usize> {
        Some(face::REQUESTS)
    }

    fn lease(&self, stage: &str, key: &str) -> Result<Option<Held>, StageError> {
        match self.leases.take(&format!("claims/{stage}-{key}")) {
            Ok(lease) => Ok(lease.map(|lease| Box::new(lease) as Held)),
            Err(cause) => {
                // Work that is done twice is better than none.
                tracing::debug!(%cause, stage, key, "no lease");
                Ok(Some(Box::new(())))
            }
        }
    }

    fn patience(&self) -> Duration {
        self.limits.patience
    }

    fn lock_shared(&self) -> Result<Held, StageError> {
        self.begin_use()
    }

    fn lock_exclusive(&self) -> Result<Held, StageError> {
        self.begin_removal()
    }
}
