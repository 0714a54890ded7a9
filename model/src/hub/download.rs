//! One file into the cache. Hugging Face: `blobs/ETAG.incomplete`, checked, renamed to `blobs/ETAG`, shown in the snapshot by
//! a link. ModelScope: `snapshots/REV/PATH.incomplete`, checked, renamed.
//!
//! A lock per file (the one that the source's own client takes) keeps two programs from writing it. What has arrived is kept
//! whatever happens, except content with a wrong digest.

use super::asked::Asked;
use super::client::{Client, network};
use super::disk::Disk;
use super::event::{FetchEvent, Observer, State};
use super::fetch_error::FetchError;
use super::listing::RemoteFile;
use super::lock::Lock;
use super::partial::Partial;
use super::repository::Repository;
use super::settings::Settings;
use super::source::Source;
use super::trouble::{Trouble, header};
use std::fs;
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
    /// Sees what happens.
    pub observer: &'a dyn Observer,
    /// Set when another file has failed.
    pub stop: &'a AtomicBool,
}

/// Where a file of a commit is in the cache.
#[derive(Debug)]
pub struct Place {
    /// In the snapshot.
    pub shown: PathBuf,
    /// Its content: the same path at ModelScope.
    pub blob: PathBuf,
}

impl Place {
    /// The place of `file`.
    pub fn of(settings: &Settings, repository: &Repository, commit: &str, file: &RemoteFile) -> Self {
        let cache = &settings.site(repository.source).cache;
        Self {
            shown: repository.snapshot_folder(cache, commit).join(&file.path),
            blob: repository.blob(cache, commit, &file.path, &file.etag),
        }
    }

    /// Whether the snapshot has the file. A commit's content never changes, so that its size is enough; a snapshot of
    /// ModelScope is that of a branch, and the file in it may be of an earlier time.
    pub fn has(&self, repository: &Repository, file: &RemoteFile) -> bool {
        is_whole(&self.shown, file.size)
            && (repository.source == Source::HuggingFace || is_of(&self.shown, file))
    }

    /// Whether the content is there, in the snapshot or not.
    pub fn has_content(&self, repository: &Repository, file: &RemoteFile) -> bool {
        let apart = self.blob != self.shown;
        self.has(repository, file) || (apart && is_whole(&self.blob, file.size))
    }
}

fn is_of(path: &Path, file: &RemoteFile) -> bool {
    file.digest().is_none_or(|digest| digest.is_of(path, file.size).unwrap_or(false))
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
    /// Brings `file`, of which `state` is there, into the cache.
    pub fn fetch(&self, file: &RemoteFile, state: State) -> Result<(), FetchError> {
        let place = Place::of(self.settings, self.repository, self.commit, file);
        // What a plan has found in a branch's snapshot, it has read through.
        let has = state == State::There && self.repository.source == Source::ModelScope;
        if !has && !place.has(self.repository, file) {
            let _lock = self.lock(file)?;
            // Whoever had the lock may have brought it meanwhile.
            if !place.has(self.repository, file) {
                self.bring(file, &place)?;
            }
        }
        self.observer.event(&FetchEvent::Done { file });
        Ok(())
    }

    fn bring(&self, file: &RemoteFile, place: &Place) -> Result<(), FetchError> {
        let new = !place.has_content(self.repository, file);
        if new {
            self.fill(file, &place.blob)?;
        }
        show(place, &file.path, new, &*self.settings.disk)
            .map_err(|error| FetchError::writing(&place.shown, 0, error))
    }

    fn lock(&self, file: &RemoteFile) -> Result<Lock, FetchError> {
        let cache = &self.settings.site(self.repository.source).cache;
        let path = self.repository.lock(cache, &file.path, &file.etag);
        let waiting = || self.observer.event(&FetchEvent::Locked { file });
        Lock::take(&path, &*self.settings.disk, self.settings.lease, &waiting)
            .map_err(|error| FetchError::writing(&path, 0, error))
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
        let response = match self.client.get(&format!("{}/{page}", self.endpoint()), have) {
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
        network(&self.endpoint().parse().unwrap_or_default(), &error.into())
    }

    fn endpoint(&self) -> &str {
        &self.settings.site(self.repository.source).endpoint
    }

    fn asked<'b>(&'b self, file: &'b RemoteFile) -> Asked<'b> {
        Asked { repository: self.repository, file: Some(&file.path), settings: self.settings, namesake: None }
    }
}

/// Whether the body starts at byte `have` (`Content-Range: bytes 100-199/200`), and not at the file's first.
pub(super) fn continues(response: &Response<Body>, have: u64) -> bool {
    let start = || header(response, "content-range")?.strip_prefix("bytes ")?.split('-').next()?.parse().ok();
    response.status() == StatusCode::PARTIAL_CONTENT && start() == Some(have)
}

pub(super) fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Shows a file's content in the snapshot by a relative link, as `huggingface_hub` makes it. Where there are no links, for
/// whatever reason, `new` content moves there; what was there before may be shown elsewhere, too, and is copied.
fn show(place: &Place, path: &str, new: bool, disk: &dyn Disk) -> io::Result<()> {
    let Place { shown, blob } = place;
    if blob == shown {
        return Ok(());
    }
    make_parent(shown)?;
    let etag = blob.file_name().unwrap_or_default();
    let target = PathBuf::from("../".repeat(path.split('/').count() + 1)).join("blobs").join(etag);
    // Put in place in one step: a snapshot never lacks a file that it had. The lock of the blob makes the name ours.
    let temporary = shown.with_file_name(format!(".{}.link", etag.display()));
    if fs::symlink_metadata(&temporary).is_ok() {
        fs::remove_file(&temporary)?;
    }
    if disk.symlink(&target, &temporary).is_ok() {
        return fs::rename(&temporary, shown);
    }
    if new {
        return fs::rename(blob, shown);
    }
    fs::copy(blob, &temporary)?;
    fs::rename(&temporary, shown)
}
