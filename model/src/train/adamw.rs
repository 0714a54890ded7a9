//! AdamW (arXiv:1711.05101) as `torch.optim.AdamW` computes it (torch 2.15, `optim/adam.py`,
//! `_single_tensor_adam` with decoupled decay).
//!
//! ```text
//! w = w (1 - lr decay)
//! m = m + (g - m) (1 - beta1)
//! v = v beta2 + g g (1 - beta2)
//! w = w - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
//! ```
//!
//! Moments are f32. A weight of another type has an f32 master that is updated in its place: a step of lr = 1e-4
//! is often below what bf16 can add to a weight. As in torch, a parameter without a gradient is left alone, its
//! decay and step count included.

use std::collections::BTreeMap;

use burn::tensor::{DType, Tensor};

use super::arguments::TrainingArguments;
use super::gradients::Gradients;
use super::masters::{Masters, flat};
use crate::source::ParameterVisitor;
use crate::vlm::Vlm;

/// Whether the parameter `key` decays: all but norms and biases, as transformers' `Trainer` decides.
pub fn decays(key: &str) -> bool {
    // "norm" also meets CLIP's `pre_layrnorm`, which transformers recognises by its type.
    !key.contains("norm") && !key.ends_with("bias")
}

/// What is remembered of one parameter, flat.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// Updates so far.
    pub steps: u64,
    /// Mean of gradients.
    pub exp_avg: Tensor<1>,
    /// Mean of squared gradients.
    pub exp_avg_sq: Tensor<1>,
    /// The weight in f32, when the model's is of another type.
    pub master: Option<Tensor<1>>,
}

impl Slot {
    /// Of a parameter as long as `like` that was never moved.
    fn new(like: &Tensor<1>, master: Option<Tensor<1>>) -> Self {
        Self { steps: 0, exp_avg: like.zeros_like(), exp_avg_sq: like.zeros_like(), master }
    }
}

/// The optimiser and its state, parameter by parameter.
#[derive(Clone, Debug)]
pub struct AdamW {
    betas: (f64, f64),
    epsilon: f64,
    weight_decay: f64,
    pub(super) slots: BTreeMap<String, Slot>,
}

impl AdamW {
    /// An optimiser that has not seen a gradient.
    pub fn new(arguments: &TrainingArguments) -> Self {
        Self {
            betas: (arguments.adam_beta1, arguments.adam_beta2),
            epsilon: arguments.adam_epsilon,
            weight_decay: arguments.weight_decay,
            slots: BTreeMap::new(),
        }
    }

    /// Makes `masters` what parameters that have no gradient yet will be moved from.
    pub(super) fn begin_from(&mut self, masters: Masters) {
        self.slots
            .extend(masters.into_iter().map(|(key, master)| (key, Slot::new(&master, Some(master.clone())))));
    }

    /// Moves every parameter of `model` that has a gradient.
    pub fn update(&mut self, model: &mut Vlm, gradients: &mut Gradients, learning_rate: f64) {
        model.visit(&mut Update { optimizer: self, gradients, learning_rate });
    }

    /// A parameter after updates with `gradients` from nothing, flat, in f32.
    pub(crate) fn after(&self, weight: Tensor<1>, gradients: &[Tensor<1>], learning_rate: f64) -> Tensor<1> {
        let mut slot = Slot::new(&weight, None);
        let step =
            |weight, gradient| self.step(&mut slot, weight, gradient, self.weight_decay, learning_rate);
        gradients.iter().fold(weight, step)
    }

    /// The new values of one parameter, flat, in f32.
    fn step(
        &self,
        slot: &mut Slot,
        weight: Tensor<1>,
        gradient: &Tensor<1>,
        decay: f64,
        lr: f64,
    ) -> Tensor<1> {
        let (beta1, beta2) = self.betas;
        slot.steps += 1;
        let mean = slot.exp_avg.clone();
        slot.exp_avg = mean.clone() + (gradient.clone() - mean) * (1.0 - beta1);
        slot.exp_avg_sq = slot.exp_avg_sq.clone() * beta2 + gradient.clone().square() * (1.0 - beta2);

        let correction = |beta: f64| 1.0 - beta.powf(slot.steps as f64);
        let denominator = slot.exp_avg_sq.clone().sqrt() / correction(beta2).sqrt() + self.epsilon;
        weight * (1.0 - lr * decay) - slot.exp_avg.clone() / denominator * (lr / correction(beta1))
    }
}

struct Update<'a> {
    optimizer: &'a mut AdamW,
    gradients: &'a mut Gradients,
    learning_rate: f64,
}

impl ParameterVisitor for Update<'_> {
    fn visit<const D: usize>(&mut self, key: &str, parameter: &mut Tensor<D>) {
        let Some(gradient) = self.gradients.take(key) else { return };
        let slot = self.optimizer.slots.remove(key);
        let mut slot = slot.unwrap_or_else(|| Slot::new(&gradient, None));
        let weight = slot.master.take().unwrap_or_else(|| flat(parameter));
        let decay = if decays(key) { self.optimizer.weight_decay } else { 0.0 };
        let weight = self.optimizer.step(&mut slot, weight, &gradient, decay, self.learning_rate);
        replace(parameter, weight.clone());
        if parameter.dtype() != DType::F32 {
            slot.master = Some(weight);
        }
        self.optimizer.slots.insert(key.to_owned(), slot);
    }
}

/// Gives `parameter` the values of `flat` (f32, `[values]`) in its own shape and type; it gathers gradients still.
pub(super) fn replace<const D: usize>(parameter: &mut Tensor<D>, flat: Tensor<1>) {
    let values: Tensor<D> = flat.reshape(parameter.dims()).cast(parameter.dtype());
    *parameter = values.autodiff().require_grad();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_and_biases_do_not_decay() {
        let spared = [
            "model.norm.weight",
            "model.layers.0.input_layernorm.weight",
            "model.layers.0.self_attn.q_norm.weight",
            "model.layers.0.self_attn.q_proj.bias",
            "projector.dense1.bias",
            "vision_model.pre_layrnorm.weight",
            "vision_model.encoder.layers.0.layer_norm1.weight",
        ];
        assert!(spared.iter().all(|key| !decays(key)));
        let decayed = [
            "model.embed_tokens.weight",
            "model.layers.0.mlp.up_proj.weight",
            "model.layers.0.self_attn.q_proj.lora_B.weight",
            "vision_model.embeddings.class_embedding",
        ];
        assert!(decayed.iter().all(|key| decays(key)));
    }
}
