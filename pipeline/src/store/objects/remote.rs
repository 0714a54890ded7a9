//! Raw files elsewhere, in buckets and wherever an [`Origin`] has some, read by range where they lie.
//!
//! Their identity is address, size and `ETag`: nobody reads a terabyte to learn whether it has changed. Ranges are asked of that
//! `ETag` only, so a file that is replaced while it is read is an error.
//!
//! Connections and the blocks read last are the process's: a file is opened many times, and read from many threads.

use super::account::Account;
use super::client::{Client, Named};
use crate::spec::error::StageError;
use crate::spec::stage::Digest;
use crate::store::place::Place;
use bytes::Bytes;
use object_store::{GetOptions, GetRange, ObjectStore};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// Bytes fetched at once by whoever reads on and on.
const BLOCK: u64 = 4 << 20;
/// Blocks kept: as many as threads read at once, and some more.
const BLOCKS: usize = 32;
/// Parts of a long range that are fetched at once.
const AHEAD: usize = 4;

/// Somewhere that files can be read by range.
pub trait Origin: fmt::Debug + Send + Sync {
    /// Asks for bytes of a file, of its version with this tag and no other. What is given waits for them.
    fn ask(&self, file: &Located, range: Range<u64>) -> Result<Answer, StageError>;
}

/// Bytes on their way.
pub type Answer = Box<dyn FnOnce() -> Result<Bytes, StageError> + Send>;

/// A file elsewhere, as it was when somebody looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// What people, and keys, know it by.
    pub url: String,
    /// Its name at its origin.
    pub key: String,
    pub size: u64,
    pub etag: Option<String>,
}

/// A raw file elsewhere.
#[derive(Debug)]
pub struct RemoteFile {
    origin: Arc<dyn Origin>,
    located: Located,
    /// Why it could not be read, until somebody asks.
    failure: Mutex<Option<StageError>>,
}

/// Whether a path is the address of an object, or of another file that [`keep`] was told of.
pub fn is_remote(path: &Path) -> bool {
    // Every address has a colon, and hardly any path.
    let text = path.to_str().filter(|text| text.contains(':'));
    text.is_some_and(|text| is_object(text) || lock(&KEPT.files).contains_key(text))
}

/// Whether a text is the address of an object or of several in a bucket.
pub fn is_object(text: &str) -> bool {
    Place::parse(text).is_some()
}

/// How often anything could not be read so far. A value that was computed while this grew may lack what was not read.
pub fn failures() -> u64 {
    FAILURES.load(Ordering::SeqCst)
}

static FAILURES: AtomicU64 = AtomicU64::new(0);

/// What the process keeps.
#[derive(Default)]
struct Kept {
    /// By bucket.
    clients: Mutex<HashMap<String, Arc<Client>>>,
    /// By address.
    files: Mutex<HashMap<String, Arc<RemoteFile>>>,
    /// File, number and bytes of blocks, the one read last at the end.
    blocks: Mutex<VecDeque<(Arc<RemoteFile>, u64, Bytes)>>,
}

static KEPT: LazyLock<Kept> = LazyLock::new(Kept::default);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bucket and name of the object at an address.
fn parts(url: &str) -> Result<(String, String), StageError> {
    let no_object = || StageError::new(format!("`{url}` names no object")).help("Write s3://BUCKET/NAME.");
    let place = Place::parse(url).ok_or_else(no_object)??;
    Ok((place.bucket, place.prefix))
}

fn client(bucket: &str) -> Result<Arc<Client>, StageError> {
    let mut clients = lock(&KEPT.clients);
    if let Some(client) = clients.get(bucket) {
        return Ok(Arc::clone(client));
    }
    let account = Account::of_environment()?;
    let place = Place { bucket: bucket.to_owned(), prefix: String::new() };
    let (name, server) = (place.name(), account.server());
    let store = account.connect(&place).map_err(|error| super::trouble::explained(&name, &server, error))?;
    let client = Arc::new(Client::new(Arc::new(store), name, server)?);
    clients.insert(bucket.to_owned(), Arc::clone(&client));
    Ok(client)
}

/// The addresses of all objects below a folder such as `s3://bucket/a/b`, sorted.
pub fn list(folder: &str) -> Result<Vec<PathBuf>, StageError> {
    let (bucket, prefix) = parts(folder)?;
    let client = client(&bucket)?;
    let found = client.list(&prefix)?.into_iter();
    Ok(found.map(|named| keep_object(&client, &bucket, named)).collect())
}

/// The address of one object, if it is there.
pub fn find(url: &str) -> Result<Option<PathBuf>, StageError> {
    let (bucket, key) = parts(url)?;
    if key.is_empty() {
        return Ok(None);
    }
    let client = client(&bucket)?;
    Ok(client.head(&key)?.map(|named| keep_object(&client, &bucket, named)))
}

/// Remembers what an object is now.
fn keep_object(client: &Arc<Client>, bucket: &str, named: Named) -> PathBuf {
    let url = format!("s3://{bucket}/{}", named.key);
    let Named { key, bytes: size, etag, .. } = named;
    keep(Arc::clone(client) as Arc<dyn Origin>, Located { url, key, size, etag })
}

/// Remembers what a file elsewhere is now; one that has not changed stays open. Its address is a path from here on.
pub fn keep(origin: Arc<dyn Origin>, located: Located) -> PathBuf {
    let url = located.url.clone();
    let mut files = lock(&KEPT.files);
    if files.get(&url).is_none_or(|old| old.located != located) {
        files.insert(url.clone(), Arc::new(RemoteFile { origin, located, failure: Mutex::default() }));
    }
    url.into()
}

impl Origin for Client {
    fn ask(&self, file: &Located, range: Range<u64>) -> Result<Answer, StageError> {
        let (store, at, url) = (Arc::clone(&self.store), self.key(&file.key)?, file.url.clone());
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            if_match: file.etag.clone(),
            ..GetOptions::default()
        };
        let asked = self.face.begin(async move { store.get_opts(&at, options).await?.bytes().await });
        let (name, server) = (self.name.clone(), self.server.clone());
        Ok(Box::new(move || asked.wait().map_err(|error| unread(&url, &name, &server, error))))
    }
}

fn unread(url: &str, name: &str, server: &str, error: object_store::Error) -> StageError {
    if matches!(error, object_store::Error::Precondition { .. } | object_store::Error::NotFound { .. }) {
        return changed(url).because(error);
    }
    super::trouble::explained(name, server, error)
}

/// A file that is no longer what it was.
pub fn changed(url: &str) -> StageError {
    StageError::new(format!("{url} was changed or removed while it was read")).help("Run again.")
}

impl RemoteFile {
    /// As it was when it was last listed or found.
    pub fn open(path: &Path) -> Result<Arc<Self>, StageError> {
        let url = path.to_string_lossy();
        let known = |url: &str| lock(&KEPT.files).get(url).map(Arc::clone);
        if let Some(file) = known(&url) {
            return Ok(file);
        }
        if is_object(&url) {
            find(&url)?;
        }
        known(&url).ok_or_else(|| StageError::new(format!("there is no object `{url}`")))
    }

    pub fn size(&self) -> u64 {
        self.located.size
    }

    /// Over address, size and `ETag`.
    pub fn digest(&self) -> Digest {
        let etag = self.located.etag.as_deref().unwrap_or_default();
        blake3::hash(format!("{} {} {etag}", self.located.url, self.located.size).as_bytes())
    }

    /// Why reading failed, if it did: a row that could not be read for want of a network is no broken row.
    pub fn take_failure(&self) -> Option<StageError> {
        lock(&self.failure).take()
    }

    fn failed(&self, cause: StageError) -> io::Error {
        FAILURES.fetch_add(1, Ordering::SeqCst);
        let error = io::Error::new(io::ErrorKind::ConnectionAborted, cause.to_string());
        lock(&self.failure).get_or_insert(cause);
        error
    }

    /// Some bytes from `offset` on, as `read_at` of a file; none at its end.
    pub fn read_at(self: &Arc<Self>, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset >= self.located.size || buffer.is_empty() {
            return Ok(0);
        }
        let block = self.block(offset / BLOCK)?;
        let from = usize::try_from(offset % BLOCK).unwrap_or(usize::MAX);
        let found = block.get(from..).unwrap_or_default();
        let n = found.len().min(buffer.len());
        buffer[..n].copy_from_slice(&found[..n]);
        Ok(n)
    }

    fn block(self: &Arc<Self>, number: u64) -> io::Result<Bytes> {
        let is_it = |(file, n, _): &(Arc<Self>, u64, Bytes)| *n == number && Arc::ptr_eq(file, self);
        let mut blocks = lock(&KEPT.blocks);
        if let Some(at) = blocks.iter().position(is_it)
            && let Some(found) = blocks.remove(at)
        {
            let bytes = found.2.clone();
            blocks.push_back(found);
            return Ok(bytes);
        }
        drop(blocks);
        let start = number * BLOCK;
        let bytes = self.get(start..self.located.size.min(start + BLOCK))?;
        let mut blocks = lock(&KEPT.blocks);
        while blocks.len() >= BLOCKS {
            blocks.pop_front();
        }
        blocks.push_back((Arc::clone(self), number, bytes.clone()));
        Ok(bytes)
    }

    /// All bytes of a range within the file.
    pub fn get(&self, range: Range<u64>) -> io::Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let parts: Vec<Range<u64>> = (range.start..range.end)
            .step_by(BLOCK as usize)
            .map(|at| at..range.end.min(at + BLOCK))
            .collect();
        let (mut whole, mut sent) = (Vec::new(), VecDeque::new());
        let mut left = parts.into_iter();
        loop {
            while sent.len() < AHEAD
                && let Some(part) = left.next()
            {
                let wanted = part.end - part.start;
                let asked = self.origin.ask(&self.located, part).map_err(|cause| self.failed(cause))?;
                sent.push_back((asked, wanted));
            }
            let Some((next, wanted)) = sent.pop_front() else { return Ok(whole.into()) };
            let bytes = next().map_err(|cause| self.failed(cause))?;
            if bytes.len() as u64 != wanted {
                return Err(
                    self.failed(StageError::new(format!("{}: it is shorter than it was", self.located.url)))
                );
            }
            if whole.is_empty() && sent.is_empty() && left.len() == 0 {
                return Ok(bytes);
            }
            whole.extend_from_slice(&bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::PutMode;
    use object_store::memory::InMemory;

    fn put(client: &Arc<Client>, key: &str, bytes: Vec<u8>) -> Arc<RemoteFile> {
        client.put(key, bytes.into(), PutMode::Overwrite).unwrap();
        let named = client.head(key).unwrap().unwrap();
        RemoteFile::open(&keep_object(client, "test-bucket", named)).unwrap()
    }

    #[test]
    fn ranges_blocks_and_the_whole_are_the_same_bytes_and_a_replaced_file_is_an_error() {
        let store = Arc::new(InMemory::new());
        let client = Client::new(store.clone(), "s3://test-bucket".to_owned(), "memory".to_owned()).unwrap();
        let client = Arc::new(client);
        let bytes: Vec<u8> = (0..5 * BLOCK / 2).map(|n| (n % 251) as u8).collect();
        let file = put(&client, "a/b", bytes.clone());
        assert!(is_remote(Path::new("s3://test-bucket/a/b")) && !is_remote(Path::new("a/b")));
        assert_eq!(file.get(0..file.size()).unwrap(), bytes);
        assert_eq!(file.get(BLOCK - 3..BLOCK + 5).unwrap(), bytes[BLOCK as usize - 3..BLOCK as usize + 5]);
        let (mut read, mut buffer) = (Vec::new(), vec![0; 1_000_003]);
        while let Ok(n) = file.read_at(&mut buffer, read.len() as u64)
            && n > 0
        {
            read.extend_from_slice(&buffer[..n]);
        }
        assert_eq!(read, bytes);
        let before = file.digest();
        assert_ne!(put(&client, "a/c", bytes).digest(), before, "another address");
        let other = put(&client, "a/b", vec![1; 10]);
        assert_ne!(other.digest(), before);
        assert!(file.get(0..3).is_err());
        let failure = file.take_failure().unwrap().to_string();
        assert!(failure.contains("was changed or removed"), "{failure}");
        assert!(file.take_failure().is_none());
    }
}
