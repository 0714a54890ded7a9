//! `train`: a model from token shards.
//!
//! In: the folders of a `shard` stage, the images of their rows (`pixels` or `features` of the tables behind it), the
//! weights of `qwen` and `clip`, and, with `init_from`, the folder of another training.
//! Out: a model folder, which every command takes, and in it:
//!
//! ```text
//! model.toml, projector.safetensors, adapter/, qwen/, clip/    the model (llavm_model::folder); large towers only if they learned
//! tokenizer.json, chat_template.jinja, preprocessor_config.json, …    its processor (llavm_model::processor::files)
//! metrics.parquet        every step                            (record.rs)
//! training.json          what was trained with what            (finish.rs)
//! history/00-align/      both of the trainings before
//! timing.json, runs/     speed; TensorBoard's event files      (they hold times: no part of the content)
//! towers.toml            where large towers were               (it holds paths: likewise)
//! origin.json            the manifest, its stages and the hashes of what they read, for the card of an export (likewise)
//! checkpoints/           while it is under way                 (checkpoint.rs)
//! ```
//!
//! | file | what |
//! |---|---|
//! | `parameters.rs` | what a manifest says |
//! | `estimate.rs` | what it takes, for `--dry-run` |
//! | `setup.rs` | the model at the beginning |
//! | `processor.rs` | its processor, as the stages behind the shards have it |
//! | `feed/` | rows to batches, in an order that the seed decides |
//! | `first.rs` | the first rows on the device and on the CPU, before a step is taken |
//! | `fit.rs`, `probe.rs` | the loop; benchmarks that are asked between its steps |
//! | `finish.rs` | the folder at the end |
//!
//! Killed at any point and run again, a training ends with the bytes it would have had: the order of rows, random numbers and
//! learning rates follow from seed and step, and checkpoints hold the rest.

mod checkpoint;
mod estimate;
mod feed;
mod finish;
mod first;
mod fit;
mod parameters;
mod probe;
mod processor;
mod progress;
pub mod record;
mod setup;
mod tensorboard;

use crate::benchmarks::inputs::Inputs;
use crate::model_card::ORIGIN;
use crate::{facts, tokenizer_folder};
use checkpoint::Checkpoints;
use feed::{Batching, Feed, Form, ImageRows, Order, Units};
use finish::{Output, Training};
use fit::{End, Fit};
use llavm_model::folder::{ModelFolder, TOWERS};
use llavm_model::hub;
use llavm_model::train::{Part, Trainer};
use llavm_model::weights::Checkpoint;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{
    Estimate, Expected, Fact, JobContext, JobStage, Missing, Parameters, Resource, StageKind,
};
use probe::Probes;
use processor::Made;
use record::Record;
use setup::{Origins, Start, failed};
use std::path::{Path, PathBuf};

pub(crate) use finish::copy_folder;
pub use parameters::{EvalBenchmark, Lora, Train};

/// Files of the folder that hold times or paths, or the manifest as it was written.
const EPHEMERAL: [&str; 5] = ["timing.json", "runs", "checkpoints", TOWERS, ORIGIN];

/// The shards among the inputs.
const SHARDS: usize = 0;

impl StageKind for Train {
    const KIND: &'static str = "train";
    const VERSION: u32 = 5;
    const ABOUT: &'static str = "train a vision-language model on token shards";
    const LINKS: &'static [&'static str] = &["init_from"];
}

impl Parameters for Train {
    fn check(&self) -> Vec<(&'static str, String)> {
        self.mistakes()
    }

    fn estimate(&self, expected: &Expected) -> Option<Estimate> {
        Some(self.expect(expected))
    }

    fn facts(&self) -> Vec<Fact> {
        let (param, locator) = match &self.tokenizer {
            Some(tokenizer) => ("tokenizer", tokenizer),
            None => ("qwen", &self.qwen),
        };
        let folder = tokenizer_folder::resolve(locator).ok();
        let tokenizer = folder.and_then(|folder| facts::tokenizer(&folder, param));
        // Of a tower that learns or is brought by `init_from`, what lies in `clip` says nothing of the weights.
        let fixed = !self.trains(Part::Vision) && !self.scratch(Part::Vision) && self.init_from.is_none();
        let tower = fixed.then(|| facts::vision_tower(&self.clip, "clip")).flatten();
        facts::tower(&self.clip, "clip").into_iter().chain(tokenizer).chain(tower).collect()
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
        if let Some(locator) = self.init_folder() {
            let folder = hub::resolve(locator).map_err(failed)?;
            resources.extend(files_below(&folder, "init_from")?);
        }
        for asked in &self.eval_benchmarks {
            let paths = Inputs { name: &asked.name, files: &asked.files }.paths()?.into_iter().enumerate();
            let named = |(n, path)| Resource { name: format!("{}/files[{n}]", asked.name), path };
            resources.extend(paths.map(named));
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
        missing.extend(self.init_folder().and_then(missing_model));
        let asked =
            self.eval_benchmarks.iter().map(|asked| Inputs { name: &asked.name, files: &asked.files });
        missing.extend(asked.flat_map(|inputs| inputs.missing("eval_benchmarks")));
        missing.extend(
            self.tokenizer.as_ref().map(|folder| tokenizer_folder::missing(folder)).unwrap_or_default(),
        );
        missing
    }
}

/// What lacks where `init_from` names a folder.
fn missing_model(locator: &str) -> Option<Missing> {
    let error = ModelFolder::open(locator).err()?;
    let help =
        "Name a train stage, or the folder of a trained model or of a LLaVA of Transformers.".to_owned();
    Some(Missing { param: "init_from", text: error.to_string(), help })
}

/// Every file in `folder` and below, by its name from there behind `name`; hidden ones and those with times aside.
fn files_below(folder: &Path, name: &str) -> Result<Vec<Resource>, StageError> {
    let io = |cause| StageError::io(folder, cause);
    let mut entries = std::fs::read_dir(folder).map_err(io)?.collect::<Result<Vec<_>, _>>().map_err(io)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.file_name().to_string_lossy().into_owned();
        let (path, name) = (entry.path(), format!("{name}/{file}"));
        if file.starts_with('.') || EPHEMERAL.contains(&file.as_str()) {
            continue;
        }
        if path.is_dir() {
            files.extend(files_below(&path, &name)?);
        } else {
            files.push(Resource { name, path });
        }
    }
    Ok(files)
}

/// The files that decide what a tower is.
fn tower_files(folder: &Path, scratch: bool) -> Vec<PathBuf> {
    let names =
        ["config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"];
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
        if hub::is_repository(locator) { format!(" Download it with `{fetch}`.") } else { String::new() };
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
        &EPHEMERAL
    }

    fn reads_settings(&self) -> bool {
        true
    }
}

impl Train {
    /// Trains and writes the folder; false when the user stopped it before that.
    #[tracing::instrument(level = "debug", skip_all)]
    fn train(&self, context: &dyn JobContext, checkpoints: &Checkpoints) -> Result<bool, StageError> {
        let base = self.base(context)?;
        let seed = self.seed.unwrap_or_else(|| context.seed());
        let origins = Origins::find(self, base.as_deref())?;
        let units = Units::new(context, SHARDS);
        let made = Made::of(context, SHARDS, &origins, &units)?;
        let form = Form::of(context, SHARDS, self.trains(Part::Vision))?;
        if form == Form::Features {
            processor::check_features(context, SHARDS, &origins)?;
        }
        let asks = !self.eval_benchmarks.is_empty();
        let needs_tower = form == Form::Pixels || self.scratch(Part::Vision) || asks;
        let probes = if asks {
            Probes::open(&self.eval_benchmarks, Made::of(context, SHARDS, &origins, &units)?.processor)?
        } else {
            Probes::default()
        };
        let start = Start::new(self, &origins, &made.processor, needs_tower, seed)?;
        let images = ImageRows::new(context, SHARDS, &units, form);
        let feed = Feed {
            context,
            units: &units,
            images,
            pad_id: start.pad_id,
            vision_width: start.vision_width,
            ahead: self.dataloader_prefetch_factor,
        };
        let lora = start.lora.clone();
        let mut fit = self.fit(context, &feed, checkpoints, (start, probes), seed)?;
        let (end, timing) = fit.run()?;
        if end == End::Stopped {
            return Ok(false);
        }
        let Fit { mut trainer, record, .. } = fit;
        let training = self.training(context, &units, &mut trainer, &record, seed)?;
        let output = Output {
            context,
            stage: self,
            origins: &origins,
            made: &made,
            lora,
            record: &record,
            training,
            timing,
        };
        output.write(trainer.into_model())?;
        Ok(true)
    }

    /// The folder of `init_from`; refuses inputs of another kind.
    fn base(&self, context: &dyn JobContext) -> Result<Option<PathBuf>, StageError> {
        let folder = self.init_folder();
        let expected = 1 + usize::from(self.init_from.is_some() && folder.is_none());
        if context.inputs().len() != expected {
            return Err(StageError::new("`from` must name one shard stage")
                .help("Several data sets are mixed by the shard stage: see its `weight`."));
        }
        if let Some(locator) = folder {
            return hub::resolve(locator).map(Some).map_err(failed);
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
        (start, probes): (Start, Probes),
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
        let trainer = trainer.across(&start.others);
        Ok(Fit {
            stage: self,
            feed,
            probes,
            trainer,
            norm: start.norm,
            record: Record::default(),
            checkpoints,
            batching,
            seed,
            total,
            compared: false,
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
