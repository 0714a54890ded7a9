//! One file into the cache: `blobs/ETAG.incomplete`, checked, renamed to `blobs/ETAG`, shown in the snapshot by a link.
//!
//! A lock per blob (the one `huggingface_hub` takes) keeps two programs from writing the same file. What has arrived is kept
//! whatever happens, except content with a wrong digest.

use super::client::{Client, Trouble, header, network};
use super::fetch::{FetchEvent, Observer};
use super::fetch_error::{Asked, FetchError};
use super::listing::RemoteFile;
use super::partial::Partial;
use super::repository::Repository;
use super::settings::Settings;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use ureq::Body;
use ureq::http::{Response, StatusCode};

/// Bytes read from the network at once.
const PIECE: usize = 256 << 10;
/// Why a file is begun anew.
const RANGELESS: &str = "the server cannot continue a file";

/// Downloads files of one repository at one commit.
pub struct Download<'a> {
    /// The hub.
    pub client: &'a Client,
    /// Where the cache is.
    pub settings: &'a Settings,
    /// The repository.
    pub repository: &'a Repository,
    /// The commit.
    pub commit: &'a str,
    /// Is told what happens.
    pub observer: &'a dyn Observer,
    /// Set when another file has failed.
    pub stop: &'a AtomicBool,
}

/// Where the snapshot of a commit shows the file `path`.
pub fn shown(settings: &Settings, repository: &Repository, commit: &str, path: &str) -> PathBuf {
    repository.snapshot_folder(&settings.cache, commit).join(path)
}

/// The unfinished file beside a blob.
pub fn incomplete(blob: &Path) -> PathBuf {
    let mut name = blob.as_os_str().to_owned();
    name.push(".incomplete");
    PathBuf::from(name)
}

/// Whether there is a file of this size at `path`, a link or not.
pub fn is_whole(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == size)
}

impl Download<'_> {
    /// Brings `file` into the cache.
    pub fn fetch(&self, file: &RemoteFile) -> Result<(), FetchError> {
        let shown = shown(self.settings, self.repository, self.commit, &file.path);
        let blob = self.repository.blob(&self.settings.cache, &file.etag);
        if !is_whole(&shown, file.size) {
            let _lock = self.lock(file)?;
            if !is_whole(&blob, file.size) {
                self.fill(file, &blob)?;
            }
            link(&blob, &shown, &file.path).map_err(|error| FetchError::writing(&shown, 0, error))?;
        }
        self.observer.event(&FetchEvent::Done { file });
        Ok(())
    }

    fn lock(&self, file: &RemoteFile) -> Result<File, FetchError> {
        let path = self.repository.lock(&self.settings.cache, &file.etag);
        let wrong = |error| FetchError::writing(&path, 0, error);
        let lock = make_parent(&path).and_then(|()| File::options().create(true).append(true).open(&path));
        let lock = lock.map_err(wrong)?;
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) => self.observer.event(&FetchEvent::Locked { file }),
            Err(TryLockError::Error(error)) => return Err(wrong(error)),
        }
        lock.lock().map_err(wrong)?;
        Ok(lock)
    }

    /// Downloads, checks and publishes the blob. A resumed file whose digest is wrong is begun anew once: its beginning may be
    /// what is wrong.
    fn fill(&self, file: &RemoteFile, blob: &Path) -> Result<(), FetchError> {
        let path = incomplete(blob);
        let wrong = |error| FetchError::writing(&path, file.size, error);
        let digest = file.digest();
        make_parent(&path).map_err(wrong)?;
        let mut partial = Partial::open(&path, file.size, digest.as_ref()).map_err(wrong)?;
        let mut resumed = partial.len() > 0;
        loop {
            self.observer.event(&FetchEvent::Started { file, have: partial.len() });
            self.receive(file, &path, &mut partial)?;
            let found = partial.finish().map_err(wrong)?;
            let Some((found, expected)) =
                found.zip(digest.as_ref()).filter(|(found, expected)| found != expected.hex())
            else {
                return fs::rename(&path, blob).map_err(wrong);
            };
            if !resumed {
                fs::remove_file(&path).map_err(wrong)?;
                return Err(FetchError::WrongDigest {
                    repository: self.repository.to_string(),
                    file: file.path.clone(),
                    found,
                    expected: expected.hex().to_owned(),
                });
            }
            resumed = false;
            self.restart(file, &path, &mut partial, "what was there before had the wrong content")?;
        }
    }

    /// Asks for the rest of the file until all of it is there.
    fn receive(&self, file: &RemoteFile, path: &Path, partial: &mut Partial) -> Result<(), FetchError> {
        let mut patience = self.client.patience();
        while partial.len() < file.size {
            let before = partial.len();
            let Some(trouble) = self.attempt(file, path, partial)? else { continue };
            if partial.len() > before {
                patience.progress();
            }
            let pause = patience.after(trouble.clone()).map_err(|trouble| self.asked(file).error(trouble))?;
            self.observer.event(&FetchEvent::Waiting { what: &file.path, why: &trouble, pause });
            std::thread::sleep(pause);
        }
        Ok(())
    }

    /// One request; what went wrong with it, unless it is something of this computer.
    fn attempt(
        &self,
        file: &RemoteFile,
        path: &Path,
        partial: &mut Partial,
    ) -> Result<Option<Trouble>, FetchError> {
        let have = partial.len();
        let page = self.repository.address(Some((self.commit, &file.path)));
        let response = match self.client.get(&format!("{}/{page}", self.settings.endpoint), have) {
            Ok(response) => response,
            // The server thinks that nothing is left: the list and the file disagree.
            Err(Trouble::Status { status: 416, .. }) if have > 0 => {
                self.restart(file, path, partial, RANGELESS)?;
                return Ok(None);
            }
            Err(trouble) => return Ok(Some(trouble)),
        };
        if have > 0 && !continues(&response, have) {
            self.restart(file, path, partial, RANGELESS)?;
        }
        self.copy(file, path, partial, response)
    }

    fn restart(
        &self,
        file: &RemoteFile,
        path: &Path,
        partial: &mut Partial,
        why: &str,
    ) -> Result<(), FetchError> {
        self.observer.event(&FetchEvent::Restarted { file, why, lost: partial.len() });
        partial.clear().map_err(|error| FetchError::writing(path, file.size, error))
    }

    fn copy(
        &self,
        file: &RemoteFile,
        path: &Path,
        partial: &mut Partial,
        response: Response<Body>,
    ) -> Result<Option<Trouble>, FetchError> {
        let mut body = response.into_body().into_reader();
        let mut piece = vec![0; PIECE];
        while partial.len() < file.size {
            if self.stop.load(Ordering::Relaxed) {
                return Err(FetchError::Stopped);
            }
            let left = file.size - partial.len();
            let wanted = left.min(PIECE as u64) as usize;
            let read = match body.read(&mut piece[..wanted]) {
                Ok(0) => return Ok(Some(Trouble::Cut { at: (partial.len(), file.size) })),
                Ok(read) => read,
                Err(error) => return Ok(Some(self.broken(file, partial, error))),
            };
            partial.write(&piece[..read]).map_err(|error| FetchError::writing(path, left, error))?;
            self.observer.event(&FetchEvent::Bytes { file, count: read as u64 });
        }
        Ok(None)
    }

    fn broken(&self, file: &RemoteFile, partial: &Partial, error: io::Error) -> Trouble {
        if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) {
            return Trouble::Cut { at: (partial.len(), file.size) };
        }
        network(&self.settings.endpoint.parse().unwrap_or_default(), &error.into())
    }

    fn asked<'b>(&'b self, file: &'b RemoteFile) -> Asked<'b> {
        Asked { repository: self.repository, file: Some(&file.path), settings: self.settings, namesake: None }
    }
}

/// Whether the body starts at byte `have` (`Content-Range: bytes 100-199/200`), and not at the file's first.
fn continues(response: &Response<Body>, have: u64) -> bool {
    let start = || header(response, "content-range")?.strip_prefix("bytes ")?.split('-').next()?.parse().ok();
    response.status() == StatusCode::PARTIAL_CONTENT && start() == Some(have)
}

pub(super) fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Shows `blob` at `shown`, the repository's `path`, by a relative link as `huggingface_hub` makes it; on a disk without links,
/// the file itself moves there.
fn link(blob: &Path, shown: &Path, path: &str) -> io::Result<()> {
    make_parent(shown)?;
    let etag = blob.file_name().unwrap_or_default();
    let target = PathBuf::from("../".repeat(path.split('/').count() + 1)).join("blobs").join(etag);
    // Put in place in one step: a snapshot never lacks a file that it had. The lock of the blob makes the name ours.
    let temporary = shown.with_file_name(format!(".{}.link", etag.display()));
    if fs::symlink_metadata(&temporary).is_ok() {
        fs::remove_file(&temporary)?;
    }
    match symlink(&target, &temporary) {
        Ok(()) => fs::rename(&temporary, shown),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) =>
        {
            fs::rename(blob, shown)
        }
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn symlink(target: &Path, at: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, at)
}

#[cfg(not(unix))]
fn symlink(_target: &Path, _at: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
