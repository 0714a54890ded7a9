//! Fetching from a small hub on the loopback interface.

mod server;
mod statuses;
mod transfer;

use super::digest::Digest;
use super::settings::Settings;
use super::{FetchError, FetchEvent, Hub, Observer, Patterns};
use server::{FakeFile, FakeHub, Request};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// A file with the digest that the hub would tell.
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

/// A cache folder, the settings for a server, and what was told.
struct Place {
    folder: tempfile::TempDir,
    settings: Settings,
    told: Told,
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Observer for Told {
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
            endpoint: endpoint.to_owned(),
            attempts: 3,
            pause: Duration::from_millis(1),
            silence: Duration::from_secs(5),
            jobs: 2,
            ..settings
        };
        Self { folder, settings, told: Told::default() }
    }

    fn with_token(mut self) -> Self {
        let get = |name: &str| (name == "HF_TOKEN").then(|| OsString::from("hf_secret"));
        self.settings.token = Settings::of(&get).unwrap().token;
        self
    }

    fn fetch(&self, locator: &str, include: &[&str]) -> Result<PathBuf, FetchError> {
        let include: Vec<String> = include.iter().map(|pattern| (*pattern).to_owned()).collect();
        let hub = Hub::new(self.settings.clone())?;
        let plan = hub.plan(locator, &Patterns::new(&include, &[])?, &self.told)?;
        hub.fetch(&plan, &self.told)
    }

    /// The folder of models/org/name in the cache.
    fn repository(&self) -> PathBuf {
        self.folder.path().join("hub/models--org--name")
    }

    fn told(&self) -> Vec<String> {
        self.told.0.lock().unwrap().clone()
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
