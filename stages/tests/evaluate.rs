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
use llavm_pipeline::observer::Silent;
use llavm_pipeline::stage::{JobContext, JobStage, Parameters, StageKind};
use llavm_pipeline::{Engine, Manifest, Options, StageError};
use llavm_stages::evaluate::engine::{Engine as Examiner, Task};
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
    const PARAMS: &'static [&'static str] = &["seed"];
}

impl JobStage for Guess {
    fn run(&self, context: &dyn JobContext) -> Result<(), StageError> {
        let tokenizer = root("data/qwen3-tokenizer").display().to_string();
        let description = Description {
            qwen: String::new(),
            clip: String::new(),
            image_pad_num: Some(4),
            dtype: Dtype::F32,
            system: None,
            tokenizer: Some(tokenizer),
            template: None,
            trained: Vec::new(),
        };
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

    /// The folder that a job stage wrote.
    fn job(&self, stage: &str) -> PathBuf {
        let jobs = self.folder.path().join("store/jobs").join(stage);
        let mut folders = std::fs::read_dir(jobs).unwrap().map(|entry| entry.unwrap().path());
        folders.find(|path| path.is_dir()).unwrap()
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
fn an_answer_known_from_the_loss_is_the_one_that_generation_writes() {
    let run = Run::new("");
    run.run();
    let folder = ModelFolder::open(&run.job("model").display().to_string()).unwrap();
    let assistant = Assistant::load(&folder, &Device::flex(), Dtype::F32).unwrap();
    let examiner = Examiner {
        assistant: &assistant,
        features: &[None],
        max_new_tokens: 4,
        batch_size: 2,
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
    let options = Answering { max_new_tokens: 4, sampling: Sampling::default(), eos: assistant.eos.clone() };
    let mut go_on = |_: usize, _: u32| ControlFlow::Continue(());
    let answer = generate(&assistant.model, &prompt_alone, 0, &options, &mut go_on).unwrap().remove(0);
    let right = tokens(&answer);
    let known = examiner.examine(&[Task { tokens: &right, shown: 0 }]).unwrap();
    let generated = examiner.answer(&[Task { tokens: &right, shown: 0 }]).unwrap();
    assert_eq!(known[0].correct, [true; 4]);
    assert_eq!(known[0].answer, generated[0]);
    assert_eq!(known[0].answer, assistant.text(&answer).unwrap().trim());
}
