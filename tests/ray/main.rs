//! `llavm run --on ray` on a stand-in for Ray (`stub/ray.py`), and what each mistake is told as. `check_ray.py` does the same on a
//! cluster, and kills parts of it.

#![allow(clippy::unwrap_used, reason = "a test whose helpers fail has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Text in small partitions, through a derived stage to a stored one and to shards.
const MANIFEST: &str = r#"
[stages.rows]
kind = "read"
files = "*.jsonl"
partition_rows = 4
columns = { prompt = "prompt", answer = "answer" }
[stages.chat]
kind = "chat-template"
from = "rows"
tokenizer = "TOKENIZER"
[stages.tokens]
kind = "tokenize"
from = "chat"
tokenizer = "TOKENIZER"
[stages.labels]
kind = "shift-labels"
from = "tokens"
[stages.shards]
kind = "shard"
from = "labels"
"#;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder with two raw files and the manifest.
fn project() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = root().join("data/qwen3-tokenizer");
    let manifest = MANIFEST.replace("TOKENIZER", tokenizer.to_str().unwrap());
    fs::write(folder.path().join("m.toml"), manifest).unwrap();
    for file in 0..2 {
        let row =
            |n: usize| format!("{{\"prompt\": \"{file} or {n}?\", \"answer\": \"The answer is {n}.\"}}\n");
        fs::write(folder.path().join(format!("{file}.jsonl")), (0..30).map(row).collect::<String>()).unwrap();
    }
    folder
}

/// Whether there is a Python for the driver; where there is none, nothing of this can be tried.
#[allow(clippy::print_stderr, reason = "a test that is left out says so")]
fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("no python3 here: not tried");
    }
    found
}

/// Status and all output of a run.
fn run(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_llavm"))
        .current_dir(folder)
        .args(["run", "m.toml"])
        .args(args)
        .env("PYTHONPATH", root().join("tests/ray/stub"))
        .env("LLAVM_RAY_PYTHON", "python3")
        .env_remove("RAY_ADDRESS")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap_or(-1), text)
}

/// What a run that fails is told, its lines joined.
fn mistake(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> String {
    let (status, text) = run(folder, args, environment);
    assert!(matches!(status, 1 | 2), "{status}: {text}");
    text.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ")
}

/// Tables, records and shards.
fn results(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let store = folder.join(".llavm");
    let (mut found, mut open) = (BTreeMap::new(), vec![store.join("tables"), store.join("jobs")]);
    while let Some(next) = open.pop() {
        for path in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(&store).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn a_run_on_ray_gives_the_bytes_of_a_local_run() {
    if !has_python() {
        return;
    }
    let (local, ray) = (project(), project());
    let (status, text) = run(local.path(), &[], &[]);
    assert_eq!(status, 0, "{text}");
    let (status, text) = run(ray.path(), &["--on", "ray"], &[]);
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("Ray: 1 node, 1 task at a time with 2 CPUs each"), "{text}");
    assert!(text.contains("Ray: reading 2 raw files ahead"), "{text}");
    assert!(results(local.path()) == results(ray.path()));
    let (status, text) = run(ray.path(), &["--on", "ray"], &[]);
    assert!(status == 0 && text.contains("nothing to do"), "{status}: {text}");
}

#[test]
fn no_ray_no_python_and_no_cluster_are_told_by_name() {
    if !has_python() {
        return;
    }
    let folder = project();
    let none = tempfile::tempdir().unwrap();
    fs::write(none.path().join("ray.py"), "raise ImportError('there is none')\n").unwrap();
    let told = |args: &[&str], environment: &[(&str, &str)]| mistake(folder.path(), args, environment);
    let text = told(&["--on", "ray"], &[("PYTHONPATH", none.path().to_str().unwrap())]);
    assert!(text.contains("cannot import ray: there is none") && text.contains("pip install ray"), "{text}");
    let text = told(&["--on", "ray"], &[("LLAVM_RAY_PYTHON", "/no/such/python")]);
    assert!(text.contains("/no/such/python") && text.contains("LLAVM_RAY_PYTHON"), "{text}");
    let text = told(&["--on", "ray:127.0.0.1:1"], &[]);
    assert!(text.contains("no Ray cluster answers at 127.0.0.1:1"), "{text}");
    assert!(text.contains("--on ray:HOST:PORT"), "{text}");
    assert!(!folder.path().join(".llavm/tables").exists() || results(folder.path()).is_empty());
}

#[test]
fn an_address_that_is_none_is_a_wrong_command_line() {
    if !has_python() {
        return;
    }
    let folder = project();
    for address in ["spark", "ray:", "ray:head", "ray:head:", "ray:head:x", "ray::6379"] {
        let (status, text) = run(folder.path(), &["--on", address], &[]);
        assert_eq!(status, 2, "{address}: {text}");
        assert!(text.contains("write ray, or ray:ADDRESS such as ray:10.0.0.1:6379"), "{address}: {text}");
    }
}

#[test]
fn another_version_of_ray_is_told_with_what_to_do() {
    if !has_python() {
        return;
    }
    let folder = project();
    let error = [("STUB_RAY_ERROR", "Version mismatch: The cluster was started with Ray: 1.0, this is 2.0")];
    let text = mistake(folder.path(), &["--on", "ray"], &error);
    assert!(text.contains("Version mismatch: The cluster was started with Ray: 1.0"), "{text}");
    assert!(
        text.contains("Use the Python and the ray of the cluster; LLAVM_RAY_PYTHON names them"),
        "{text}"
    );
}

#[test]
fn a_node_without_the_folder_or_a_file_is_told_by_name() {
    if !has_python() {
        return;
    }
    let folder = project();
    let on = |node: &Path| {
        let node = node.to_str().unwrap().to_owned();
        mistake(folder.path(), &["--on", "ray"], &[("STUB_RAY_FOLDER", &node)])
    };
    let text = on(Path::new("/no/such/folder"));
    assert!(text.contains("there is no folder /no/such/folder on this node"), "{text}");
    assert!(text.contains("Every node has to see this folder"), "{text}");
    let node = tempfile::tempdir().unwrap();
    let text = on(node.path());
    assert!(text.contains("cannot read the manifest m.toml"), "{text}");
    assert!(text.contains("Every node has to see this folder"), "{text}");
    fs::copy(folder.path().join("m.toml"), node.path().join("m.toml")).unwrap();
    let text = on(node.path());
    assert!(text.contains("no file matches `*.jsonl`"), "{text}");
}

#[test]
fn a_task_larger_than_any_node_is_refused() {
    if !has_python() {
        return;
    }
    let folder = project();
    let text = mistake(folder.path(), &["--on", "ray", "--jobs", "8"], &[]);
    assert!(text.contains("a task asks for 8 CPUs, and the largest node has 2"), "{text}");
}
