//! `evaluate`: ask a trained model the questions of held-out rows, and say how good the answers are.
//!
//! In: a model folder (`train`) and token shards (`shard`). Out, a folder: `report.json` (see `numbers.rs`),
//! `predictions.parquet` (see `prediction.rs`) and `report.html`, one page that needs nothing else.
//!
//! Beside the usual measures it answers two questions. **Does it look?** Each question is asked again about another
//! picture (`image_swap`). **Does it listen?** About each picture something else is asked (`question_swap`). What is
//! swapped with what is written in `swaps.rs`.
//!
//! | file | what |
//! |---|---|
//! | `session.rs`, `asking.rs` | what is open, and the steps from rows to predictions |
//! | `rows.rs`, `questions.rs`, `pictures.rs` | what is asked about what |
//! | `engine.rs` | losses and answers |
//! | `scores.rs`, `numbers.rs` | what they are worth |
//! | `page/` | `report.html` |
//! | `compare/` | several evaluations side by side |

mod asking;
pub mod engine;
mod page;
mod pictures;
pub mod questions;
mod replay;
mod rows;
mod session;
mod swaps;

pub mod compare;
pub mod numbers;
pub mod prediction;
pub mod scores;

use llavm_model::config::Dtype;
use llavm_model::device::DeviceName;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{JobContext, JobStage, Parameters, StageKind};
use numbers::{Metric, Numbers};
use prediction::PREDICTIONS;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use session::{Found, Session};
use std::path::Path;

/// The numbers' file.
pub const REPORT: &str = "report.json";
/// The page for people.
pub const PAGE: &str = "report.html";

/// Parameters of `evaluate`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluate {
    /// Which rows: `validation` (default) or `train`.
    pub split: Split,
    /// Rows used, drawn by the seed where there are more. Default 2000.
    pub samples: usize,
    /// Which of a row's questions are asked. Default `last`.
    pub turns: Turns,
    /// How answers are made.
    pub generate: Generate,
    /// Which measures are reported beside loss and token accuracy. Default all: `exact_match`, `bleu`, `rouge_l`,
    /// `cider_d`, `yes_no`.
    pub metrics: Vec<Metric>,
    /// Columns of the shards by whose values results are told apart. Default `language` and `source`.
    pub slices: Vec<String>,
    /// Where to compute: `cpu` (default), `cuda`, `cuda:1` or `wgpu`.
    pub device: String,
    /// `f32`, `f16` or `bf16`. Default: f32 on the CPU, elsewhere what the model was trained in.
    pub dtype: Option<Dtype>,
    /// Replicates behind each confidence interval; 0 for none. Default 1000.
    pub bootstrap: usize,
    /// Pictures in the gallery of `report.html`. Default 60.
    pub gallery: usize,
}

/// A split of the shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Held out.
    #[default]
    Validation,
    /// Trained on.
    Train,
}

impl Split {
    fn name(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::Train => "train",
        }
    }
}

/// Which questions of a row are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Turns {
    /// The final one, after all that was said before it.
    #[default]
    Last,
    /// Every one, by itself.
    Each,
}

/// How answers are made; always the likeliest token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Generate {
    /// Most tokens of an answer. Default 128.
    pub max_new_tokens: usize,
    /// Questions at once. Default 32.
    pub batch_size: usize,
}

impl Default for Generate {
    fn default() -> Self {
        Self { max_new_tokens: 128, batch_size: 32 }
    }
}

impl Default for Evaluate {
    fn default() -> Self {
        Self {
            split: Split::default(),
            samples: 2000,
            turns: Turns::default(),
            generate: Generate::default(),
            metrics: Metric::ALL.to_vec(),
            slices: vec!["language".to_owned(), "source".to_owned()],
            device: DeviceName::Cpu.to_string(),
            dtype: None,
            bootstrap: 1000,
            gallery: 60,
        }
    }
}

impl StageKind for Evaluate {
    const KIND: &'static str = "evaluate";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "ask a trained model about held-out rows and report how good its answers are";
    const PARAMS: &'static [&'static str] = &[
        "split",
        "samples",
        "turns",
        "generate",
        "metrics",
        "slices",
        "device",
        "dtype",
        "bootstrap",
        "gallery",
    ];
}

impl Parameters for Evaluate {
    fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        if self.samples == 0 {
            wrong.push(("samples", "must be at least 1".to_owned()));
        }
        if self.generate.max_new_tokens == 0 || self.generate.batch_size == 0 {
            wrong.push(("generate", "max_new_tokens and batch_size must be at least 1".to_owned()));
        }
        if let Some(name) = self.slices.iter().find(|name| !rows::may_slice(name)) {
            wrong.push(("slices", format!("`{name}` is a column of {PREDICTIONS} already")));
        }
        if let Err(error) = self.device.parse::<DeviceName>() {
            wrong.push(("device", error.to_string()));
        }
        wrong
    }
}

impl JobStage for Evaluate {
    fn run(&self, context: &dyn JobContext) -> Result<(), StageError> {
        let mut session = Session::open(self, context)?;
        let found = session.predict()?;
        let report = self.report(&session, &found)?;
        let output = context.output();
        prediction::write(&output.join(PREDICTIONS), &found.predictions, &found.scores, &self.slices)?;
        write_json(&output.join(REPORT), &report)?;
        let page = page::render(&session, &found, &report)?;
        let path = output.join(PAGE);
        std::fs::write(&path, page).map_err(|cause| StageError::io(&path, cause))
    }
}

impl Evaluate {
    /// `report.json`.
    fn report(&self, session: &Session<'_>, found: &Found) -> Result<Map<String, Value>, StageError> {
        let seed = session.context.seed();
        let numbers = Numbers {
            predictions: &found.predictions,
            scores: &found.scores,
            slices: &self.slices,
            metrics: &self.metrics,
            resampler: &found.resampler(self.bootstrap, seed),
        };
        let mut fields = numbers.fields();
        fields.insert("pictures".to_owned(), json!(session.pictures.count(&found.rows)));
        fields.insert("rejected".to_owned(), json!(session.rejected));
        fields.insert("split".to_owned(), json!(self.split));
        fields.insert("turns".to_owned(), json!(self.turns));
        fields.insert("seed".to_owned(), json!(seed));
        fields.insert("origin".to_owned(), json!(session.context.origin()?));
        Ok(fields)
    }
}

fn write_json(path: &Path, fields: &Map<String, Value>) -> Result<(), StageError> {
    let mut text = serde_json::to_vec_pretty(fields).map_err(|error| StageError::new(error.to_string()))?;
    text.push(b'\n');
    std::fs::write(path, text).map_err(|cause| StageError::io(path, cause))
}
