//! Gradients of several backward passes, summed in f32, parameter by parameter.

use std::collections::BTreeMap;

use burn::tensor::{FloatDType, Tensor};

use crate::source::ParameterVisitor;
use crate::vlm::Vlm;

/// One flat gradient in f32 for every parameter that got any, by checkpoint key.
#[derive(Debug, Default)]
pub(super) struct Gradients {
    by_key: BTreeMap<String, Tensor<1>>,
}

/// Moves a backward pass's gradients over.
struct Collect<'a> {
    from: &'a mut burn::tensor::Gradients,
    to: &'a mut BTreeMap<String, Tensor<1>>,
}

impl ParameterVisitor for Collect<'_> {
    fn visit<const D: usize>(&mut self, key: &str, parameter: &mut Tensor<D>) {
        let Some(gradient) = parameter.grad_remove(self.from) else { return };
        let gradient: Tensor<1> = gradient.cast(FloatDType::F32).reshape([-1]);
        let sum = match self.to.remove(key) {
            Some(before) => before + gradient,
            None => gradient,
        };
        self.to.insert(key.to_owned(), sum);
    }
}

impl Gradients {
    /// Adds what one backward pass left for the parameters of `model`.
    pub fn add(&mut self, model: &mut Vlm, mut from: burn::tensor::Gradients) {
        model.visit(&mut Collect { from: &mut from, to: &mut self.by_key });
    }

    #[cfg(test)]
    pub fn put(&mut self, key: &str, gradient: Tensor<1>) {
        self.by_key.insert(key.to_owned(), gradient);
    }

    /// The gradient of the parameter `key`, which is then gone from here.
    pub fn take(&mut self, key: &str) -> Option<Tensor<1>> {
        self.by_key.remove(key)
    }
}

/// What gradients of length `norm` are multiplied by so that none is longer than `max_norm`: that of
/// `torch.nn.utils.clip_grad_norm_` (torch 2.15), its 1e-6 included. A `max_norm` of 0 clips nothing, as in
/// transformers' `Trainer`.
pub(super) fn clip_factor(norm: f32, max_norm: f64) -> f32 {
    if max_norm > 0.0 { (max_norm as f32 / (norm + 1e-6)).min(1.0) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_shortens_long_gradients_alone() {
        assert!((clip_factor(5.0, 1.0) * 5.0 - 1.0).abs() < 1e-6);
        assert!((clip_factor(0.3, 1.0) - 1.0).abs() < f32::EPSILON);
        assert!((clip_factor(1e9, 0.0) - 1.0).abs() < f32::EPSILON);
    }
}
