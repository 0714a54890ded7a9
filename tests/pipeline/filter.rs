//! `filter` from end to end: what it leaves out is named and counted, and is no reason to stop.

use crate::project::{Project, Summary, ran};
use crate::tables::{shards_folder, tokens_of_split};
use std::collections::BTreeMap;

const MANIFEST: &str = "manifests/cc3m-sample.toml";

/// The sample with its first file (128 rows) twice, and a filter behind `rows` from which everything else is made.
fn filtered() -> Project {
    let project = Project::with(&["data/cc3m", "data/qwen3-tokenizer", MANIFEST]);
    let first = project.path("data/cc3m/train-00000-of-00003.parquet");
    std::fs::copy(first, project.path("data/cc3m/train-00003-again.parquet")).unwrap();
    let text = project.read(MANIFEST).replace("from = \"rows\"", "from = \"kept\"");
    let text = text.replace("from      = \"rows\"", "from      = \"kept\"");
    let filter = "[stages.kept]\nkind = \"filter\"\nfrom = \"rows\"\nwhere = \"answer_chars >= 40\"\ndedup = \"exact\"\n";
    project.write(MANIFEST, format!("{text}\n{filter}"));
    project
}

fn rejected(summary: &Summary, stage: &str, code: &str) -> u64 {
    summary[stage].rejected.get(code).copied().unwrap_or(0)
}

#[test]
fn rows_left_out_on_purpose_are_counted_and_stop_nothing() {
    let project = filtered();
    let summary = project.run(&[MANIFEST]);
    let left_out: u64 = summary["kept"].rejected.values().sum();
    let rows = summary["rows"].rows;
    assert_eq!(rows, 320 + 128);
    assert!(2 * left_out > rows, "a budget would have stopped this: {left_out} of {rows}");
    let [short, again] = ["filter/where", "filter/duplicate"].map(|code| rejected(&summary, "kept", code));
    assert!(short > 0 && again > 0, "{:?}", summary["kept"].rejected);
    assert_eq!(short + again, left_out);
    let folder = shards_folder(&project, MANIFEST, "shards");
    let sharded: usize =
        ["train", "validation"].iter().map(|split| tokens_of_split(&folder, split).len()).sum();
    assert_eq!(sharded as u64 + left_out, rows);
    let by_stage: u64 = summary.values().flat_map(|stage| stage.rejected.values()).sum();
    assert_eq!(by_stage, left_out, "each row is left out by one stage");

    let second = project.run(&[MANIFEST]);
    assert_eq!(ran(&second), Vec::<&str>::new());
    let counts = |summary: &Summary| -> BTreeMap<String, BTreeMap<String, u64>> {
        summary.iter().map(|(name, stage)| (name.clone(), stage.rejected.clone())).collect()
    };
    assert_eq!(counts(&second), counts(&summary), "rows of reused partitions are counted as before");
}
