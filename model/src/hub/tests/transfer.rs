//! What arrives, however often it is cut, is what the hub lists.

use super::server::{COMMIT, FakeFile, FakeHub, read_head, reply};
use super::*;
use crate::hub::resolve_in;
use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::thread;

const NAME: &str = "hub:org/name";

fn files() -> Vec<FakeFile> {
    vec![
        file("config.json", "{}", false),
        file("model.safetensors", bytes(300_000), true),
        file("onnx/model.onnx", bytes(5_000), true),
        file("empty.txt", "", false),
    ]
}

fn model() -> FakeFile {
    files().remove(1)
}

#[test]
fn a_repository_arrives_in_the_layout_of_huggingface_hub() {
    let hub = FakeHub::new("models/org/name", &files(), no_fault);
    let place = Place::at(&hub.address);
    let snapshot = place.fetch(NAME, &[]).unwrap();
    assert_eq!(snapshot, place.repository().join("snapshots").join(COMMIT));
    for file in files() {
        assert_eq!(read(snapshot.join(&file.path)), file.body, "{}", file.path);
        assert_eq!(read(place.repository().join("blobs").join(&file.etag)), file.body, "{}", file.path);
    }
    assert_eq!(read(place.repository().join("refs/main")), COMMIT.as_bytes());
    let link = fs::read_link(snapshot.join("onnx/model.onnx")).unwrap();
    assert_eq!(link, Path::new("../../../blobs").join(&files()[2].etag));
    assert_eq!(resolve_in(&place.settings.hub.cache, NAME).unwrap(), snapshot);
}

#[test]
fn a_second_fetch_downloads_nothing() {
    let hub = FakeHub::new("models/org/name", &files(), no_fault);
    let place = Place::at(&hub.address);
    place.fetch(NAME, &[]).unwrap();
    let before = hub.asked("/resolve/").len();
    place.fetch(NAME, &[]).unwrap();
    assert_eq!(hub.asked("/resolve/").len(), before);
    assert_eq!(before, 3, "an empty file needs no request");
}

#[test]
fn only_the_files_that_patterns_choose_are_fetched() {
    let hub = FakeHub::new("models/org/name", &files(), no_fault);
    let place = Place::at(&hub.address);
    let service = Hub::new(place.settings.clone()).unwrap();
    let chosen = |include: &[&str], exclude: &[&str]| {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let patterns = Patterns::new(&owned(include), &owned(exclude)).unwrap();
        let plan = service.plan(NAME, &patterns, &place.reported)?;
        let names: Vec<String> = plan.files.iter().map(|(file, _)| file.path.clone()).collect();
        Ok::<_, FetchError>((names.join(" "), plan.idle.join(" ")))
    };
    let both = |names: &str, idle: &str| (names.to_owned(), idle.to_owned());
    assert_eq!(chosen(&["*.json", "tokenizer*"], &[]).unwrap(), both("config.json", "tokenizer*"));
    assert_eq!(chosen(&["**/*.onnx"], &[]).unwrap(), both("onnx/model.onnx", ""));
    assert_eq!(chosen(&["onnx/"], &[]).unwrap(), both("onnx/model.onnx", ""));
    assert_eq!(chosen(&["*model*"], &["onnx/*"]).unwrap(), both("model.safetensors", ""));
    assert_eq!(chosen(&[], &["*.safetensors", "onnx/*"]).unwrap(), both("config.json empty.txt", ""));
    insta::assert_snapshot!(super::shown(&chosen(&["*.parquet"], &["a b"]).unwrap_err(), &hub), @r#"
    hub:org/name has 4 files, none of which is chosen by --include "*.parquet" --exclude "a b"
      It holds config.json, empty.txt, model.safetensors, onnx/model.onnx. `*` stands for any characters, `/` among them.
    "#);
    let wrong = Patterns::new(&["[".to_owned()], &[]).unwrap_err();
    assert!(wrong.to_string().starts_with("`[` is no pattern"), "{wrong}");
}

#[test]
fn a_connection_cut_in_the_middle_is_resumed_where_it_was() {
    let hub = FakeHub::new("models/org/name", &[model()], |request, before| {
        let cut = request.cdn && before == 0;
        cut.then(|| reply(200, &[], &model().body)[..100_000].to_vec())
    });
    let place = Place::at(&hub.address);
    let snapshot = place.fetch(NAME, &[]).unwrap();
    assert_eq!(read(snapshot.join("model.safetensors")), model().body);
    let ranges: Vec<_> = hub.asked("/cdn/").iter().map(|r| r.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges.len(), 2);
    assert!(ranges[1].as_ref().unwrap().starts_with("bytes=99"), "{ranges:?}");
    assert!(
        place.reported().iter().any(|line| line.contains("the connection was cut after 99")),
        "{:?}",
        place.reported()
    );
}

#[test]
fn a_server_that_cuts_every_piece_still_gives_the_whole_file() {
    let hub = FakeHub::new("models/org/name", &[model()], |request, _| {
        let start: usize = request.header("range").map_or(0, |r| r[6..r.len() - 1].parse().unwrap());
        let range = format!("bytes {start}-299999/300000");
        let whole = reply(206, &[("Content-Range", &range)], &model().body[start..]);
        request.cdn.then(|| whole[..whole.len().min(40_000)].to_vec())
    });
    let place = Place::at(&hub.address);
    place.fetch(NAME, &[]).unwrap();
    assert!(hub.asked("/cdn/").len() > place.settings.attempts as usize, "progress renews patience");
}

#[test]
fn what_a_killed_fetch_left_is_continued() {
    let hub = FakeHub::new("models/org/name", &[model()], no_fault);
    let place = Place::at(&hub.address);
    let blobs = place.repository().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{}.incomplete", model().etag)), &model().body[..200_000]).unwrap();
    let snapshot = place.fetch(NAME, &[]).unwrap();
    assert_eq!(read(snapshot.join("model.safetensors")), model().body);
    assert_eq!(hub.asked("/cdn/")[0].header("range"), Some("bytes=200000-"));
    assert_eq!(place.reported()[0], "model.safetensors: from 200000");
}

#[test]
fn a_server_that_cannot_continue_a_file_gives_it_from_the_start() {
    let hub = FakeHub::new("models/org/name", &[model()], |request, _| {
        request.cdn.then(|| reply(200, &[], &model().body))
    });
    let place = Place::at(&hub.address);
    let blobs = place.repository().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{}.incomplete", model().etag)), &model().body[..200_000]).unwrap();
    let snapshot = place.fetch(NAME, &[]).unwrap();
    assert_eq!(read(snapshot.join("model.safetensors")), model().body);
}

#[test]
fn wrong_content_is_discarded_and_said_so() {
    let hub = FakeHub::new("models/org/name", &[model()], |request, _| {
        let mut body = model().body;
        body[7] ^= 1;
        request.cdn.then(|| reply(200, &[], &body))
    });
    let place = Place::at(&hub.address);
    let error = place.fetch(NAME, &[]).unwrap_err();
    insta::assert_snapshot!(super::shown(&error, &hub), @"
    model.safetensors of hub:org/name arrived with the wrong content: its digest is 5007738c6f27ca0081e790c122ee1fab1619a57b7b6f011b6d544c536e3a3c62, the hub's list says 4daf6f9226b62e3577b29f84f99c75d69cd461b9969080ea7ee8f94c140763d6. The file was discarded
      Fetch it again; if that happens twice, the mirror or proxy in between changes files.
    ");
    assert_eq!(fs::read_dir(place.repository().join("blobs")).unwrap().count(), 0);
    assert!(!place.repository().join("refs").exists(), "no reference names an incomplete snapshot");
}

#[test]
fn a_wrong_beginning_is_replaced_and_the_file_is_right() {
    let hub = FakeHub::new("models/org/name", &[model()], no_fault);
    let place = Place::at(&hub.address);
    let blobs = place.repository().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{}.incomplete", model().etag)), vec![9; 200_000]).unwrap();
    let snapshot = place.fetch(NAME, &[]).unwrap();
    assert_eq!(read(snapshot.join("model.safetensors")), model().body);
    assert!(place.reported().iter().any(|line| line.contains("restarted")), "{:?}", place.reported());
}

#[test]
fn the_token_goes_to_the_hub_and_to_no_other_host() {
    let hub = FakeHub::new("models/org/name", &files(), no_fault);
    let place = Place::at(&hub.address).with_token();
    place.fetch(NAME, &[]).unwrap();
    let requests = hub.asked("/");
    assert!(requests.iter().any(|request| request.cdn));
    for request in requests {
        let sent = request.header("authorization").is_some();
        assert_eq!(sent, !request.cdn, "{request:?}");
    }
}

#[test]
fn a_renamed_repository_is_followed_with_the_token() {
    let hub = FakeHub::new("models/org/name", &files(), |request, _| {
        let new = request.path.replace("/old/", "/org/");
        (new != request.path).then(|| reply(307, &[("Location", &new)], b""))
    });
    let place = Place::at(&hub.address).with_token();
    let snapshot = place.fetch("hub:old/name", &["config.json"]).unwrap();
    assert_eq!(read(snapshot.join("config.json")), b"{}");
    assert!(hub.asked("/org/").iter().all(|request| request.header("authorization").is_some()));
}

#[test]
fn a_mirror_that_lists_names_only_is_asked_for_each_file() {
    let hub = FakeHub::new("models/org/name", &files(), |request, _| {
        let names =
            files().iter().map(|file| format!(r#"{{"rfilename":"{}"}}"#, file.path)).collect::<Vec<_>>();
        let info = format!(r#"{{"sha":"{COMMIT}","siblings":[{}]}}"#, names.join(","));
        request.path.starts_with("/api/").then(|| reply(200, &[], info.as_bytes()))
    });
    let place = Place::at(&hub.address);
    let snapshot = place.fetch(NAME, &[]).unwrap();
    for file in files() {
        assert_eq!(read(snapshot.join(&file.path)), file.body, "{}", file.path);
        assert_eq!(read(place.repository().join("blobs").join(&file.etag)), file.body);
    }
    assert_eq!(hub.asked("/resolve/").iter().filter(|request| request.method == "HEAD").count(), 4);
}

#[test]
fn a_repository_of_very_many_files_is_listed_page_by_page() {
    let hub = FakeHub::new("models/org/name", &files(), |request, _| {
        let entry = |file: &FakeFile| {
            let lfs = if file.lfs {
                format!(r#","lfs":{{"oid":"{}","size":{}}}"#, file.etag, file.body.len())
            } else {
                String::new()
            };
            format!(
                r#"{{"type":"file","path":"{}","size":{},"oid":"{}"{lfs}}}"#,
                file.path,
                file.body.len(),
                file.etag
            )
        };
        let (files, link) =
            (files(), "<https://huggingface.co/api/models/org/name/tree/x?cursor=2>; rel=\"next\"");
        if request.path.contains("cursor=2") {
            return Some(reply(200, &[], format!("[{}]", entry(&files[1])).as_bytes()));
        }
        if request.path.contains("/tree/") {
            let page =
                format!(r#"[{{"type":"directory","path":"onnx","oid":"x","size":0}},{}]"#, entry(&files[0]));
            return Some(reply(200, &[("Link", link)], page.as_bytes()));
        }
        let many = vec![r#"{"rfilename":"x"}"#; crate::hub::listing::MANY].join(",");
        request
            .path
            .starts_with("/api/")
            .then(|| reply(200, &[], format!(r#"{{"sha":"{COMMIT}","siblings":[{many}]}}"#).as_bytes()))
    });
    let place = Place::at(&hub.address);
    let snapshot = place.fetch(NAME, &[]).unwrap();
    assert_eq!(fs::read_dir(&snapshot).unwrap().count(), 2);
    assert_eq!(read(snapshot.join("model.safetensors")), model().body);
}

#[test]
fn a_file_that_would_leave_the_cache_stops_the_fetch() {
    let hub = FakeHub::new("models/org/name", &[file("../../../x", "evil", false)], no_fault);
    let place = Place::at(&hub.address);
    let error = place.fetch(NAME, &[]).unwrap_err();
    assert!(matches!(error, FetchError::UnsafePath { .. }), "{error}");
    assert!(hub.asked("/resolve/").is_empty());
}

#[test]
fn two_fetches_at_once_download_each_file_once() {
    let hub = FakeHub::new("models/org/name", &[model()], |request, _| {
        if request.cdn {
            thread::sleep(Duration::from_millis(300));
        }
        None
    });
    let place = Place::at(&hub.address);
    thread::scope(|scope| {
        for fetch in [scope.spawn(|| place.fetch(NAME, &[])), scope.spawn(|| place.fetch(NAME, &[]))] {
            fetch.join().unwrap().unwrap();
        }
    });
    assert_eq!(hub.asked("/cdn/").len(), 1);
    assert!(place.reported().contains(&"model.safetensors: locked".to_owned()), "{:?}", place.reported());
}

#[test]
fn a_proxy_carries_every_request() {
    let hub = FakeHub::new("models/org/name", &files(), no_fault);
    let (listener, target) = (TcpListener::bind("127.0.0.1:0").unwrap(), hub.address.replace("http://", ""));
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let target = target.clone();
            thread::spawn(move || carry(&stream, &target));
        }
    });
    let mut place = Place::at("http://hub.invalid");
    place.settings.proxy = Some(ureq::Proxy::new(&proxy).unwrap());
    let snapshot = place.fetch(NAME, &["config.json"]).unwrap();
    assert_eq!(read(snapshot.join("config.json")), b"{}");
}

/// `CONNECT hub.invalid:80`, answered by a connection to `target`.
fn carry(mut client: &TcpStream, target: &str) {
    use std::io::Write;
    let (first, _) = read_head(client).unwrap();
    assert!(first.starts_with("CONNECT hub.invalid:80"), "{first}");
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    let mut server = TcpStream::connect(target).unwrap();
    let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || io::copy(&mut up, &mut server));
    let _ = io::copy(&mut down, &mut client);
    let _ = client.shutdown(std::net::Shutdown::Both);
}
