//! A training is a function of its manifest: not of threads, not of interruptions, not of when its rows were ready.
//!
//! The models are tiny and random, made by `from_scratch` from the two configurations below.

use crate::project::{Project, Running, ran, text};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, UInt64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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
pub const BASE: &str = r#"
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

pub fn project(stages: &[&str]) -> Project {
    let project = Project::with(&["data/cc3m", "data/qwen3-tokenizer"]);
    project.write("qwen/config.json", QWEN);
    project.write("clip/config.json", CLIP);
    project.write("m.toml", [&[DATA], stages].concat().concat());
    project
}

/// The finished folder of a job.
pub fn folder(project: &Project, stage: &str) -> PathBuf {
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
            } else if path.is_file() && !name.ends_with("timing.json") && !name.ends_with("origin.json") {
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

pub fn metrics(folder: &Path) -> RecordBatch {
    let file = File::open(folder.join("metrics.parquet")).unwrap();
    let mut batches = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    batches.next().unwrap().unwrap()
}

pub fn numbers(metrics: &RecordBatch, name: &str) -> Vec<f64> {
    metrics.column_by_name(name).unwrap().as_primitive::<Float64Type>().values().to_vec()
}

#[test]
fn killed_at_any_step_a_training_ends_as_if_it_had_never_been() {
    assert_outlives_kills(BASE);
}

/// `base` is [`BASE`], perhaps with more lines.
pub fn assert_outlives_kills(base: &str) {
    let base = format!("{base}eval_steps = 5\nsave_steps = 2\nload_best_model_at_end = true\n");
    let (whole, killed) = (project(&[&base]), project(&[&base]));
    whole.run(&["m.toml"]);
    killed.run(&["m.toml", "--until", "shards"]);
    for (step, pause) in [(2, 0), (2, 40), (6, 90), (10, 15)] {
        let mut child = start(&killed);
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
    let steps = "max_steps = 200\nsave_steps = 4\nsave_total_limit = 2";
    let project = project(&[&BASE.replace("max_steps = 12", steps)]);
    project.run(&["m.toml", "--until", "shards"]);
    let mut child = start(&project);
    while newest_checkpoint(&project) < 16 && child.0.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
    Command::new("kill").args(["-INT", &child.0.id().to_string()]).status().unwrap();
    assert!(!child.wait().success());
    let saved = checkpoints(&project);
    assert_eq!(saved.len(), 2, "{saved:?}");
    assert!(saved[1] < 200, "the training was over before the interrupt");
    project.run(&["m.toml"]);
    let metrics = metrics(&folder(&project, "base"));
    let steps = metrics.column_by_name("step").unwrap().as_primitive::<UInt64Type>();
    assert_eq!(steps.values().to_vec(), (1..=200).collect::<Vec<u64>>());
}

/// The step of the newest checkpoint of an unfinished training; 0 without one.
fn newest_checkpoint(project: &Project) -> u64 {
    checkpoints(project).last().copied().unwrap_or(0)
}

/// The steps of the checkpoints of an unfinished training, in order.
fn checkpoints(project: &Project) -> Vec<u64> {
    let Ok(jobs) = fs::read_dir(project.path(".llavm/jobs/base")) else { return Vec::new() };
    let checkpoints =
        jobs.filter_map(|job| fs::read_dir(job.ok()?.path().join("checkpoints")).ok()).flatten();
    let names = checkpoints.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut steps: Vec<u64> =
        names.filter_map(|name| name.strip_prefix("checkpoint-")?.parse().ok()).collect();
    steps.sort_unstable();
    steps
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

/// The last partition is kept from being made for as long as the training has taken no step: another process, played by the
/// test, has claimed it.
#[test]
fn the_first_steps_are_taken_while_a_later_partition_is_being_prepared() {
    let data = DATA.replace("validation = 0.05", "shuffle = \"partition\"");
    let base = BASE.replace("max_steps = 12", "max_steps = 80");
    let both = [project(&[]), project(&[])];
    both.iter().for_each(|project| project.write("m.toml", format!("{data}{base}")));
    let [whole, held] = both;
    whole.run(&["m.toml"]);
    let claim = claim(&held, "pixels", &key_of_last_partition(&whole, "pixels"));
    let mut child = start(&held);
    let begun = Instant::now();
    while !events(&held).iter().any(is_step) {
        assert!(child.0.try_wait().unwrap().is_none(), "it ended without a step");
        assert!(begun.elapsed() < Duration::from_mins(2), "no step without the last partition");
        std::thread::sleep(Duration::from_millis(5));
    }
    let is_pixels = |event: &Value| event["stage"] == "pixels" && event["event"] == "finished";
    assert!(events(&held).iter().filter(|event| is_pixels(event)).count() < 10);
    drop(claim);
    assert!(child.wait().success());
    let events = events(&held);
    let first_step = events.iter().position(is_step).unwrap();
    let last_pixels = events.iter().rposition(is_pixels).unwrap();
    assert_eq!(events.iter().filter(|event| is_pixels(event)).count(), 10);
    assert!(first_step < last_pixels, "{first_step} {last_pixels}");
    assert_eq!(contents(&folder(&whole, "base")), contents(&folder(&held, "base")));
}

/// The training needs no row of the last partition, which is not there when it ends. Killed then, it is not lost.
#[test]
fn a_finished_training_that_waits_for_rows_is_not_made_again() {
    let data = DATA.replace("validation = 0.05", "shuffle = \"partition\"");
    let both = [project(&[]), project(&[])];
    both.iter().for_each(|project| project.write("m.toml", format!("{data}{BASE}")));
    let [whole, held] = both;
    whole.run(&["m.toml"]);
    let claim = claim(&held, "pixels", &key_of_last_partition(&whole, "pixels"));
    let mut child = start(&held);
    while newest_checkpoint(&held) < 12 {
        assert!(child.0.try_wait().unwrap().is_none(), "it ended without the last partition");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(child.kill());
    drop(claim);
    held.run(&["m.toml"]);
    assert_eq!(steps_of_last_run(&held), 0);
    assert_eq!(contents(&folder(&whole, "base")), contents(&folder(&held, "base")));
}

#[test]
fn a_training_killed_when_all_is_written_is_taken_as_it_is() {
    let (whole, killed) = (project(&[BASE]), project(&[BASE]));
    whole.run(&["m.toml"]);
    killed.run(&["m.toml", "--until", "shards"]);
    let folder_of_killed = kill_at_the_beginning(&killed);
    for (name, bytes) in contents(&folder(&whole, "base")) {
        let path = folder_of_killed.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    killed.run(&["m.toml"]);
    assert_eq!(steps_of_last_run(&killed), 0);
    assert_eq!(contents(&folder(&whole, "base")), contents(&folder(&killed, "base")));
}

#[test]
fn what_a_killed_process_had_begun_to_write_is_no_part_of_the_model() {
    let (whole, killed) = (project(&[BASE]), project(&[BASE]));
    whole.run(&["m.toml"]);
    killed.run(&["m.toml", "--until", "shards"]);
    let begun = kill_at_the_beginning(&killed).join(".model.new-1");
    fs::create_dir_all(&begun).unwrap();
    fs::write(begun.join("projector.safetensors"), b"half of it").unwrap();
    killed.run(&["m.toml"]);
    assert!(steps_of_last_run(&killed) > 0);
    assert_eq!(contents(&folder(&whole, "base")), contents(&folder(&killed, "base")));
}

/// Kills a training as soon as it has a folder, and gives that.
fn kill_at_the_beginning(project: &Project) -> PathBuf {
    let mut child = start(project);
    while unfinished(project).is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(child.kill(), "it was over too soon");
    unfinished(project).unwrap()
}

/// How many steps of the training the last run has reported.
fn steps_of_last_run(project: &Project) -> usize {
    events(project).iter().filter(|event| is_step(event)).count()
}

fn is_step(event: &Value) -> bool {
    event["stage"] == "base" && event["text"].as_str().is_some_and(|text| text.starts_with("step "))
}

fn start(project: &Project) -> Running {
    Running(project.command(&["run", "m.toml"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// The folder of a training under way.
fn unfinished(project: &Project) -> Option<PathBuf> {
    let folders = fs::read_dir(project.path(".llavm/jobs/base")).ok()?;
    let mut folders = folders.map(|entry| entry.unwrap().path());
    folders.find(|path| path.extension().is_some_and(|extension| extension == "partial"))
}

/// What the last run has written into `events.jsonl` so far, whole lines only; nothing before it begins.
fn events(project: &Project) -> Vec<Value> {
    let Ok(runs) = fs::read_dir(project.path(".llavm/runs")) else { return Vec::new() };
    let last = runs.map(|run| run.unwrap().path().join("events.jsonl")).max();
    let text = last.and_then(|path| fs::read_to_string(path).ok());
    let text = text.unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The key of the last partition of a stored table, as `llavm status` names its files: partition by partition.
fn key_of_last_partition(project: &Project, stage: &str) -> String {
    let status: Value = serde_json::from_str(&project.stdout(&["status", "m.toml", "--json"])).unwrap();
    let stages = status["stages"].as_array().unwrap();
    let files = &stages.iter().find(|one| one["name"] == stage).unwrap()["files"];
    let file = Path::new(files.as_array().unwrap().last().unwrap().as_str().unwrap());
    let digest = file.file_stem().unwrap().to_str().unwrap();
    let records = fs::read_dir(project.path(".llavm/tables").join(stage)).unwrap();
    let records = records.map(|entry| entry.unwrap().path());
    let record = records.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let mut record = record.filter(|path| fs::read_to_string(path).unwrap().contains(digest));
    record.next().unwrap().file_stem().unwrap().to_str().unwrap().to_owned()
}

/// Claims an output as `llavm` does: by the lock of a file. Given up on drop.
fn claim(project: &Project, stage: &str, key: &str) -> File {
    let path = project.path(".llavm/claims").join(format!("{stage}-{key}"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = File::create(path).unwrap();
    file.lock().unwrap();
    file
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

/// A template that says itself what an answer is, so that rows do not hang together with the generation prompt.
const TEMPLATE: &str = "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}\
    {%- if message.role == 'assistant' %}{% generation %}{{- message.content + '<|im_end|>' }}{% endgeneration %}\
    {{- '\\n' }}{%- else %}{{- message.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}\
    {%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

#[test]
fn what_a_model_repeats_enters_its_key_though_the_rows_stay_the_same() {
    let chat = "tokenizer = \"data/qwen3-tokenizer\"\nsystem";
    let rendered = "tokenizer = \"data/qwen3-tokenizer\"\ntemplate = \"chat.jinja\"\nloss_on = \"all-assistant\"\nsystem";
    let data = DATA.replace(chat, rendered);
    let project = project(&[]);
    project.write("m.toml", format!("{data}{BASE}"));
    project.write("chat.jinja", TEMPLATE);
    project.run(&["m.toml"]);
    let model = folder(&project, "base");
    assert_eq!(fs::read_to_string(model.join("chat_template.jinja")).unwrap(), TEMPLATE);

    // No row is longer: nothing that a model repeats has changed.
    project.replace("m.toml", "kind = \"tokenize\"", "kind = \"tokenize\"\nmax_tokens = 2047");
    let summary = project.run(&["m.toml"]);
    assert_eq!(ran(&summary), ["tokens"]);

    let other = TEMPLATE.replace("if add_generation_prompt %}", "if add_generation_prompt and true %}");
    project.write("chat.jinja", &other);
    let summary = project.run(&["m.toml"]);
    assert_eq!(ran(&summary), ["base", "chat"], "the rows are the same");
    let models = fs::read_dir(project.path(".llavm/jobs/base")).unwrap().map(|entry| entry.unwrap().path());
    let template = |path: PathBuf| fs::read_to_string(path.join("chat_template.jinja")).ok();
    assert!(models.filter_map(template).any(|template| template == other));
}

/// The folder of a model that nothing outside of it is needed for.
#[test]
fn a_model_folder_is_whole_wherever_it_is_copied() {
    let align = "
[stages.align]
kind = \"train\"
from = \"shards\"
qwen = \"towers/qwen\"
clip = \"towers/clip\"
tokenizer = \"data/qwen3-tokenizer\"
per_device_train_batch_size = 4
max_steps = 2
";
    let project = project(&[BASE]);
    project.run(&["m.toml"]);
    let base = folder(&project, "base");
    for tower in ["qwen", "clip"] {
        copy(&base.join(tower), &project.path("towers").join(tower));
    }
    project.write("m.toml", format!("{DATA}{align}"));
    project.run(&["m.toml"]);
    let model = folder(&project, "align");
    let moved = tempfile::tempdir().unwrap();
    copy(&model, &moved.path().join("model"));
    let ask = |model: &Path| {
        let model = model.display().to_string();
        let ask = ["generate", &model, "--text-only", "--prompt", "Hi", "--max-new-tokens", "4", "--json"];
        let answer: Value = serde_json::from_str(&project.stdout(&ask)).unwrap();
        answer["generated_ids"].clone()
    };
    let answer = ask(&model);
    fs::remove_dir_all(project.path("towers")).unwrap();
    fs::remove_dir_all(project.path("data")).unwrap();
    fs::remove_dir_all(project.path(".llavm")).unwrap();
    assert_eq!(ask(&moved.path().join("model")), answer);

    let config = moved.path().join("model/clip/config.json");
    fs::write(&config, fs::read_to_string(&config).unwrap() + " ").unwrap();
    let model = moved.path().join("model").display().to_string();
    let refused = text(&project.llavm(&["generate", &model, "--text-only", "--prompt", "Hi"]));
    assert!(refused.contains("another one than the model"), "{refused}");
}

#[test]
fn features_of_another_tower_are_refused() {
    let project = project(&[BASE]);
    project.run(&["m.toml"]);
    let base = folder(&project, "base");
    for (tower, name) in [("qwen", "qwen"), ("clip", "clip"), ("clip", "other")] {
        copy(&base.join(tower), &project.path("towers").join(name));
    }
    let weights = project.path("towers/other/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let features = |clip: &str| {
        format!(
            "\n[stages.features]\nkind = \"encode-images\"\nfrom = \"pixels\"\nclip = \"towers/{clip}\"\n\
             [stages.align]\nkind = \"train\"\nfrom = \"shards\"\nqwen = \"towers/qwen\"\nclip = \"towers/clip\"\n\
             tokenizer = \"data/qwen3-tokenizer\"\nmax_steps = 1\n"
        )
    };
    let data = DATA.replace("[\"labels\", \"pixels\"]", "[\"labels\", \"features\"]");
    project.write("m.toml", format!("{data}{}", features("other")));
    let refused = text(&project.llavm(&["run", "m.toml"]));
    assert!(refused.contains("`features` were made by another vision tower"), "{refused}");
    // Another configuration shows before anything runs.
    let config = project.path("towers/other/config.json");
    fs::write(&config, fs::read_to_string(&config).unwrap() + " ").unwrap();
    let refused = text(&project.llavm(&["validate", "m.toml"]));
    assert!(refused.contains("do not agree on the vision tower"), "{refused}");
    project.write("m.toml", format!("{data}{}", features("clip")));
    project.run(&["m.toml"]);
}

#[test]
fn what_a_tower_asks_for_is_done_or_named_otherwise() {
    let project = project(&[BASE]);
    project.write(
        "clip/preprocessor_config.json",
        r#"{"size": {"height": 28, "width": 28}, "do_center_crop": false, "resample": 2}"#,
    );
    let refused = text(&project.llavm(&["validate", "m.toml"]));
    let refused = refused.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "the interpolation that the vision tower asks for",
        "the crop that the vision tower asks for",
        "bilinear",
    ] {
        assert!(refused.contains(part), "no {part} in {refused}");
    }
    let with = |more: &str| DATA.replace("size = 28\n", &format!("size = 28\n{more}\n")) + BASE;
    for more in ["vision = \"clip\"", "filter = \"bicubic\"\ncrop = \"pad\""] {
        project.write("m.toml", with(more));
        project.stdout(&["validate", "m.toml"]);
    }
    project.run(&["m.toml"]);
    let kept = fs::read_to_string(folder(&project, "base").join("preprocessor_config.json")).unwrap();
    let kept: Value = serde_json::from_str(&kept).unwrap();
    assert_eq!((&kept["resample"], &kept["do_pad"]), (&3.into(), &true.into()), "as the manifest asked");
}

#[test]
fn a_model_is_exported_by_its_manifest_as_the_stage_exports_it() {
    let project =
        project(&[BASE, "\n[stages.out]\nkind = \"export\"\nfrom = \"base\"\nformat = \"llava\"\n"]);
    let refused = project.llavm(&["export", "m.toml", "--format", "llava", "--out", "mine"]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("llavm run m.toml"), "{}", text(&refused));
    project.run(&["m.toml"]);
    let said = project.stdout(&["export", "m.toml", "--format", "llava", "--out", "mine"]);
    assert!(said.contains("llavm chat mine --image FILE"), "{said}");
    assert_eq!(contents(&project.path("mine")), contents(&folder(&project, "out")));

    let again = project.llavm(&["export", "m.toml:base", "--format", "llava", "--out", "mine"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again).contains("--out mine is not empty"), "{}", text(&again));
    let model = folder(&project, "base");
    let no_adapter =
        project.llavm(&["export", model.to_str().unwrap(), "--format", "peft", "--out", "deep/er"]);
    assert!(text(&no_adapter).contains("has no adapter"), "{}", text(&no_adapter));
    assert_eq!(fs::read_dir(project.path("deep")).unwrap().count(), 0, "nothing half written stays");
    fs::create_dir(project.path("empty")).unwrap();
    project.stdout(&["export", "m.toml:base", "--format", "projector", "--dtype", "bf16", "--out", "empty"]);
    let files: Vec<_> = contents(&project.path("empty")).into_keys().collect();
    assert_eq!(files, ["README.md", "projector.safetensors"].map(PathBuf::from));
}

#[test]
fn a_link_goes_with_what_it_names() {
    let project = project(&[BASE]);
    project.run(&["m.toml"]);
    let link = project.path(".llavm/latest/training/base");
    project.stdout(&["gc", "m.toml", "--yes"]);
    assert!(link.is_dir(), "what the last run made is kept");
    project.write("m.toml", DATA);
    project.run(&["m.toml"]);
    project.stdout(&["gc", "m.toml", "--yes"]);
    assert!(!link.is_symlink() && !project.path(".llavm/latest/training").exists());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
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

/// `encode-images` keeps what the tower makes of the pixels, rounded to f16.
#[test]
fn features_computed_once_train_as_pixels_do() {
    let train = |name: &str, shards: &str| {
        format!(
            "[stages.{name}]\nkind = \"train\"\nfrom = \"{shards}\"\nqwen = \"qwen\"\nclip = \"clip\"\ntokenizer = \
             \"data/qwen3-tokenizer\"\ntrainable = [\"projector\", \"language\"]\nlearning_rate = 1e-2\nmax_steps = \
             12\neval_steps = 6\n"
        )
    };
    let features = r#"
[stages.features]
kind = "encode-images"
from = "pixels"
clip = "clip"

[stages.feature-shards]
kind = "shard"
from = ["labels", "features"]
validation = 0.05
"#;
    let project = project(&[BASE]);
    project.run(&["m.toml"]);
    for tower in ["qwen", "clip"] {
        let weights = format!("{tower}/model.safetensors");
        fs::copy(folder(&project, "base").join(&weights), project.path(&weights)).unwrap();
    }
    let stages = [DATA, features, &train("seen", "shards"), &train("known", "feature-shards")].concat();
    project.write("m.toml", stages);
    project.run(&["m.toml"]);
    let (seen, known) = (metrics(&folder(&project, "seen")), metrics(&folder(&project, "known")));
    assert_ne!(numbers(&seen, "loss"), numbers(&known, "loss"), "features are rounded");
    for column in ["loss", "eval_loss"] {
        for (a, b) in numbers(&seen, column).into_iter().zip(numbers(&known, column)) {
            assert!((a - b).abs() <= 1e-4 * b, "{column}: {a} {b}");
        }
    }
}

#[test]
fn a_layer_computed_again_need_not_be_kept() {
    let deep = QWEN
        .replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 24")
        .replace("\"hidden_size\": 8", "\"hidden_size\": 64")
        .replace("\"intermediate_size\": 16", "\"intermediate_size\": 512")
        .replace("\"initializer_range\": 0.3", "\"initializer_range\": 0.05");
    let plain = BASE.replace("max_steps = 12", "max_steps = 3").replace("size = 4", "size = 24");
    let again = plain.replace("stages.base", "stages.again") + "gradient_checkpointing = true\n";
    let project = project(&[&plain, &again]);
    project.write("qwen/config.json", deep);
    project.run(&["m.toml", "--until", "shards"]);
    let [kept, computed] = ["base", "again"].map(|stage| {
        project.run(&["m.toml", "--until", stage]);
        let folder = folder(&project, stage);
        let timing: Value = serde_json::from_slice(&fs::read(folder.join("timing.json")).unwrap()).unwrap();
        (numbers(&metrics(&folder), "loss"), timing["peak_rss_mib"].as_f64().unwrap())
    });
    assert!(kept.0.iter().zip(&computed.0).all(|(a, b)| (a / b - 1.0).abs() < 1e-5), "{kept:?} {computed:?}");
    assert!(computed.1 < 0.7 * kept.1, "{} MiB instead of {}", computed.1, kept.1);
}

#[test]
fn a_batch_has_at_most_so_many_tokens_and_every_row_is_in_one() {
    let budget = "max_tokens_per_batch = 640\nnum_train_epochs = 1\n";
    let project = project(&[&BASE.replace("max_steps = 12\n", budget)]);
    project.run(&["m.toml"]);
    let metrics = metrics(&folder(&project, "base"));
    let column =
        |name: &str| metrics.column_by_name(name).unwrap().as_primitive::<UInt64Type>().values().to_vec();
    let (tokens, samples) = (column("tokens"), column("samples"));
    assert!(tokens.iter().all(|tokens| *tokens <= 640), "{tokens:?}");
    assert_eq!(samples.iter().sum::<u64>(), 304);
    assert!(samples.iter().max() > samples.iter().min(), "{samples:?}");
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
fn a_measured_loss_that_is_no_number_stops_before_it_is_saved() {
    let wild = "learning_rate = 1e30\nmax_grad_norm = 0\nsave_steps = 1\neval_steps = 1";
    let project = project(&[&BASE.replace("learning_rate = 1e-2", wild)]);
    let output = project.llavm(&["run", "m.toml"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("step 1: the loss of validation rows is"), "{said}");
    assert!(said.contains("rows: ") && said.contains("parquet"), "{said}");
    assert!(checkpoints(&project).is_empty());
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
