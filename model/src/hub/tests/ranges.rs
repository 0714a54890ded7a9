//! Files read by range where they lie.

use super::server::{FakeHub, reply};
use super::{Place, bytes, file, no_fault};
use crate::hub::{FetchError, Hub, Ranges, RemoteFile};

fn open(place: &Place) -> Result<(Ranges, Vec<RemoteFile>), FetchError> {
    let choose =
        |path: &str| std::path::Path::new(path).extension().is_some_and(|extension| extension == "parquet");
    Hub::new(place.settings.clone())?.ranges("hub:datasets/org/name", &choose, &place.reported)
}

#[test]
fn any_range_of_a_file_is_read_and_nothing_is_written() {
    let body = bytes(10_000);
    let files = [file("a/x.parquet", body.clone(), true), file("README.md", "x", false)];
    let hub = FakeHub::new("datasets/org/name", &files, no_fault);
    let place = Place::at(&hub.address).with_token();
    let (ranges, found) = open(&place).unwrap();
    let found: Vec<_> = found.iter().map(|file| (file.path.as_str(), file.size, &file.etag)).collect();
    assert_eq!(found, [("a/x.parquet", 10_000, &files[0].etag)]);
    for range in [0..10_000, 0..1, 17..4711, 9_999..10_000, 5..5] {
        let expected = &body[range.start..range.end];
        assert_eq!(ranges.read("a/x.parquet", range.start as u64..range.end as u64).unwrap(), expected);
    }
    assert_eq!(hub.asked("/resolve/").len(), 1, "where the bytes are is asked once");
    let elsewhere = hub.asked("/cdn/");
    assert_eq!(elsewhere.len(), 4);
    assert!(elsewhere.iter().all(|request| request.header("authorization").is_none()));
    assert_eq!(std::fs::read_dir(place.folder.path()).unwrap().count(), 0);
}

#[test]
fn a_cut_answer_goes_on_where_it_was_cut_and_an_address_that_is_over_is_asked_for_again() {
    let body = bytes(1_000);
    let files = [file("x.parquet", body.clone(), true)];
    let cut = body.clone();
    let hub = FakeHub::new("datasets/org/name", &files, move |request, before| {
        match (request.cdn, before) {
            // The first answer breaks off after 100 of 1,000 bytes.
            (true, 0) => {
                let mut whole = reply(206, &[("Content-Range", "bytes 0-999/1000")], &cut);
                whole.truncate(whole.len() - 900);
                Some(whole)
            }
            // The address is signed for a while only.
            (true, 1) => Some(reply(403, &[], b"expired")),
            _ => None,
        }
    });
    let place = Place::at(&hub.address);
    let (ranges, _) = open(&place).unwrap();
    assert_eq!(ranges.read("x.parquet", 0..1_000).unwrap(), body);
    assert_eq!(hub.asked("/resolve/").len(), 2);
    let asked = hub.asked("/cdn/");
    assert_eq!(asked[1].header("range"), Some("bytes=100-999"));
}

#[test]
fn what_is_refused_names_the_file_and_a_server_without_ranges_is_no_source() {
    let files = [file("x.parquet", bytes(1_000), true)];
    let hub = FakeHub::new("datasets/org/name", &files, |request, _| {
        request.path.contains("/resolve/").then(|| reply(404, &[("X-Error-Code", "EntryNotFound")], b""))
    });
    let place = Place::at(&hub.address);
    let (ranges, _) = open(&place).unwrap();
    let error = ranges.read("x.parquet", 0..10).unwrap_err().to_string();
    assert!(error.contains("x.parquet of hub:datasets/org/name"), "{error}");
    let whole = bytes(1_000);
    let hub = FakeHub::new("datasets/org/name", &files, move |request, _| {
        request.cdn.then(|| reply(200, &[], &whole))
    });
    let place = Place::at(&hub.address);
    let (ranges, _) = open(&place).unwrap();
    assert_eq!(ranges.read("x.parquet", 0..10).unwrap(), bytes(1_000)[..10]);
    assert!(ranges.read("x.parquet", 10..20).is_err());
}
