//! Tasks of a manifest done by processes of their own; damage made good at once; few open files.

use crate::project::{Project, Running, text};
use crate::tables::{assert_same, results, stage_files};
use llavm_pipeline::{
    Committed, Engine, Executor, Manifest, Options, Silent, StageError, TaskError, TaskSpec,
};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const MANIFEST: &str = "manifests/cc3m-sample.toml";

fn fresh() -> Project {
    Project::with(&["data/cc3m", "data/qwen3-tokenizer", MANIFEST])
}

#[test]
fn tasks_listed_and_done_by_processes_of_their_own_give_what_a_run_gives() {
    let undisturbed = fresh();
    undisturbed.run(&[MANIFEST]);
    let project = fresh();
    for round in 0.. {
        let tasks = project.stdout(&["work", MANIFEST, "--list"]);
        if tasks.is_empty() {
            break;
        }
        assert!(round < 10, "{tasks}");
        project.write("tasks.jsonl", &tasks);
        let one = project.command(&["work", MANIFEST, "--tasks", "tasks.jsonl"]).spawn().unwrap();
        let two = project.llavm(&["work", MANIFEST, "--tasks", "tasks.jsonl"]);
        // The other one may be at a task; then that has to be asked for again.
        assert!(matches!(two.status.code(), Some(0 | 75)), "{}", text(&two));
        Running(one).wait();
        let done = project.stdout(&["work", MANIFEST, "--tasks", "tasks.jsonl"]);
        assert_eq!(done.lines().count(), tasks.lines().count());
        assert!(done.lines().all(|line| line.contains("\"reused\":true")), "{done}");
    }
    assert_same(&results(&project.path(".llavm")), &results(&undisturbed.path(".llavm")));
    assert!(project.run(&[MANIFEST]).values().all(|stage| stage.ran == 0));
}

#[test]
fn a_task_that_cannot_be_done_yet_ends_with_75_and_one_that_never_can_with_1() {
    let project = fresh();
    let tasks = project.stdout(&["work", MANIFEST, "--list"]);
    let first = tasks.lines().find(|task| task.contains("\"chat\"")).unwrap();
    project.write("late.jsonl", first.replace("\"chat\"", "\"tokens\""));
    let late = project.llavm(&["work", MANIFEST, "--tasks", "late.jsonl"]);
    assert_eq!(late.status.code(), Some(75), "{}", text(&late));
    project.write("other.jsonl", first.replace("\"key\":\"", "\"key\":\"0"));
    let other = project.llavm(&["work", MANIFEST, "--tasks", "other.jsonl"]);
    assert_eq!(other.status.code(), Some(1), "{}", text(&other));
    project.write("broken.jsonl", "{\"stage\": 1}\n");
    let broken = project.llavm(&["work", MANIFEST, "--tasks", "broken.jsonl"]);
    assert_eq!(broken.status.code(), Some(2));
    assert!(text(&broken).contains("broken.jsonl, line 1"), "{}", text(&broken));
}

/// Does every task in a process of its own: `llavm work`.
#[derive(Debug)]
struct ByProcess {
    folder: PathBuf,
    processes: AtomicUsize,
}

impl Executor for ByProcess {
    fn execute(&self, task: &TaskSpec) -> Result<Committed, TaskError> {
        self.processes.fetch_add(1, Ordering::Relaxed);
        let mut command = Command::new(env!("CARGO_BIN_EXE_llavm"));
        command.args(["work", task.manifest.to_str().unwrap(), "--tasks", "-"]).current_dir(&self.folder);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.unwrap();
        let mut input = child.stdin.take().unwrap();
        writeln!(input, "{}", serde_json::to_string(task).unwrap()).unwrap();
        drop(input);
        let output = child.wait_with_output().unwrap();
        let line: Value = serde_json::from_slice(&output.stdout).unwrap();
        match line["result"].as_str() {
            Some("done") => Ok(serde_json::from_value(line["committed"].clone()).unwrap()),
            Some("again") => Err(TaskError::Busy),
            _ => Err(StageError::new(line["why"].as_str().unwrap_or_default()).into()),
        }
    }
}

#[test]
fn a_run_whose_tasks_are_done_by_other_processes_gives_the_same_bytes() {
    let undisturbed = fresh();
    undisturbed.run(&[MANIFEST]);
    let project = fresh();
    let folder = project.path("").canonicalize().unwrap();
    let data = format!("\"{}/data/", folder.display());
    let store = format!("store = \"{}/.llavm\"\n", folder.display());
    project.write(MANIFEST, store + &project.read(MANIFEST).replace("\"data/", &data));
    let engine = || {
        let path = folder.join(MANIFEST);
        let text = std::fs::read(&path).unwrap();
        let manifest = Manifest::read(&text, &path, &[], &llavm_stages::registry()).unwrap();
        Engine::open(manifest.graph, Options { jobs: 2, ..Options::default() }).unwrap()
    };
    let executor = Arc::new(ByProcess { folder: folder.clone(), processes: AtomicUsize::new(0) });
    let run = |engine: Engine| {
        let finished = engine.run(&Silent, &AtomicBool::new(false)).unwrap();
        assert!(finished.errors.is_empty(), "{:?}", finished.errors);
        finished.summary.stages.iter().map(|stage| stage.ran).sum::<usize>()
    };
    let ran = run(engine().with_executor(executor.clone()));
    assert!(ran > 3 && executor.processes.load(Ordering::Relaxed) >= ran, "{ran}: {executor:?}");
    assert_same(&results(&project.path(".llavm")), &results(&undisturbed.path(".llavm")));
    assert_eq!(run(engine()), 0, "everything is there");
}

/// Says that everything is done.
#[derive(Debug)]
struct Liar;

impl Executor for Liar {
    fn execute(&self, task: &TaskSpec) -> Result<Committed, TaskError> {
        let text = format!(
            "{{\"entry\": {{\"key\": \"{}\", \"digest\": \"{}\", \"rows\": 1}}, \"counts\": {{}}, \"reused\": false}}",
            task.key, task.key
        );
        let mut committed: Value = serde_json::from_str(&text).unwrap();
        committed["counts"] = serde_json::to_value(llavm_pipeline::Counts::default()).unwrap();
        Ok(serde_json::from_value(committed).unwrap())
    }
}

#[test]
fn an_executor_that_only_says_so_has_done_nothing() {
    let project = fresh();
    let folder = project.path("").canonicalize().unwrap();
    let text = project.read(MANIFEST).replace("\"data/", &format!("\"{}/data/", folder.display()));
    let text = format!("store = \"{}/.llavm\"\n{text}", folder.display());
    let manifest =
        Manifest::read(text.as_bytes(), &folder.join(MANIFEST), &[], &llavm_stages::registry()).unwrap();
    let engine = Engine::open(manifest.graph, Options { jobs: 2, ..Options::default() }).unwrap();
    let finished = engine.with_executor(Arc::new(Liar)).run(&Silent, &AtomicBool::new(false)).unwrap();
    let errors = format!("{:?}", finished.errors);
    assert!(errors.contains("the store has no record"), "{errors}");
}

fn flip_a_bit(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn what_verify_finds_is_made_again_by_the_next_run_or_at_once() {
    let project = fresh();
    project.run(&[MANIFEST]);
    let whole = results(&project.path(".llavm"));
    let damage = || flip_a_bit(&stage_files(&project, MANIFEST, "pixels")[0]);
    damage();
    assert_eq!(project.llavm(&["verify", MANIFEST]).status.code(), Some(1));
    let summary = project.run(&[MANIFEST]);
    let ran: Vec<(&str, u64)> = summary.iter().map(|(name, stage)| (name.as_str(), stage.ran)).collect();
    assert!(ran.iter().all(|(name, ran)| *ran == u64::from(*name == "pixels")), "{ran:?}");
    assert_same(&results(&project.path(".llavm")), &whole);
    damage();
    let repaired = project.llavm(&["verify", MANIFEST, "--repair"]);
    assert_eq!(repaired.status.code(), Some(0), "{}", text(&repaired));
    assert_same(&results(&project.path(".llavm")), &whole);
}

#[test]
fn with_256_open_files_a_run_of_hundreds_of_partitions_completes() {
    let project = fresh();
    project.replace(MANIFEST, "partition_rows = 64", "partition_rows = 1");
    let mut command = Command::new("bash");
    command.args(["-c", "ulimit -n 256; exec \"$LLAVM\" run \"$MANIFEST\""]).current_dir(project.path(""));
    command.env("LLAVM", env!("CARGO_BIN_EXE_llavm")).env("MANIFEST", MANIFEST);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert!(Running(child).wait().success());
    project.stdout(&["verify", MANIFEST]);
}
