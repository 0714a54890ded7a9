//! The number of threads, and which of them is faster, reach no output.

use crate::project::Project;
use crate::tables::{assert_same, results};

const MANIFESTS: [&str; 2] = ["manifests/cc3m-sample.toml", "manifests/zh-sample.toml"];

#[test]
fn one_two_and_eight_threads_write_the_same_bytes() {
    for manifest in MANIFESTS {
        let stores = ["1", "2", "8"].map(|jobs| {
            let project = Project::with(&["data/cc3m", "data/zh", "data/qwen3-tokenizer", manifest]);
            project.run(&[manifest, "--jobs", jobs]);
            results(&project.path(".llavm"))
        });
        assert_same(&stores[0], &stores[1]);
        assert_same(&stores[0], &stores[2]);
    }
}

#[test]
fn another_seed_shuffles_the_rows_and_nothing_else() {
    let manifest = "manifests/cc3m-sample.toml";
    let project = Project::with(&["data/cc3m", "data/qwen3-tokenizer", manifest]);
    project.run(&[manifest]);
    project.replace(manifest, "name = \"cc3m-sample\"", "name = \"cc3m-sample\"\nseed = 7");
    let summary = project.run(&[manifest]);
    assert_eq!(crate::project::ran(&summary), ["shards"]);
}
