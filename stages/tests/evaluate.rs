//! `evaluate` in real runs of small manifests: sample conversations, and a small model with random weights.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use burn::tensor::Device;
use llavm_model::clip::ClipVision;
use llavm_model::config::{ClipVisionConfig, Dtype, Qwen3Config};
use llavm_model::folder::{Description, ModelFolder};
use llavm_model::generate::assistant::Assistant;
use llavm_model::generate::{Options as Answering, Prompt, generate};
use llavm_model::projector::Projector;
use llavm_model::qwen3::Qwen3;
use llavm_model::sampler::Sampling;
use llavm_model::save::{self, Parts};
use llavm_model::source::{Loader, RandomSource};
use llavm_model::vlm::Vlm;
use llavm_pipeline::Silent;
use llavm_pipeline::stage::{JobContext, JobStage, Parameters, StageKind};
use llavm_pipeline::{Engine, Manifest, Options, StageError};
use llavm_stages::asking::asker::Asker;
use llavm_stages::asking::seen::Seen;
use llavm_stages::evaluate::engine::{self, Task};
use llavm_stages::evaluate::prediction::{self, Prediction};
use llavm_stages::evaluate::questions::Tokens;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

const CLIP: &str = r#"{"model_type": "clip_vision_model", "hidden_size": 16, "image_size": 32, "intermediate_size": 32,
    "num_attention_heads": 2, "num_hidden_layers": 1, "patch_size": 16, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}"#;
const QWEN: &str = r#"{"model_type": "qwen3", "hidden_size": 16, "head_dim": 8, "intermediate_size": 32, "eos_token_id": 151645,
    "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 1, "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "tie_word_embeddings": true, "vocab_size": 151669, "hidden_act": "silu"}"#;
const IMAGE_PAD: u32 = 151_655;

/// A job that writes a model with random weights.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Guess {
    seed: u64,
}

impl Default for Guess {
    fn default() -> Self {
        Self { seed: 7 }
    }
}

impl Parameters for Guess {}

impl StageKind for Guess {
    const KIND: &'static str = "guess";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "a model with random weights";
}

impl JobStage for Guess {
    fn run(&self, context: &dyn JobContext) -> Result<(), StageError> {
        let tokenizer = root("data/qwen3-tokenizer").display().to_string();
        let description =
            Description { image_pad_num: Some(4), tokenizer: Some(tokenizer), ..Description::default() };
        let parts = Parts { lora: None, qwen: Some(None), clip: Some(None) };
        save::model_folder(context.output(), &mut model(self.seed), description, &parts).unwrap();
        Ok(())
    }
}

fn model(seed: u64) -> Vlm {
    let (clip, qwen) = (ClipVisionConfig::from_json(CLIP).unwrap(), Qwen3Config::from_json(QWEN).unwrap());
    let (mut source, device) = (RandomSource::new(seed), Device::flex());
    let tower = ClipVision::load(Loader::new(&mut source, &device, Dtype::F32), &clip);
    let (vision, hidden) = (clip.hidden_size, qwen.hidden_size);
    let projector = Projector::load(Loader::new(&mut source, &device, Dtype::F32), vision, hidden);
    let language = Qwen3::load(Loader::new(&mut source, &device, Dtype::F32), &qwen);
    Vlm::new(Some(tower), projector, language, IMAGE_PAD)
}

fn root(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A run of a manifest in a folder of its own.
struct Run {
    folder: tempfile::TempDir,
    manifest: String,
}

impl Run {
    fn new(evaluate: &str) -> Self {
        let manifest = MANIFEST.replace("$DATA", &root("data").display().to_string()) + evaluate;
        Self { folder: tempfile::tempdir().unwrap(), manifest }
    }

    /// Runs; how many stages had work to do.
    fn run(&self) -> usize {
        let store = self.folder.path().join("store").display().to_string();
        let text = format!("store = \"{store}\"\n{}", self.manifest);
        let path = self.folder.path().join("manifest.toml");
        let manifest = Manifest::read(text.as_bytes(), &path, &[], &llavm_stages::registry().job::<Guess>());
        let graph = manifest.unwrap_or_else(|error| panic!("{error:?}")).graph;
        let engine = Engine::open(graph, Options { jobs: 2, ..Options::default() }).unwrap();
        let finished = engine.run(&Silent, &AtomicBool::new(false)).unwrap();
        assert!(finished.errors.is_empty(), "{:?}", finished.errors);
        finished.summary.stages.iter().filter(|stage| stage.ran > 0).count()
    }

    /// The folder that a job stage wrote last.
    fn job(&self, stage: &str) -> PathBuf {
        let jobs = self.folder.path().join("store/jobs").join(stage);
        let folders = std::fs::read_dir(jobs).unwrap().map(|entry| entry.unwrap().path());
        let modified = |path: &PathBuf| path.metadata().unwrap().modified().unwrap();
        folders.filter(|path| path.is_dir()).max_by_key(modified).unwrap()
    }

    fn report(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.job("report").join("report.json")).unwrap()).unwrap()
    }

    fn predictions(&self) -> Vec<Prediction> {
        prediction::read(&self.job("report").join("predictions.parquet")).unwrap().0
    }
}

const MANIFEST: &str = r#"
name = "test"
seed = 3

[stages.rows]
kind = "read"
files = "$DATA/llava/chat.json"
conversation = "llava"
images = "$DATA/llava/images"
columns = { id = "id", image = "image", conversations = "conversations" }

[stages.pixels]
kind = "decode-resize"
from = "rows"
size = 32

[stages.chat]
kind = "chat-template"
from = "rows"
tokenizer = "$DATA/qwen3-tokenizer"

[stages.pads]
kind = "image-pads"
from = "chat"
count = 4

[stages.tokens]
kind = "tokenize"
from = "pads"
tokenizer = "$DATA/qwen3-tokenizer"

[stages.labels]
kind = "shift-labels"
from = "tokens"

[stages.shards]
kind = "shard"
from = ["labels", "pixels"]
validation = 0.5

[stages.model]
kind = "guess"
from = "shards"

[stages.report]
kind = "evaluate"
from = ["model", "shards"]
generate = { max_new_tokens = 6, batch_size = 5 }
bootstrap = 50
"#;

/// The numbers that every report has.
const KEYS: [&str; 14] = [
    "loss",
    "perplexity",
    "answer_tokens",
    "token_accuracy",
    "exact_match",
    "bleu_4",
    "rouge_l",
    "cider_d",
    "image_swap.loss",
    "image_swap.exact_match",
    "question_swap.changed",
    "question_swap.exact_match",
    "rows",
    "rejected",
];

fn at<'a>(report: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(report, |value, key| value.get(key).unwrap_or_else(|| panic!("{path} is missing")))
}

#[test]
fn a_report_has_every_number_with_its_interval() {
    let run = Run::new("turns = \"each\"\nslices = [\"source\", \"language\"]\n");
    run.run();
    let report = run.report();
    for key in KEYS {
        assert!(!at(&report, key).is_null(), "{key}");
    }
    for key in ["loss", "exact_match", "cider_d", "image_swap.loss", "question_swap.changed"] {
        let (value, interval) = (at(&report, key).as_f64().unwrap(), at(&report, &format!("{key}_ci")));
        let [lo, hi] = [0, 1].map(|end| interval[end].as_f64().unwrap());
        assert!(lo <= hi && lo <= value + 1e-9 && value <= hi + 1e-9, "{key}: {value} in {interval}");
    }
    let page = std::fs::read_to_string(run.job("report").join("report.html")).unwrap();
    assert!(page.contains("Does it look?") && page.contains("data:image/png"));
    for prediction in run.predictions() {
        assert!(prediction.loss > 8.0 && prediction.loss < 16.0, "about ln 151669: {}", prediction.loss);
    }
    assert_eq!(run.run(), 0, "a second run finds everything done");
}

/// The keys that a section of `docs/report-json.md` names in the first column of its table.
fn documented(section: &str) -> std::collections::BTreeSet<String> {
    let text = std::fs::read_to_string(root("docs/report-json.md")).unwrap();
    let section = text.split("\n## ").find(|part| part.starts_with(section)).unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let names = cells.flat_map(|cell| {
        cell.split('`').filter(|part| !part.contains([' ', '[', '…'])).map(str::to_owned).collect::<Vec<_>>()
    });
    names.filter(|name| !name.is_empty() && name != ",").collect()
}

/// The keys of a report, those of intervals aside; BLEU's as the document has them.
fn keys(report: &Value) -> std::collections::BTreeSet<String> {
    let names = report.as_object().unwrap().keys().filter(|name| !name.ends_with("_ci"));
    names.filter(|name| !["bleu_2", "bleu_3", "pictures"].contains(&name.as_str())).cloned().collect()
}

#[test]
fn every_key_of_a_report_is_documented_and_written() {
    let data = root("data/benchmarks").display().to_string();
    let run = Run::new(&format!(
        "metrics = [\"exact_match\", \"bleu\", \"rouge_l\", \"cider_d\", \"yes_no\", \"pope\"]\n\
         [stages.pope]\nkind = \"benchmark\"\nfrom = \"model\"\nname = \"pope\"\nfiles = [\"{data}/pope.parquet\"]\n\
         generate = {{ max_new_tokens = 2 }}\nbootstrap = 0\n"
    ));
    run.run();
    assert_eq!(documented("Stage `evaluate`"), keys(&run.report()));
    let text = std::fs::read(run.job("pope").join("report.json")).unwrap();
    assert_eq!(documented("Stage `benchmark`"), keys(&serde_json::from_slice(&text).unwrap()));
}

#[test]
fn batches_give_what_one_question_at_a_time_gives() {
    let by_batch = |size: usize| {
        let run = Run::new("samples = 9\n");
        let run =
            Run { manifest: run.manifest.replace("batch_size = 5", &format!("batch_size = {size}")), ..run };
        run.run();
        run.predictions()
    };
    let (many, one) = (by_batch(7), by_batch(1));
    assert_eq!(many.len(), one.len());
    for (a, b) in many.iter().zip(&one) {
        assert_eq!(
            (&a.id, a.turn, &a.answer, &a.question_swap),
            (&b.id, b.turn, &b.answer, &b.question_swap)
        );
        assert!((a.loss - b.loss).abs() < 1e-4, "{} {}", a.loss, b.loss);
        let (a, b) = (a.image_swap.as_ref(), b.image_swap.as_ref());
        assert_eq!(a.map(|swap| (&swap.id, &swap.answer)), b.map(|swap| (&swap.id, &swap.answer)));
    }
}

#[test]
fn two_runs_write_the_same_bytes() {
    let run = Run::new("");
    let files = || {
        run.run();
        let read = |name: &str| std::fs::read(run.job("report").join(name)).unwrap();
        ["report.json", "predictions.parquet", "report.html"].map(read)
    };
    let first = files();
    std::fs::remove_dir_all(run.folder.path().join("store")).unwrap();
    assert!(first == files());
}

#[test]
fn what_is_kept_of_some_rows_changes_nothing_of_a_run_over_all() {
    let fresh = Run::new("");
    let grown = Run::new("samples = 7\n");
    grown.run();
    let grown = Run { manifest: grown.manifest.replace("samples = 7\n", ""), ..grown };
    for run in [&fresh, &grown] {
        run.run();
    }
    let kept = |run: &Run| {
        let timing = std::fs::read(run.job("report").join("timing.json")).unwrap();
        serde_json::from_slice::<Value>(&timing).unwrap()["kept"].as_u64().unwrap()
    };
    // Some questions are asked twice within one evaluation.
    assert!(kept(&grown) >= kept(&fresh) + 7, "{} {}", kept(&grown), kept(&fresh));
    // With what others a question is asked shows in the last bits of a loss, and nowhere else.
    let (before, after) = (fresh.predictions(), grown.predictions());
    assert_eq!(before.len(), after.len());
    for (mut a, b) in before.into_iter().zip(after) {
        assert!((a.loss - b.loss).abs() < 1e-5, "{} {}", a.loss, b.loss);
        a.loss = b.loss;
        if let (Some(a), Some(b)) = (&mut a.image_swap, &b.image_swap) {
            assert!((a.loss - b.loss).abs() < 1e-5, "{} {}", a.loss, b.loss);
            a.loss = b.loss;
        }
        assert_eq!(format!("{a:?}"), format!("{b:?}"));
    }
}

/// The layouts of `data/benchmarks`: benchmark, files, questions.
const LAYOUTS: [(&str, &[&str], u64); 12] = [
    ("scienceqa-img", &["scienceqa_img.parquet"], 3),
    ("seed-bench", &["seedbench.parquet"], 3),
    ("ai2d", &["ai2d.parquet"], 3),
    ("mmstar", &["mmstar.parquet"], 3),
    ("gqa", &["gqa_instructions.parquet", "gqa_images.parquet"], 3),
    ("textvqa-val", &["textvqa.parquet"], 3),
    ("captions", &["coco_captions.parquet"], 3),
    ("captions", &["flickr30k.parquet"], 3),
    ("captions", &["COCO_VAL.tsv"], 3),
    ("hallusionbench", &["hallusion_image.parquet"], 6),
    ("mme", &["MME.tsv"], 6),
    ("mmbench-en", &["MMBench_DEV_EN.tsv"], 9),
];

#[test]
fn every_layout_is_asked_with_its_images() {
    let data = root("data/benchmarks").display().to_string();
    let stage = |(n, (name, files, _)): (usize, &(&str, &[&str], u64))| {
        let files: Vec<String> = files.iter().map(|file| format!("{data}/{file}")).collect();
        format!(
            "[stages.b{n}]\nkind = \"benchmark\"\nfrom = \"model\"\nname = \"{name}\"\nfiles = {files:?}\n\
             generate = {{ max_new_tokens = 2 }}\nbootstrap = 0\n"
        )
    };
    let run = Run::new(&LAYOUTS.iter().enumerate().map(stage).collect::<String>());
    run.run();
    for (n, (name, files, questions)) in LAYOUTS.iter().enumerate() {
        let folder = run.job(&format!("b{n}"));
        let report: Value =
            serde_json::from_slice(&std::fs::read(folder.join("report.json")).unwrap()).unwrap();
        assert_eq!(
            (&report["questions"], &report["rejected"]),
            (&(*questions).into(), &serde_json::json!({})),
            "{name} {files:?}"
        );
        let rows = prediction::read(&folder.join("predictions.parquet")).unwrap().0;
        let images: std::collections::BTreeSet<&Option<String>> = rows.iter().map(|row| &row.image).collect();
        assert!(images.len() == 3 && !images.contains(&None), "{name} {files:?}: three images");
        assert!(rows.iter().all(|row| !row.reference.is_empty()), "{name} {files:?}");
    }
}

#[test]
fn a_bad_image_costs_its_own_questions_and_is_counted_by_name() {
    let table = std::fs::read_to_string(root("data/benchmarks/MMBench_DEV_EN.tsv")).unwrap();
    let mut lines: Vec<Vec<String>> =
        table.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect();
    // The first question's image is no base64, the second one's no image; their rotations name them.
    lines[1][1] = "!".repeat(80);
    lines[4][1] = "QUJD".repeat(30);
    let broken: Vec<String> = lines.iter().map(|cells| cells.join("\t")).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.tsv");
    std::fs::write(&path, broken.join("\n")).unwrap();
    let run = Run::new(&format!(
        "[stages.bad]\nkind = \"benchmark\"\nfrom = \"model\"\nname = \"mmbench-en\"\nfiles = [{path:?}]\n\
         generate = {{ max_new_tokens = 2 }}\nbootstrap = 0\n"
    ));
    run.run();
    let report: Value =
        serde_json::from_slice(&std::fs::read(run.job("bad").join("report.json")).unwrap()).unwrap();
    assert_eq!((&report["questions"], &report["rejected"]["benchmark/bad-image"]), (&9.into(), &6.into()));
    assert_eq!(report["scores"][0]["rows"], 3);
    let reasons: Vec<&str> = report["rejects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reject| reject["reason"].as_str().unwrap())
        .collect();
    assert!(
        reasons[0].contains("base64")
            && reasons.iter().all(|reason| reason.starts_with("benchmark/bad-image: ")),
        "{reasons:?}"
    );
}

#[test]
fn an_answer_known_from_the_loss_is_the_one_that_generation_writes() {
    let run = Run::new("");
    run.run();
    let folder = ModelFolder::open(&run.job("model").display().to_string()).unwrap();
    let assistant = Assistant::load(&folder, &Device::flex(), Dtype::F32).unwrap();
    let seen = Seen::default();
    let asker = Asker {
        assistant: &assistant,
        seen: &seen,
        max_new_tokens: 4,
        batch_size: 2,
        kept: None,
        done: Box::new(|_| Ok(())),
    };
    let prompt = [785, 3974, 13876];
    let tokens = |answer: &[u32]| {
        let ids: Vec<u32> = prompt.iter().chain(answer).copied().collect();
        let labels: Vec<i32> = [-100, -100].into_iter().chain(ids[3..].iter().map(|id| *id as i32)).collect();
        Tokens::of(&ids[..ids.len() - 1], &labels).unwrap()
    };
    // What the model says by itself becomes the right answer; then every token is the likeliest.
    let prompt_alone = [Prompt { ids: prompt.to_vec(), features: None }];
    let options =
        Answering { max_new_tokens: 4, sampling: Sampling::default(), eos: assistant.eos().to_vec() };
    let mut go_on = |_: usize, _: u32| ControlFlow::Continue(());
    let answer = generate(&assistant.model, &prompt_alone, 0, &options, &mut go_on).unwrap().remove(0);
    let right = tokens(&answer);
    let known = engine::examine(&asker, &[Task { tokens: &right, shown: None }]).unwrap();
    let generated = engine::answer(&asker, &[Task { tokens: &right, shown: None }]).unwrap();
    assert_eq!(known[0].correct, [true; 4]);
    assert_eq!(known[0].answer, generated[0]);
    assert_eq!(known[0].answer, assistant.text(&answer).unwrap().trim());
}

/// A run that asks the sample benchmarks.
fn benchmarks(more: &str) -> Run {
    let data = root("data/benchmarks").display().to_string();
    Run::new(&format!(
        "[stages.pope]\nkind = \"benchmark\"\nfrom = \"model\"\nname = \"pope\"\nfiles = [\"{data}/pope.parquet\"]\n\
         generate = {{ max_new_tokens = 5, batch_size = 4 }}\nbootstrap = 50\n{more}\n\
         [stages.mmbench]\nkind = \"benchmark\"\nfrom = \"model\"\nname = \"mmbench-en\"\nfiles = [\"{data}/MMBench_DEV_EN.tsv\"]\n\
         generate = {{ max_new_tokens = 5, batch_size = 4 }}\nbootstrap = 0\n"
    ))
}

#[test]
fn a_benchmark_of_either_layout_is_asked_and_scored_by_every_rule() {
    let run = benchmarks("");
    run.run();
    let read = |stage: &str| -> Value {
        serde_json::from_slice(&std::fs::read(run.job(stage).join("report.json")).unwrap()).unwrap()
    };
    let pope = read("pope");
    let rules: Vec<&str> =
        pope["scores"].as_array().unwrap().iter().map(|score| score["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, ["lmms-eval", "vlmevalkit", "pope"]);
    assert_eq!(pope["questions"], 9);
    assert!(pope["scores"][2]["numbers"][0]["ci"].is_array());
    let rows = prediction::read(&run.job("pope").join("predictions.parquet")).unwrap().0;
    let images: std::collections::BTreeSet<&Option<String>> = rows.iter().map(|row| &row.image).collect();
    assert_eq!((rows.len(), images.len()), (9, 3), "three questions about each of three images");
    assert_eq!(read("mmbench")["questions"], 9);
    let lines = std::fs::read_to_string(run.job("mmbench").join("answers.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 9);
    let page = std::fs::read_to_string(run.job("mmbench").join("report.html")).unwrap();
    for part in ["By vlmevalkit's rule", "What went wrong", "data:image/png", "should be:"] {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(run.run(), 0, "a second run finds everything done");
}

#[test]
fn a_benchmarks_answers_do_not_depend_on_how_many_are_asked_at_once() {
    let answers = |size: usize| {
        let run = benchmarks("");
        let manifest = run.manifest.replace("batch_size = 4", &format!("batch_size = {size}"));
        let run = Run { manifest, ..run };
        run.run();
        ["pope", "mmbench"]
            .map(|stage| std::fs::read_to_string(run.job(stage).join("answers.jsonl")).unwrap())
    };
    assert_eq!(answers(1), answers(7));
}
