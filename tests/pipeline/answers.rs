//! A model is asked nothing twice: not after a kill, not because of another scorer, not of fewer rows.

use crate::project::{Project, Running};
use arrow::array::{Array, AsArray};
use arrow::datatypes::Float64Type;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io::Cursor;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

const IMAGES: usize = 24;
const QUESTIONS: usize = 20;

const MANIFEST: &str = r#"
name = "answers"
[stages.rows]
kind = "shapes"
rows = 60
[stages.pixels]
kind = "decode-resize"
from = "rows"
size = 48
[stages.chat]
kind = "chat-template"
from = "rows"
tokenizer = "data/shapes-model/qwen3"
loss_on = "all-assistant"
[stages.pads]
kind = "image-pads"
from = "chat"
count = 9
missing = "prepend"
[stages.tokens]
kind = "tokenize"
from = "pads"
tokenizer = "data/shapes-model/qwen3"
[stages.labels]
kind = "shift-labels"
from = "tokens"
[stages.shards]
kind = "shard"
from = ["labels", "pixels"]
validation = 0.5
keep = ["messages", "language", "source", "kind"]
[stages.model]
kind = "train"
from = "shards"
qwen = "data/shapes-model/qwen3"
clip = "data/shapes-model/clip"
max_steps = 2
[stages.pope]
kind = "benchmark"
from = "model"
name = "pope"
files = ["pope.tsv"]
generate = { max_new_tokens = 40, batch_size = 4 }
bootstrap = 20
[stages.report]
kind = "evaluate"
from = ["model", "shards"]
turns = "each"
generate = { max_new_tokens = 40, batch_size = 4 }
bootstrap = 20
"#;

/// A table of VLMEvalKit: questions about plain images, each image in the first row that shows it.
fn table() -> String {
    let mut table = "index\timage\tquestion\tanswer\tcategory\n".to_owned();
    for image in 0..IMAGES {
        let pixel = image::Rgb([image as u8 * 10, 200, 255 - image as u8 * 10]);
        let mut png = Cursor::new(Vec::new());
        image::RgbImage::from_pixel(40, 40, pixel).write_to(&mut png, image::ImageFormat::Png).unwrap();
        for question in 0..QUESTIONS {
            let index = image * QUESTIONS + question;
            let cell =
                if question == 0 { STANDARD.encode(png.get_ref()) } else { (index - question).to_string() };
            writeln!(table, "{index}\t{cell}\tIs there shape number {question}?\tYes\tadversarial").unwrap();
        }
    }
    table
}

fn project() -> Project {
    let project = Project::with(&["data/shapes-model"]);
    project.write("m.toml", MANIFEST);
    project.write("pope.tsv", table());
    project
}

/// The folder that a stage wrote last.
fn folder(project: &Project, stage: &str) -> PathBuf {
    let folders = fs::read_dir(project.path(".llavm/jobs").join(stage)).unwrap();
    let folders =
        folders.map(|entry| entry.unwrap().path()).filter(|path| path.join("timing.json").is_file());
    folders.max_by_key(|path| path.join("timing.json").metadata().unwrap().modified().unwrap()).unwrap()
}

/// Questions that the last run asked, and those it need not ask.
fn counts(project: &Project, stage: &str) -> (u64, u64) {
    let text = fs::read(folder(project, stage).join("timing.json")).unwrap();
    let counts: Value = serde_json::from_slice(&text).unwrap();
    (counts["asked"].as_u64().unwrap(), counts["kept"].as_u64().unwrap())
}

/// Answers and losses that are kept.
fn lines(project: &Project) -> usize {
    let Ok(folder) = fs::read_dir(project.path(".llavm/ledgers")) else { return 0 };
    let text = |entry: fs::DirEntry| fs::read_to_string(entry.path()).unwrap_or_default();
    folder.map(|entry| text(entry.unwrap()).lines().count()).sum()
}

/// What a stage wrote that counts.
fn content(project: &Project, stage: &str) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder(project, stage)).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let files = files.filter(|path| name(path) != "timing.json");
    files.map(|path| (name(&path), fs::read(path).unwrap())).collect()
}

/// Kills a run with SIGKILL once `lines` more are kept.
fn kill_after(project: &Project, until: &str, more: usize) -> usize {
    let before = lines(project);
    let mut command = project.command(&["run", "m.toml", "--until", until]);
    let mut child = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    while lines(project) < before + more {
        assert!(child.0.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(child.kill());
    lines(project)
}

#[test]
fn killed_while_it_asks_a_run_goes_on_behind_the_last_answer_and_ends_with_the_same_bytes() {
    let (whole, killed) = (project(), project());
    whole.run(&["m.toml"]);
    let all = (IMAGES * QUESTIONS) as u64;
    assert_eq!(counts(&whole, "pope"), (all, 0));
    killed.run(&["m.toml", "--until", "model"]);
    let kept = [30, 100].map(|more| kill_after(&killed, "pope", more))[1] as u64;
    assert!((130..all).contains(&kept), "{kept} answers were kept");
    killed.run(&["m.toml", "--until", "pope"]);
    let (asked, found) = counts(&killed, "pope");
    assert!(asked + found == all && found >= kept, "{asked} asked, {found} of {kept} found");
    assert!(content(&killed, "pope") == content(&whole, "pope"));
    let before = lines(&killed);
    kill_after(&killed, "report", 8);
    killed.run(&["m.toml"]);
    let ((asked, found), (alone, nothing)) = (counts(&killed, "report"), counts(&whole, "report"));
    assert!(found >= 8 && asked + found == alone + nothing && asked < alone, "{asked} asked, {found} found");
    assert!(content(&killed, "report") == content(&whole, "report"));
    assert_eq!(lines(&killed), lines(&whole), "{before} answers to the benchmark, and the rest");
    whole.stdout(&["verify", "m.toml"]);
}

#[test]
fn another_scorer_other_slices_and_fewer_rows_ask_nothing() {
    let project = project();
    project.run(&["m.toml"]);
    let kept = lines(&project);
    let answers = content(&project, "pope").remove("answers.jsonl");
    project.replace("m.toml", "files = [\"pope.tsv\"]", "files = [\"pope.tsv\"]\ngallery = 3");
    project.replace(
        "m.toml",
        "turns = \"each\"",
        "turns = \"each\"\nmetrics = [\"pope\"]\nslices = [\"kind\"]",
    );
    project.run(&["m.toml"]);
    assert_eq!((counts(&project, "pope").0, counts(&project, "report").0), (0, 0));
    assert_eq!(content(&project, "pope").remove("answers.jsonl"), answers);
    project.replace("m.toml", "gallery = 3", "gallery = 3\nsamples = 31");
    project.run(&["m.toml"]);
    assert_eq!(counts(&project, "pope"), (0, 31));
    // Another batch size is no other setting; another length of answers is.
    let text = project.read("m.toml").replacen("batch_size = 4", "batch_size = 5", 1);
    project.write("m.toml", text);
    project.run(&["m.toml"]);
    assert_eq!((counts(&project, "pope"), lines(&project)), ((0, 31), kept));
    let text = project.read("m.toml").replacen("max_new_tokens = 40", "max_new_tokens = 41", 1);
    project.write("m.toml", text);
    project.run(&["m.toml", "--until", "pope"]);
    assert_eq!(counts(&project, "pope"), (31, 0));
}

#[test]
fn the_card_of_an_export_has_the_scores_and_the_hashes_of_what_the_model_was_made_of() {
    let project = project();
    let export = |format: &str| {
        format!(
            "[stages.{format}]\nkind = \"export\"\nfrom = [\"model\", \"report\", \"pope\"]\nformat = \"{format}\"\n"
        )
    };
    project.write("m.toml", MANIFEST.to_owned() + &["llava", "merged", "projector"].map(export).concat());
    project.run(&["m.toml"]);
    for stage in ["llava", "merged", "projector"] {
        let folders = fs::read_dir(project.path(".llavm/jobs").join(stage)).unwrap();
        let folder = folders.map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
        let card = fs::read_to_string(folder.join("README.md")).unwrap();
        for part in [
            "### pope\n",
            "pope, rule lmms-eval: pope_accuracy",
            "### report\n",
            "| exact match |",
            "| rows | shapes |",
            "### model\n",
            "| learning_rate |",
        ] {
            assert!(card.contains(part), "{stage}: {part} in\n{card}");
        }
        let hashes = card.split("## Inputs").nth(1).unwrap();
        for input in [
            "| chat | tokenizer",
            "| model | qwen/model.safetensors | `",
            "| model | clip/model.safetensors | `",
            "| rows | ",
        ] {
            assert!(hashes.contains(input), "{stage}: {input} in\n{hashes}");
        }
    }
}

#[test]
fn a_benchmark_is_asked_while_training_and_its_curve_is_in_metrics_tensorboard_and_report() {
    let project = project();
    let asked = "eval_steps = 2\neval_benchmarks = [{ name = \"pope\", files = [\"pope.tsv\"], samples = 40, max_new_tokens = 4 }]";
    project.replace("m.toml", "max_steps = 2", &format!("max_steps = 5\n{asked}"));
    project.run(&["m.toml"]);
    let folder = folder(&project, "model");
    let file = fs::File::open(folder.join("metrics.parquet")).unwrap();
    let mut batches = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let metrics = batches.next().unwrap().unwrap();
    let scores = metrics.column_by_name("benchmark_pope").unwrap();
    let measured: Vec<usize> = (0..metrics.num_rows()).filter(|row| scores.is_valid(*row)).collect();
    assert_eq!(measured, [1, 3, 4], "every two steps and after the last");
    let events = fs::read_dir(folder.join("runs")).unwrap().next().unwrap().unwrap().path();
    let events = fs::read(events).unwrap();
    assert!(events.windows(14).any(|bytes| bytes == b"benchmark/pope"));
    let page = String::from_utf8(content(&project, "report").remove("report.html").unwrap()).unwrap();
    assert!(page.contains("pope, some questions"));
    // The same questions as the stage asks, of the same model: the first rule's first number.
    project.replace("m.toml", "samples = 40", "samples = 480");
    let text = project.read("m.toml").replacen("max_new_tokens = 40", "max_new_tokens = 4", 1);
    project.write("m.toml", text);
    project.run(&["m.toml", "--until", "pope"]);
    let report: Value = serde_json::from_slice(&content(&project, "pope")["report.json"]).unwrap();
    let file = fs::File::open(self::folder(&project, "model").join("metrics.parquet")).unwrap();
    let mut batches = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let last = batches.next().unwrap().unwrap();
    let last = last.column_by_name("benchmark_pope").unwrap().as_primitive::<Float64Type>().value(4);
    assert_eq!(report["scores"][0]["numbers"][0]["value"].as_f64(), Some(last));
    project.replace("m.toml", "name = \"pope\", files", "name = \"popp\", files");
    let refused = project.llavm(&["validate", "m.toml"]);
    assert!(!refused.status.success() && text_of(&refused).contains("`popp` is none of pope"));
}

fn text_of(output: &std::process::Output) -> String {
    crate::project::text(output).split_whitespace().collect::<Vec<_>>().join(" ")
}
