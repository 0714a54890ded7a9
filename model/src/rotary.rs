//! Rotary position embedding (RoPE, arXiv:2104.09864), in the half-split layout of Hugging Face.
//!
//! Value `i` of a head and value `i + head_dim / 2` form a pair that turns by
//! `position * theta^(-2 i / head_dim)`.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};

use crate::config::Dtype;
use crate::kernels;

/// Positions of the shortest table.
const SHORTEST: usize = 256;

/// The angular speed of each pair, in radians per position, and what was computed of it.
#[derive(Clone, Debug)]
pub struct RotaryEmbedding {
    inv_freq: Vec<f32>,
    tables: Arc<Mutex<Vec<Table>>>,
}

/// Cosines and sines of all positions from 0 on, `[positions, head_dim / 2]`: they stay on the device.
#[derive(Clone, Debug)]
struct Table {
    device: Device,
    dtype: Dtype,
    cos: Tensor<2>,
    sin: Tensor<2>,
}

/// Cosine and sine of each token's angles, `[batch, tokens, 1, head_dim / 2]` each; a batch of 1 where all rows have the same.
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
        Self { inv_freq: (0..head_dim / 2).map(speed).collect(), tables: Arc::default() }
    }

    /// The angles of tokens at `positions`, row by row of a batch. Rows that all count up from the same position, as right-padded
    /// ones do, are looked up.
    pub fn at(&self, positions: &[u32], batch: usize, device: &Device, dtype: Dtype) -> Rotation {
        let tokens = positions.len() / batch.max(1);
        let half = self.inv_freq.len();
        if let Some(first) = common_start(positions, tokens) {
            let Table { cos, sin, .. } = self.table(first + tokens, device, dtype);
            let part = |of: Tensor<2>| of.narrow(0, first, tokens).reshape([1, tokens, 1, half]);
            return Rotation { cos: part(cos), sin: part(sin) };
        }
        let [cos, sin] = self.angles(positions, device, dtype).map(|of| of.reshape([batch, tokens, 1, half]));
        Rotation { cos, sin }
    }

    /// Cosines and sines at `positions`: `[positions, head_dim / 2]` each.
    fn angles(&self, positions: &[u32], device: &Device, dtype: Dtype) -> [Tensor<2>; 2] {
        let shape = [positions.len(), self.inv_freq.len()];
        [f32::cos, f32::sin].map(|of: fn(f32) -> f32| {
            let angles =
                positions.iter().flat_map(|p| self.inv_freq.iter().map(move |speed| *p as f32 * speed));
            let values = TensorData::new(angles.map(of).collect::<Vec<f32>>(), shape);
            Tensor::from_data(values, (device, dtype.storage()))
        })
    }

    /// The table of a device, of `positions` at least.
    fn table(&self, positions: usize, device: &Device, dtype: Dtype) -> Table {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let known = tables.iter().position(|table| table.device == *device && table.dtype == dtype);
        if let Some(table) =
            known.and_then(|known| tables.get(known)).filter(|table| table.cos.dims()[0] >= positions)
        {
            return table.clone();
        }
        let all: Vec<u32> = (0..positions.next_power_of_two().max(SHORTEST) as u32).collect();
        let [cos, sin] = self.angles(&all, device, dtype);
        let table = Table { device: device.clone(), dtype, cos, sin };
        if let Some(known) = known {
            tables.swap_remove(known);
        }
        tables.push(table.clone());
        table
    }
}

/// Where all rows of `tokens` positions begin, if they begin alike and count up.
fn common_start(positions: &[u32], tokens: usize) -> Option<usize> {
    let first = *positions.first()?;
    let counts = |row: &[u32]| row.iter().copied().eq(first..first + tokens as u32);
    positions.chunks(tokens).all(counts).then_some(first as usize)
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
    fn what_is_looked_up_is_what_would_be_computed() {
        let (device, rotary) = (Device::flex(), RotaryEmbedding::new(8, 1e4));
        let values = |of: Tensor<4>| -> Vec<u32> {
            of.try_into_vec_as::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
        };
        for (first, tokens) in [(0, 5), (3, 4), (250, 90), (0, 7)] {
            let row: Vec<u32> = (first..first + tokens).collect();
            let twice = [row.clone(), row].concat();
            let known = rotary.at(&twice, 2, &device, Dtype::F32);
            assert_eq!(known.cos.dims(), [1, tokens as usize, 1, 4]);
            let fresh = rotary.angles(&twice, &device, Dtype::F32).map(|of| of.reshape([2, -1, 1, 4]));
            let x = Tensor::<4>::ones([2, tokens as usize, 3, 8], &device);
            let [cos, sin] = fresh;
            let computed = Rotation { cos, sin };
            assert_eq!(values(known.apply(x.clone())), values(computed.apply(x)));
        }
        assert_eq!(rotary.tables.lock().unwrap().len(), 1);
        assert_eq!(rotary.at(&[1, 2, 2, 3], 2, &device, Dtype::F32).cos.dims(), [2, 2, 1, 4]);
    }

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
