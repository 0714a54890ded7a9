//! What is said, and done, about each way in which a hub can refuse.

use super::server::{FakeHub, reply};
use super::*;

/// What is reported of a hub that answers every request with `answer`.
fn refusal(status: u16, headers: &'static [(&'static str, &'static str)], token: bool) -> String {
    let hub = FakeHub::new("models/org/name", &[], move |_, _| Some(reply(status, headers, b"{}")));
    let place = Place::at(&hub.address);
    let place = if token { place.with_token() } else { place };
    let error = place.fetch("hub:org/name@v1", &[]).unwrap_err();
    format!("{}\n", shown(&error, &hub))
}

#[test]
fn each_refusal_says_what_to_do() {
    let gated: &[(&str, &str)] =
        &[("X-Error-Code", "GatedRepo"), ("X-Error-Message", "Access to model org/name is restricted.")];
    let reported = [
        refusal(401, &[("X-Error-Code", "RepoNotFound")], false),
        refusal(401, &[("X-Error-Message", "Invalid username or password.")], true),
        refusal(401, gated, false),
        refusal(403, gated, true),
        refusal(
            404,
            &[("X-Error-Code", "RevisionNotFound"), ("X-Error-Message", "Invalid rev id: v1")],
            false,
        ),
        refusal(404, &[("X-Error-Code", "RepoNotFound")], false),
        refusal(429, &[("Retry-After", "0")], false),
        refusal(429, &[("Retry-After", "0")], true),
        refusal(503, &[], false),
        refusal(307, &[("Location", "/again")], false),
        refusal(200, &[], false),
    ];
    assert!(reported.iter().all(|text| !text.contains("hf_secret")));
    insta::assert_snapshot!(reported.concat(), @"
    hub:org/name@v1: not allowed without a valid token, or not there (status 401)
      Check the name. A private repository needs a token: set HF_TOKEN.
    hub:org/name@v1: not allowed without a valid token, or not there (status 401: Invalid username or password.)
      Check the name, and whether the token of HF_TOKEN is valid and may read it.
    hub:org/name@v1: not allowed without a valid token, or not there (status 401: Access to model org/name is restricted.)
      Ask for access at HUB/org/name, make a token at HUB/settings/tokens, and set HF_TOKEN to it.
    hub:org/name@v1: access is denied (status 403: Access to model org/name is restricted.)
      Ask for access at HUB/org/name with the account of the token of HF_TOKEN; a fine-grained token must allow gated repositories.
    hub:org/name@v1: there is no such repository, revision or file (status 404: Invalid rev id: v1)
      Its page lists branches, tags and commits.
    hub:org/name@v1: there is no such repository, revision or file (status 404)
      Check the name. A private repository needs a token: set HF_TOKEN.
    hub:org/name@v1: too many requests (status 429)
      Wait a few minutes; with a token (HF_TOKEN) more is allowed. What has arrived is kept.
    hub:org/name@v1: too many requests (status 429)
      Wait a few minutes and fetch again: what has arrived is kept.
    hub:org/name@v1: the server has a problem (status 503)
      Fetch again later; HF_ENDPOINT can name a mirror. What has arrived is kept.
    hub:org/name@v1: redirected too often or nowhere, last to HUB/again
      Fetch again later: what has arrived is kept.
    HUB/api/models/org/name/revision/v1?blobs=true answers something else than the hub does: missing field `sha` at line 1 column 2
      Check HF_ENDPOINT or MODELSCOPE_ENDPOINT, and whether a proxy or a login page answers instead.
    ");
}

#[test]
fn a_data_set_asked_for_as_a_model_is_named() {
    let hub = FakeHub::new("datasets/org/name", &[file("a.parquet", "x", true)], no_fault);
    let error = Place::at(&hub.address).fetch("hub:org/name", &[]).unwrap_err();
    insta::assert_snapshot!(shown(&error, &hub), @"
    hub:org/name: there is no such repository, revision or file (status 404: Repository not found)
      Did you mean hub:datasets/org/name?
    ");
}

#[test]
fn a_file_that_is_refused_is_named() {
    let hub = FakeHub::new("models/org/name", &[file("a.bin", "x", true)], |request, _| {
        request.cdn.then(|| reply(403, &[], b""))
    });
    let error = Place::at(&hub.address).fetch("hub:org/name", &[]).unwrap_err();
    assert!(error.to_string().starts_with("a.bin of hub:org/name: access is denied (status 403"), "{error}");
}

#[test]
fn a_passing_failure_is_waited_for() {
    for status in [408, 429, 500, 502, 503, 504] {
        let hub = FakeHub::new("models/org/name", &[file("a.bin", bytes(500), true)], move |_, before| {
            (before == 0).then(|| reply(status, &[("Retry-After", "0")], b""))
        });
        let place = Place::at(&hub.address);
        place.fetch("hub:org/name", &[]).unwrap();
        assert!(
            place.reported().iter().any(|line| line.contains(&format!("status {status}"))),
            "{:?}",
            place.reported()
        );
    }
}

#[test]
fn a_server_that_falls_silent_is_asked_again() {
    let hub = FakeHub::new("models/org/name", &[file("a.bin", bytes(500), true)], |request, before| {
        let silent = request.cdn && before == 0;
        if silent {
            std::thread::sleep(Duration::from_secs(2));
        }
        silent.then(Vec::new)
    });
    let mut place = Place::at(&hub.address);
    place.settings.silence = Duration::from_millis(200);
    place.fetch("hub:org/name", &[]).unwrap();
    assert_eq!(hub.asked("/cdn/").len(), 2);
}

#[test]
fn a_hub_that_is_not_there_is_named_with_what_to_check() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let place = Place::at(&format!("http://{closed}"));
    let error = place.fetch("hub:org/name", &[]).unwrap_err();
    assert_eq!(error.to_string(), "hub:org/name: 127.0.0.1 cannot be reached: it refuses the connection");
    assert!(error.advice().unwrap().contains("HF_ENDPOINT can name a mirror"));
    let error = Place::at("huggingface.co").fetch("hub:org/name", &[]).unwrap_err();
    assert!(error.to_string().starts_with("HF_ENDPOINT = `huggingface.co`"), "{error}");
}
