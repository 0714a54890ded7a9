//! A training on disk: everything that the next step depends on.
//!
//! ```text
//! trainer.json          step, answer tokens, hyper-parameters, parts, updates of each parameter
//! trainer.safetensors   weight.KEY (the f32 master), exp_avg.KEY, exp_avg_sq.KEY
//! ```
//!
//! The learning rate follows from the step; random numbers follow from seed, step and micro-batch. A model that is
//! restored takes its frozen weights from where they were taken in the beginning.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::adamw::{Slot, replace};
use super::arguments::TrainingArguments;
use super::masters::flat;
use super::parts::Part;
use super::trainer::Trainer;
use crate::config::Dtype;
use crate::folder;
use crate::save::{self, Parameter, SaveError};
use crate::source::ParameterVisitor;
use crate::weights::{Checkpoint, WeightsError};

const DESCRIPTION: &str = "trainer.json";
const TENSORS: &str = "trainer.safetensors";
/// Raised when older checkpoints can no longer be continued.
const FORMAT: u32 = 1;

/// `trainer.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    format: u32,
    step: u64,
    total_steps: u64,
    answer_tokens: u64,
    arguments: TrainingArguments,
    trainable: Vec<Part>,
    /// Updates of each parameter that ever had a gradient.
    updates: BTreeMap<String, u64>,
}

/// Why a training was not saved or cannot be continued.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The files could not be written.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The folder could not be put in its place.
    #[error(transparent)]
    Folder(#[from] folder::FolderError),
    /// The tensors cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `trainer.json` is none.
    #[error("{}: is no checkpoint of this version: {why}", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The checkpoint is of another run.
    #[error("{}: is of another run: its {field} is {theirs}, here it is {ours}; start afresh, or with its value", path.display())]
    OtherRun {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        field: String,
        /// In the checkpoint.
        theirs: String,
        /// In this run.
        ours: String,
    },
    /// A tensor is missing or of another model.
    #[error("{}: `{key}` {why}; the checkpoint is damaged or of another model", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Trainer {
    /// Writes the folder `target`, whole or not at all.
    pub fn save(&mut self, target: &Path) -> Result<(), CheckpointError> {
        let description = self.description();
        let text = serde_json::to_string_pretty(&description).map_err(|error| {
            CheckpointError::Description { path: target.join(DESCRIPTION), why: error.to_string() }
        })?;
        let mut gather = Gather { slots: &self.optimizer.slots, tensors: BTreeMap::new() };
        self.model.visit(&mut gather);
        let tensors = gather.tensors;
        folder::write_atomically(target, |folder| {
            save::write_file(&folder.join(TENSORS), &tensors.iter().collect::<Vec<_>>(), Dtype::F32)?;
            save::write_text(&folder.join(DESCRIPTION), &text)?;
            Ok(())
        })
    }

    /// Continues the training in the folder `from`, which must be of the same run. After an error, use another
    /// trainer: some of this one's weights may be the checkpoint's.
    pub fn restore(&mut self, from: &Path) -> Result<(), CheckpointError> {
        let description = read_description(&from.join(DESCRIPTION))?;
        self.refuse_other_runs(&description, from)?;
        let path = from.join(TENSORS);
        let tensors = Checkpoint::open_file(&path)?;
        let mut scatter = Scatter {
            file: File { tensors, path },
            updates: &description.updates,
            slots: BTreeMap::new(),
            fault: None,
        };
        self.model.visit(&mut scatter);
        let Scatter { slots, fault, .. } = scatter;
        if let Some(fault) = fault {
            return Err(fault);
        }
        self.optimizer.slots = slots;
        self.step = description.step;
        self.answer_tokens = description.answer_tokens;
        Ok(())
    }

    fn description(&self) -> Description {
        let updates = self.optimizer.slots.iter().map(|(key, slot)| (key.clone(), slot.steps));
        Description {
            format: FORMAT,
            step: self.step,
            total_steps: self.schedule.total_steps,
            answer_tokens: self.answer_tokens,
            arguments: self.arguments.clone(),
            trainable: self.parts.clone(),
            updates: updates.collect(),
        }
    }

    /// Compares all that was chosen for the run, field by field.
    fn refuse_other_runs(&self, theirs: &Description, path: &Path) -> Result<(), CheckpointError> {
        let fields = |of: &Description| {
            let mut fields = serde_json::to_value(&of.arguments).unwrap_or_default();
            fields["total_steps"] = of.total_steps.into();
            fields["trainable"] = serde_json::to_value(&of.trainable).unwrap_or_default();
            fields
        };
        // Ours takes the way of theirs through text, which may cost a number its last bit.
        let ours = serde_json::to_string(&self.description()).and_then(|text| serde_json::from_str(&text));
        let ours = ours.map_err(|error| CheckpointError::Description {
            path: path.join(DESCRIPTION),
            why: error.to_string(),
        })?;
        let (theirs, ours) = (fields(theirs), fields(&ours));
        let mut names = TrainingArguments::NAMES.into_iter().chain(["total_steps", "trainable"]);
        let Some(field) = names.find(|field| theirs.get(field) != ours.get(field)) else { return Ok(()) };
        let show = |fields: &serde_json::Value| {
            fields.get(field).map_or_else(|| "not given".to_owned(), ToString::to_string)
        };
        Err(CheckpointError::OtherRun {
            path: path.to_owned(),
            field: field.to_owned(),
            theirs: show(&theirs),
            ours: show(&ours),
        })
    }
}

fn read_description(path: &Path) -> Result<Description, CheckpointError> {
    let text =
        fs::read_to_string(path).map_err(|source| CheckpointError::Io { path: path.to_owned(), source })?;
    let fault = |why| CheckpointError::Description { path: path.to_owned(), why };
    let description: Description = serde_json::from_str(&text).map_err(|error| fault(error.to_string()))?;
    if description.format != FORMAT {
        return Err(fault(format!("format {}, but this version reads {FORMAT}", description.format)));
    }
    Ok(description)
}

/// Names what is to be written: the weights that are trained and the optimiser's memory of them.
struct Gather<'a> {
    slots: &'a BTreeMap<String, Slot>,
    tensors: BTreeMap<String, Parameter>,
}

impl ParameterVisitor for Gather<'_> {
    fn visit<const D: usize>(&mut self, key: &str, parameter: &mut Tensor<D>) {
        if !parameter.is_require_grad() {
            return;
        }
        let shape = parameter.dims().to_vec();
        let slot = self.slots.get(key);
        let weight = slot.and_then(|slot| slot.master.clone()).unwrap_or_else(|| flat(parameter));
        let mut add = |what: &str, tensor: Tensor<1>| {
            let fetch = Box::new(move || tensor.try_to_data().map_err(|error| error.to_string()));
            self.tensors.insert(format!("{what}.{key}"), Parameter { shape: shape.clone(), fetch });
        };
        add("weight", weight);
        if let Some(slot) = slot {
            add("exp_avg", slot.exp_avg.clone());
            add("exp_avg_sq", slot.exp_avg_sq.clone());
        }
    }
}

/// Puts what was written back where it was.
struct Scatter<'a> {
    file: File,
    updates: &'a BTreeMap<String, u64>,
    slots: BTreeMap<String, Slot>,
    fault: Option<CheckpointError>,
}

/// The open `trainer.safetensors`.
struct File {
    tensors: Checkpoint,
    path: PathBuf,
}

impl ParameterVisitor for Scatter<'_> {
    fn visit<const D: usize>(&mut self, key: &str, parameter: &mut Tensor<D>) {
        if self.fault.is_none() && parameter.is_require_grad() {
            self.fault = self.put(key, parameter).err();
        }
    }
}

impl Scatter<'_> {
    fn put<const D: usize>(&mut self, key: &str, parameter: &mut Tensor<D>) -> Result<(), CheckpointError> {
        let device = parameter.device().inner();
        let tensor = |what: &str| -> Result<Tensor<1>, CheckpointError> {
            let data = self.file.read(&format!("{what}.{key}"), &parameter.dims())?;
            Ok(Tensor::from_data(data, (&device, DType::F32)))
        };
        let weight = tensor("weight")?;
        let slot = match self.updates.get(key) {
            None => None,
            Some(steps) => Some(Slot {
                steps: *steps,
                exp_avg: tensor("exp_avg")?,
                exp_avg_sq: tensor("exp_avg_sq")?,
                master: (parameter.dtype() != DType::F32).then(|| weight.clone()),
            }),
        };
        replace(parameter, weight);
        self.slots.extend(slot.map(|slot| (key.to_owned(), slot)));
        Ok(())
    }
}

impl File {
    /// The tensor `key` of `shape`, flat.
    fn read(&self, key: &str, shape: &[usize]) -> Result<TensorData, CheckpointError> {
        let fault = |why| CheckpointError::Tensor { path: self.path.clone(), key: key.to_owned(), why };
        let stored = self.tensors.shape(key).ok_or_else(|| fault("is not there".to_owned()))?;
        if stored != shape {
            return Err(fault(format!("has shape {stored:?}, but the model's is {shape:?}")));
        }
        let data = self.tensors.read(key, DType::F32).ok_or_else(|| fault("is not there".to_owned()))??;
        let length = shape.iter().product::<usize>();
        Ok(TensorData::from_bytes(data.into_bytes(), [length], DType::F32))
    }
}
