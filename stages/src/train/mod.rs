//! `train`: a model from token shards.
//!
//! In: the folders of a `shard` stage, the pictures of their rows (`pixels` or `features` of the tables behind it), the
//! weights of `qwen` and `clip`, and, with `init_from`, the folder of another training.
//! Out: a model folder, which every command takes, and in it:
//!
//! ```text
//! model.toml, projector.safetensors, adapter/, qwen/, clip/    the model (llavm_model::folder); towers only if they learned
//! metrics.parquet        every step                            (record.rs)
//! training.json          what was trained with what            (finish.rs)
//! history/00-align/      both of the trainings before
//! timing.json, runs/     speed; TensorBoard's event files      (they hold times: no part of the content)
//! checkpoints/           while it is under way                 (checkpoint.rs)
//! ```
//!
//! | file | what |
//! |---|---|
//! | `parameters.rs` | what a manifest says |
//! | `estimate.rs` | what it takes, for `--dry-run` |
//! | `setup.rs` | the model at the beginning |
//! | `feed/` | rows to batches, in an order that the seed decides |
//! | `fit.rs` | the loop |
//! | `finish.rs` | the folder at the end |
//!
//! Killed at any point and run again, a training ends with the bytes it would have had: the order of rows, random numbers and
//! learning rates follow from seed and step, and checkpoints hold the rest.

mod checkpoint;
mod estimate;
mod feed;
mod finish;
mod fit;
mod parameters;
mod progress;
pub mod record;
mod setup;
mod tensorboard;

use crate::tokenizer_folder;
use checkpoint::Checkpoints;
use feed::{Batching, Feed, Form, Order, Pictures, Units};
use finish::{Output, Training};
use fit::{End, Fit};
use llavm_model::hub;
use llavm_model::train::{Part, Trainer};
use llavm_model::weights::Checkpoint;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{
    Estimate, Expected, JobContext, JobStage, Missing, Parameters, Resource, StageKind,
};
use record::Record;
use setup::{Origins, Start, failed};
use std::path::{Path, PathBuf};

pub(crate) use finish::copy_folder;
pub use parameters::{Lora, Train};

/// The shards among the inputs.
const SHARDS: usize = 0;

impl StageKind for Train {
    const KIND: &'static str = "train";
    const VERSION: u32 = 2;
    const ABOUT: &'static str = "train a vision-language model on token shards";
    const PARAMS: &'static [&'static str] = Self::NAMES;
    const LINKS: &'static [&'static str] = &["init_from"];
}

impl Parameters for Train {
    fn check(&self) -> Vec<(&'static str, String)> {
        self.mistakes()
    }

    fn estimate(&self, expected: &Expected) -> Option<Estimate> {
        Some(self.expect(expected))
    }

    /// Configuration and weights of both towers, and the tokenizer. Weights that are not there are not read: a tower from
    /// scratch, or one that `init_from` brings.
    fn resources(&self) -> Result<Vec<Resource>, StageError> {
        let mut resources = tokenizer_folder::resources(self.tokenizer.as_ref().unwrap_or(&self.qwen))?;
        for (name, locator, part) in
            [("qwen", &self.qwen, Part::Language), ("clip", &self.clip, Part::Vision)]
        {
            let folder = hub::resolve(locator).map_err(failed)?;
            let scratch = self.scratch(part);
            let files = tower_files(&folder, scratch);
            resources.extend(files.into_iter().map(|path| {
                let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                Resource { name: format!("{name}/{file}"), path }
            }));
        }
        Ok(resources)
    }

    fn missing(&self) -> Vec<Missing> {
        let towers = [("qwen", &self.qwen, Part::Language), ("clip", &self.clip, Part::Vision)];
        let mut missing: Vec<Missing> = towers
            .into_iter()
            .filter_map(|(param, locator, part)| {
                let needs_weights = !self.scratch(part) && self.init_from.is_none();
                let text = missing_tower(locator, needs_weights)?;
                let help = "Name a folder, or `hub:ORG/NAME` and download it with `llavm fetch`.".to_owned();
                Some(Missing { param, text, help })
            })
            .collect();
        missing.extend(
            self.tokenizer.as_ref().map(|folder| tokenizer_folder::missing(folder)).unwrap_or_default(),
        );
        missing
    }
}

/// The files that decide what a tower is.
fn tower_files(folder: &Path, scratch: bool) -> Vec<PathBuf> {
    let names = ["config.json", "generation_config.json", "preprocessor_config.json"];
    let mut files: Vec<PathBuf> =
        names.iter().map(|name| folder.join(name)).filter(|path| path.is_file()).collect();
    if !scratch && let Ok(weights) = Checkpoint::open(folder) {
        files.extend(weights.files().map(Path::to_owned));
    }
    files
}

/// What a tower's folder lacks.
fn missing_tower(locator: &str, needs_weights: bool) -> Option<String> {
    let config = hub::resolve_file(locator, "config.json", &[]);
    let folder = match config.as_deref().map(Path::parent) {
        Ok(folder) => folder?.to_owned(),
        Err(error) => return Some(error.to_string()),
    };
    if !needs_weights {
        return None;
    }
    let error = Checkpoint::open(&folder).err()?;
    // A repository of which only the tokenizer was fetched.
    let fetch = hub::fetch_command::<&str>(locator, &[]);
    let hint =
        if locator.starts_with(hub::HUB) { format!(" Download it with `{fetch}`.") } else { String::new() };
    Some(format!("{error}{hint}"))
}

impl JobStage for Train {
    fn run(&self, context: &dyn JobContext) -> Result<(), StageError> {
        let checkpoints = Checkpoints::new(context.output().join("checkpoints"), self.save_total_limit);
        if !finish::is_finished(context.output()) && !self.train(context, &checkpoints)? {
            return Ok(());
        }
        checkpoints.remove_all()
    }

    fn ephemeral(&self) -> &'static [&'static str] {
        &["timing.json", "runs", "checkpoints"]
    }
}

impl Train {
    /// Trains and writes the folder; false when the user stopped it before that.
    fn train(&self, context: &dyn JobContext, checkpoints: &Checkpoints) -> Result<bool, StageError> {
        let base = self.base(context)?;
        let seed = self.seed.unwrap_or_else(|| context.seed());
        let origins = Origins::find(self, base.as_deref())?;
        let form = Form::of(context, SHARDS, self.trains(Part::Vision))?;
        let needs_tower = form == Form::Pixels || self.scratch(Part::Vision);
        let start = Start::new(self, &origins, needs_tower, seed)?;
        let units = Units::new(context, SHARDS);
        let pictures = Pictures::new(context, SHARDS, &units, form);
        let feed = Feed {
            context,
            units: &units,
            pictures,
            pad_id: start.pad_id,
            vision_width: start.vision_width,
            ahead: self.dataloader_prefetch_factor,
        };
        let lora = start.lora.clone();
        let mut fit = self.fit(context, &feed, checkpoints, start, seed)?;
        let (end, timing) = fit.run()?;
        if end == End::Stopped {
            return Ok(false);
        }
        let Fit { mut trainer, record, .. } = fit;
        let training = self.training(context, &units, &mut trainer, &record, seed)?;
        let output =
            Output { context, stage: self, origins: &origins, lora, record: &record, training, timing };
        output.write(trainer.into_model())?;
        Ok(true)
    }

    /// The folder of `init_from`; refuses inputs of another kind.
    fn base(&self, context: &dyn JobContext) -> Result<Option<PathBuf>, StageError> {
        let expected = 1 + usize::from(self.init_from.is_some());
        if context.inputs().len() != expected {
            return Err(StageError::new("`from` must name one shard stage")
                .help("Several data sets are mixed by the shard stage: see its `weight`."));
        }
        if self.init_from.is_none() {
            return Ok(None);
        }
        let folder = context.folder(1, 0)?;
        folder.map(Some).ok_or_else(|| StageError::new("`init_from` names a stage that made no folder"))
    }

    fn fit<'f, 'a>(
        &'f self,
        context: &dyn JobContext,
        feed: &'f Feed<'a>,
        checkpoints: &'f Checkpoints,
        start: Start,
        seed: u64,
    ) -> Result<Fit<'f, 'a>, StageError> {
        let batching = Batching {
            rows: self.per_device_train_batch_size,
            tokens: self.max_tokens_per_batch,
            accumulation: self.gradient_accumulation_steps,
            by_length: self.group_by_length,
        };
        let total = self.total_steps(context, feed, batching, seed)?;
        let arguments = self.arguments(seed);
        let trainer =
            Trainer::new(start.model, start.norm, arguments, &self.trainable, total).map_err(failed)?;
        let trainer = if self.share_prefix { trainer.with_shared_prefix() } else { trainer };
        Ok(Fit {
            stage: self,
            feed,
            trainer,
            norm: start.norm,
            record: Record::default(),
            checkpoints,
            batching,
            seed,
            total,
        })
    }

    /// Steps of the whole training. Without `max_steps`, all rows must be there before the first: the learning rate of every
    /// step depends on how many follow.
    fn total_steps(
        &self,
        context: &dyn JobContext,
        feed: &Feed<'_>,
        batching: Batching,
        seed: u64,
    ) -> Result<u64, StageError> {
        if let Some(steps) = self.max_steps {
            return Ok(steps);
        }
        context.progress(
            0.0,
            "waiting for all rows: the learning rate depends on their number (or set max_steps)",
        );
        let epoch = Order::new(feed.units, batching, seed).steps_per_epoch()?;
        Ok((self.num_train_epochs * epoch as f64).ceil() as u64)
    }

    fn training<'a>(
        &'a self,
        context: &dyn JobContext,
        units: &Units<'_>,
        trainer: &mut Trainer,
        record: &Record,
        seed: u64,
    ) -> Result<Training<'a>, StageError> {
        let rows: usize = units.all()?.iter().map(|unit| unit.train.rows()).sum();
        let best = record.best().filter(|_| self.load_best_model_at_end).map(|(step, _)| step);
        let (parameters, trained_parameters) = trainer.parameters();
        let stage = context.origin()?.stages.pop().map(|stage| stage.name).unwrap_or_default();
        Ok(Training {
            stage,
            init_from: self.init_from.as_deref(),
            qwen: &self.qwen,
            clip: &self.clip,
            seed,
            arguments: self,
            rows: rows as u64,
            steps: record.0.len() as u64,
            epochs: record.samples() as f64 / (rows as f64).max(1.0),
            best_step: best,
            parameters,
            trained_parameters,
        })
    }
}
