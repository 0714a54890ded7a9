//! The steps of an evaluation: draw rows, look at their pictures, put questions into tokens, ask, swap, ask again.

use super::Evaluate;
use super::pictures::Pictures;
use super::prediction::Prediction;
use super::rows::{self, Row};
use super::scores::Scores;
use crate::metrics::resample::Resampler;
use arrow::array::RecordBatch;
use llavm_model::config::Dtype;
use llavm_model::device::DeviceName;
use llavm_model::doctor::verdicts::{Verdicts, require_healthy};
use llavm_model::folder::ModelFolder;
use llavm_model::generate::assistant::Assistant;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{JobContext, RowAccess};
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// Where the model folder and the shards stand in `from`.
pub const MODEL: usize = 0;
pub const SHARDS: usize = 1;

/// What evaluation found.
#[derive(Debug)]
pub struct Found {
    /// In the order of the shards.
    pub predictions: Vec<Prediction>,
    /// Of the predictions.
    pub scores: Scores,
    /// The row of each prediction, an index into [`Session::rows`].
    pub rows: Vec<usize>,
    /// What each prediction is about; equal numbers are equal pictures (a row without one counts as its own).
    pub units: Vec<usize>,
}

impl Found {
    /// Draws pictures, not questions.
    pub fn resampler(&self, replicates: usize, seed: u64) -> Resampler {
        Resampler::new(self.units.clone(), replicates, seed)
    }
}

/// Group and partition, and the rows in it.
type OpenPartition<'a> = ((usize, usize), Box<dyn RowAccess + 'a>);

/// Everything that is open while evaluating.
pub struct Session<'a> {
    pub params: &'a Evaluate,
    pub context: &'a dyn JobContext,
    pub assistant: Assistant,
    pub tables: Tables,
    pub rows: Vec<Row>,
    pub pictures: Pictures,
    /// Rows left out of the shards, and questions left out here, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// The model folder, and the shard folders.
    pub folder: PathBuf,
    pub units: Vec<PathBuf>,
    /// The partition whose pictures were read last.
    open: RefCell<Option<OpenPartition<'a>>>,
    /// Pieces of work done, and how many there are, about.
    pub done: Cell<usize>,
    pub work: Cell<usize>,
}

impl<'a> Session<'a> {
    /// Loads the model, draws rows, computes their pictures' features.
    pub fn open(params: &'a Evaluate, context: &'a dyn JobContext) -> Result<Self, StageError> {
        let folder = folder(context, MODEL, 0)?;
        let units = units(context)?;
        let mut session = Self {
            params,
            context,
            assistant: assistant(params, &folder)?,
            tables: Tables::of(context, &units)?,
            rows: rows::draw(&units, params.split.name(), params.samples, context.seed(), &params.slices)?,
            pictures: Pictures::default(),
            rejected: rejected(&units)?,
            folder,
            units,
            open: RefCell::default(),
            done: Cell::new(0),
            work: Cell::new(0),
        };
        session.work.set(5 * session.rows.len());
        session.pictures = session.look()?;
        for reason in session.pictures.rejects.iter().flatten() {
            *session.rejected.entry(code(reason)).or_default() += 1;
        }
        Ok(session)
    }

    fn look(&self) -> Result<Pictures, StageError> {
        let fetch = |group: usize, partition: usize, rows: &[usize]| self.fetch(group, partition, rows);
        Pictures::of(&self.rows, &self.assistant, &fetch, &|rows| self.progress(rows))
    }

    /// The pixels of some rows of a partition.
    pub fn fetch(&self, group: usize, partition: usize, rows: &[usize]) -> Result<RecordBatch, StageError> {
        let mut open = self.open.borrow_mut();
        let place = (group, partition);
        let access = match open.take().filter(|(held, _)| *held == place) {
            Some((_, access)) => access,
            None => self.context.rows(SHARDS, group, self.tables.pictures(group)?, partition)?,
        };
        let (_, access) = open.insert((place, access));
        access.take(rows, &["pixels"])
    }

    /// Counts work and shows it; an error when the user wants the run to end.
    pub fn progress(&self, pieces: usize) -> Result<(), StageError> {
        self.done.set(self.done.get() + pieces);
        let (done, work) = (self.done.get(), self.work.get().max(1));
        self.context.progress((done as f64 / work as f64).min(1.0), &format!("{done}/{work} steps"));
        if self.context.cancelled() { Err(StageError::new("the run is stopping")) } else { Ok(()) }
    }
}

fn folder(context: &dyn JobContext, input: usize, unit: usize) -> Result<PathBuf, StageError> {
    let missing = || {
        StageError::new("evaluate reads a model folder and token shards")
            .help("Name both: from = [\"<train stage>\", \"<shard stage>\"].")
    };
    context.folder(input, unit)?.ok_or_else(missing)
}

/// The shard folders: one, or one per partition.
fn units(context: &dyn JobContext) -> Result<Vec<PathBuf>, StageError> {
    let mut units = vec![folder(context, SHARDS, 0)?];
    while let Some(unit) = context.folder(SHARDS, units.len())? {
        units.push(unit);
    }
    Ok(units)
}

/// The rows that the shards leave out, by reason.
fn rejected(units: &[PathBuf]) -> Result<BTreeMap<String, u64>, StageError> {
    let mut rejected = BTreeMap::new();
    for unit in units {
        let shards = read_json(&unit.join("shards.json"))?;
        let counts = shards.get("rejected").and_then(Value::as_object);
        for (reason, count) in counts.into_iter().flatten() {
            *rejected.entry(reason.clone()).or_default() += count.as_u64().unwrap_or(0);
        }
    }
    Ok(rejected)
}

/// The JSON in a file.
pub fn read_json(path: &Path) -> Result<Value, StageError> {
    let text = std::fs::read(path).map_err(|cause| StageError::io(path, cause))?;
    serde_json::from_slice(&text).map_err(|error| StageError::new(format!("{}: {error}", path.display())))
}

/// `kind/code` of `kind/code: detail`.
pub fn code(reason: &str) -> String {
    reason.split_once(':').map_or(reason, |(code, _)| code).to_owned()
}

/// Which table of each group has what.
pub struct Tables(Vec<Vec<String>>);

impl Tables {
    /// The kinds of the tables that the shards were made of.
    fn of(context: &dyn JobContext, units: &[PathBuf]) -> Result<Self, StageError> {
        let lineage = context.lineage(SHARDS)?;
        let kind =
            |name: &str| lineage.iter().find(|stage| stage.name == name).map_or("", |stage| stage.kind);
        let shards = read_json(&units[0].join("shards.json"))?;
        let names = |group: &Value| -> Vec<String> {
            let names = group["tables"].as_array().into_iter().flatten().filter_map(Value::as_str);
            names.map(|name| kind(name).to_owned()).collect()
        };
        Ok(Self(shards["groups"].as_array().into_iter().flatten().map(names).collect()))
    }

    /// The table of a group that has the tokens.
    pub fn text(&self, group: usize) -> Result<usize, StageError> {
        self.find(group, &["shift-labels"], "tokens")
    }

    /// The table of a group that has the pictures.
    pub fn pictures(&self, group: usize) -> Result<usize, StageError> {
        self.find(group, &["decode-resize", "encode-images"], "pictures")
    }

    fn find(&self, group: usize, kinds: &[&str], what: &str) -> Result<usize, StageError> {
        let found = self
            .0
            .get(group)
            .and_then(|tables| tables.iter().position(|kind| kinds.contains(&kind.as_str())));
        found.ok_or_else(|| {
            let text =
                format!("no table of the shards has the {what}: none is of kind {}", kinds.join(" or "));
            StageError::new(text).help("Name both in the shard stage: from = [\"labels\", \"pixels\"].")
        })
    }
}

/// The model, loaded on its device.
fn assistant(params: &Evaluate, folder: &Path) -> Result<Assistant, StageError> {
    let name: DeviceName = params.device.parse().map_err(failed)?;
    let model = ModelFolder::open(&folder.to_string_lossy()).map_err(failed)?;
    let own = if name.is_reference() { Dtype::F32 } else { model.description.dtype };
    let dtype = params.dtype.unwrap_or(own);
    require_healthy(name, &[dtype], &Verdicts::of_user()).map_err(failed)?;
    Assistant::load(&model, &name.open().map_err(failed)?, dtype).map_err(failed)
}

fn failed(error: impl Display) -> StageError {
    StageError::new(error.to_string())
}
