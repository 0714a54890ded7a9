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

use burn::tensor::{Bytes, DType, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::arguments::TrainingArguments;
use super::flat::{Bucket, Flat, Piece};
use super::parts::Part;
use super::trainer::Trainer;
use crate::config::Dtype;
use crate::folder;
use crate::save::{self, Parameter, SaveError};
use crate::weights::{Checkpoint, WeightsError};

const DESCRIPTION: &str = "trainer.json";
const TENSORS: &str = "trainer.safetensors";
/// Raised when older checkpoints can no longer be continued.
const FORMAT: u32 = 1;
/// What is kept of a parameter, in the order of [`Flat::state`].
const STATE: [&str; 3] = [WEIGHT, "exp_avg", "exp_avg_sq"];
const WEIGHT: &str = "weight";

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
    /// The thread of a device ended.
    #[error("a checkpoint could not be taken over: {why}")]
    Rank {
        /// Which device, and its own words.
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
        let tensors = named(&self.ranks.first.flat);
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
        let file = File { tensors, path };
        let first = &mut self.ranks.first;
        let buckets = first.flat.buckets.iter().map(|bucket| file.bucket(bucket, &description.updates));
        first.flat.buckets = buckets.collect::<Result<_, _>>()?;
        first.flat.show(&mut first.model);
        self.ranks.follow_first().map_err(|gone| CheckpointError::Rank { why: gone.to_string() })?;
        self.step = description.step;
        self.answer_tokens = description.answer_tokens;
        Ok(())
    }

    fn description(&self) -> Description {
        let pieces = self.ranks.first.flat.buckets.iter().flat_map(|bucket| &bucket.pieces);
        let moved = pieces.filter(|piece| piece.steps > 0);
        let updates = moved.map(|piece| (piece.key.clone(), piece.steps));
        Description {
            format: FORMAT,
            step: self.step,
            total_steps: self.schedule.total_steps,
            answer_tokens: self.answer_tokens,
            arguments: self.arguments().clone(),
            trainable: self.parts().to_vec(),
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
fn named(flat: &Flat) -> BTreeMap<String, Parameter> {
    let mut tensors = BTreeMap::new();
    for piece in flat.buckets.iter().flat_map(|bucket| &bucket.pieces) {
        let Some((state, steps)) = flat.state(&piece.key) else { continue };
        let kept = if steps == 0 { 1 } else { state.len() };
        for (what, tensor) in STATE.into_iter().zip(state).take(kept) {
            let fetch = Box::new(move || tensor.try_to_data().map_err(|error| error.to_string()));
            let parameter = Parameter { shape: piece.shape.clone(), fetch };
            tensors.insert(format!("{what}.{}", piece.key), parameter);
        }
    }
    tensors
}

/// The open `trainer.safetensors`.
struct File {
    tensors: Checkpoint,
    path: PathBuf,
}

impl File {
    /// A bucket as it was written, updates included.
    fn bucket(&self, of: &Bucket, updates: &BTreeMap<String, u64>) -> Result<Bucket, CheckpointError> {
        let length: usize = of.pieces.iter().map(Piece::length).sum();
        let mut state: [Vec<u8>; 3] = std::array::from_fn(|_| Vec::with_capacity(length * size_of::<f32>()));
        let mut pieces = of.pieces.clone();
        for piece in &mut pieces {
            piece.steps = updates.get(&piece.key).copied().unwrap_or(0);
            for (what, bytes) in STATE.into_iter().zip(&mut state) {
                if piece.steps > 0 || what == WEIGHT {
                    bytes.extend_from_slice(&self.read(&format!("{what}.{}", piece.key), &piece.shape)?);
                } else {
                    bytes.resize(bytes.len() + piece.length() * size_of::<f32>(), 0);
                }
            }
        }
        let device = of.weight.device();
        let [weight, mean, square] = state.map(|bytes| -> Tensor<1> {
            let data = TensorData::from_bytes_vec(bytes, [length], DType::F32);
            Tensor::from_data(data, (&device, DType::F32))
        });
        Ok(Bucket { decays: of.decays, pieces, weight, moments: [mean, square] })
    }

    /// The tensor `key` of `shape` in f32.
    fn read(&self, key: &str, shape: &[usize]) -> Result<Bytes, CheckpointError> {
        let fault = |why| CheckpointError::Tensor { path: self.path.clone(), key: key.to_owned(), why };
        let stored = self.tensors.shape(key).ok_or_else(|| fault("is not there".to_owned()))?;
        if stored != shape {
            return Err(fault(format!("has shape {stored:?}, but the model's is {shape:?}")));
        }
        let data = self.tensors.read(key, DType::F32).ok_or_else(|| fault("is not there".to_owned()))??;
        Ok(data.into_bytes())
    }
}
