//! `benchmark`: ask a trained model the questions of a public benchmark, and score its answers.
//!
//! In: a model folder (`train`), and the benchmark's files as lmms-eval or VLMEvalKit publish them. Out, a folder:
//! `report.json` (what each rule says), `predictions.parquet` (as `evaluate` writes it, so that `report` compares both),
//! `answers.jsonl` (index, question and answer, in the order of the files; `score` scores it again) and `timing.json` (how many
//! questions this run asked), and `report.html`, one page that needs nothing else. A question whose image cannot be decoded, or that cannot be asked, is left out by name.

use super::asking::{Asking, Said};
use super::inputs::{self, Inputs};
use super::item::Item;
use super::page::Report;
pub use super::parameters::AskBenchmark;
use super::predictions::Paired;
use super::rule::Rule;
use super::score::{self, Score};
use super::{BENCHMARKS, Benchmark, find};
use crate::asking::kept::{Kept, Timing};
use crate::evaluate::prediction::{self, PREDICTIONS};
use crate::evaluate::scores::Scores;
use crate::evaluate::session::{MODEL, assistant_of, code, settings};
use crate::evaluate::{PAGE, TIMING};
use llavm_model::processor::image::ImageProcessor;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{JobContext, JobStage, Missing, Parameters, Resource, StageKind};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The numbers' file.
const REPORT: &str = "report.json";
/// The answers' file.
const ANSWERS: &str = "answers.jsonl";

impl StageKind for AskBenchmark {
    const KIND: &'static str = "benchmark";
    const VERSION: u32 = 3;
    const ABOUT: &'static str =
        "ask a trained model the questions of a public benchmark and score its answers";
}

impl Parameters for AskBenchmark {
    fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        if find(&self.name).is_none() {
            let names: Vec<&str> = BENCHMARKS.iter().map(|benchmark| benchmark.name).collect();
            wrong.push(("name", format!("`{}` is none of {}", self.name, names.join(", "))));
        }
        wrong.extend(self.inputs().mistake().map(|text| ("files", text)));
        if self.generate.max_new_tokens == 0 || self.generate.batch_size == 0 {
            wrong.push(("generate", "max_new_tokens and batch_size must be at least 1".to_owned()));
        }
        if let Err(error) = crate::device::first(&self.device) {
            wrong.push(("device", error.to_string()));
        }
        wrong
    }

    fn resources(&self) -> Result<Vec<Resource>, StageError> {
        let paths = self.inputs().paths()?.into_iter().enumerate();
        Ok(paths.map(|(n, path)| Resource { name: format!("files[{n}]"), path }).collect())
    }

    fn missing(&self) -> Vec<Missing> {
        self.inputs().missing("files")
    }
}

impl AskBenchmark {
    fn inputs(&self) -> Inputs<'_> {
        Inputs { name: &self.name, files: &self.files }
    }

    fn benchmark(&self) -> Result<&'static Benchmark, StageError> {
        find(&self.name).ok_or_else(|| StageError::new(format!("there is no benchmark `{}`", self.name)))
    }
}

impl JobStage for AskBenchmark {
    fn run(&self, context: &dyn JobContext) -> Result<(), StageError> {
        let benchmark = self.benchmark()?;
        let paths = self.inputs().paths()?;
        let mut items = inputs::items(&paths)?;
        if self.samples > 0 {
            items.truncate(self.samples);
        }
        let folder = context.folder(MODEL, 0)?.ok_or_else(|| {
            StageError::new("benchmark reads a model folder").help("Name it: from = \"<train stage>\".")
        })?;
        let assistant = assistant_of(&self.device, self.dtype, &folder)?;
        let kept = Kept::open(context, MODEL, &settings(&self.device, self.dtype))?;
        let progress = |done: usize, all: usize| {
            context.progress(done as f64 / all.max(1) as f64, &format!("{done}/{all} questions"));
            if context.cancelled() { Err(StageError::new("the run is stopping")) } else { Ok(()) }
        };
        let asking = Asking {
            benchmark,
            items: &items,
            assistant: &assistant,
            max_new_tokens: self.generate.max_new_tokens,
            batch_size: self.generate.batch_size,
            kept: kept.as_ref(),
            pool: context.pool(),
            progress: &progress,
        };
        let start = Instant::now();
        let said = asking.ask(&|take| inputs::images(&paths, take))?;
        let counts = kept.as_ref().map(Kept::counts).unwrap_or_default();
        let timing = Timing { counts, seconds: start.elapsed().as_secs_f64() };
        let seen = (paths.as_slice(), &assistant.processor.image);
        Outcome::of(items, said)?.write(self, benchmark, context, seen)?;
        write_json(&context.output().join(TIMING), &timing)
    }

    fn ephemeral(&self) -> &'static [&'static str] {
        &[TIMING]
    }
}

/// What became of the questions.
struct Outcome {
    /// Those that were answered.
    paired: Paired,
    /// The number of each among all questions.
    rows: Vec<usize>,
    /// Those that could not be asked.
    rejects: Vec<Reject>,
}

/// A question that was not asked.
#[derive(Serialize)]
struct Reject {
    /// Its number in the files.
    doc_id: usize,
    index: String,
    /// `benchmark/code: detail`.
    reason: String,
}

/// A line of the answers' file.
#[derive(Serialize)]
struct Line<'a> {
    doc_id: usize,
    index: &'a str,
    question: &'a str,
    prediction: &'a str,
}

impl Outcome {
    /// An error when nothing could be asked.
    fn of(items: Vec<Item>, said: Vec<Said>) -> Result<Self, StageError> {
        let mut outcome = Self { paired: Paired::default(), rows: Vec::new(), rejects: Vec::new() };
        for (doc_id, (item, said)) in items.into_iter().zip(said).enumerate() {
            match said {
                Ok(answer) => {
                    outcome.paired.items.push(item);
                    outcome.paired.answers.push(answer);
                    outcome.rows.push(doc_id);
                }
                Err(reason) => outcome.rejects.push(Reject { doc_id, index: item.index, reason }),
            }
        }
        match (outcome.rows.is_empty(), outcome.rejects.first()) {
            (true, Some(first)) => {
                let text =
                    format!("no question could be asked; the first, {}: {}", first.index, first.reason);
                Err(StageError::new(text).help("Name the files that hold the images, too."))
            }
            _ => Ok(outcome),
        }
    }

    /// How many were rejected, by `benchmark/code`.
    fn rejected(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        self.rejects.iter().for_each(|reject| *counts.entry(code(&reject.reason)).or_default() += 1);
        counts
    }

    fn write(
        &self,
        stage: &AskBenchmark,
        benchmark: &'static Benchmark,
        context: &dyn JobContext,
        (paths, image): (&[PathBuf], &ImageProcessor),
    ) -> Result<(), StageError> {
        let (output, seed) = (context.output(), context.seed());
        let score = |rule: &Rule| score::score(benchmark, rule, &self.paired, stage.bootstrap, seed);
        let scores: Vec<Score> = benchmark.rules.iter().map(score).collect();
        let rows = score::predictions(benchmark, &self.paired);
        let columns = score::COLUMNS.map(str::to_owned);
        prediction::write(&output.join(PREDICTIONS), &rows, &Scores::of(&rows), &columns)?;
        let lines = self.rows.iter().zip(&self.paired.items).zip(&self.paired.answers);
        let line = |((doc_id, item), answer): ((&usize, &Item), &String)| {
            let (index, question) = (item.index.as_str(), item.question.as_str());
            json!(Line { doc_id: *doc_id, index, question, prediction: answer }).to_string() + "\n"
        };
        let path = output.join(ANSWERS);
        std::fs::write(&path, lines.map(line).collect::<String>())
            .map_err(|cause| StageError::io(&path, cause))?;
        let report = json!({
            "benchmark": benchmark.name,
            "scores": scores,
            "questions": self.rows.len() + self.rejects.len(),
            "rejected": self.rejected(),
            "rejects": self.rejects,
            "seed": seed,
            "origin": context.origin()?,
        });
        write_json(&output.join(REPORT), &report)?;
        let page = Report {
            benchmark,
            scores: &scores,
            paired: &self.paired,
            rejected: &self.rejected(),
            origin: &context.origin()?,
            paths,
            image,
            gallery: stage.gallery,
        };
        let path = output.join(PAGE);
        std::fs::write(&path, page.render()?).map_err(|cause| StageError::io(&path, cause))
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StageError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| StageError::new(error.to_string()))?;
    text.push(b'\n');
    std::fs::write(path, text).map_err(|cause| StageError::io(path, cause))
}
