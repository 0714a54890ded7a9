//! How good a model is on a batch it does not learn from.

use burn::tensor::FloatDType;

use super::batch::MicroBatch;
use crate::config::PixelNorm;
use crate::vlm::{Batch, BatchError, Vlm};

/// Sums over answer tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Negative log-likelihood in nats.
    pub loss: f64,
    /// Answer tokens that were the likeliest.
    pub correct: u64,
    /// Answer tokens.
    pub answer_tokens: u64,
}

/// Why a batch could not be measured.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum MeasureError {
    /// It fits no model.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Its images fit no model.
    #[error("a batch {0}")]
    Images(String),
    /// The device could not compute.
    #[error("the device failed: {0}")]
    Device(String),
}

impl Measured {
    /// Measures `model`, which should be one [`Vlm::for_inference`], on a batch. A batch without answers counts nothing.
    pub fn of(model: &Vlm, norm: &PixelNorm, batch: MicroBatch) -> Result<Self, MeasureError> {
        let answer_tokens = batch.answer_tokens() as u64;
        if answer_tokens == 0 {
            return Ok(Self::default());
        }
        let MicroBatch { input_ids, labels, mask, images } = batch;
        let features = images.features(model, norm).map_err(MeasureError::Images)?;
        let answer = model.loss(&Batch { input_ids: &input_ids, mask: &mask, features }, &labels)?;
        let correct = answer.correct.cast(FloatDType::F32).sum();
        let values = burn::tensor::Tensor::cat(vec![answer.sum.inner(), correct], 0);
        let values =
            values.try_into_vec_as::<f32>().map_err(|error| MeasureError::Device(error.to_string()))?;
        let value = |n: usize| values.get(n).copied().map_or(f64::NAN, f64::from);
        Ok(Self { loss: value(0), correct: value(1) as u64, answer_tokens })
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            loss: self.loss + other.loss,
            correct: self.correct + other.correct,
            answer_tokens: self.answer_tokens + other.answer_tokens,
        }
    }

    /// Mean loss of an answer token in nats, and the share that was right; `None` without answer tokens.
    pub fn means(self) -> Option<(f64, f64)> {
        let tokens = self.answer_tokens as f64;
        (self.answer_tokens > 0).then(|| (self.loss / tokens, self.correct as f64 / tokens))
    }
}
