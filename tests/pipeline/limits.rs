//! Few open files are enough, however many partitions and shards there are.

use crate::project::{Project, Running};
use crate::tables::{assert_same, results};
use std::process::Stdio;

const MANIFEST: &str = "manifests/cc3m-sample.toml";

/// 160 partitions and some 300 shards.
fn fresh() -> Project {
    let project = Project::with(&["data/cc3m", "data/qwen3-tokenizer", MANIFEST]);
    project.replace(MANIFEST, "partition_rows = 64", "partition_rows = 2");
    project.replace(MANIFEST, "validation = 0.05", "validation = 0.05\nrows_per_shard = 1");
    project
}

#[test]
fn few_open_files_are_enough() {
    let free = fresh();
    free.run(&[MANIFEST]);
    let limited = fresh();
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "ulimit -n 96; exec \"$LLAVM\" run \"$MANIFEST\" 2> said.txt"])
        .current_dir(limited.path(""))
        .env("LLAVM", env!("CARGO_BIN_EXE_llavm"))
        .env("MANIFEST", MANIFEST)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let status = Running(command.spawn().unwrap()).wait();
    assert!(status.success(), "{}", limited.read("said.txt"));
    assert_same(&results(&limited.path(".llavm")), &results(&free.path(".llavm")));
}
