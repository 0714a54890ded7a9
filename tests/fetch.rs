//! `llavm fetch` as a black box, from a small hub on the loopback interface.

#![allow(clippy::unwrap_used, reason = "a test whose helpers fail has failed")]

#[path = "../model/src/hub/tests/server.rs"]
#[allow(dead_code, reason = "the library's tests use all of it")]
mod server;

use insta::assert_snapshot;
use llavm_model::hub::digest::Digest;
use server::{COMMIT, FakeFile, FakeHub, reply};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn file(path: &str, body: &[u8], lfs: bool) -> FakeFile {
    let kind = Digest::of_etag(&"0".repeat(if lfs { 64 } else { 40 })).unwrap();
    let mut hasher = kind.hasher(body.len() as u64);
    hasher.update(body);
    FakeFile { path: path.to_owned(), body: body.to_vec(), etag: hasher.finish(), lfs }
}

/// The sample tokenizer as a repository of a hub.
fn tokenizer() -> FakeHub {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/qwen3-tokenizer");
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let files = [
        file("config.json", b"{}", false),
        file("tokenizer.json", &read("tokenizer.json"), true),
        file("tokenizer_config.json", &read("tokenizer_config.json"), false),
    ];
    FakeHub::new("models/Qwen/Qwen3-0.6B", &files, |_, _| None)
}

/// The program in `home`, with nothing of the hub in its environment but `variables`.
fn llavm(home: &Path, args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llavm"));
    let hub = ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "SSL_CERT_FILE"];
    let proxies = ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];
    for name in hub.iter().chain(&proxies).chain(&["LLAVM_LOG", "HUGGINGFACE_HUB_CACHE"]) {
        command.env_remove(name);
    }
    command.args(args).current_dir(home).stdin(Stdio::null()).env("HF_HOME", home.join("hf"));
    command.envs(variables.iter().copied()).output().unwrap()
}

/// Standard output and error, without what differs between two runs.
fn shown(output: &Output, home: &Path) -> String {
    let text =
        |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().replace(home.to_str().unwrap(), "HOME");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let seconds = err.split(" in ").nth(1).and_then(|rest| rest.split(" s").next()).unwrap_or("none");
    format!("{out}---\n{}", err.replace(&format!(" in {seconds} s"), " in N s"))
}

/// A manifest whose tokenizer is on the hub.
const MANIFEST: &str = r#"
name = "text"

[stages.rows]
kind    = "read"
files   = "DATA/cc3m/*.parquet"
columns = { image = "image", prompt = "input", answer = "output" }
limit   = 4

[stages.chat]
kind      = "chat-template"
from      = "rows"
tokenizer = "hub:Qwen/Qwen3-0.6B"
"#;

#[test]
fn a_run_names_the_fetch_that_makes_it_work() {
    let (hub, home) = (tokenizer(), tempfile::tempdir().unwrap());
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let manifest = MANIFEST.replace("DATA", data.to_str().unwrap());
    std::fs::write(home.path().join("m.toml"), manifest).unwrap();
    let run = || llavm(home.path(), &["run", "m.toml"], &[]);
    let before = run();
    assert_eq!(before.status.code(), Some(2));
    let text = String::from_utf8(before.stderr).unwrap();
    let text: String = text.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
    let command = text.split('`').find(|part| part.starts_with("llavm fetch ")).unwrap();
    assert_eq!(command, r#"llavm fetch hub:Qwen/Qwen3-0.6B --include "tokenizer*" --include "*.jinja""#);
    let words: Vec<String> = command.split(' ').skip(1).map(|word| word.replace('"', "")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let fetched = llavm(home.path(), &words, &[("HF_ENDPOINT", &hub.address)]);
    assert_snapshot!(shown(&fetched, home.path()), @"
    HOME/hf/hub/models--Qwen--Qwen3-0.6B/snapshots/0123456789abcdef0123456789abcdef01234567
    ---
    hub:Qwen/Qwen3-0.6B: no file matches `*.jinja`
    hub:Qwen/Qwen3-0.6B: 2 files, 10.9 MiB to download
    hub:Qwen/Qwen3-0.6B: 2 files, 10.9 MiB: 10.9 MiB downloaded in N s
    ");
    let after = run();
    assert_eq!(after.status.code(), Some(0), "{}", String::from_utf8_lossy(&after.stderr));
    assert!(hub.asked("config.json").iter().all(|request| request.path.contains("tokenizer_config")));
}

#[test]
fn a_dry_run_lists_and_downloads_nothing() {
    let (hub, home) = (tokenizer(), tempfile::tempdir().unwrap());
    let endpoint = [("HF_ENDPOINT", hub.address.as_str())];
    let args = ["fetch", "hub:Qwen/Qwen3-0.6B", "--include", "*.json", "--exclude", "config.json"];
    llavm(home.path(), &["fetch", "hub:Qwen/Qwen3-0.6B", "--include", "tokenizer_*"], &endpoint);
    let listed = llavm(home.path(), &[args.as_slice(), &["--dry-run"]].concat(), &endpoint);
    assert_snapshot!(shown(&listed, home.path()), @"
    hub:Qwen/Qwen3-0.6B at 0123456789abcdef0123456789abcdef01234567

    file                       size  here
    tokenizer.json         10.9 MiB
    tokenizer_config.json   9.4 KiB  all

    2 files, 10.9 MiB; 10.9 MiB to download (--dry-run)
    ---
    ");
    assert!(hub.asked("/cdn/").is_empty());
    llavm(home.path(), &args, &endpoint);
    assert_snapshot!(shown(&llavm(home.path(), &args, &endpoint), home.path()), @"
    HOME/hf/hub/models--Qwen--Qwen3-0.6B/snapshots/0123456789abcdef0123456789abcdef01234567
    ---
    hub:Qwen/Qwen3-0.6B: 2 files, 10.9 MiB: nothing to download
    ");
    assert_eq!(hub.asked("/cdn/").len(), 1);
}

#[test]
fn offline_the_cache_is_taken_as_it_is_and_no_server_is_asked() {
    let (hub, home) = (tokenizer(), tempfile::tempdir().unwrap());
    let endpoint = ("HF_ENDPOINT", hub.address.as_str());
    llavm(home.path(), &["fetch", "hub:Qwen/Qwen3-0.6B", "--include", "config.json"], &[endpoint]);
    let asked = hub.asked("/").len();
    let offline = [endpoint, ("HF_HUB_OFFLINE", "1")];
    let there = llavm(home.path(), &["fetch", "hub:Qwen/Qwen3-0.6B"], &offline);
    assert_eq!(there.status.code(), Some(0));
    assert!(String::from_utf8(there.stdout).unwrap().trim_end().ends_with(COMMIT));
    let missing = llavm(home.path(), &["fetch", "hub:a/b"], &offline);
    assert_eq!(missing.status.code(), Some(1));
    assert_eq!(hub.asked("/").len(), asked);
}

#[test]
fn a_gated_repository_ends_with_status_1_and_never_shows_the_token() {
    let hub = FakeHub::new("models/a/b", &[], |_, _| Some(reply(403, &[("X-Error-Code", "GatedRepo")], b"")));
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("hf")).unwrap();
    std::fs::write(home.path().join("hf/token"), "hf_secret\n").unwrap();
    let variables = [("HF_ENDPOINT", hub.address.as_str()), ("LLAVM_LOG", "trace")];
    let output = llavm(home.path(), &["fetch", "hub:a/b", "-vv"], &variables);
    assert_eq!(output.status.code(), Some(1));
    let text = shown(&output, home.path());
    assert!(text.contains("Ask for access at") && text.contains("HOME/hf/token"), "{text}");
    assert!(!text.contains("hf_secret"), "{text}");
    assert_eq!(hub.asked("/api/")[0].header("authorization"), Some("Bearer hf_secret"));
}

#[test]
fn a_benchmark_is_fetched_by_its_name_and_an_unknown_name_lists_all() {
    let files = ["data/test-00000-of-00001.parquet", "Full/adversarial-00000-of-00001.parquet"];
    let files = files.map(|path| file(path, b"rows", true));
    let hub = FakeHub::new("datasets/lmms-lab-encoder/POPE", &files, |_, _| None);
    let home = tempfile::tempdir().unwrap();
    let endpoint = [("HF_ENDPOINT", hub.address.as_str())];
    let listed = llavm(home.path(), &["fetch", "pope", "POPE.tsv", "--dry-run"], &endpoint);
    let text = String::from_utf8(listed.stdout).unwrap();
    assert!(text.contains("data/test-00000-of-00001.parquet") && !text.contains("Full/"), "{text}");
    assert!(text.contains("POPE.tsv from https://opencompass.openxlab.space/"), "{text}");
    let fetched = llavm(home.path(), &["fetch", "pope"], &endpoint);
    let folder = String::from_utf8(fetched.stdout).unwrap();
    assert!(Path::new(folder.trim()).join(&files[0].path).is_file(), "{folder}");
    let unknown = llavm(home.path(), &["fetch", "popp"], &endpoint);
    assert_eq!(unknown.status.code(), Some(2));
    let text = String::from_utf8(unknown.stderr).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    for part in ["`popp` is neither", "pope (9,000 questions, 255 MB)", "MMBench_DEV_EN.tsv", "coco-captions"]
    {
        assert!(text.replace("│ ", "").contains(part), "{part} in {text}");
    }
}

/// A manifest whose rows are on the hub.
const ROWS: &str = r#"
[stages.rows]
kind           = "read"
files          = "FILES"
columns        = { image = "image", prompt = "input", answer = "output" }
partition_rows = 64

[stages.pixels]
kind = "decode-resize"
from = "rows"

[stages.chat]
kind      = "chat-template"
from      = "rows"
tokenizer = "DATA/qwen3-tokenizer"

[stages.pads]
kind  = "image-pads"
from  = "chat"
count = 49

[stages.tokens]
kind      = "tokenize"
from      = "pads"
tokenizer = "DATA/qwen3-tokenizer"
"#;

/// The names of all stored partitions, which are their contents.
fn stored(home: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for stage in ["pixels", "tokens"] {
        let files = std::fs::read_dir(home.join(".llavm/tables").join(stage)).unwrap();
        let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.extend(files.filter(|name| !name.contains(".json")).map(|name| format!("{stage}/{name}")));
    }
    names.sort();
    names
}

/// Standard error and output with single spaces, and the exit status.
fn told(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let words = text.concat().replace('│', " ");
    (output.status.code(), words.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[test]
fn a_data_set_without_a_copy_is_read_where_it_lies() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let raw = std::fs::read_dir(data.join("cc3m")).unwrap().map(|file| file.unwrap().path());
    let raw = raw.filter(|path| path.extension().is_some_and(|end| end == "parquet"));
    let name = |path: &Path| format!("data/{}", path.file_name().unwrap().to_string_lossy());
    let mut files: Vec<FakeFile> =
        raw.map(|path| file(&name(&path), &std::fs::read(&path).unwrap(), true)).collect();
    assert!(!files.is_empty());
    let home = |files: &str| {
        let home = tempfile::tempdir().unwrap();
        let manifest = ROWS.replace("FILES", files).replace("DATA", data.to_str().unwrap());
        std::fs::write(home.path().join("m.toml"), manifest).unwrap();
        home
    };
    let local = home(&format!("{}/cc3m/*.parquet", data.display()));
    assert_eq!(told(&llavm(local.path(), &["run", "m.toml"], &[])).0, Some(0));
    let hub = FakeHub::new("datasets/o/cc3m", &files, |_, _| None);
    let remote = home("hub:datasets/o/cc3m/data/*.parquet");
    let run =
        |hub: &FakeHub| told(&llavm(remote.path(), &["run", "m.toml"], &[("HF_ENDPOINT", &hub.address)]));
    let (status, text) = run(&hub);
    assert_eq!(status, Some(0), "{text}");
    assert_eq!(stored(remote.path()), stored(local.path()));
    assert!(!remote.path().join("hf").exists(), "there is no copy");
    assert!(hub.asked("/cdn/").iter().all(|request| request.header("range").is_some()));
    let read = hub.asked("/cdn/").len();
    let (status, text) = run(&hub);
    assert!(status == Some(0) && text.contains("nothing to do"), "{status:?}: {text}");
    let again = hub.asked("/cdn/").len() - read;
    assert!(again <= read, "nothing but what describes the files is read again: {again} of {read}");
    // Another version of one file.
    files[0].etag = "f".repeat(64);
    let (status, text) = run(&FakeHub::new("datasets/o/cc3m", &files, |_, _| None));
    assert!(status == Some(0) && !text.contains("nothing to do"), "{status:?}: {text}");
}

#[test]
fn a_data_set_that_is_nowhere_says_why_it_is_neither_here_nor_there() {
    let home = tempfile::tempdir().unwrap();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let manifest =
        ROWS.replace("FILES", "hub:datasets/o/cc3m/*.parquet").replace("DATA", data.to_str().unwrap());
    std::fs::write(home.path().join("m.toml"), manifest).unwrap();
    let hub = FakeHub::new("datasets/o/other", &[], |_, _| None);
    let run = |more: &[(&str, &str)]| {
        let mut variables = vec![("HF_ENDPOINT", hub.address.as_str())];
        variables.extend_from_slice(more);
        told(&llavm(home.path(), &["run", "m.toml"], &variables))
    };
    let (status, text) = run(&[]);
    assert_eq!(status, Some(2), "{text}");
    for part in [
        "is not in the Hugging Face cache",
        "It cannot be read where it lies either",
        "status 404",
        "llavm fetch",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let asked = hub.asked("/").len();
    let (status, text) = run(&[("HF_HUB_OFFLINE", "1")]);
    assert_eq!((status, hub.asked("/").len()), (Some(2), asked), "{text}");
    assert!(text.contains("is not in the Hugging Face cache") && !text.contains("where it lies"), "{text}");
    let empty = FakeHub::new("datasets/o/cc3m", &[file("x.csv", b"a", false)], |_, _| None);
    let (status, text) = run(&[("HF_ENDPOINT", &empty.address)]);
    assert!(status == Some(2) && text.contains("no file matches `hub:datasets/o/cc3m/*.parquet`"), "{text}");
}
