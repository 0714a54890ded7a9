//! Caches on file systems that lack something.

use super::server::FakeHub;
use super::*;
use crate::hub::disk::Linkless;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::thread;
use std::time::SystemTime;

fn files() -> Vec<server::FakeFile> {
    vec![file("config.json", "{}", false), file("a/model.safetensors", bytes(100_000), true)]
}

fn hub() -> FakeHub {
    FakeHub::new("models/org/name", &files(), no_fault)
}

#[test]
fn without_locks_and_links_a_repository_arrives_whole() {
    let hub = hub();
    let mut place = Place::at(&hub.address);
    place.settings.disk = Arc::new(Bare);
    for _ in 0..2 {
        let snapshot = place.fetch("hub:org/name", &[]).unwrap();
        for file in files() {
            let path = snapshot.join(&file.path);
            assert!(fs::symlink_metadata(&path).unwrap().is_file(), "{}", file.path);
            assert_eq!(read(path), file.body, "{}", file.path);
        }
    }
    assert_eq!(hub.asked("/cdn/").len(), 1, "the second fetch finds the files where links would be");
}

#[test]
fn without_locks_two_fetches_at_once_still_download_each_file_once() {
    let hub = FakeHub::new("models/org/name", &files(), |request, _| {
        if request.cdn {
            thread::sleep(Duration::from_millis(300));
        }
        None
    });
    let mut place = Place::at(&hub.address);
    place.settings.disk = Arc::new(Bare);
    thread::scope(|scope| {
        let fetch = || place.fetch("hub:org/name", &[]).map(drop);
        for fetch in [scope.spawn(fetch), scope.spawn(fetch)] {
            fetch.join().unwrap().unwrap();
        }
    });
    assert_eq!(hub.asked("/cdn/").len(), 1);
}

#[test]
fn without_links_a_blob_that_another_snapshot_shows_stays() {
    let hub = hub();
    let mut place = Place::at(&hub.address);
    let snapshot = place.fetch("hub:org/name", &[]).unwrap();
    let other = snapshot.with_file_name("f".repeat(40));
    fs::rename(&snapshot, &other).unwrap();
    place.settings.disk = Arc::new(Linkless);
    let snapshot = place.fetch("hub:org/name", &[]).unwrap();
    assert_eq!(read(snapshot.join("config.json")), b"{}");
    assert_eq!(read(other.join("config.json")), b"{}", "its link still leads somewhere");
    assert_eq!(hub.asked("/cdn/").len(), 1);
}

#[test]
fn links_are_left_out_where_the_variable_says_so() {
    let settings = |value: &str| {
        let value = OsString::from(value);
        Settings::of(&|name| (name == "HF_HUB_DISABLE_SYMLINKS").then(|| value.clone())).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let links = |value: &str, name: &str| {
        settings(value).disk.symlink(Path::new("target"), &folder.path().join(name)).is_ok()
    };
    assert!(!links("1", "a") && links("0", "b"));
}

/// Everything below a folder with the times of its last change and, of folders, of its entries.
fn state(folder: &Path) -> Vec<(PathBuf, u64, SystemTime, i64)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.push((path, meta.len(), meta.modified().unwrap(), meta.ctime_nsec()));
    }
    found.sort();
    found
}

/// A read-only cache that others share: root may write everywhere, so what counts is that nothing is written.
#[test]
fn a_complete_cache_is_not_written_to() {
    for (repository, locator) in [("models/org/name", "hub:org/name"), ("models/org/name", "ms:org/name")] {
        let hub = FakeHub::new(repository, &files(), no_fault);
        let place = Place::at(&hub.address);
        let snapshot = place.fetch(locator, &[]).unwrap();
        let before = state(place.folder.path());
        thread::sleep(Duration::from_millis(20));
        assert_eq!(place.fetch(locator, &[]).unwrap(), snapshot);
        assert_eq!(state(place.folder.path()), before, "{locator}");
    }
}
