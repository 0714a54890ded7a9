//! A change reruns what depends on it, and nothing else.

use crate::project::{Project, Summary, ran};
use arrow::array::{ArrayRef, AsArray, BinaryArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const MANIFEST: &str = "manifests/cc3m-sample.toml";
const TEXT_STAGES: [&str; 5] = ["chat", "labels", "pads", "shards", "tokens"];

/// The sample project after its first run.
fn prepared() -> Project {
    let project = Project::with(&["data/cc3m", "data/qwen3-tokenizer", MANIFEST]);
    project.run(&[MANIFEST]);
    project
}

fn explain(project: &Project, stage: &str) -> String {
    project.stdout(&["explain", MANIFEST, stage])
}

fn assert_nothing_ran(summary: &Summary) {
    assert_eq!(ran(summary), Vec::<&str>::new());
    for (name, stage) in summary {
        assert_eq!(stage.reused, if name == "rows" { 0 } else { stage.partitions }, "{name}");
    }
}

#[test]
fn the_first_run_runs_everything_and_the_second_nothing() {
    let project = Project::with(&["data/cc3m", "data/qwen3-tokenizer", MANIFEST]);
    let first = project.run(&[MANIFEST]);
    let names: Vec<_> = first.keys().map(String::as_str).collect();
    assert_eq!(names, ["chat", "labels", "pads", "pixels", "pixels.distinct", "rows", "shards", "tokens"]);
    for (name, stage) in first.iter().filter(|(name, _)| *name != "rows") {
        assert_eq!((stage.ran, stage.rows), (stage.partitions, 320), "{name}");
    }
    assert_nothing_ran(&project.run(&[MANIFEST]));
}

#[test]
fn another_system_message_reruns_the_text_and_not_one_image() {
    let project = prepared();
    project.replace(MANIFEST, "You are a helpful assistant.", "You describe images.");
    let why = explain(&project, "chat");
    assert!(why.contains("system"), "{why}");
    let summary = project.run(&[MANIFEST]);
    assert_eq!(ran(&summary), TEXT_STAGES);
    for stage in TEXT_STAGES {
        assert_eq!(summary[stage].ran, summary[stage].partitions, "{stage}");
    }
}

#[test]
fn an_appended_file_runs_only_its_own_partitions() {
    let project = Project::with(&["data/cc3m", "data/qwen3-tokenizer", MANIFEST]);
    let last = "data/cc3m/train-00002-of-00003.parquet";
    std::fs::rename(project.path(last), project.path("aside")).unwrap();
    let before = project.run(&[MANIFEST]);
    std::fs::rename(project.path("aside"), project.path(last)).unwrap();
    let why = explain(&project, "pixels");
    assert!(why.contains("never made before"), "{why}");
    let after = project.run(&[MANIFEST]);
    for stage in ["pixels", "chat", "pads", "tokens", "labels"] {
        assert_eq!(after[stage].partitions, before[stage].partitions + after[stage].ran, "{stage}");
        assert_eq!(after[stage].reused, before[stage].partitions, "{stage}");
        assert_eq!((before[stage].rows, after[stage].rows), (256, 320), "{stage}");
    }
    assert_eq!(after["shards"].ran, after["shards"].partitions);
}

#[test]
fn order_names_dates_and_threads_rerun_nothing() {
    let project = prepared();
    let text = project.read(MANIFEST);
    let (head, stages) = text.split_once("[stages.").unwrap();
    let mut sections: Vec<_> = stages.split("[stages.").map(|section| format!("[stages.{section}")).collect();
    sections.reverse();
    project.write("elsewhere/other.toml", format!("{head}{}", sections.join("\n")));
    assert_nothing_ran(&project.run(&["elsewhere/other.toml"]));

    std::fs::rename(project.path("data/cc3m"), project.path("data/moved")).unwrap();
    std::fs::rename(
        project.path("data/moved/train-00001-of-00003.parquet"),
        project.path("data/moved/train-00001.parquet"),
    )
    .unwrap();
    std::fs::rename(project.path("data/qwen3-tokenizer"), project.path("tokenizer")).unwrap();
    let moved = ["elsewhere/other.toml", "--set", "raw=data/moved", "--set", "tokenizer=tokenizer"];
    assert_nothing_ran(&project.run(&moved));

    let old = SystemTime::now() - Duration::from_secs(1_000_000);
    for file in ["data/moved/train-00001.parquet", "tokenizer/tokenizer.json", "elsewhere/other.toml"] {
        File::options().append(true).open(project.path(file)).unwrap().set_modified(old).unwrap();
    }
    for jobs in ["1", "2", "7"] {
        assert_nothing_ran(&project.run(&[&moved[..], &["--jobs", jobs]].concat()));
    }
}

#[test]
fn another_template_at_the_same_path_reruns_from_the_template_on() {
    let project = prepared();
    let config = "data/qwen3-tokenizer/tokenizer_config.json";
    let text = project.read(config);
    assert!(text.contains("<|im_start|>system"));
    project.write(config, text.replace("<|im_start|>system", "<|im_start|>System"));
    let why = explain(&project, "chat");
    assert!(why.contains("tokenizer_config.json"), "{why}");
    assert_eq!(ran(&project.run(&[MANIFEST])), TEXT_STAGES);
}

#[test]
fn a_rerun_stops_where_the_output_is_the_same() {
    let project = prepared();
    let tokenizer = "data/qwen3-tokenizer/tokenizer.json";
    project.write(tokenizer, format!("{}\n", project.read(tokenizer)));
    let why = explain(&project, "tokens");
    assert!(why.contains("tokenizer.json"), "{why}");
    let summary = project.run(&[MANIFEST]);
    assert!(ran(&summary).contains(&"tokens"));
    for unchanged in ["pixels", "pads", "labels", "shards"] {
        assert_eq!(summary[unchanged].ran, 0, "{unchanged}");
    }
}

#[test]
fn another_image_reruns_its_partition_of_pixels_and_no_text() {
    let manifest = "manifests/zh-sample.toml";
    let project = Project::with(&["data/zh", "data/qwen3-tokenizer", manifest]);
    project.run(&[manifest]);
    let lines = project.read("data/zh/captions.jsonl");
    let image = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["image"].as_str().unwrap().to_owned()
    };
    let mut lines: Vec<_> = lines.lines().map(str::to_owned).collect();
    lines[3] = lines[3].replace(&image(&lines[3]), &image(&lines[9]));
    project.write("data/zh/captions.jsonl", lines.join("\n") + "\n");
    let summary = project.run(&[manifest]);
    assert_eq!(summary["captions-pixels"].ran, 1);
    for text in ["captions-pads", "captions-tokens", "captions-labels", "talk-pixels", "talk-chat"] {
        assert_eq!(summary[text].ran, 0, "{text}");
    }
}

/// The first file of the sample alone, written anew with `change` applied to its columns `image`, `input` and `output`.
fn rewrite(project: &Project, change: impl Fn(&mut [Vec<Vec<u8>>; 3])) {
    let name = "data/cc3m/train-00000-of-00003.parquet";
    let file = File::open(crate::project::repository().join(name)).unwrap();
    let batches = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let mut cells: [Vec<Vec<u8>>; 3] = Default::default();
    for batch in batches {
        let batch = batch.unwrap();
        for (cells, column) in cells.iter_mut().zip(["image", "input", "output"]) {
            let column = cast(batch.column_by_name(column).unwrap(), &DataType::Binary).unwrap();
            cells.extend(column.as_binary::<i32>().iter().map(|cell| cell.unwrap().to_vec()));
        }
    }
    change(&mut cells);
    let [images, inputs, outputs] =
        cells.map(|cells| Arc::new(BinaryArray::from_iter_values(cells)) as ArrayRef);
    let text = |bytes: &ArrayRef| cast(bytes, &DataType::Utf8).unwrap();
    let columns = [("image", images), ("input", text(&inputs)), ("output", text(&outputs))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = File::create(project.path(name)).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn other_words_in_a_parquet_file_decode_no_image_and_other_images_render_no_text() {
    let project = Project::with(&["data/cc3m", "data/qwen3-tokenizer", MANIFEST]);
    rewrite(&project, |_| {});
    project.run(&[MANIFEST]);
    rewrite(&project, |[_, _, outputs]| outputs[0] = b"something else".to_vec());
    assert_eq!(ran(&project.run(&[MANIFEST])), TEXT_STAGES);
    rewrite(&project, |[images, _, outputs]| {
        outputs[0] = b"something else".to_vec();
        images.swap(0, 1);
    });
    assert_eq!(ran(&project.run(&[MANIFEST])), ["pixels", "pixels.distinct", "shards"]);
}

#[test]
fn three_hundred_partitions_are_found_done() {
    let project = Project::with(&["data/cc3m", "data/qwen3-tokenizer", MANIFEST]);
    project.replace(MANIFEST, "partition_rows = 64", "partition_rows = 1");
    let first = project.run(&[MANIFEST]);
    assert_eq!((first["labels"].partitions, first["labels"].ran), (320, 320));
    assert_nothing_ran(&project.run(&[MANIFEST]));
}

#[test]
fn force_runs_a_stage_again_and_until_stops_there() {
    let project = prepared();
    let summary = project.run(&[MANIFEST, "--force", "tokens"]);
    assert_eq!(ran(&summary), ["tokens"]);
    let other = Project::with(&["data/cc3m", "data/qwen3-tokenizer", MANIFEST]);
    let summary = other.run(&[MANIFEST, "--until", "pads"]);
    assert_eq!(
        ran(&summary).into_iter().filter(|name| *name != "rows").collect::<Vec<_>>(),
        ["chat", "pads"]
    );
}
