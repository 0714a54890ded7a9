//! Gradients of several backward passes, summed in f32, and their common length.

use std::collections::BTreeMap;

use burn::tensor::{FloatDType, Tensor};

use crate::source::ParameterVisitor;
use crate::vlm::Vlm;

/// Values summed in one call. Burn's CPU backend adds up longer tensors in an order that depends on its threads;
/// the norm, and with it every clipped weight, must not.
const RUN: usize = 1 << 20;

/// One flat gradient in f32 for every parameter that got any, by checkpoint key.
#[derive(Clone, Debug, Default)]
pub struct Gradients {
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

    /// The length of all of them as one vector, `[1]`; `None` when there are none.
    pub fn norm(&self) -> Option<Tensor<1>> {
        let squares = self.by_key.values().flat_map(|gradient| {
            let [length] = gradient.dims();
            (0..length)
                .step_by(RUN)
                .map(move |start| gradient.clone().narrow(0, start, RUN.min(length - start)).square().sum())
        });
        squares.reduce(|sum, square| sum + square).map(Tensor::sqrt)
    }

    /// Multiplies all of them by `factor`.
    pub fn scale(&mut self, factor: f32) {
        for gradient in self.by_key.values_mut() {
            *gradient = gradient.clone() * factor;
        }
    }

    /// The gradient of the parameter `key`, which is then gone from here.
    pub fn take(&mut self, key: &str) -> Option<Tensor<1>> {
        self.by_key.remove(key)
    }
}

/// What gradients of length `norm` are multiplied by so that none is longer than `max_norm`: that of
/// `torch.nn.utils.clip_grad_norm_` (torch 2.15), its 1e-6 included. A `max_norm` of 0 clips nothing, as in
/// transformers' `Trainer`.
pub fn clip_factor(norm: f32, max_norm: f64) -> f32 {
    if max_norm > 0.0 { (max_norm as f32 / (norm + 1e-6)).min(1.0) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn of(values: &[&[f32]]) -> Gradients {
        let tensor = |values: &[f32]| Tensor::<1>::from_floats(values, &Device::flex());
        let by_key = values.iter().enumerate().map(|(n, values)| (n.to_string(), tensor(values)));
        Gradients { by_key: by_key.collect() }
    }

    fn norm(gradients: &Gradients) -> f32 {
        gradients.norm().unwrap().into_scalar()
    }

    #[test]
    fn the_norm_is_that_of_all_gradients_together() {
        assert!((norm(&of(&[&[3.0, 0.0], &[4.0]])) - 5.0).abs() < 1e-6);
        assert!(Gradients::default().norm().is_none());
    }

    #[test]
    fn the_norm_counts_values_beyond_one_run() {
        let long = vec![0.5; 2 * RUN + 4];
        let expected = 0.5 * (long.len() as f32).sqrt();
        assert!((norm(&of(&[&long])) / expected - 1.0).abs() < 1e-5);
    }

    #[test]
    fn clipping_shortens_long_gradients_alone() {
        let mut gradients = of(&[&[3.0, 0.0], &[4.0]]);
        let factor = clip_factor(norm(&gradients), 1.0);
        gradients.scale(factor);
        assert!((norm(&gradients) - 1.0).abs() < 1e-6);
        assert!((clip_factor(0.3, 1.0) - 1.0).abs() < f32::EPSILON);
        assert!((clip_factor(1e9, 0.0) - 1.0).abs() < f32::EPSILON);
    }
}
