//! What a manifest says of a training. Names and defaults are those of transformers' `TrainingArguments` and PEFT's
//! `LoraConfig`, where those have the thing.

use crate::benchmarks::inputs::Inputs;
use crate::benchmarks::{BENCHMARKS, find};
use llavm_model::config::Dtype;
use llavm_model::device::DeviceError;
use llavm_model::devices::DeviceNames;
use llavm_model::lora::{LoraConfig, TargetModules};
use llavm_model::train::{LrScheduler, Part, TrainError, TrainingArguments};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Parameters of `train`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools, reason = "switches of a manifest")]
pub struct Train {
    /// The language model: folder or `hub:ORG/NAME`. Not read when `init_from` brings one of its own.
    #[serde(skip_serializing)]
    pub qwen: String,
    /// The vision tower, likewise.
    #[serde(skip_serializing)]
    pub clip: String,
    /// Folder of the tokenizer, or `hub:ORG/NAME`. Default: `qwen`.
    #[serde(default, skip_serializing)]
    pub tokenizer: Option<String>,
    /// Another train stage, or the folder of a trained model or of a LLaVA of Transformers (`./FOLDER`, `hub:ORG/NAME`), whose
    /// projector, adapter and trained parts this one starts from. Default: none.
    #[serde(default, skip_serializing)]
    pub init_from: Option<String>,
    /// The parts that learn: `projector`, `lora`, `language`, `vision`. Default `["projector"]`.
    #[serde(default = "projector")]
    pub trainable: Vec<Part>,
    /// Settings of the low-rank branches, when `trainable` names `lora`.
    #[serde(default)]
    pub lora: Option<Lora>,
    /// Towers (`language`, `vision`) that start from random weights: only their `config.json` is read. Default: none.
    #[serde(default)]
    pub from_scratch: Vec<Part>,
    /// `cpu`, `cuda`, `cuda:1` or `wgpu`; several GPUs as `cuda:0,1`: device i of n takes micro-batches i, i + n, … of each step, and all
    /// hold the whole model. A step is the same rows on any number of devices, so that number is no part of the key; gradients are
    /// then summed in another order, and weights differ by rounding. Default `cpu`.
    #[serde(default = "cpu", serialize_with = "crate::device::family_of_all")]
    pub device: String,
    /// `f32` or `bf16`; what is trained is kept in f32 besides. Default `f32`.
    #[serde(default)]
    pub dtype: Dtype,
    /// Whether a device other than the CPU is compared with it before it is trusted (see `llavm doctor`). Default true.
    #[serde(default = "yes", skip_serializing)]
    pub doctor: bool,

    /// Peak learning rate. Default 5e-5.
    #[serde(default = "defaults::learning_rate")]
    pub learning_rate: f64,
    /// Share of a weight taken off per step and unit of learning rate; norms and biases are spared. Default 0.
    #[serde(default)]
    pub weight_decay: f64,
    /// Decay of the mean of gradients. Default 0.9.
    #[serde(default = "defaults::adam_beta1")]
    pub adam_beta1: f64,
    /// Decay of the mean of squared gradients. Default 0.999.
    #[serde(default = "defaults::adam_beta2")]
    pub adam_beta2: f64,
    /// Added to the root of the mean square. Default 1e-8.
    #[serde(default = "defaults::adam_epsilon")]
    pub adam_epsilon: f64,
    /// Longest gradient that is not shortened; 0 shortens none. Default 1.
    #[serde(default = "defaults::max_grad_norm")]
    pub max_grad_norm: f64,
    /// `linear` (default), `cosine`, `constant` or `constant_with_warmup`.
    #[serde(default, alias = "lr_scheduler_type")]
    pub lr_scheduler: LrScheduler,
    /// Share of all steps in which the learning rate rises from 0. Default 0.
    #[serde(default)]
    pub warmup_ratio: f64,
    /// Rows in one forward pass. Default 8.
    #[serde(default = "defaults::batch_size")]
    pub per_device_train_batch_size: usize,
    /// Forward passes per optimiser step, over all devices together: as many as devices, at least. Default 1.
    #[serde(default = "defaults::gradient_accumulation_steps")]
    pub gradient_accumulation_steps: usize,
    /// How often every row is seen; may be a fraction. Default 3.
    #[serde(default = "defaults::num_train_epochs")]
    pub num_train_epochs: f64,
    /// Optimiser steps, whatever `num_train_epochs` says. With shards made partition by partition (`shuffle = "partition"`)
    /// training can then begin before the last one is there. Default: as many as the epochs take.
    #[serde(default)]
    pub max_steps: Option<u64>,
    /// Seed of order, dropout and random weights. Default: the manifest's.
    #[serde(default)]
    pub seed: Option<u64>,

    /// Padded tokens of one forward pass, instead of `per_device_train_batch_size` rows: short rows come in larger batches.
    /// A longer row is a batch of its own. Default: rows are counted.
    #[serde(default)]
    pub max_tokens_per_batch: Option<usize>,
    /// Whether rows of like length are batched together, so that little is padding: 0.5% to 4% on lengths of captions and instructions,
    /// nearly all of it up to a multiple of 8, against 1% to 38% without. Default true.
    #[serde(default = "yes")]
    pub group_by_length: bool,
    /// Steps whose batches are made ahead of the step that needs them. Default 2.
    #[serde(default = "defaults::prefetch", skip_serializing)]
    pub dataloader_prefetch_factor: usize,
    /// Whether the backward pass computes every decoder layer again from its input instead of keeping what is in it: far less
    /// memory, about a third more time. Default false.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// Whether the tokens that all rows of a batch begin with are computed once, when the language model learns nothing.
    /// Default true.
    #[serde(default = "yes")]
    pub share_prefix: bool,

    /// Steps between two measurements on the validation rows. Default: none are made.
    #[serde(default)]
    pub eval_steps: Option<u64>,
    /// Most validation rows that are measured, the first of their shards. Default: all.
    #[serde(default)]
    pub max_eval_samples: Option<usize>,
    /// Rows in one forward pass of a measurement. Default 8.
    #[serde(default = "defaults::batch_size", skip_serializing)]
    pub per_device_eval_batch_size: usize,
    /// Public benchmarks that are asked at every measurement, some questions each: `[{ name = "pope", samples = 200 }]`, with `files` as
    /// in `benchmark` and `max_new_tokens`. Their scores are in `metrics.parquet`, TensorBoard and the report. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub eval_benchmarks: Vec<EvalBenchmark>,
    /// Measurements without a better loss after which the training ends. Default: it goes on.
    #[serde(default)]
    pub early_stopping_patience: Option<u64>,
    /// Whether the weights with the lowest measured loss are the result, instead of the last. Default false.
    #[serde(default)]
    pub load_best_model_at_end: bool,
    /// Steps between two checkpoints. Default 500.
    #[serde(default = "defaults::save_steps", skip_serializing)]
    pub save_steps: u64,
    /// Checkpoints kept, the one with the lowest loss aside. Default 2.
    #[serde(default = "defaults::save_total_limit", skip_serializing)]
    pub save_total_limit: usize,
}

/// A benchmark that is asked while training.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalBenchmark {
    /// As `llavm score list` names it.
    pub name: String,
    /// Its files, as in `benchmark`. Default: what `llavm fetch NAME` brings.
    #[serde(skip_serializing)]
    pub files: Vec<String>,
    /// Questions, evenly spread over the files. Default 200.
    pub samples: usize,
    /// Most tokens of an answer. Default 16.
    pub max_new_tokens: usize,
}

impl Default for EvalBenchmark {
    fn default() -> Self {
        Self { name: String::new(), files: Vec::new(), samples: 200, max_new_tokens: 16 }
    }
}

impl EvalBenchmark {
    /// What is wrong with it.
    fn mistake(&self) -> Option<String> {
        let names = || BENCHMARKS.iter().map(|benchmark| benchmark.name).collect::<Vec<_>>().join(", ");
        if find(&self.name).is_none() {
            return Some(format!("`{}` is none of {}", self.name, names()));
        }
        if self.samples == 0 || self.max_new_tokens == 0 {
            return Some("`samples` and `max_new_tokens` must be at least 1".to_owned());
        }
        Inputs { name: &self.name, files: &self.files }.mistake()
    }
}

/// Settings of the low-rank branches, under PEFT's names.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lora {
    /// Rank. Default 8.
    pub r: usize,
    /// Numerator of the scaling. Default 16.
    pub lora_alpha: f64,
    /// Share of the branch's inputs that are dropped in training, 0..1. Default 0.05.
    pub lora_dropout: f64,
    /// Last parts of the names of the linears to adapt, `"all-linear"`, or a regular expression of whole names. Default
    /// `["q_proj", "k_proj", "v_proj", "o_proj"]`.
    pub target_modules: TargetModules,
    /// Scaling by the root of the rank. Default false.
    pub use_rslora: bool,
}

impl Default for Lora {
    fn default() -> Self {
        let LoraConfig { r, lora_alpha, lora_dropout, target_modules, use_rslora, .. } =
            LoraConfig::default();
        Self { r, lora_alpha, lora_dropout, target_modules, use_rslora }
    }
}

impl Lora {
    pub fn config(&self) -> LoraConfig {
        let Self { r, lora_alpha, lora_dropout, target_modules, use_rslora } = self.clone();
        LoraConfig { r, lora_alpha, lora_dropout, target_modules, use_rslora, ..LoraConfig::default() }
    }
}

fn projector() -> Vec<Part> {
    vec![Part::Projector]
}

fn cpu() -> String {
    "cpu".to_owned()
}

fn yes() -> bool {
    true
}

/// The trainer's own defaults, one function each, as serde wants them.
mod defaults {
    use llavm_model::train::TrainingArguments;

    pub fn learning_rate() -> f64 {
        TrainingArguments::default().learning_rate
    }
    pub fn adam_beta1() -> f64 {
        TrainingArguments::default().adam_beta1
    }
    pub fn adam_beta2() -> f64 {
        TrainingArguments::default().adam_beta2
    }
    pub fn adam_epsilon() -> f64 {
        TrainingArguments::default().adam_epsilon
    }
    pub fn max_grad_norm() -> f64 {
        TrainingArguments::default().max_grad_norm
    }
    pub fn batch_size() -> usize {
        TrainingArguments::default().per_device_train_batch_size
    }
    pub fn gradient_accumulation_steps() -> usize {
        TrainingArguments::default().gradient_accumulation_steps
    }
    pub fn num_train_epochs() -> f64 {
        TrainingArguments::default().num_train_epochs
    }
    pub fn prefetch() -> usize {
        2
    }
    pub fn save_steps() -> u64 {
        500
    }
    pub fn save_total_limit() -> usize {
        2
    }
}

impl Train {
    /// The folder that `init_from` names, when it does not name a stage.
    pub fn init_folder(&self) -> Option<&str> {
        self.init_from.as_deref().filter(|name| name.contains(['/', ':']))
    }

    /// The trainer's share of the parameters; `seed` is the manifest's.
    pub fn arguments(&self, seed: u64) -> TrainingArguments {
        TrainingArguments {
            learning_rate: self.learning_rate,
            weight_decay: self.weight_decay,
            adam_beta1: self.adam_beta1,
            adam_beta2: self.adam_beta2,
            adam_epsilon: self.adam_epsilon,
            max_grad_norm: self.max_grad_norm,
            lr_scheduler: self.lr_scheduler,
            warmup_ratio: self.warmup_ratio,
            per_device_train_batch_size: self.per_device_train_batch_size,
            gradient_accumulation_steps: self.gradient_accumulation_steps,
            num_train_epochs: self.num_train_epochs,
            max_steps: self.max_steps,
            seed: self.seed.unwrap_or(seed),
            gradient_checkpointing: self.gradient_checkpointing,
        }
    }

    /// The devices that it runs on.
    pub fn devices(&self) -> Result<DeviceNames, DeviceError> {
        self.device.parse()
    }

    /// Whether the part starts from random weights.
    pub fn scratch(&self, part: Part) -> bool {
        self.from_scratch.contains(&part)
    }

    /// Whether the part learns.
    pub fn trains(&self, part: Part) -> bool {
        self.trainable.contains(&part)
    }

    /// What is wrong with values that have the right type: parameter and text.
    pub fn mistakes(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        if let Err(TrainError::Argument { field, value, reason }) = self.arguments(0).validate() {
            wrong.push((field, format!("{value} does not do: it {reason}")));
        }
        let mut refuse = |is_wrong: bool, param: &'static str, text: &str| {
            if is_wrong {
                wrong.push((param, text.to_owned()));
            }
        };
        match self.devices() {
            Err(error) => refuse(true, "device", &error.to_string()),
            Ok(devices) => {
                let idle = devices.world() > self.gradient_accumulation_steps;
                let text = format!(
                    "is less than the {} devices of `{devices}`: a step has a forward pass for each at least",
                    devices.world()
                );
                refuse(idle, "gradient_accumulation_steps", &text);
            }
        }
        let towers = [Part::Language, Part::Vision];
        let half =
            "f16 has no numbers for small gradients, and the loss is not scaled: use bf16, which has, or f32";
        refuse(self.dtype == Dtype::F16, "dtype", half);
        refuse(self.trainable.is_empty(), "trainable", "must name at least one part");
        refuse(self.lora.is_some() && !self.trains(Part::Lora), "lora", "needs `lora` in `trainable`");
        let strange = self.from_scratch.iter().any(|part| !towers.contains(part));
        refuse(strange, "from_scratch", "may name `language` and `vision`; the rest always starts so");
        let both = !self.from_scratch.is_empty() && self.init_from.is_some();
        refuse(both, "from_scratch", "starts afresh, but `init_from` names weights to start from");
        refuse(self.max_tokens_per_batch == Some(0), "max_tokens_per_batch", "must be at least 1");
        refuse(self.dataloader_prefetch_factor == 0, "dataloader_prefetch_factor", "must be at least 1");
        refuse(self.per_device_eval_batch_size == 0, "per_device_eval_batch_size", "must be at least 1");
        refuse(self.eval_steps == Some(0), "eval_steps", "must be at least 1");
        refuse(self.max_eval_samples == Some(0), "max_eval_samples", "must be at least 1");
        refuse(self.save_steps == 0, "save_steps", "must be at least 1");
        refuse(self.save_total_limit == 0, "save_total_limit", "must be at least 1");
        refuse(self.early_stopping_patience == Some(0), "early_stopping_patience", "must be at least 1");
        let unmeasured = |wanted: bool| wanted && self.eval_steps.is_none();
        refuse(unmeasured(self.load_best_model_at_end), "load_best_model_at_end", "needs `eval_steps`");
        refuse(unmeasured(!self.eval_benchmarks.is_empty()), "eval_benchmarks", "needs `eval_steps`");
        let patient = self.early_stopping_patience.is_some();
        refuse(unmeasured(patient), "early_stopping_patience", "needs `eval_steps`");
        let names: BTreeSet<&str> = self.eval_benchmarks.iter().map(|asked| asked.name.as_str()).collect();
        refuse(names.len() < self.eval_benchmarks.len(), "eval_benchmarks", "names a benchmark twice");
        let asked = self.eval_benchmarks.iter().filter_map(EvalBenchmark::mistake);
        wrong.extend(asked.map(|text| ("eval_benchmarks", text)));
        wrong
    }
}
