//! ModelScope: another list and another layout behind the same downloads.

use super::server::{FakeFile, FakeHub, reply};
use super::*;
use crate::hub::{Source, resolve_in};
use std::fs;

const NAME: &str = "ms:org/name";

fn files() -> Vec<FakeFile> {
    vec![
        file("config.json", "{}", true),
        file("model.safetensors", bytes(300_000), true),
        file("a/图 1.json", "[1]", true),
        file("empty.txt", "", true),
    ]
}

fn cache(place: &Place) -> &Path {
    &place.settings.modelscope.cache
}

#[test]
fn a_model_arrives_in_the_layout_of_modelscope_hub() {
    let hub = FakeHub::new("models/org/name", &files(), no_fault);
    let place = Place::at(&hub.address);
    let snapshot = place.fetch(NAME, &[]).unwrap();
    assert_eq!(snapshot, cache(&place).join("models/org--name/snapshots/master"));
    for file in files() {
        assert_eq!(read(snapshot.join(&file.path)), file.body, "{}", file.path);
    }
    assert_eq!(resolve_in(cache(&place), NAME).unwrap(), snapshot);
    let before = hub.asked("FilePath").len();
    place.fetch(NAME, &[]).unwrap();
    assert_eq!((hub.asked("FilePath").len(), before), (3, 3), "an empty file needs no request");
}

#[test]
fn a_data_set_of_several_pages_arrives_whole() {
    let many: Vec<FakeFile> =
        (0..450).map(|n| file(&format!("data/{n:04}.txt"), format!("row {n}"), true)).collect();
    let hub = FakeHub::new("datasets/org/name", &many, no_fault);
    let place = Place::at(&hub.address);
    let snapshot = place.fetch("ms:datasets/org/name", &["data/01*"]).unwrap();
    assert_eq!(snapshot, cache(&place).join("datasets/org--name/snapshots/master"));
    assert_eq!(fs::read_dir(snapshot.join("data")).unwrap().count(), 100);
    assert_eq!(hub.asked("PageNumber").len(), 3);
}

#[test]
fn a_list_that_was_cut_short_is_read_folder_by_folder() {
    let many: Vec<FakeFile> =
        (0..3500).map(|n| file(&format!("part{}/{n:04}.txt", n % 2), "x", true)).collect();
    let hub = FakeHub::new("models/org/name", &many, no_fault);
    let place = Place::at(&hub.address);
    let service = Hub::new(place.settings.clone()).unwrap();
    let plan = service.plan(NAME, &Patterns::default(), &place.reported).unwrap();
    assert_eq!(plan.files.len(), 3500);
}

#[test]
fn a_cut_download_is_resumed_and_a_killed_one_continued() {
    let body = files()[1].body.clone();
    let hub = FakeHub::new("models/org/name", &files(), move |request, before| {
        let cut = request.path.contains("model.safetensors") && before == 0;
        cut.then(|| {
            reply(206, &[("Content-Range", "bytes 100000-299999/300000")], &body[100_000..])[..100_000]
                .to_vec()
        })
    });
    let place = Place::at(&hub.address);
    let snapshot = cache(&place).join("models/org--name/snapshots/master");
    fs::create_dir_all(&snapshot).unwrap();
    fs::write(snapshot.join("model.safetensors.incomplete"), &files()[1].body[..100_000]).unwrap();
    place.fetch(NAME, &[]).unwrap();
    assert_eq!(read(snapshot.join("model.safetensors")), files()[1].body);
    let ranges: Vec<_> =
        hub.asked("model.safetensors").iter().map(|r| r.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges[0].as_deref(), Some("bytes=100000-"));
    assert!(ranges[1].as_ref().is_some_and(|range| range.starts_with("bytes=19")), "{ranges:?}");
}

#[test]
fn a_branch_that_moved_on_is_fetched_again_even_where_sizes_are_equal() {
    let place = {
        let hub = FakeHub::new("models/org/name", &[file("config.json", "{\"a\": 1}", true)], no_fault);
        let place = Place::at(&hub.address);
        place.fetch(NAME, &[]).unwrap();
        place
    };
    let hub = FakeHub::new("models/org/name", &[file("config.json", "{\"a\": 2}", true)], no_fault);
    let settings = Settings {
        modelscope: Site { endpoint: hub.address.clone(), ..place.settings.modelscope.clone() },
        ..place.settings.clone()
    };
    let later = Place { settings, ..place };
    let snapshot = later.fetch(NAME, &[]).unwrap();
    assert_eq!(read(snapshot.join("config.json")), b"{\"a\": 2}");
}

#[test]
fn a_snapshot_that_lacks_files_is_not_found() {
    let hub = FakeHub::new("models/org/name", &files(), |request, _| {
        request.path.contains("model.safetensors").then(|| reply(404, &[], b""))
    });
    let place = Place::at(&hub.address);
    place.fetch(NAME, &[]).unwrap_err();
    let error = resolve_in(cache(&place), NAME).unwrap_err().to_string();
    assert!(
        error.contains("not in the ModelScope cache") && error.contains("llavm fetch ms:org/name"),
        "{error}"
    );
}

#[test]
fn wrong_content_is_discarded_and_a_refusal_has_its_reason() {
    let hub = FakeHub::new("models/org/name", &files(), |request, _| {
        request.path.contains("config.json").then(|| reply(200, &[], b"[]"))
    });
    let place = Place::at(&hub.address);
    let error = place.fetch(NAME, &["config.json"]).unwrap_err();
    assert!(matches!(error, FetchError::WrongDigest { .. }), "{error}");
    let refused = FakeHub::new("models/org/name", &[], |_, _| {
        Some(reply(
            200,
            &[],
            br#"{"Code": 10010, "Success": false, "Message": "no permission", "Data": null}"#,
        ))
    });
    let error = Place::at(&refused.address).fetch(NAME, &[]).unwrap_err();
    assert!(error.to_string().contains("no permission"), "{error}");
}

#[test]
fn the_token_goes_to_the_site_itself_and_nowhere_else() {
    let hub = FakeHub::new("models/org/name", &files(), no_fault);
    let mut place = Place::at(&hub.address);
    let get = |name: &str| (name == "MODELSCOPE_API_TOKEN").then(|| OsString::from("ms-secret"));
    place.settings.modelscope.token = Settings::of(&get).unwrap().modelscope.token;
    place.fetch(NAME, &["config.json"]).unwrap();
    let asked = hub.asked("repo/files");
    assert_eq!(asked[0].header("authorization"), Some("Bearer ms-secret"));
    assert_eq!(asked[0].header("cookie"), Some("m_session_id=ms-secret"));
    assert!(hub.asked("/cdn/").iter().all(|request| request.header("cookie").is_none()));
    assert_eq!(place.settings.site(Source::ModelScope).endpoint, hub.address);
}
