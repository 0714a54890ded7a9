//! Low-rank adaptation (LoRA, arXiv:2106.09685): `y = x W^T + scaling * (dropout(x) A^T) B^T`.
//!
//! Two thin products beside the frozen weight: neither the product `B A` nor a gradient of `W` is ever
//! formed in training. Names, shapes and scaling are PEFT 0.21's.

mod config;

use std::sync::{Mutex, PoisonError};

use burn::tensor::{Distribution, Tensor};

use crate::product::rows_by_weight;
use crate::source::{Init, Loader, ParameterVisitor};

pub use config::{ALL_LINEAR, AdapterConfig, LoraConfig, LoraError, Matcher, Patterns, TargetModules};

/// Held by whoever seeds Burn's generator and draws from it.
static DRAWING: Mutex<()> = Mutex::new(());

/// The branch beside one linear.
#[derive(Clone, Debug)]
pub struct LoraAdapter {
    /// A, `[r, in]`.
    pub lora_a: Tensor<2>,
    /// B, `[out, r]`.
    pub lora_b: Tensor<2>,
    /// What the branch is multiplied by.
    pub scaling: f64,
    /// Share of inputs that is dropped while [`LoraAdapter::draw`] says what.
    pub dropout: f64,
    /// Where the mask of the dropped inputs comes from: one number, one mask. `None` drops nothing (inference); the trainer
    /// draws another number for every micro-batch.
    pub draw: Option<u64>,
    /// Whether the linear's weight already holds the update.
    pub merged: bool,
}

impl LoraAdapter {
    /// The branch of a linear `[out, in]`, from `lora_A.weight` and `lora_B.weight` at the loader's place.
    /// From scratch, B is zero and the branch adds nothing.
    pub fn load(mut loader: Loader<'_>, config: &AdapterConfig, inputs: usize, outputs: usize) -> Self {
        Self {
            lora_a: loader.tensor("lora_A.weight", [config.r, inputs], Init::linear(inputs)),
            lora_b: loader.tensor("lora_B.weight", [outputs, config.r], Init::Zeros),
            scaling: config.scaling,
            dropout: config.dropout,
            draw: None,
            merged: false,
        }
    }

    /// `y` with the branch's share added.
    ///
    /// # Shapes
    /// - y: `[rows, out]`, x: `[rows, in]` -> `[rows, out]`
    pub fn add_to(&self, y: Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        if self.merged {
            return y;
        }
        let inner = rows_by_weight(self.drop(x), &self.lora_a) * self.scaling;
        y + rows_by_weight(inner, &self.lora_b)
    }

    /// Inverted dropout.
    fn drop(&self, x: Tensor<2>) -> Tensor<2> {
        let Some(seed) = self.draw.filter(|_| self.dropout > 0.0) else { return x };
        let keep = 1.0 - self.dropout;
        let plain = x.clone().inner();
        let kept = {
            // Burn's generator is the process's: nobody else may seed it before the mask is drawn.
            let _turn = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
            plain.device().seed(seed);
            plain.random_like(Distribution::Bernoulli(keep))
        };
        x * kept / keep
    }

    /// The dense update `scaling * B A`, `[out, in]`.
    pub(crate) fn update(&self) -> Tensor<2> {
        self.lora_b.clone().matmul(self.lora_a.clone()) * self.scaling
    }

    /// Shows A and B at `path` (which ends in a dot).
    pub fn visit(&mut self, path: &str, visitor: &mut impl ParameterVisitor) {
        visitor.visit(&format!("{path}lora_A.weight"), &mut self.lora_a);
        visitor.visit(&format!("{path}lora_B.weight"), &mut self.lora_b);
    }
}
