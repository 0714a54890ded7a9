//! Low-rank adaptation (LoRA, arXiv:2106.09685): `y = x W^T + scaling * (dropout(x) A^T) B^T`.
//!
//! Two thin products beside the frozen weight: neither the product `B A` nor a gradient of `W` is ever
//! formed in training. Names, shapes and scaling are PEFT 0.21's.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{Distribution, Tensor};
use serde::{Deserialize, Serialize};

use crate::linear::{Linear, rows_by_weight};
use crate::source::{Init, Loader, ParameterVisitor};

/// Which linears get an adapter, and of what size. Field names are those of `adapter_config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoraConfig {
    /// Rank of the update.
    pub r: usize,
    /// Numerator of the scaling.
    pub lora_alpha: f64,
    /// Share of the branch's inputs that are dropped in training, 0..1.
    pub lora_dropout: f64,
    /// Last parts of the names of the linears to adapt, such as `q_proj`.
    pub target_modules: Vec<String>,
    /// Rank-stabilised scaling, `alpha / sqrt(r)` instead of `alpha / r` (arXiv:2312.03732).
    pub use_rslora: bool,
}

impl Default for LoraConfig {
    /// The reference recipe: rank 8, alpha 16, dropout 0.05 on the attention projections.
    fn default() -> Self {
        Self {
            r: 8,
            lora_alpha: 16.0,
            lora_dropout: 0.05,
            target_modules: ["q_proj", "k_proj", "v_proj", "o_proj"].map(str::to_owned).to_vec(),
            use_rslora: false,
        }
    }
}

/// Why an adapter fits no model.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum LoraError {
    /// A rank of zero has no parameters.
    #[error("LoRA: r = 0, but the rank must be at least 1")]
    Rank,
    /// The dropout is no probability.
    #[error("LoRA: lora_dropout = {0}, but it must be at least 0 and below 1")]
    Dropout(f64),
    /// A name in `target_modules` fits no linear of the model.
    #[error("LoRA: target module `{name}` matches none of the model's linears; their names end in {known}")]
    Target {
        /// The name.
        name: String,
        /// What could have been named.
        known: String,
    },
}

impl LoraConfig {
    /// What the branch is multiplied by.
    pub fn scaling(&self) -> f64 {
        let rank = self.r as f64;
        self.lora_alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }

    /// Whether the linear called `name` (dotted) is adapted: PEFT's rule for a list of names.
    pub fn targets(&self, name: &str) -> bool {
        self.target_modules.iter().any(|target| {
            name == target || name.strip_suffix(target.as_str()).is_some_and(|rest| rest.ends_with('.'))
        })
    }

    /// Checks the numbers and that each target is one of `linears`.
    pub fn validate(&self, linears: &[String]) -> Result<(), LoraError> {
        if self.r == 0 {
            return Err(LoraError::Rank);
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            return Err(LoraError::Dropout(self.lora_dropout));
        }
        for target in &self.target_modules {
            let single = Self { target_modules: vec![target.clone()], ..self.clone() };
            if !linears.iter().any(|name| single.targets(name)) {
                return Err(LoraError::Target { name: target.clone(), known: last_parts(linears) });
            }
        }
        Ok(())
    }
}

/// The different last parts of dotted names, in order.
fn last_parts(names: &[String]) -> String {
    let mut parts: Vec<&str> = names.iter().filter_map(|name| name.rsplit('.').next()).collect();
    parts.sort_unstable();
    parts.dedup();
    parts.join(", ")
}

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
    pub fn load(mut loader: Loader<'_>, config: &LoraConfig, inputs: usize, outputs: usize) -> Self {
        Self {
            lora_a: loader.tensor("lora_A.weight", [config.r, inputs], Init::linear(inputs)),
            lora_b: loader.tensor("lora_B.weight", [outputs, config.r], Init::Zeros),
            scaling: config.scaling(),
            dropout: config.lora_dropout,
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
    fn update(&self) -> Tensor<2> {
        self.lora_b.clone().matmul(self.lora_a.clone()) * self.scaling
    }

    /// Shows A and B at `path` (which ends in a dot).
    pub fn visit(&mut self, path: &str, visitor: &mut impl ParameterVisitor) {
        visitor.visit(&format!("{path}lora_A.weight"), &mut self.lora_a);
        visitor.visit(&format!("{path}lora_B.weight"), &mut self.lora_b);
    }
}

impl Linear {
    /// Adds the update to the weight, so that inference costs nothing extra.
    pub fn merge(&mut self) {
        self.fold(false, |weight, update| weight + update);
    }

    /// Takes the update out of the weight again, exact to rounding.
    pub fn unmerge(&mut self) {
        self.fold(true, |weight, update| weight - update);
    }

    fn fold(&mut self, merged: bool, change: impl Fn(Tensor<2>, Tensor<2>) -> Tensor<2>) {
        if let Some(adapter) = self.adapter.as_mut().filter(|adapter| adapter.merged == merged) {
            self.weight = change(self.weight.clone(), adapter.update());
            adapter.merged = !merged;
        }
    }
}
