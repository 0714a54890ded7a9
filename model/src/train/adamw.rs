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
//! All of it in f32, on tensors that hold many parameters (`flat.rs`).

use burn::tensor::Tensor;

use super::arguments::TrainingArguments;
use crate::kernels::{self, AdamStep};

/// Whether the parameter `key` decays: all but norms and biases, as transformers' `Trainer` decides.
pub fn decays(key: &str) -> bool {
    // "norm" also meets CLIP's `pre_layrnorm`, which transformers recognises by its type.
    !key.contains("norm") && !key.ends_with("bias")
}

/// The optimiser's numbers that are the same in all steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamW {
    betas: (f64, f64),
    epsilon: f64,
    weight_decay: f64,
}

/// What makes one step another than the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The gradient is multiplied by it.
    pub factor: f32,
    pub learning_rate: f64,
}

impl AdamW {
    pub fn new(arguments: &TrainingArguments) -> Self {
        Self {
            betas: (arguments.adam_beta1, arguments.adam_beta2),
            epsilon: arguments.adam_epsilon,
            weight_decay: arguments.weight_decay,
        }
    }

    /// The numbers of update `steps`, counted from 1, of parameters that decay or do not.
    pub(super) fn at(&self, steps: u64, decays: bool, pace: Pace) -> AdamStep {
        let (beta1, beta2) = self.betas;
        let correction = |beta: f64| 1.0 - beta.powf(steps as f64);
        let decay = if decays { self.weight_decay } else { 0.0 };
        AdamStep {
            factor: pace.factor,
            keep: 1.0 - pace.learning_rate * decay,
            mean: 1.0 - beta1,
            square: [beta2, 1.0 - beta2],
            root: correction(beta2).sqrt(),
            epsilon: self.epsilon,
            rate: pace.learning_rate / correction(beta1),
        }
    }

    /// Parameters that decay after updates with `gradients` from nothing, flat, in f32.
    pub(crate) fn after(&self, weight: &Tensor<1>, gradients: &[Tensor<1>], learning_rate: f64) -> Tensor<1> {
        let begun = (weight.clone(), [weight.zeros_like(), weight.zeros_like()]);
        let pace = Pace { factor: 1.0, learning_rate };
        let steps = (1..).zip(gradients);
        let moved = steps.fold(begun, |(weight, moments), (step, gradient)| {
            update(weight, moments, gradient.clone(), &self.at(step, true, pace))
        });
        moved.0
    }
}

/// Weights, and means of gradients and of their squares, after a step: all flat, in f32.
pub(super) fn update(
    weight: Tensor<1>,
    moments: [Tensor<1>; 2],
    gradient: Tensor<1>,
    step: &AdamStep,
) -> (Tensor<1>, [Tensor<1>; 2]) {
    if kernels::takes(&weight) {
        kernels::adamw(weight, moments, gradient, step)
    } else {
        composed(weight, moments, gradient, step)
    }
}

/// As [`update`], of Burn's operations.
fn composed(
    weight: Tensor<1>,
    [mean, square]: [Tensor<1>; 2],
    gradient: Tensor<1>,
    step: &AdamStep,
) -> (Tensor<1>, [Tensor<1>; 2]) {
    let gradient = if step.factor < 1.0 { gradient * step.factor } else { gradient };
    let mean = mean.clone() + (gradient.clone() - mean) * step.mean;
    let square = square * step.square[0] + gradient.square() * step.square[1];
    let denominator = square.clone().sqrt() / step.root + step.epsilon;
    let weight = weight * step.keep - mean.clone() / denominator * step.rate;
    (weight, [mean, square])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

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

    /// Neither the CPU's own loop nor its threads change a bit of what Burn's operations give.
    #[test]
    fn the_kernel_equals_the_composition_bit_for_bit() {
        let count = 40_003;
        let tensor = |seed: u64, by: f32| {
            let values = (0..count).map(|n| (((n * 2_654_435_761 + seed) >> 7) % 2003) as f32 - 1001.0);
            let values: Vec<f32> = values.map(|value| value * by).collect();
            let length = values.len();
            Tensor::<1>::from_data(TensorData::new(values, [length]), &Device::flex())
        };
        let arguments = TrainingArguments { weight_decay: 0.05, ..TrainingArguments::default() };
        let adam = AdamW::new(&arguments);
        let mut ours = (tensor(1, 1e-3), [tensor(2, 0.0), tensor(3, 0.0)]);
        let mut burns = ours.clone();
        for (step, factor) in [(1, 1.0), (2, 0.37), (3, 0.9)] {
            let gradient = tensor(step * 77, 1e-4);
            let step = adam.at(step, true, Pace { factor, learning_rate: 1e-3 });
            ours = kernels::adamw(ours.0, ours.1, gradient.clone(), &step);
            burns = composed(burns.0, burns.1, gradient, &step);
        }
        let bits = |tensor: Tensor<1>| -> Vec<u32> {
            tensor.try_into_vec_as::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
        };
        assert_eq!(bits(ours.0), bits(burns.0));
        let [mean, square] = ours.1;
        let [burns_mean, burns_square] = burns.1;
        assert_eq!((bits(mean), bits(square)), (bits(burns_mean), bits(burns_square)));
    }
}
