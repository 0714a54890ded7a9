//! A training is a function of its manifest: not of threads, not of interruptions, not of when its rows were ready.
//!
//! The models are tiny and random, made by `from_scratch` from the two configurations below.

use crate::project::{Project, Running, text};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, UInt64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const QWEN: &str = r#"{"attention_bias": false, "eos_token_id": 151645, "head_dim": 4, "hidden_act": "silu",
"hidden_size": 8, "initializer_range": 0.3, "intermediate_size": 16, "max_position_embeddings": 512,
"model_type": "qwen3", "num_attention_heads": 2, "num_hidden_layers": 2, "num_key_value_heads": 1,
"rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "tie_word_embeddings": true, "vocab_size": 151936}"#;

const CLIP: &str = r#"{"hidden_act": "quick_gelu", "hidden_size": 8, "image_size": 28, "initializer_range": 0.3,
"intermediate_size": 16, "layer_norm_eps": 1e-5, "model_type": "clip_vision_model", "num_attention_heads": 2,
"num_channels": 3, "num_hidden_layers": 1, "patch_size": 4}"#;

/// Stages up to the shards, on 320 captions.
const DATA: &str = r#"
name = "training"

[stages.rows]
kind = "read"
files = "data/cc3m/*.parquet"
columns = { image = "image", prompt = "input", answer = "output" }
partition_rows = 32

[stages.pixels]
kind = "decode-resize"
from = "rows"
size = 28

[stages.chat]
kind = "chat-template"
from = "rows"
tokenizer = "data/qwen3-tokenizer"
system = "You are a helpful assistant."

[stages.pads]
kind = "image-pads"
from = "chat"

[stages.tokens]
kind = "tokenize"
from = "pads"
tokenizer = "data/qwen3-tokenizer"

[stages.labels]
kind = "shift-labels"
from = "tokens"

[stages.shards]
kind = "shard"
from = ["labels", "pixels"]
validation = 0.05
"#;

/// A stage that makes and trains a model.
const BASE: &str = r#"
[stages.base]
kind = "train"
from = "shards"
qwen = "qwen"
clip = "clip"
tokenizer = "data/qwen3-tokenizer"
from_scratch = ["language", "vision"]
trainable = ["projector", "vision"]
learning_rate = 1e-2
per_device_train_batch_size = 4
max_steps = 12
"#;

fn project(stages: &[&str]) -> Project {
    let project = Project::with(&["data/cc3m", "data/qwen3-tokenizer"]);
    project.write("qwen/config.json", QWEN);
    project.write("clip/config.json", CLIP);
    project.write("m.toml", [&[DATA], stages].concat().concat());
    project
}

/// The finished folder of a job.
fn folder(project: &Project, stage: &str) -> PathBuf {
    let folders = fs::read_dir(project.path(".llavm/jobs").join(stage)).unwrap();
    let mut folders = folders.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let found = folders.next().unwrap();
    assert!(found.extension().is_none() && folders.next().is_none(), "one finished folder");
    found
}

/// All files below a folder that are part of its content.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_owned();
            if path.is_dir() && !name.starts_with("runs") {
                open.push(path);
            } else if path.is_file() && !name.ends_with("timing.json") {
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

fn metrics(folder: &Path) -> RecordBatch {
    let file = File::open(folder.join("metrics.parquet")).unwrap();
    let mut batches = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    batches.next().unwrap().unwrap()
}

fn numbers(metrics: &RecordBatch, name: &str) -> Vec<f64> {
    metrics.column_by_name(name).unwrap().as_primitive::<Float64Type>().values().to_vec()
}

#[test]
fn killed_at_any_step_a_training_ends_as_if_it_had_never_been() {
    let base = format!("{BASE}eval_steps = 5\nsave_steps = 2\nload_best_model_at_end = true\n");
    let (whole, killed) = (project(&[&base]), project(&[&base]));
    whole.run(&["m.toml"]);
    killed.run(&["m.toml", "--until", "shards"]);
    for (step, pause) in [(2, 0), (2, 40), (6, 90), (10, 15)] {
        let mut child = Running(killed.command(&["run", "m.toml"]).stderr(Stdio::null()).spawn().unwrap());
        while newest_checkpoint(&killed) < step && child.0.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(pause));
        child.kill();
    }
    killed.run(&["m.toml"]);
    let (whole, killed) = (folder(&whole, "base"), folder(&killed, "base"));
    assert_eq!(contents(&whole), contents(&killed));
    let metrics = metrics(&killed);
    let steps = metrics.column_by_name("step").unwrap().as_primitive::<UInt64Type>();
    assert_eq!(steps.values().to_vec(), (1..=12).collect::<Vec<u64>>());
    let measured = metrics.column_by_name("eval_loss").unwrap();
    let measured: Vec<usize> = (0..12).filter(|row| measured.is_valid(*row)).collect();
    assert_eq!(measured, [4, 9, 11]);
    assert!(!killed.join("checkpoints").exists());
}

#[test]
fn interrupted_a_training_saves_where_it_is_and_goes_on_from_there() {
    let base = BASE.replace("max_steps = 12", "max_steps = 60");
    let project = project(&[&base]);
    project.run(&["m.toml", "--until", "shards"]);
    let mut child = Running(project.command(&["run", "m.toml"]).stderr(Stdio::null()).spawn().unwrap());
    while fs::read_dir(project.path(".llavm/jobs/base")).map_or(0, Iterator::count) == 0 {
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(Duration::from_secs(1));
    Command::new("kill").args(["-INT", &child.0.id().to_string()]).status().unwrap();
    assert!(!child.wait().success());
    let saved = newest_checkpoint(&project);
    assert!(saved < 60, "the training was over before the interrupt");
    project.run(&["m.toml"]);
    let metrics = metrics(&folder(&project, "base"));
    let steps = metrics.column_by_name("step").unwrap().as_primitive::<UInt64Type>();
    assert_eq!(steps.values().to_vec(), (1..=60).collect::<Vec<u64>>());
}

/// The step of the newest checkpoint of an unfinished training; 0 without one.
fn newest_checkpoint(project: &Project) -> u64 {
    let Ok(jobs) = fs::read_dir(project.path(".llavm/jobs/base")) else { return 0 };
    let checkpoints =
        jobs.filter_map(|job| fs::read_dir(job.ok()?.path().join("checkpoints")).ok()).flatten();
    let names = checkpoints.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let steps = names.filter_map(|name| name.strip_prefix("checkpoint-")?.parse().ok());
    steps.max().unwrap_or(0)
}

#[test]
fn any_number_of_threads_trains_the_same_weights() {
    let all: Vec<_> = ["1", "2", "8"]
        .map(|threads| {
            let project = project(&[BASE]);
            let mut command = project.command(&["run", "m.toml", "--jobs", threads]);
            command.env("RAYON_NUM_THREADS", threads).stderr(Stdio::null()).stdout(Stdio::null());
            assert!(Running(command.spawn().unwrap()).wait().success());
            contents(&folder(&project, "base"))
        })
        .into();
    assert_eq!(all[0], all[1]);
    assert_eq!(all[0], all[2]);
}

#[test]
fn a_training_goes_on_from_another_and_tells_its_history() {
    let tune = r#"
[stages.tune]
kind = "train"
from = "shards"
init_from = "base"
qwen = "qwen"
clip = "clip"
tokenizer = "data/qwen3-tokenizer"
trainable = ["projector", "lora"]
lora = { r = 2, lora_alpha = 4, lora_dropout = 0 }
per_device_train_batch_size = 4
max_steps = 2
"#;
    let project = project(&[BASE, tune]);
    project.run(&["m.toml"]);
    let (base, tune) = (folder(&project, "base"), folder(&project, "tune"));
    for file in ["metrics.parquet", "training.json"] {
        assert_eq!(
            fs::read(base.join(file)).unwrap(),
            fs::read(tune.join("history/00-base").join(file)).unwrap()
        );
    }
    for file in ["qwen/model.safetensors", "clip/model.safetensors"] {
        assert_eq!(fs::read(base.join(file)).unwrap(), fs::read(tune.join(file)).unwrap(), "{file} is kept");
    }
    assert_ne!(
        fs::read(base.join("projector.safetensors")).unwrap(),
        fs::read(tune.join("projector.safetensors")).unwrap()
    );
    // LoRA begins at nothing: the first loss of the second training is that of the first one's weights.
    let (before, after) = (numbers(&metrics(&base), "loss"), numbers(&metrics(&tune), "loss"));
    assert!(after[0] < before[0], "{} {}", before[0], after[0]);
    let model = tune.display().to_string();
    let answer =
        ["generate", "--model", &model, "--text-only", "--prompt", "Hi", "--max-new-tokens", "2", "--json"];
    assert!(project.stdout(&answer).contains("generated_ids"));
    let description = fs::read_to_string(tune.join("model.toml")).unwrap();
    assert!(description.contains("trained = [\"projector\", \"vision\", \"lora\"]"), "{description}");
}

#[test]
fn two_micro_batches_of_four_are_one_of_eight() {
    let losses = |batch: usize, accumulation: usize| {
        let sizes = format!(
            "per_device_train_batch_size = {batch}\ngradient_accumulation_steps = {accumulation}\ngroup_by_length = false\n"
        );
        let project = project(&[&BASE.replace("per_device_train_batch_size = 4\n", &sizes)]);
        project.run(&["m.toml"]);
        numbers(&metrics(&folder(&project, "base")), "loss")
    };
    for (a, b) in losses(4, 2).into_iter().zip(losses(8, 1)) {
        assert!((a / b - 1.0).abs() < 1e-4, "{a} {b}");
    }
}

#[test]
fn a_loss_that_is_no_number_stops_with_the_rows_and_keeps_the_last_good_checkpoint() {
    let base =
        BASE.replace("learning_rate = 1e-2", "learning_rate = 1e30\nmax_grad_norm = 0\nsave_steps = 1");
    let project = project(&[&base]);
    let output = project.llavm(&["run", "m.toml"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the loss is") || said.contains("the gradient's norm is"), "{said}");
    assert!(said.contains("rows: ") && said.contains("parquet"), "{said}");
    assert!(newest_checkpoint(&project) >= 1);
}

#[test]
fn without_progress_a_training_ends_early_with_its_best_weights() {
    let base = BASE.replace("learning_rate = 1e-2", "learning_rate = 3\nlr_scheduler = \"constant\"");
    let base = format!(
        "{base}eval_steps = 1\nearly_stopping_patience = 2\nload_best_model_at_end = true\nmax_eval_samples = 8\n"
    );
    let project = project(&[&base]);
    project.run(&["m.toml"]);
    let folder = folder(&project, "base");
    let losses = numbers(&metrics(&folder), "eval_loss");
    assert!(losses.len() < 12, "{losses:?}");
    let best = (0..losses.len()).min_by(|a, b| losses[*a].total_cmp(&losses[*b])).unwrap();
    assert_eq!(losses.len(), best + 3, "two measurements behind the best: {losses:?}");
    let training: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("training.json")).unwrap()).unwrap();
    assert_eq!(training["best_step"], best as u64 + 1);
}

#[test]
fn what_cannot_be_trained_is_said_before_anything_runs() {
    let wrong =
        BASE.replace("max_steps = 12", "max_steps = 0\nlearning_rat = 1\nload_best_model_at_end = true");
    let project = project(&[&wrong.replace("clip = \"clip\"", "clip = \"nowhere\"")]);
    let said = text(&project.llavm(&["run", "m.toml"]));
    assert!(said.contains("learning_rate"), "{said}");
    assert!(said.contains("max_steps") && said.contains("needs `eval_steps`"), "{said}");
    assert!(!project.path(".llavm/tables").exists());
}
