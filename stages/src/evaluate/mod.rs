//! `evaluate`: ask a trained model the questions of held-out rows, and say how good the answers are.
//!
//! In: a model folder (`train`) and token shards (`shard`). Out, a folder: `report.json` (see `numbers.rs`),
//! `predictions.parquet` (see `prediction.rs`), `report.html`, one page that needs nothing else, and `timing.json`: how many
//! questions this run asked, and how many it or another run of the store had asked before.
//!
//! Beside the usual measures it answers two questions. **Does it look?** Each question is asked again about another
//! image (`image_swap`). **Does it listen?** About each image something else is asked (`question_swap`). What is
//! swapped with what is written in `swaps.rs`.
//!
//! | file | what |
//! |---|---|
//! | `parameters.rs` | what a manifest says |
//! | `session.rs`, `asking.rs` | what is open, and the steps from rows to predictions |
//! | `rows.rs`, `questions.rs`, `images.rs` | what is asked about what |
//! | `engine.rs` | losses, and (`crate::asking`) answers |
//! | `answered.rs`, `prediction.rs` | a question and what became of it, and the file of them |
//! | `scores.rs`, `numbers.rs` | what they are worth |
//! | `page/` | `report.html` |
//! | `compare/` | several evaluations side by side |

pub mod answered;
mod asking;
pub mod engine;
mod images;
pub(crate) mod page;
mod parameters;
pub mod questions;
mod rows;
pub(crate) mod session;
mod swaps;

pub mod compare;
pub mod numbers;
pub mod prediction;
pub mod scores;

pub use parameters::{Evaluate, Generate, References, Split, Turns};

use crate::asking::kept::{Kept, Timing};
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{JobContext, JobStage, Parameters, StageKind};
use numbers::Numbers;
use prediction::PREDICTIONS;
use serde_json::{Map, Value, json};
use session::{Found, Session};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// The numbers' file.
pub const REPORT: &str = "report.json";
/// How many questions were asked, and how many answers were kept: of a run, not of the evaluation.
pub const TIMING: &str = "timing.json";
/// The page for people.
pub const PAGE: &str = "report.html";

/// Caption measures of COCO's evaluation that are not computed, and why.
const LEFT_OUT: [(&str, &str); 2] = [
    ("meteor", "its stemmer, synonyms and paraphrase tables are those of a Java program under the LGPL"),
    ("spice", "needs the scene-graph parser of a Java program"),
];

impl StageKind for Evaluate {
    const KIND: &'static str = "evaluate";
    const VERSION: u32 = 4;
    const ABOUT: &'static str = "ask a trained model about held-out rows and report how good its answers are";
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
        if self.turns == Turns::Each && self.references != References::Row {
            wrong.push(("references", "of several turns each has its own; set turns = \"last\"".to_owned()));
        }
        if let Err(error) = crate::device::first(&self.device) {
            wrong.push(("device", error.to_string()));
        }
        wrong
    }
}

impl JobStage for Evaluate {
    fn reads_settings(&self) -> bool {
        true
    }

    fn run(&self, context: &dyn JobContext) -> Result<(), StageError> {
        let mut session = Session::open(self, context)?;
        let start = Instant::now();
        let found = session.predict()?;
        let seconds = start.elapsed().as_secs_f64();
        let report = self.report(&session, &found)?;
        let output = context.output();
        prediction::write(&output.join(PREDICTIONS), &found.predictions, &found.scores, &self.slices)?;
        write_json(&output.join(REPORT), &report)?;
        let page = page::render(&session, &found, &report)?;
        let path = output.join(PAGE);
        std::fs::write(&path, page).map_err(|cause| StageError::io(&path, cause))?;
        let counts = session.kept.as_ref().map(Kept::counts).unwrap_or_default();
        let timing = json!(Timing { counts, seconds });
        write_json(&output.join(TIMING), &timing.as_object().cloned().unwrap_or_default())
    }

    fn ephemeral(&self) -> &'static [&'static str] {
        &[TIMING]
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
        fields.insert("images".to_owned(), json!(session.images.count(&found.rows)));
        fields.insert("pictures".to_owned(), json!(session.images.count(&found.rows))); // the name of earlier reports
        fields.insert("references".to_owned(), json!(self.references));
        fields.insert("left_out".to_owned(), json!(BTreeMap::from(LEFT_OUT)));
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
