//! Shards: processes that split a manifest among themselves, and a last one that gathers.

use crate::project::{Project, Running, ran, text};
use crate::tables::{assert_same, results};

const MANIFEST: &str = "manifests/cc3m-sample.toml";

fn fresh() -> Project {
    let project = Project::with(&["data/cc3m", "data/qwen3-tokenizer", MANIFEST]);
    project.replace(MANIFEST, "partition_rows = 64", "partition_rows = 16");
    project
}

/// All shards of so many at once; their exit statuses.
fn shards(project: &Project, of: usize) -> Vec<Option<i32>> {
    let shard = |index: usize| {
        let shard = format!("{index}/{of}");
        Running(project.command(&["run", MANIFEST, "--shard", &shard, "--jobs", "1"]).spawn().unwrap())
    };
    let mut running: Vec<Running> = (0..of).map(shard).collect();
    running.iter_mut().map(|shard| shard.wait().code()).collect()
}

#[test]
fn shards_and_a_last_run_give_what_one_run_gives_whatever_their_number() {
    let undisturbed = fresh();
    undisturbed.run(&[MANIFEST]);
    let project = fresh();
    // Which images stand where for the first time is known when all shards have read theirs.
    let first = shards(&project, 3);
    assert!(first.iter().all(|code| matches!(code, Some(0 | 75))), "{first:?}");
    assert_eq!(shards(&project, 2), [Some(0); 2], "another number of shards does no harm");
    let last = project.run(&[MANIFEST]);
    assert_eq!(ran(&last), ["shards"], "the last run only gathers");
    assert_same(&results(&project.path(".llavm")), &results(&undisturbed.path(".llavm")));
}

#[test]
fn a_shard_makes_its_own_partitions_and_says_what_it_waits_for() {
    let project = fresh();
    let first = project.llavm(&["run", MANIFEST, "--shard", "1/2", "--summary", "one.json"]);
    assert_eq!(first.status.code(), Some(75), "{}", text(&first));
    assert!(text(&first).contains("of shard 1/2 cannot be made yet"), "{}", text(&first));
    let tokens = project.run(&[MANIFEST, "--until", "tokens"]);
    let (ran, reused) = (tokens["tokens"].ran, tokens["tokens"].reused);
    assert!(ran > 0 && reused > 0 && ran.abs_diff(reused) <= 1, "half of them was there: {ran}, {reused}");
    let wrong = project.llavm(&["run", MANIFEST, "--shard", "2/2"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong).contains("the last 1/2"), "{}", text(&wrong));
}

#[test]
fn tasks_are_followed_by_what_they_were_missing_for() {
    let project = fresh();
    let tasks = project.stdout(&["work", MANIFEST, "--list"]);
    let chat: String = tasks
        .lines()
        .filter(|task| task.contains("\"chat\""))
        .fold(String::new(), |all, task| all + task + "\n");
    project.write("tasks.jsonl", &chat);
    let done = project.stdout(&["work", MANIFEST, "--tasks", "tasks.jsonl", "--follow"]);
    let count =
        |stage: &str| done.lines().filter(|line| line.contains(&format!("\"stage\":\"{stage}\""))).count();
    let partitions = chat.lines().count();
    for stage in ["chat", "pads", "tokens", "labels"] {
        assert_eq!(count(stage), partitions, "{stage}");
    }
    assert_eq!((count("pixels"), count("shards")), (0, 0));
}

#[test]
fn raw_files_read_ahead_by_shares_need_not_be_read_again() {
    let project = fresh();
    // Of a file that was written a moment ago nothing is remembered.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    for share in ["0/2", "1/2"] {
        assert_eq!(project.stdout(&["work", MANIFEST, "--read-ahead", share]), "");
    }
    let log = project.read(".llavm/digests/files.log");
    let output = project.llavm(&["run", MANIFEST, "--until", "chat", "-v"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(!text(&output).contains("hashing path=data/cc3m"), "{}", text(&output));
    assert!(log.lines().filter(|line| !line.is_empty()).count() >= 3, "{log}");
}
