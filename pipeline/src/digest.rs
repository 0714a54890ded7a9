//! Content digests of raw files, remembered so that a file is hashed once.
//!
//! A digest is remembered by (device, inode, size, modification time) in `digests/files.log`, to which every process
//! appends whole lines. A file changed less than two seconds ago is not remembered: a second change within the tick of the
//! file system's clock would go unseen. Files are read in chunks on one thread: blake3 is several times faster than a disk.

use crate::StageError;
use crate::stage::{Digest, OpenContext};
use crate::store::Store;
use crate::store::files::{self, at, hash_file};
use crate::store::scratch::Scratch;
use rayon::prelude::*;
use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How long a file must have been left alone before its digest is remembered.
const SETTLED: Duration = Duration::from_secs(2);

/// The digests of raw files, and values computed from their content.
pub struct FileDigests {
    store: Store,
    scratch: Arc<Scratch>,
    seed: u64,
    known: Mutex<HashMap<Identity, Digest>>,
}

/// What changes when a file's content does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Identity {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            seconds: file.mtime(),
            nanoseconds: file.mtime_nsec(),
        }
    }

    fn line(&self, digest: Digest) -> String {
        let Self { device, inode, size, seconds, nanoseconds } = self;
        let line = format!("{device} {inode} {size} {seconds} {nanoseconds} {}", digest.to_hex());
        // The line break in front closes a line that a killed process left open.
        format!("\n{line} {}\n", check(&line))
    }

    fn parse(line: &str) -> Option<(Self, Digest)> {
        let (line, given) = line.rsplit_once(' ')?;
        if check(line) != given {
            return None;
        }
        let words: Vec<&str> = line.split(' ').collect();
        let [device, inode, size, seconds, nanoseconds, digest] = words[..] else { return None };
        let identity = Self {
            device: device.parse().ok()?,
            inode: inode.parse().ok()?,
            size: size.parse().ok()?,
            seconds: seconds.parse().ok()?,
            nanoseconds: nanoseconds.parse().ok()?,
        };
        Some((identity, Digest::from_hex(digest).ok()?))
    }
}

impl FileDigests {
    pub fn open(store: Store, scratch: Arc<Scratch>, seed: u64) -> Result<Self, StageError> {
        let log = files::read_if_there(&store.folder("digests").join("files.log"))?.unwrap_or_default();
        let known = String::from_utf8_lossy(&log).lines().filter_map(Identity::parse).collect();
        Ok(Self { store, scratch, seed, known: Mutex::new(known) })
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Identity, Digest>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, line: &str) -> Result<(), StageError> {
        let path = self.store.folder("digests").join("files.log");
        let file = File::options().create(true).append(true).open(&path);
        at(&path, file.and_then(|mut file| file.write_all(line.as_bytes())))
    }

    fn value_path(&self, key: &str) -> PathBuf {
        self.store.folder("digests").join(blake3::hash(key.as_bytes()).to_hex().as_str())
    }
}

impl OpenContext for FileDigests {
    fn file_digest(&self, path: &Path) -> Result<Digest, StageError> {
        let before = at(path, fs::metadata(path))?;
        let identity = Identity::of(&before);
        let known = self.known().get(&identity).copied();
        if let Some(digest) = known {
            return Ok(digest);
        }
        let digest = hash_unchanging(path, identity)?;
        if is_settled(&before) {
            self.append(&identity.line(digest))?;
            self.known().insert(identity, digest);
        }
        Ok(digest)
    }

    fn files_digest(&self, memo: &str, paths: &[PathBuf]) -> Result<Digest, StageError> {
        let found: Result<Vec<Metadata>, StageError> =
            paths.par_iter().map(|path| at(path, fs::metadata(path))).collect();
        let found = found?;
        let identities = fingerprint(paths, &found);
        let place = self.value_path(&format!("files/{memo}"));
        if let Some(known) = read_value(&place)?
            && let Some((known, digest)) = known.split_first_chunk::<{ blake3::OUT_LEN }>()
            && identities == *known
            && let Ok(digest) = Digest::from_slice(digest)
        {
            return Ok(digest);
        }
        let digests: Result<Vec<Digest>, StageError> = paths
            .par_iter()
            .zip(&found)
            .map(|(path, file)| hash_unchanging(path, Identity::of(file)))
            .collect();
        let mut all = blake3::Hasher::new();
        for digest in digests? {
            all.update(digest.as_bytes());
        }
        let digest = all.finalize();
        if found.iter().all(is_settled) {
            let value = [identities.as_bytes().as_slice(), digest.as_bytes()].concat();
            write_value(&self.scratch, &place, &value)?;
        }
        Ok(digest)
    }

    fn remembered(
        &self,
        key: &str,
        compute: &mut dyn FnMut() -> Result<Vec<u8>, StageError>,
    ) -> Result<Vec<u8>, StageError> {
        let place = self.value_path(&format!("value/{key}"));
        if let Some(value) = read_value(&place)? {
            return Ok(value);
        }
        let value = compute()?;
        write_value(&self.scratch, &place, &value)?;
        Ok(value)
    }

    fn seed(&self) -> u64 {
        self.seed
    }
}

/// Shows that a line of the log is whole and as it was written.
fn check(line: &str) -> String {
    blake3::hash(line.as_bytes()).to_hex().chars().take(16).collect()
}

/// A remembered value behind its own digest; `None` when it is not there or damaged.
pub(crate) fn read_value(place: &Path) -> Result<Option<Vec<u8>>, StageError> {
    let Some(mut bytes) = files::read_if_there(place)? else { return Ok(None) };
    if bytes.len() < blake3::OUT_LEN {
        return Ok(None);
    }
    let value = bytes.split_off(blake3::OUT_LEN);
    Ok((blake3::hash(&value).as_bytes().as_slice() == bytes).then_some(value))
}

fn write_value(scratch: &Scratch, place: &Path, value: &[u8]) -> Result<(), StageError> {
    let bytes = [blake3::hash(value).as_bytes().as_slice(), value].concat();
    files::write_atomically(scratch, place, &bytes)
}

/// Hashes a file that must not change meanwhile.
fn hash_unchanging(path: &Path, identity: Identity) -> Result<Digest, StageError> {
    let (digest, _) = at(path, hash_file(path))?;
    if Identity::of(&at(path, fs::metadata(path))?) == identity {
        return Ok(digest);
    }
    let text = format!("{} changed while it was read", path.display());
    Err(StageError::new(text).help("Wait until the file is complete, then run again."))
}

fn is_settled(file: &Metadata) -> bool {
    let modified = file.modified().ok();
    modified.and_then(|time| SystemTime::now().duration_since(time).ok()).is_some_and(|age| age > SETTLED)
}

/// Changes when any path or file does.
fn fingerprint(paths: &[PathBuf], found: &[Metadata]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for (path, file) in paths.iter().zip(found) {
        let Identity { device, inode, size, seconds, nanoseconds } = Identity::of(file);
        let path = path.to_string_lossy();
        let line = format!("{} {path} {device} {inode} {size} {seconds} {nanoseconds}\n", path.len());
        hasher.update(line.as_bytes());
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(store: &Path) -> FileDigests {
        let store = Store::open(store).unwrap();
        let scratch = Arc::new(Scratch::create(&store).unwrap());
        FileDigests::open(store, scratch, 0).unwrap()
    }

    fn age(path: &Path, seconds: u64) {
        let time = SystemTime::now() - Duration::from_secs(seconds);
        File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn a_settled_file_is_remembered_until_its_identity_changes_and_torn_lines_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let (store, raw) = (folder.path().join("store"), folder.path().join("raw"));
        fs::write(&raw, b"one").unwrap();
        age(&raw, 10);
        assert_eq!(open(&store).file_digest(&raw).unwrap(), blake3::hash(b"one"));
        let log = store.join("digests/files.log");
        let lines = fs::read_to_string(&log).unwrap();
        assert_eq!(lines.lines().filter(|line| !line.is_empty()).count(), 1);
        fs::write(&log, lines + "12 34 56").unwrap();
        // A remembered digest is not computed again: here is another content under the same identity.
        let modified = fs::metadata(&raw).unwrap().modified().unwrap();
        fs::write(&raw, b"two").unwrap();
        File::options().write(true).open(&raw).unwrap().set_modified(modified).unwrap();
        assert_eq!(open(&store).file_digest(&raw).unwrap(), blake3::hash(b"one"));
        age(&raw, 20);
        assert_eq!(open(&store).file_digest(&raw).unwrap(), blake3::hash(b"two"));
        assert_eq!(open(&store).known().len(), 2);
    }

    #[test]
    fn a_file_written_just_now_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let raw = folder.path().join("raw");
        fs::write(&raw, b"one").unwrap();
        let digests = open(&folder.path().join("store"));
        digests.file_digest(&raw).unwrap();
        assert!(digests.known().is_empty());
    }

    #[test]
    fn the_digest_of_many_files_follows_their_content() {
        let folder = tempfile::tempdir().unwrap();
        let digests = open(&folder.path().join("store"));
        let paths: Vec<PathBuf> = (0..5).map(|n| folder.path().join(n.to_string())).collect();
        for path in &paths {
            fs::write(path, b"same").unwrap();
            age(path, 10);
        }
        let first = digests.files_digest("memo", &paths).unwrap();
        assert_eq!(digests.files_digest("memo", &paths).unwrap(), first);
        fs::write(&paths[3], b"other").unwrap();
        assert_ne!(digests.files_digest("memo", &paths).unwrap(), first);
    }

    #[test]
    fn a_remembered_value_is_computed_once_and_again_when_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let digests = open(&folder.path().join("store"));
        let mut times = 0;
        let mut get = || {
            let mut compute = || {
                times += 1;
                Ok(vec![7; 9])
            };
            assert_eq!(digests.remembered("key", &mut compute).unwrap(), vec![7; 9]);
            times
        };
        assert_eq!((get(), get()), (1, 1));
        let place = digests.value_path("value/key");
        let mut bytes = fs::read(&place).unwrap();
        bytes[40] ^= 1;
        fs::write(&place, bytes).unwrap();
        assert_eq!(get(), 2);
    }
}
