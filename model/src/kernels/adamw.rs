//! AdamW, and the length of a gradient, on long tensors.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::buffer::{sum, wide};
use super::graph::{Array, plain, tensor};

/// Values that a thread updates, or sums, at once. A sum's order follows from it.
const PIECE: usize = 1 << 14;

/// What one step multiplies with: all of it follows from the step, nothing from a weight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamStep {
    /// Of the gradient, for clipping.
    pub factor: f32,
    /// `1 - lr decay`.
    pub keep: f64,
    /// `1 - beta1`.
    pub mean: f64,
    /// `beta2`, `1 - beta2`.
    pub square: [f64; 2],
    /// `sqrt(1 - beta2^t)`.
    pub root: f64,
    /// Added to the root of the mean square.
    pub epsilon: f64,
    /// `lr / (1 - beta1^t)`.
    pub rate: f64,
}

/// Weights and moments after a step, in the memory they had where nobody else holds them. All have one length.
pub(crate) fn adamw(
    weight: Tensor<1>,
    moments: [Tensor<1>; 2],
    gradient: Tensor<1>,
    step: &AdamStep,
) -> (Tensor<1>, [Tensor<1>; 2]) {
    let gradient = plain(gradient).dense();
    let mut weight = plain(weight).into_values();
    let [mut mean, mut square] = moments.map(|moment| plain(moment).into_values());
    let pieces =
        weight.par_chunks_mut(PIECE).zip(mean.par_chunks_mut(PIECE)).zip(square.par_chunks_mut(PIECE));
    pieces.zip(gradient.values().par_chunks(PIECE)).for_each(|(((weight, mean), square), gradient)| {
        wide(|| update(weight, mean, square, gradient, step));
    });
    let shape = [weight.len()];
    let whole = |values| tensor(Array::new(values, &shape));
    (whole(weight), [whole(mean), whole(square)])
}

/// In the order in which the plain composition of `train/adamw.rs` rounds.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled with the caller's registers")]
fn update(weight: &mut [f32], mean: &mut [f32], square: &mut [f32], gradient: &[f32], step: &AdamStep) {
    let AdamStep { factor, keep, mean: of_mean, square: [keep_square, of_square], root, epsilon, rate } =
        *step;
    let (keep, of_mean, root) = (keep as f32, of_mean as f32, root as f32);
    let (keep_square, of_square) = (keep_square as f32, of_square as f32);
    let (epsilon, rate) = (epsilon as f32, rate as f32);
    for (((weight, mean), square), gradient) in weight.iter_mut().zip(mean).zip(square).zip(gradient) {
        let gradient = gradient * factor;
        *mean += (gradient - *mean) * of_mean;
        *square = *square * keep_square + gradient * gradient * of_square;
        *weight = *weight * keep - *mean / (square.sqrt() / root + epsilon) * rate;
    }
}

/// The sum of squares, `[1]`: in f32 within a piece, in f64 over the pieces, in their order.
pub(crate) fn squares(values: Tensor<1>) -> Tensor<1> {
    let values = plain(values).dense();
    let pieces = values.values().par_chunks(PIECE);
    let sums: Vec<f32> = pieces.map(|piece| wide(|| sum(piece, piece, |x, same| x * same))).collect();
    let total: f64 = sums.into_iter().map(f64::from).sum();
    tensor(Array::new(vec![total as f32], &[1]))
}

/// Adds `more` to `sum`, value by value.
pub(crate) fn add(sum: &mut [f32], more: &[f32]) {
    sum.par_chunks_mut(PIECE).zip(more.par_chunks(PIECE)).for_each(|(sum, more)| {
        wide(|| sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more));
    });
}
