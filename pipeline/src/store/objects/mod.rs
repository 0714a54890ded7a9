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
//! | `cache.rs` | content on this machine, which training maps |
//! | `remote.rs` | raw files in buckets, which are no part of a store |

pub mod account;
mod cache;
mod client;
mod face;
mod lease;
mod probe;
pub mod remote;
mod transfer;
mod trouble;

use super::files;
use super::place::Place;
use super::workdir::Workdir;
use super::{Address, Commit, Held, Kind, Listed, Store, What};
use crate::spec::error::StageError;
use account::Account;
use cache::Cache;
use client::{Client, Named, Object};
use lease::Leases;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, PutMode};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where the mark of damaged content is.
const DAMAGED: &str = "damaged";
/// The lease of whoever removes things, and those of all who use the store.
const EXCLUSIVE: &str = "locks/exclusive";
const USERS: &str = "locks/users";

/// How often a put over a version is tried: each time somebody else was first.
const TRIES: u32 = 1_000;

/// The longest pause between two tries, in milliseconds.
const LONGEST_PAUSE: u64 = 500;

/// Hexadecimal digits that name an attempt.
const ATTEMPT: usize = 32;

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

/// The name of an object.
fn text(path: &Path) -> String {
    let parts: Vec<String> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    parts.join("/")
}

fn mark_key(address: &Address) -> String {
    format!("{DAMAGED}/{}", text(&address.content_name()))
}

fn root_key(name: &str) -> String {
    format!("index/{name}.json")
}

/// The attempt that a record names.
fn attempt(record: &[u8]) -> String {
    blake3::hash(record).to_hex()[..ATTEMPT].to_owned()
}

/// The objects of content: of a table its own name, of a folder what those of its files begin with.
fn content_key(address: &Address, attempt: &str) -> String {
    let name = text(&address.content_name());
    match address.kind {
        Kind::Table => name,
        Kind::Folder => format!("{name}/{attempt}"),
    }
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

    fn put_content(&self, commit: &Commit<'_>, key: &str) -> Result<(), StageError> {
        let Commit { content, from, force, .. } = *commit;
        if content.kind == Kind::Table {
            let size = files::size(from)?;
            let is_there =
                || Ok::<_, StageError>(self.client.head(key)?.is_some_and(|there| there.bytes == size));
            if !force && !self.is_damaged(content)? && is_there()? {
                return Ok(());
            }
            return transfer::upload(&self.client, from, key, self.limits.part);
        }
        for file in files::files_below(from)? {
            let to = format!("{key}/{}", text(&file));
            transfer::upload(&self.client, &from.join(&file), &to, self.limits.part)?;
        }
        Ok(())
    }

    /// Puts a record where there is none, or one that is not accepted; gives the one that is there then.
    fn put_record(&self, commit: &Commit<'_>) -> Result<Vec<u8>, StageError> {
        let key = text(&commit.record.record_name());
        let mut mode = PutMode::Create;
        for tried in 0..TRIES {
            if self.client.put(&key, commit.bytes.to_vec().into(), mode)?.is_some() {
                return Ok(commit.bytes.to_vec());
            }
            mode = match self.client.get(&key)? {
                None => PutMode::Create,
                Some(there) if there.bytes == commit.bytes => return Ok(commit.bytes.to_vec()),
                Some(Object { bytes, version, .. }) => {
                    // A folder's record says where its files are.
                    self.remember(commit.record, &bytes);
                    if !commit.force && (commit.accepts)(&bytes)? {
                        return Ok(bytes.to_vec());
                    }
                    PutMode::Update(version)
                }
            };
            self.pause(tried);
        }
        Err(self.contended(&key))
    }

    fn remember(&self, record: &Address, bytes: &[u8]) {
        if record.kind == Kind::Folder {
            lock(&self.attempts).insert(record.clone(), attempt(bytes));
        }
    }

    /// Before the next try: longer each time, and not as long as others wait.
    fn pause(&self, tried: u32) {
        let digest = blake3::hash(self.leases.unique().as_bytes());
        let longest = (1_u64 << tried.min(9)).min(LONGEST_PAUSE);
        std::thread::sleep(Duration::from_millis(u64::from(digest.as_bytes()[0]) * longest / 256));
    }

    fn contended(&self, key: &str) -> StageError {
        let text = format!("{}: `{key}` was changed by others {TRIES} times in a row", self.client.name);
        StageError::new(text).help("Run the same command again.")
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

    /// Lists objects below `tables` or `jobs`; those of one folder together.
    fn listed(&self, kind: Kind, folder: &str) -> Result<Vec<Listed>, StageError> {
        let now = self.leases.now()?;
        let mut found: BTreeMap<String, (u64, i64)> = BTreeMap::new();
        for Named { key, bytes, modified, .. } in self.client.list(folder)? {
            let depth = if kind == Kind::Table { 3 } else { 4 };
            let name: Vec<&str> = key.split('/').take(depth).collect();
            let (sum, newest) = found.entry(name.join("/")).or_insert((0, modified));
            *sum += bytes;
            *newest = modified.max(*newest);
        }
        let attempts = self.several_attempts(&found)?;
        let damaged = self.damaged()?.clone().unwrap_or_default();
        let is_young = |modified: i64| {
            u128::try_from(now - modified).is_ok_and(|age| age < self.limits.young.as_millis())
        };
        let listed = found.into_iter().map(|(key, (bytes, modified))| {
            let what = what(kind, &key, &attempts);
            let damaged = matches!(&what, What::Content(address) if damaged.contains(address));
            let young = is_young(modified) || modified > now;
            Listed { name: key.into(), what, bytes, damaged, young }
        });
        Ok(listed.collect())
    }

    /// Of folders with more than one attempt: the attempt that their record names.
    fn several_attempts(
        &self,
        found: &BTreeMap<String, (u64, i64)>,
    ) -> Result<BTreeMap<Address, String>, StageError> {
        let mut counted: BTreeMap<Address, usize> = BTreeMap::new();
        for key in found.keys() {
            if let What::Content(address) = what(Kind::Folder, key, &BTreeMap::new()) {
                *counted.entry(address).or_default() += 1;
            }
        }
        let mut named = BTreeMap::new();
        for address in counted.into_iter().filter(|(_, n)| *n > 1).map(|(address, _)| address) {
            if let Some(attempt) = self.attempt(&address, true)? {
                named.insert(address, attempt);
            }
        }
        Ok(named)
    }

    /// Leases of processes that are gone.
    fn remove_dead(&self, leases: &[Named]) -> Result<(), StageError> {
        let mut dead = Vec::new();
        for lease in leases {
            if !self.leases.is_alive(lease.modified)? {
                dead.push(lease.key.clone());
            }
        }
        if dead.is_empty() { Ok(()) } else { self.client.delete(dead) }
    }

    fn exclusive_is_held(&self) -> Result<bool, StageError> {
        match self.client.head(EXCLUSIVE)? {
            Some(held) => self.leases.is_alive(held.modified),
            None => Ok(false),
        }
    }
}

/// What an object, or an attempt, is. `named`: of folders with several attempts, the right one.
fn what(kind: Kind, key: &str, named: &BTreeMap<Address, String>) -> What {
    let parts: Vec<&str> = key.split('/').collect();
    match (kind, parts.as_slice()) {
        (_, [_, stage, file]) => {
            let address = |name: &str| Address { kind, stage: (*stage).to_owned(), name: name.to_owned() };
            match file.rsplit_once('.') {
                Some((name, "json")) => What::Record(address(name)),
                Some((name, "arrow")) if kind == Kind::Table => What::Content(address(name)),
                _ => What::Stray,
            }
        }
        (Kind::Folder, [_, stage, name, attempt]) => {
            let address = Address::folder(stage, name);
            match named.get(&address) {
                Some(right) if right != attempt => What::Stray,
                _ => What::Content(address),
            }
        }
        _ => What::Stray,
    }
}

/// The address of `tables/<stage>/<digest>.arrow` or `jobs/<stage>/<key>`.
fn address_of(name: &str) -> Option<Address> {
    let parts: Vec<&str> = name.split('/').collect();
    match parts[..] {
        ["tables", stage, file] => Some(Address::table(stage, file.strip_suffix(".arrow")?)),
        ["jobs", stage, key] => Some(Address::folder(stage, key)),
        _ => None,
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
        let key = root_key(name);
        for tried in 0..TRIES {
            let (bytes, mode) = match self.client.get(&key)? {
                Some(Object { bytes, version, .. }) => (Some(bytes.to_vec()), PutMode::Update(version)),
                None => (None, PutMode::Create),
            };
            let Some(new) = change(bytes)? else { return Ok(()) };
            if self.client.put(&key, new.into(), mode)?.is_some() {
                return Ok(());
            }
            self.pause(tried);
        }
        Err(self.contended(&key))
    }

    fn delete_root(&self, name: &str) -> Result<(), StageError> {
        self.client.delete([root_key(name)])
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

    /// First says that it is here, and then looks for whoever removes things; that one does it the other way round.
    fn lock_shared(&self) -> Result<Held, StageError> {
        let user = self.leases.take(&format!("{USERS}/{}", self.leases.unique()))?;
        while self.exclusive_is_held()? {
            std::thread::sleep(self.limits.patience);
        }
        Ok(Box::new(user))
    }

    fn lock_exclusive(&self) -> Result<Held, StageError> {
        let in_use = |by: &str| {
            let text = format!("{} is in use by {by}", self.client.name);
            StageError::new(text)
                .help("Wait for it to end, or stop it. What a killed process left counts for a while more.")
        };
        let held = self.leases.take(EXCLUSIVE)?.ok_or_else(|| in_use("another gc or verify"))?;
        let users = self.client.list(USERS)?;
        for user in &users {
            if self.leases.is_alive(user.modified)? {
                return Err(in_use("a run"));
            }
        }
        self.remove_dead(&users)?;
        self.remove_dead(&self.client.list("claims")?)?;
        Ok(Box::new(held))
    }
}
