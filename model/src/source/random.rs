//! Random weights from a seed, the same on every platform and for every order of requests.
//!
//! Every tensor has its own ChaCha8 key, blake3(seed, tensor key); runs of 65,536 values have their own
//! stream, so that they can be drawn in parallel.

use burn::tensor::TensorData;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{Init, TensorSource, TensorSpec};

/// Values drawn from one ChaCha stream.
const RUN: usize = 1 << 16;

/// Makes every tensor it is asked for.
#[derive(Clone, Debug)]
pub struct RandomSource {
    seed: u64,
    overrides: Vec<(String, Init)>,
}

impl RandomSource {
    /// Weights that `seed` alone determines.
    pub fn new(seed: u64) -> Self {
        Self { seed, overrides: Vec::new() }
    }

    /// Fills tensors whose key ends in `suffix` with `init` instead of the module's own choice.
    #[must_use]
    pub fn with(mut self, suffix: &str, init: Init) -> Self {
        self.overrides.push((suffix.to_owned(), init));
        self
    }

    fn generator(&self, key: &str, run: usize) -> ChaCha8Rng {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(key.as_bytes());
        let mut generator = ChaCha8Rng::from_seed(*hasher.finalize().as_bytes());
        generator.set_stream(run as u64);
        generator
    }

    fn fill(&self, key: &str, values: &mut [f32], draw: impl Fn(&mut ChaCha8Rng) -> f32 + Sync) {
        values.par_chunks_mut(RUN).enumerate().for_each(|(run, values)| {
            let mut generator = self.generator(key, run);
            values.fill_with(|| draw(&mut generator));
        });
    }
}

impl TensorSource for RandomSource {
    fn take(&mut self, wanted: &TensorSpec<'_>) -> TensorData {
        let chosen = self.overrides.iter().find(|(suffix, _)| wanted.key.ends_with(suffix.as_str()));
        let init = chosen.map_or(wanted.init, |(_, init)| *init);
        let mut values = vec![0.0_f32; wanted.shape.iter().product()];
        match init {
            Init::Zeros => {}
            Init::Ones => values.fill(1.0),
            Init::Normal(std) => self.fill(wanted.key, &mut values, |rng| bell(rng.next_u64()) * std as f32),
            Init::Uniform(bound) => self.fill(wanted.key, &mut values, |rng| {
                (unit(rng.next_u32() >> 8, 1 << 24) * 2.0 - 1.0) * bound as f32
            }),
        }
        TensorData::new(values, wanted.shape.to_vec())
    }
}

/// A draw with mean 0 and variance 1: the sum of four even draws (Irwin-Hall), which ends at 3.46 standard
/// deviations as a truncated normal would. Sums and products of integers only, unlike Box-Muller's
/// logarithm and cosine, whose last bits differ between platforms.
fn bell(bits: u64) -> f32 {
    let lanes = [bits & 0xffff, bits >> 16 & 0xffff, bits >> 32 & 0xffff, bits >> 48];
    let sum: f32 = lanes.iter().map(|lane| unit(*lane as u32, 1 << 16)).sum();
    (sum - 2.0) * 3.0_f32.sqrt()
}

/// The middle of the `step`-th of `steps` equal parts of 0..1.
fn unit(step: u32, steps: u32) -> f32 {
    (step as f32 + 0.5) / steps as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Dtype;

    fn draw(seed: u64, key: &str, init: Init) -> Vec<f32> {
        let wanted = TensorSpec { key, shape: &[300, 700], dtype: Dtype::F32, init };
        RandomSource::new(seed).take(&wanted).as_slice::<f32>().unwrap().to_vec()
    }

    #[test]
    fn seed_and_key_determine_the_values() {
        let values = draw(7, "a.weight", Init::Normal(0.02));
        assert_eq!(values, draw(7, "a.weight", Init::Normal(0.02)));
        assert_ne!(values, draw(8, "a.weight", Init::Normal(0.02)));
        assert_ne!(values, draw(7, "b.weight", Init::Normal(0.02)));
        // Another platform or a changed generator shows here.
        assert_eq!(values[..2], [-0.006_992_583_6, 0.051_991_653]);
    }

    #[test]
    fn normal_values_have_the_mean_and_spread_asked_for() {
        let values = draw(1, "w", Init::Normal(0.02));
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let std = (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt();
        assert!(mean.abs() < 2e-4, "{mean}");
        assert!((std - 0.02).abs() < 2e-4, "{std}");
    }

    #[test]
    fn uniform_values_fill_their_bound() {
        let values = draw(1, "w", Init::linear(16));
        assert!(values.iter().all(|value| value.abs() < 0.25));
        assert!(values.iter().any(|value| *value > 0.249) && values.iter().any(|value| *value < -0.249));
    }

    #[test]
    fn an_override_reaches_the_tensors_it_names() {
        let mut source = RandomSource::new(1).with("norm.weight", Init::Zeros);
        let wanted =
            TensorSpec { key: "model.norm.weight", shape: &[4], dtype: Dtype::F32, init: Init::Ones };
        assert_eq!(source.take(&wanted).as_slice::<f32>().unwrap(), [0.0; 4]);
    }
}
