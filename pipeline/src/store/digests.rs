//! Content digests of raw files, remembered so that a file is hashed once.
//!
//! A digest is remembered by the file's [`Identity`] in `digests/files.log`, to which every process
//! appends whole lines. A file changed less than two seconds ago is not remembered: a second change within the tick of the
//! file system's clock would go unseen. Files are read in chunks on one thread: blake3 is several times faster than a disk.
//! Of an object in a bucket the identity is the digest.

use crate::spec::error::StageError;
use crate::spec::event::{Event, Watch};
use crate::spec::stage::{Digest, Memory, OpenContext, Pass, ReadThrough};
use crate::store::files::{self, at};
use crate::store::identity::Identity;
use crate::store::objects::remote::{self, RemoteFile, is_remote};
use crate::store::scratch::Scratch;
use crate::store::workdir::Workdir;
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The digests of single files, a line each.
pub const LOG: &str = "files.log";

/// How often bytes that were read are reported.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// How long a file must have been left alone before its digest is remembered.
const SETTLED: Duration = Duration::from_secs(2);

/// The digests of raw files, and values computed from their content.
pub struct FileDigests<'a> {
    values: Arc<Values>,
    seed: u64,
    known: Mutex<HashMap<Identity, Digest>>,
    settled: Duration,
    watch: Watch<'a>,
    hashed: Mutex<Hashed>,
}

/// Values computed from content, each in a file of its own.
struct Values {
    folder: PathBuf,
    scratch: Arc<Scratch>,
}

impl Values {
    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(blake3::hash(key.as_bytes()).to_hex().as_str())
    }
}

impl Memory for Values {
    fn remembered(
        &self,
        key: &str,
        compute: &mut dyn FnMut() -> Result<Vec<u8>, StageError>,
    ) -> Result<Vec<u8>, StageError> {
        let place = self.path(&format!("value/{key}"));
        if let Some(value) = read_value(&place)? {
            return Ok(value);
        }
        let failures = remote::failures();
        let value = compute()?;
        if remote::failures() != failures {
            let text = "a raw file in a bucket could not be read to its end";
            return Err(StageError::new(text).help("Run the same command again."));
        }
        write_value(&self.scratch, &place, &value)?;
        Ok(value)
    }
}

/// What was read of files whose digest was not known.
struct Hashed {
    bytes: u64,
    reported: Instant,
}

/// A line of the log.
fn line(identity: &Identity, digest: Digest) -> String {
    let line = format!("{} {}", identity.text(), digest.to_hex());
    // The line break in front closes a line that a killed process left open.
    format!("\n{line} {}\n", check(&line))
}

fn parse(line: &str) -> Option<(Identity, Digest)> {
    let (line, given) = line.rsplit_once(' ')?;
    if check(line) != given {
        return None;
    }
    let (identity, digest) = line.rsplit_once(' ')?;
    Some((Identity::parse(identity)?, Digest::from_hex(digest).ok()?))
}

/// Lines of the log that stay: the newest, of so many files.
const LINES_KEPT: usize = 65_536;

/// Leaves out of the log what is there twice, what is damaged, and what is old. Only while nobody appends to it.
pub fn shorten(workdir: &Workdir) -> Result<(), StageError> {
    let path = workdir.digests().join(LOG);
    let Some(log) = files::read_if_there(&path)? else { return Ok(()) };
    let log = String::from_utf8_lossy(&log);
    let (mut seen, mut kept) = (HashSet::new(), Vec::new());
    for (identity, digest) in log.lines().rev().filter_map(parse) {
        if kept.len() < LINES_KEPT && seen.insert(identity) {
            kept.push(line(&identity, digest));
        }
    }
    let short: String = kept.into_iter().rev().collect();
    if short.len() < log.len() { workdir.scratch()?.write(&path, short.as_bytes()) } else { Ok(()) }
}

impl<'a> FileDigests<'a> {
    pub fn open(
        folder: PathBuf,
        scratch: Arc<Scratch>,
        seed: u64,
        watch: Watch<'a>,
    ) -> Result<Self, StageError> {
        let log = files::read_if_there(&folder.join(LOG))?.unwrap_or_default();
        let known = String::from_utf8_lossy(&log).lines().filter_map(parse).collect();
        let hashed = Mutex::new(Hashed { bytes: 0, reported: Instant::now() });
        let values = Arc::new(Values { folder, scratch });
        Ok(Self { values, seed, known: Mutex::new(known), settled: SETTLED, watch, hashed })
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Identity, Digest>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the digest of a file need not be computed.
    pub fn is_known(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|file| self.known().contains_key(&Identity::of(path, &file)))
    }

    fn append(&self, line: &str) -> Result<(), StageError> {
        let path = self.values.folder.join(LOG);
        let file = File::options().create(true).append(true).open(&path);
        at(&path, file.and_then(|mut file| file.write_all(line.as_bytes())))
    }

    /// The digest of a file: the known one, or what `hash` finds, which is remembered.
    fn digest_by(
        &self,
        path: &Path,
        hash: impl FnOnce(&Path) -> Result<Digest, StageError>,
    ) -> Result<Digest, StageError> {
        if is_remote(path) {
            return Ok(RemoteFile::open(path)?.digest());
        }
        let before = at(path, fs::metadata(path))?;
        let identity = Identity::of(path, &before);
        let known = self.known().get(&identity).copied();
        if let Some(digest) = known {
            return Ok(digest);
        }
        let digest = self.unchanging(path, identity, hash)?;
        if identity.is_settled(self.settled) {
            self.append(&line(&identity, digest))?;
            self.known().insert(identity, digest);
        }
        Ok(digest)
    }

    fn hash(&self, path: &Path) -> Result<Digest, StageError> {
        let hashed = files::hash_file_with(path, &mut |bytes| self.read(path, bytes));
        at(path, hashed).map(|(digest, _)| digest)
    }

    /// Hashes a file while `pass` reads it on a thread of its own, so that this one can say how far it is.
    fn hash_reading(&self, path: &Path, pass: Pass<'_>) -> Result<Digest, StageError> {
        let through = Arc::new(at(path, ReadThrough::open(path))?);
        let waiting = std::thread::current();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                pass(&through);
                let digest = through.finish();
                waiting.unpark();
                digest
            });
            let mut reported = 0;
            while !reader.is_finished() {
                std::thread::park_timeout(REPORT_EVERY);
                let bytes = through.bytes();
                if self.read(path, bytes - reported).is_err() {
                    through.stop();
                }
                reported = bytes;
            }
            let digest = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            self.watch.go_on()?;
            at(path, digest)
        })
    }

    /// Hashes a file that must not change meanwhile.
    fn unchanging(
        &self,
        path: &Path,
        identity: Identity,
        hash: impl FnOnce(&Path) -> Result<Digest, StageError>,
    ) -> Result<Digest, StageError> {
        tracing::debug!(path = %path.display(), "hashing");
        let digest = hash(path);
        self.watch.go_on()?;
        let digest = digest?;
        if Identity::of(path, &at(path, fs::metadata(path))?) == identity {
            return Ok(digest);
        }
        let text = format!("{} changed while it was read", path.display());
        Err(StageError::new(text).help("Wait until the file is complete, then run again."))
    }

    /// Counts bytes that were read and reports them now and then; an error when the run should end.
    fn read(&self, path: &Path, bytes: u64) -> io::Result<()> {
        if self.watch.go_on().is_err() {
            return Err(io::Error::other("interrupted"));
        }
        let mut hashed = self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
        hashed.bytes += bytes;
        if hashed.reported.elapsed() >= REPORT_EVERY {
            hashed.reported = Instant::now();
            self.watch.event(&Event::Hashing { path, bytes: hashed.bytes });
        }
        Ok(())
    }

    fn value_path(&self, key: &str) -> PathBuf {
        self.values.path(key)
    }
}

impl OpenContext for FileDigests<'_> {
    fn scratch_folder(&self) -> PathBuf {
        self.values.scratch.folder().to_owned()
    }

    fn file_digest(&self, path: &Path) -> Result<Digest, StageError> {
        self.digest_by(path, |path| self.hash(path))
    }

    fn file_digest_reading(&self, path: &Path, pass: Pass<'_>) -> Result<Digest, StageError> {
        self.digest_by(path, |path| self.hash_reading(path, pass))
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
            .map(|(path, file)| self.unchanging(path, Identity::of(path, file), |path| self.hash(path)))
            .collect();
        let mut all = blake3::Hasher::new();
        for digest in digests? {
            all.update(digest.as_bytes());
        }
        let digest = all.finalize();
        let is_settled =
            |(path, file): (&PathBuf, &Metadata)| Identity::of(path, file).is_settled(self.settled);
        if paths.iter().zip(&found).all(is_settled) {
            let value = [identities.as_bytes().as_slice(), digest.as_bytes()].concat();
            write_value(&self.values.scratch, &place, &value)?;
        }
        Ok(digest)
    }

    fn remembered(
        &self,
        key: &str,
        compute: &mut dyn FnMut() -> Result<Vec<u8>, StageError>,
    ) -> Result<Vec<u8>, StageError> {
        self.values.remembered(key, compute)
    }

    fn memory(&self) -> Arc<dyn Memory> {
        Arc::clone(&self.values) as Arc<dyn Memory>
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
    used(place);
    if bytes.len() < blake3::OUT_LEN {
        return Ok(None);
    }
    let value = bytes.split_off(blake3::OUT_LEN);
    Ok((blake3::hash(&value).as_bytes().as_slice() == bytes).then_some(value))
}

/// How exact it is known when a value was last used.
const USED_WITHIN: Duration = Duration::from_hours(168);

/// Remembers that a value was used: `gc` drops those that were not for long.
fn used(place: &Path) {
    let age = fs::metadata(place).and_then(|file| file.modified()).ok().and_then(|time| time.elapsed().ok());
    if age.is_some_and(|age| age > USED_WITHIN) {
        // In a store that cannot be written, nothing is dropped either.
        let _ = File::options().write(true).open(place).and_then(|file| file.set_modified(SystemTime::now()));
    }
}

fn write_value(scratch: &Scratch, place: &Path, value: &[u8]) -> Result<(), StageError> {
    let bytes = [blake3::hash(value).as_bytes().as_slice(), value].concat();
    scratch.write(place, &bytes)
}

/// Whether the file at `place`, written in lines for people, is the one that [`publish_sealed`] put there.
pub(crate) fn is_sealed(place: &Path) -> Result<bool, StageError> {
    let Some(digest) = read_value(&place.with_extension(""))? else { return Ok(false) };
    used(place);
    Ok(place.exists() && hash_file(place)?.as_bytes().as_slice() == digest)
}

/// Moves a whole file to `place`, and remembers its digest as a value of the same name without extension. The digest comes
/// first: whoever sees the file can tell that it is whole.
pub(crate) fn publish_sealed(scratch: &Scratch, whole: &Path, place: &Path) -> Result<(), StageError> {
    write_value(scratch, &place.with_extension(""), hash_file(whole)?.as_bytes())?;
    files::publish(whole, place)
}

fn hash_file(place: &Path) -> Result<Digest, StageError> {
    let mut hasher = blake3::Hasher::new();
    at(place, File::open(place).and_then(|file| hasher.update_reader(file).map(|_| ())))?;
    Ok(hasher.finalize())
}

/// Changes when any path or file does.
fn fingerprint(paths: &[PathBuf], found: &[Metadata]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for (path, file) in paths.iter().zip(found) {
        hasher.update(format!("{}\n", Identity::of(path, file).text()).as_bytes());
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(store: &Path) -> FileDigests<'static> {
        for folder in ["digests", "tmp", "claims"] {
            fs::create_dir_all(store.join(folder)).unwrap();
        }
        let scratch = Arc::new(Scratch::create(store).unwrap());
        let digests = FileDigests::open(store.join("digests"), scratch, 0, Watch::nobody()).unwrap();
        FileDigests { settled: Duration::ZERO, ..digests }
    }

    fn set_modified(path: &Path, time: SystemTime) {
        File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    /// Lets the clock of the file system go on.
    fn tick() {
        std::thread::sleep(Duration::from_millis(15));
    }

    #[test]
    fn a_file_is_remembered_and_torn_lines_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let (store, raw) = (folder.path().join("store"), folder.path().join("raw"));
        fs::write(&raw, b"one").unwrap();
        tick();
        assert_eq!(open(&store).file_digest(&raw).unwrap(), blake3::hash(b"one"));
        let log = store.join("digests/files.log");
        let lines = fs::read_to_string(&log).unwrap();
        assert_eq!(lines.lines().filter(|line| !line.is_empty()).count(), 1);
        fs::write(&log, lines + "12 34 56").unwrap();
        let digests = open(&store);
        assert_eq!(digests.known().len(), 1);
        // A remembered digest is not computed again: here is another one under the same identity.
        let identity = Identity::of(&raw, &fs::metadata(&raw).unwrap());
        digests.known().insert(identity, blake3::hash(b"remembered"));
        assert_eq!(digests.file_digest(&raw).unwrap(), blake3::hash(b"remembered"));
    }

    #[test]
    fn a_shortened_log_knows_the_same_files() {
        let folder = tempfile::tempdir().unwrap();
        let (store, raw) = (folder.path().join("store"), folder.path().join("raw"));
        fs::write(&raw, b"one").unwrap();
        tick();
        open(&store).file_digest(&raw).unwrap();
        let log = store.join("digests/files.log");
        let whole = fs::read_to_string(&log).unwrap();
        fs::write(&log, format!("{whole}{whole}12 34 56\n{whole}")).unwrap();
        shorten(&Workdir::open(&store).unwrap()).unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), whole);
        assert_eq!(open(&store).known().len(), 1);
    }

    /// A way to write a file again so that its size and modification time stay. Writes the file at the first path again; the second is a folder for other files.
    type Way<'a> = &'a dyn Fn(&Path, &Path);

    #[test]
    fn a_file_rewritten_with_its_size_and_modification_time_is_another_one() {
        let rewrite_in_place = |raw: &Path, _: &Path| fs::write(raw, b"two").unwrap();
        // What `tar -x` and `rsync -t` do: a new file takes the place of the old one.
        let replace = |raw: &Path, folder: &Path| {
            fs::write(folder.join("new"), b"two").unwrap();
            fs::rename(folder.join("new"), raw).unwrap();
        };
        // A file that was written before the old one was hashed.
        let swap = |raw: &Path, folder: &Path| fs::rename(folder.join("older"), raw).unwrap();
        let ways: [Way<'_>; 3] = [&rewrite_in_place, &replace, &swap];
        for (n, way) in ways.into_iter().enumerate() {
            let folder = tempfile::tempdir().unwrap();
            let (store, raw) = (folder.path().join("store"), folder.path().join("raw"));
            fs::write(folder.path().join("older"), b"two").unwrap();
            fs::write(&raw, b"one").unwrap();
            let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
            set_modified(&raw, modified);
            tick();
            assert_eq!(open(&store).file_digest(&raw).unwrap(), blake3::hash(b"one"));
            assert_eq!(open(&store).known().len(), 1, "it is remembered");
            tick();
            way(&raw, folder.path());
            set_modified(&raw, modified);
            assert_eq!(open(&store).file_digest(&raw).unwrap(), blake3::hash(b"two"), "way {n}");
        }
    }

    #[test]
    fn a_file_written_just_now_is_not_remembered_however_old_it_says_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let raw = folder.path().join("raw");
        fs::write(&raw, b"one").unwrap();
        set_modified(&raw, SystemTime::UNIX_EPOCH);
        let digests = FileDigests { settled: SETTLED, ..open(&folder.path().join("store")) };
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
        }
        tick();
        let first = digests.files_digest("memo", &paths).unwrap();
        assert_eq!(digests.files_digest("memo", &paths).unwrap(), first);
        let modified = fs::metadata(&paths[3]).unwrap().modified().unwrap();
        tick();
        fs::write(&paths[3], b"diff").unwrap();
        set_modified(&paths[3], modified);
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

    #[test]
    fn a_file_that_is_read_anyway_is_hashed_meanwhile_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let raw = folder.path().join("raw");
        fs::write(&raw, b"one line\nanother").unwrap();
        tick();
        let digests = open(&folder.path().join("store"));
        let mut passes = 0;
        let mut pass = |through: &Arc<ReadThrough>| {
            passes += 1;
            let mut line = [0; 9];
            assert_eq!(through.read_at(&mut line, 0).unwrap(), 9);
        };
        let digest = blake3::hash(b"one line\nanother");
        assert_eq!(digests.file_digest_reading(&raw, &mut pass).unwrap(), digest);
        assert_eq!(digests.file_digest_reading(&raw, &mut pass).unwrap(), digest);
        assert_eq!(digests.file_digest(&raw).unwrap(), digest);
        assert_eq!((passes, digests.known().len()), (1, 1));
        assert_eq!(digests.hashed.lock().unwrap().bytes, 16, "every byte once");
    }

    #[test]
    fn hashing_ends_when_the_run_is_cancelled() {
        use crate::spec::event::Silent;
        use std::sync::atomic::AtomicBool;
        let folder = tempfile::tempdir().unwrap();
        let raw = folder.path().join("raw");
        fs::write(&raw, b"one").unwrap();
        let cancel = AtomicBool::new(true);
        let watch = Watch { observer: &Silent, cancel: &cancel };
        let digests = FileDigests { watch, ..open(&folder.path().join("store")) };
        assert_eq!(digests.file_digest(&raw).unwrap_err().to_string(), "interrupted");
        let read = digests.file_digest_reading(&raw, &mut |_| {});
        assert_eq!(read.unwrap_err().to_string(), "interrupted");
        assert!(digests.known().is_empty());
    }
}
