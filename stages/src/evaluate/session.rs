//! The steps of an evaluation: draw rows, read their images, put questions into tokens, ask, swap, ask again.

use super::images::Images;
use super::prediction::{self, Prediction};
use super::rows::{self, Row};
use super::scores::Scores;
use super::{Evaluate, References};
use crate::asking::kept::Kept;
use crate::image_lists::whole;
use crate::metrics::resample::Resampler;
use crate::settings::IMAGES;
use arrow::array::RecordBatch;
use llavm_model::config::Dtype;
use llavm_model::doctor::verdicts::{Verdicts, require_healthy};
use llavm_model::folder::ModelFolder;
use llavm_model::generate::assistant::Assistant;
use llavm_model::processor::Processor;
use llavm_model::processor::image::ImageProcessor;
use llavm_pipeline::StageError;
use llavm_pipeline::rejects::Reason;
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
}

impl Found {
    /// Draws images, not questions.
    pub fn resampler(&self, replicates: usize, seed: u64) -> Resampler {
        Resampler::new(prediction::units(&self.predictions), replicates, seed)
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
    pub images: Images,
    /// Losses and answers of earlier runs.
    pub kept: Option<Kept>,
    /// Rows left out of the shards, and questions left out here, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// The model folder, and the shard folders.
    pub folder: PathBuf,
    pub units: Vec<PathBuf>,
    /// The partition whose images were read last.
    open: RefCell<Option<OpenPartition<'a>>>,
    /// Pieces of work done, and how many there are, about.
    pub done: Cell<usize>,
    pub work: Cell<usize>,
}

impl<'a> Session<'a> {
    /// Loads the model, draws rows, reads their images.
    pub fn open(params: &'a Evaluate, context: &'a dyn JobContext) -> Result<Self, StageError> {
        let folder = folder(context, MODEL, 0)?;
        let units = units(context)?;
        let assistant = assistant_of(&params.device, params.dtype, &folder)?;
        same_images(context, &assistant.processor)?;
        let mut session = Self {
            params,
            context,
            assistant,
            tables: Tables::of(context, &units)?,
            rows: draw(params, &units, context.seed())?,
            images: Images::default(),
            kept: Kept::open(context, MODEL, &settings(&params.device, params.dtype))?,
            rejected: rejected(&units)?,
            folder,
            units,
            open: RefCell::default(),
            done: Cell::new(0),
            work: Cell::new(0),
        };
        session.work.set(5 * session.rows.len());
        session.images = session.look()?;
        for reason in session.images.rejects.iter().flatten() {
            *session.rejected.entry(code(reason)).or_default() += 1;
        }
        Ok(session)
    }

    fn look(&self) -> Result<Images, StageError> {
        let fetch = |group: usize, partition: usize, rows: &[usize]| self.fetch(group, partition, rows);
        Images::of(&self.rows, self.assistant.image_size(), &fetch, &|rows| self.progress(rows))
    }

    /// The pixels of some rows of a partition.
    pub fn fetch(&self, group: usize, partition: usize, rows: &[usize]) -> Result<RecordBatch, StageError> {
        let taken = self.take(group, partition, rows)?;
        whole(&taken, "pixels", &mut |partition, rows| self.take(group, partition as usize, rows))
    }

    fn take(&self, group: usize, partition: usize, rows: &[usize]) -> Result<RecordBatch, StageError> {
        let mut open = self.open.borrow_mut();
        let place = (group, partition);
        let access = match open.take().filter(|(held, _)| *held == place) {
            Some((_, access)) => access,
            None => self.context.rows(SHARDS, group, self.tables.images(group)?, partition)?,
        };
        let (_, access) = open.insert((place, access));
        access.take(rows, &["pixels", "origins"])
    }

    /// Counts work and shows it; an error when the user wants the run to end.
    pub fn progress(&self, pieces: usize) -> Result<(), StageError> {
        self.done.set(self.done.get() + pieces);
        let (done, work) = (self.done.get(), self.work.get().max(1));
        self.context.progress((done as f64 / work as f64).min(1.0), &format!("{done}/{work} steps"));
        if self.context.cancelled() { Err(StageError::new("the run is stopping")) } else { Ok(()) }
    }
}

fn draw(params: &Evaluate, units: &[PathBuf], seed: u64) -> Result<Vec<Row>, StageError> {
    let mut columns = params.slices.clone();
    let References::Column(listed) = &params.references else {
        return rows::draw(units, params.split.name(), params.samples, seed, &columns);
    };
    columns.push(listed.clone());
    let mut rows = rows::draw(units, params.split.name(), params.samples, seed, &columns)?;
    rows.iter_mut().for_each(Row::take_references);
    Ok(rows)
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
    Reason::from(reason).code().to_owned()
}

/// Which table of each group has what.
pub struct Tables(Vec<Vec<Vec<String>>>);

impl Tables {
    /// The columns of the tables that the shards were made of.
    fn of(context: &dyn JobContext, units: &[PathBuf]) -> Result<Self, StageError> {
        let lineage = context.lineage(SHARDS)?;
        let columns = |name: &str| {
            lineage.iter().find(|stage| stage.name == name).map_or(Vec::new(), |stage| stage.columns.clone())
        };
        let shards = read_json(&units[0].join("shards.json"))?;
        let names = |group: &Value| -> Vec<Vec<String>> {
            let names = group["tables"].as_array().into_iter().flatten().filter_map(Value::as_str);
            names.map(columns).collect()
        };
        Ok(Self(shards["groups"].as_array().into_iter().flatten().map(names).collect()))
    }

    /// The table of a group that has the images.
    pub fn images(&self, group: usize) -> Result<usize, StageError> {
        self.find(group, &["pixels", "features"], "images")
    }

    fn find(&self, group: usize, columns: &[&str], what: &str) -> Result<usize, StageError> {
        let found = self.0.get(group).and_then(|tables| {
            tables.iter().position(|table| table.iter().any(|name| columns.contains(&name.as_str())))
        });
        found.ok_or_else(|| {
            let text = format!(
                "no table of the shards has the {what}: none has the column {}",
                columns.join(" or ")
            );
            StageError::new(text).help("Name both in the shard stage: from = [\"labels\", \"pixels\"].")
        })
    }
}

/// Refuses rows whose images were prepared otherwise than this model looks at images: what is measured on them is not what a user
/// sees.
fn same_images(context: &dyn JobContext, processor: &Processor) -> Result<(), StageError> {
    let all = context.settings(SHARDS)?;
    for stage in all.iter().filter(|settings| settings.what == IMAGES) {
        let image: ImageProcessor = serde_json::from_value(stage.value.clone()).map_err(failed)?;
        let (norm, max_pixels) = (processor.image.norm, processor.image.max_pixels);
        if (ImageProcessor { norm, max_pixels, ..image }) != processor.image {
            let text = format!("`{}` prepares images otherwise than the model was trained with", stage.stage);
            return Err(StageError::new(text)
                .help("Give decode-resize the parameters that it had when the model was trained."));
        }
    }
    Ok(())
}

/// What decides how a device counts.
pub fn settings(device: &str, dtype: Option<Dtype>) -> Value {
    serde_json::json!([crate::device::family_of(device), dtype])
}

/// The model, loaded on its device.
pub fn assistant_of(device: &str, dtype: Option<Dtype>, folder: &Path) -> Result<Assistant, StageError> {
    let name = crate::device::first(device).map_err(failed)?;
    let model = ModelFolder::open(&folder.to_string_lossy()).map_err(failed)?;
    let own = if name.is_reference() { Dtype::F32 } else { model.description.dtype };
    let dtype = dtype.unwrap_or(own);
    require_healthy(name, &[dtype], &Verdicts::of_user()).map_err(failed)?;
    Assistant::load(&model, &name.open().map_err(failed)?, dtype).map_err(failed)
}

fn failed(error: impl Display) -> StageError {
    StageError::new(error.to_string())
}
