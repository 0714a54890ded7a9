//! A file at an address of its own: cut, resumed, checked.

use super::server::{FakeHub, Request, reply};
use super::{Place, bytes};
use crate::hub::digest::Digest;
use crate::hub::{FetchError, Hub, WebFile};
use std::fs;

fn md5(body: &[u8]) -> String {
    let mut hasher = Digest::Md5(String::new()).hasher(0);
    hasher.update(body);
    hasher.finish()
}

/// Serves `body` at `/POPE.tsv`: the first answer ends in its middle.
fn served(body: &[u8]) -> impl Fn(&Request, usize) -> Option<Vec<u8>> + Send + Sync + 'static {
    let body = body.to_vec();
    move |request, before| {
        if request.path != "/POPE.tsv" {
            return None;
        }
        let start: usize = request
            .header("range")
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
            .unwrap_or(0);
        let size = body.len();
        let range = format!("bytes {start}-{}/{size}", size - 1);
        let status = if start > 0 { 206 } else { 200 };
        let mut answer = reply(status, &[("Content-Range", &range)], &body[start..]);
        if before == 0 {
            answer.truncate(answer.len() - size / 2);
        }
        Some(answer)
    }
}

#[test]
fn the_digest_is_that_of_md5sum() {
    assert_eq!(md5(b"hello\n"), "b1946ac92492d2347c6235b4d2611184");
}

#[test]
fn a_file_that_is_cut_off_goes_on_where_it_stopped_and_is_checked() {
    let body = bytes(100_000);
    let hub = FakeHub::new("datasets/org/name", &[], served(&body));
    let place = Place::at(&hub.address);
    let (address, path) = (format!("{}/POPE.tsv", hub.address), place.folder.path().join("LMU/POPE.tsv"));
    let fetch = |md5: &str| {
        let file = WebFile { address: &address, md5, path: &path };
        Hub::new(place.settings.clone()).unwrap().fetch_file(&file, &place.reported)
    };
    assert_eq!(fetch(&md5(&body)).unwrap(), 100_000);
    assert_eq!(fs::read(&path).unwrap(), body);
    let asked = hub.asked("/POPE.tsv");
    assert_eq!((asked.len(), asked[1].header("range")), (2, Some("bytes=50000-")));
    assert_eq!(fetch(&md5(&body)).unwrap(), 0, "what is there is not downloaded again");
    let error = fetch(&md5(b"other")).unwrap_err();
    assert!(matches!(error, FetchError::WrongDigest { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), body, "what was there stays");
}
