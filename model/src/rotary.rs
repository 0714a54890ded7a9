//! Rotary position embedding (RoPE, arXiv:2104.09864), in the half-split layout of Hugging Face.
//!
//! Value `i` of a head and value `i + head_dim / 2` form a pair that turns by
//! `position * theta^(-2 i / head_dim)`.

use burn::tensor::{Device, Tensor, TensorData};

use crate::config::Dtype;
use crate::kernels;

/// The angular speed of each pair, in radians per position.
#[derive(Clone, Debug)]
pub struct RotaryEmbedding {
    inv_freq: Vec<f32>,
}

/// Cosine and sine of each token's angles, `[batch, tokens, 1, head_dim / 2]` each.
#[derive(Clone, Debug)]
pub struct Rotation {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl RotaryEmbedding {
    /// Speeds for heads of `head_dim` values with base `theta`.
    pub fn new(head_dim: usize, theta: f64) -> Self {
        let speed = |pair: usize| {
            let exponent = (2 * pair) as f32 / head_dim as f32;
            // Rounded to f32 after the power and after the division, as PyTorch rounds.
            1.0 / theta.powf(f64::from(exponent)) as f32
        };
        Self { inv_freq: (0..head_dim / 2).map(speed).collect() }
    }

    /// The angles of tokens at `positions`, row by row of a batch.
    pub fn at(&self, positions: &[u32], batch: usize, device: &Device, dtype: Dtype) -> Rotation {
        let angles =
            || positions.iter().flat_map(|p| self.inv_freq.iter().map(move |speed| *p as f32 * speed));
        let shape = [batch, positions.len() / batch.max(1), 1, self.inv_freq.len()];
        let tensor =
            |values: Vec<f32>| Tensor::from_data(TensorData::new(values, shape), (device, dtype.storage()));
        Rotation {
            cos: tensor(angles().map(f32::cos).collect()),
            sin: tensor(angles().map(f32::sin).collect()),
        }
    }
}

impl Rotation {
    /// Turns every head of every token.
    ///
    /// # Shapes
    /// - x: `[batch, tokens, heads, head_dim]` -> the same
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        if kernels::takes(&x) {
            return kernels::rotate(x, &self.cos, &self.sin);
        }
        let half = x.dims()[3] / 2;
        let first = x.clone().narrow(3, 0, half);
        let second = x.narrow(3, half, half);
        let turned_first = first.clone() * self.cos.clone() - second.clone() * self.sin.clone();
        let turned_second = second * self.cos.clone() + first * self.sin.clone();
        Tensor::cat(vec![turned_first, turned_second], 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_depends_on_the_distance_of_two_positions_alone() {
        let device = Device::flex();
        let rotary = RotaryEmbedding::new(8, 10_000.0);
        let head = |seed: f32| {
            let values: Vec<f32> = (0..8).map(|i| (seed + i as f32).sin()).collect();
            Tensor::<4>::from_data(TensorData::new(values, [1, 1, 1, 8]), &device)
        };
        let score = |q: u32, k: u32| {
            let turn = |position, x| rotary.at(&[position], 1, &device, Dtype::F32).apply(x);
            (turn(q, head(0.3)) * turn(k, head(2.0))).sum().into_scalar::<f32>()
        };
        assert!((score(5, 3) - score(105, 103)).abs() < 1e-5);
        assert!((score(5, 3) - score(5, 4)).abs() > 1e-3);
    }
}
