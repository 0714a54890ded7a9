//! Fetching from a small hub on the loopback interface.

mod disks;
mod modelscope;
mod ranges;
mod server;
mod statuses;
mod transfer;
mod web_file;

use super::digest::Digest;
use super::disk::Disk;
use super::lock::Lease;
use super::settings::{Settings, Site};
use super::{FetchError, FetchEvent, Hub, Observer, Patterns};
use server::{FakeFile, FakeHub, Request};
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// A file with the digest that the hub would list.
fn file(path: &str, body: impl Into<Vec<u8>>, lfs: bool) -> FakeFile {
    let body = body.into();
    let kind = Digest::of_etag(&"0".repeat(if lfs { 64 } else { 40 })).unwrap();
    let mut hasher = kind.hasher(body.len() as u64);
    hasher.update(&body);
    FakeFile { path: path.to_owned(), body, etag: hasher.finish(), lfs }
}

/// Bytes that do not repeat soon.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n * n / 7 % 251) as u8).collect()
}

fn no_fault(_: &Request, _: usize) -> Option<Vec<u8>> {
    None
}

/// A file system without locks and links, as FUSE and some clusters have them.
#[derive(Debug)]
pub(super) struct Bare;

impl Disk for Bare {
    fn try_lock(&self, _file: &File) -> Result<(), TryLockError> {
        // ENOSYS, 38 on Linux.
        Err(TryLockError::Error(io::Error::from_raw_os_error(38)))
    }

    fn symlink(&self, _target: &Path, _at: &Path) -> io::Result<()> {
        // EIO: an error that nobody would think of.
        Err(io::Error::from_raw_os_error(5))
    }
}

/// A cache folder, the settings for a server, and what was reported.
struct Place {
    folder: tempfile::TempDir,
    settings: Settings,
    reported: Reported,
}

#[derive(Default)]
struct Reported(Mutex<Vec<String>>);

impl Observer for Reported {
    fn event(&self, event: &FetchEvent<'_>) {
        let line = match event {
            FetchEvent::Bytes { .. } => return,
            FetchEvent::Started { file, have } => format!("{}: from {have}", file.path),
            FetchEvent::Restarted { file, why, .. } => format!("{}: restarted, {why}", file.path),
            FetchEvent::Done { file } => format!("{}: done", file.path),
            FetchEvent::Locked { file } => format!("{}: locked", file.path),
            FetchEvent::Waiting { what, why, .. } => format!("{what}: waiting, {why}"),
        };
        self.0.lock().unwrap().push(line);
    }
}

impl Place {
    fn at(endpoint: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().as_os_str().to_owned();
        let get = |name: &str| (name == "HF_HOME").then(|| home.clone());
        let settings = Settings::of(&get).unwrap();
        let settings = Settings {
            hub: Site { endpoint: endpoint.to_owned(), ..settings.hub },
            modelscope: Site {
                endpoint: endpoint.to_owned(),
                cache: folder.path().join("modelscope"),
                ..settings.modelscope
            },
            attempts: 3,
            pause: Duration::from_millis(1),
            silence: Duration::from_secs(5),
            lease: Lease { touch: Duration::from_millis(50), expire: Duration::from_secs(2) },
            jobs: 2,
            ..settings
        };
        Self { folder, settings, reported: Reported::default() }
    }

    fn with_token(mut self) -> Self {
        let get = |name: &str| (name == "HF_TOKEN").then(|| OsString::from("hf_secret"));
        self.settings.hub.token = Settings::of(&get).unwrap().hub.token;
        self
    }

    fn fetch(&self, locator: &str, include: &[&str]) -> Result<PathBuf, FetchError> {
        let include: Vec<String> = include.iter().map(|pattern| (*pattern).to_owned()).collect();
        let hub = Hub::new(self.settings.clone())?;
        let plan = hub.plan(locator, &Patterns::new(&include, &[])?, &self.reported)?;
        hub.fetch(&plan, &self.reported)
    }

    /// The folder of models/org/name in the cache.
    fn repository(&self) -> PathBuf {
        self.folder.path().join("hub/models--org--name")
    }

    fn reported(&self) -> Vec<String> {
        self.reported.0.lock().unwrap().clone()
    }
}

/// The error and its advice as the program shows them, without the port of the server.
fn shown(error: &FetchError, hub: &FakeHub) -> String {
    let advice = error.advice().unwrap_or_default();
    let text = format!("{error}\n  {advice}").replace(&hub.address, "HUB");
    text.replace(hub.address.trim_start_matches("http://"), "HOST")
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    std::fs::read(path).unwrap()
}
