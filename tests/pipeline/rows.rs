//! No row vanishes: it is in a shard, or it is a reject with a reason.

use crate::project::{Project, text};
use crate::tables::{files, shards_folder, tokens_of_split};
use serde_json::Value;
use std::collections::BTreeMap;

const MANIFEST: &str = "manifests/broken-sample.toml";
const SOURCES: [&str; 3] = ["rows", "messages", "llava"];

fn broken() -> Project {
    Project::with(&["data/broken", "data/qwen3-tokenizer", MANIFEST])
}

/// The table of `data/broken/README.md`: the outcome of each row, by file and id.
fn stated(project: &Project) -> BTreeMap<(String, String), String> {
    let text = project.read("data/broken/README.md");
    let rows = text.lines().filter(|line| line.starts_with("| ")).skip(1);
    let row = |line: &str| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        let [file, id, _, outcome] = cells.try_into().unwrap();
        ((file, id), outcome)
    };
    rows.map(row).collect()
}

/// The rejected rows of the only run, by file and id: `<kind>/<code>`.
fn rejected(project: &Project) -> BTreeMap<(String, String), String> {
    let runs = project.path(".llavm/runs");
    let list = files(&runs).into_iter().find(|file| file.ends_with("rejects.jsonl")).unwrap();
    let text = std::fs::read_to_string(runs.join(list)).unwrap();
    let mut rejected = BTreeMap::new();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let part = |key: &str, end: &str| row[key].as_str().unwrap().split(end).next().unwrap().to_owned();
        let earlier = rejected.insert((part("partition", " "), part("id", "\n")), part("reason", ":"));
        assert_eq!(earlier, None, "rejected twice: {line}");
    }
    rejected
}

#[test]
fn every_broken_row_is_rejected_for_the_reason_the_table_states() {
    let project = broken();
    project.run(&[MANIFEST]);
    let (stated, rejected) = (stated(&project), rejected(&project));
    for (row, outcome) in &stated {
        assert_eq!(rejected.get(row).map_or("fine", String::as_str), outcome, "{row:?}");
    }
    assert!(
        rejected.keys().all(|row| stated.contains_key(row)),
        "rows that the table does not know: {rejected:?}"
    );
    let fine = stated.values().filter(|outcome| *outcome == "fine").count();
    let folder = shards_folder(&project, MANIFEST, "shards");
    let sharded: usize =
        ["train", "validation"].iter().map(|split| tokens_of_split(&folder, split).len()).sum();
    assert_eq!(sharded, fine);
}

#[test]
fn rows_in_are_rows_sharded_and_rows_rejected() {
    let project = broken();
    let summary = project.run(&[MANIFEST]);
    let folder = shards_folder(&project, MANIFEST, "shards");
    let index: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("shards.json")).unwrap()).unwrap();
    let sharded = ["train", "validation"].map(|split| tokens_of_split(&folder, split).len() as u64);
    let rejected: u64 =
        index["rejected"].as_object().unwrap().values().map(|rows| rows.as_u64().unwrap()).sum();
    let read: u64 = SOURCES.iter().map(|stage| summary[*stage].rows).sum();
    assert_eq!(index["train"]["rows"], sharded[0]);
    assert_eq!(index["validation"]["rows"], sharded[1]);
    assert_eq!(read, sharded[0] + sharded[1] + rejected);
    let by_stage: u64 = summary.values().flat_map(|stage| stage.rejected.values()).sum();
    assert_eq!(by_stage, rejected, "each rejected row is counted by one stage");
    assert!(sharded[1] > 0 && rejected > 30, "{index}");
}

#[test]
fn over_budget_the_run_stops_and_shows_the_first_examples() {
    let project = broken();
    project.replace(MANIFEST, "fraction = 1.0", "fraction = 0.05");
    let output = project.llavm(&["run", MANIFEST, "--until", "messages-chat"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    for part in ["max_rejects", "more than 5%", "unknown-role: read/unknown-role: message 2 is by `narrator`"]
    {
        assert!(said.contains(part), "no {part} in:\n{said}");
    }
}
