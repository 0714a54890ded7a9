//! What can end a training.

use super::parts::Part;
use crate::vlm::BatchError;

/// Why a training cannot start or go on. The model and the optimiser are as after the last good step.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum TrainError {
    /// A hyper-parameter makes no sense.
    #[error("train: {field} = {value}, but it {reason}")]
    Argument {
        /// Its name.
        field: &'static str,
        /// What it is.
        value: f64,
        /// What it must be.
        reason: &'static str,
    },
    /// No part is to be trained.
    #[error("train: trainable is empty; name at least one of projector, language, vision, lora")]
    NothingToTrain,
    /// The model lacks a part that is to be trained.
    #[error("train: trainable names `{0}`, but the model has none{hint}", hint = match .0 {
        Part::Lora => "; give `lora` its settings",
        Part::Vision => ": features were computed beforehand",
        Part::Projector | Part::Language => "",
    })]
    NoSuchPart(Part),
    /// A micro-batch fits no model.
    #[error("step {step}, micro-batch {micro_batch}: {source}")]
    Batch {
        /// The step, counted from 1.
        step: u64,
        /// The micro-batch in it, counted from 0.
        micro_batch: usize,
        /// What does not fit.
        source: BatchError,
    },
    /// The images of a micro-batch fit no model.
    #[error("step {step}, micro-batch {micro_batch}: {why}")]
    Images {
        /// The step, counted from 1.
        step: u64,
        /// The micro-batch in it, counted from 0.
        micro_batch: usize,
        /// What does not fit.
        why: String,
    },
    /// No micro-batch of a step has an answer.
    #[error("step {step}: no label is a token, so there is nothing to learn")]
    NoAnswer {
        /// The step, counted from 1.
        step: u64,
    },
    /// The loss of a micro-batch is NaN or infinite.
    #[error(
        "step {step}, micro-batch {micro_batch}: the loss is {value}; the weights are those of step {before}. \
         Lower learning_rate, set max_grad_norm, or train in f32", before = step - 1
    )]
    Loss {
        /// The step, counted from 1.
        step: u64,
        /// The micro-batch in it, counted from 0.
        micro_batch: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// The losses are numbers, but the length of the gradient is not.
    #[error(
        "step {step}: the gradient's norm is {value}; the weights are those of step {before}. Lower \
         learning_rate or train in f32", before = step - 1
    )]
    GradientNorm {
        /// The step, counted from 1.
        step: u64,
        /// NaN or an infinity.
        value: f32,
    },
    /// The device could not compute.
    #[error("step {step}: the device failed: {why}")]
    Device {
        /// The step, counted from 1.
        step: u64,
        /// The backend's words.
        why: String,
    },
}
