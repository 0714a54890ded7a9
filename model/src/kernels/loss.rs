//! Softmax and cross-entropy of rows of logits.

use burn::tensor::{Int, Tensor, TensorData};
use rayon::prelude::*;

use super::activation::exp;
use super::buffer::{largest, sum, wide};
use super::graph::{Array, plain, tensor};

/// What rows of logits say of their targets.
pub(crate) struct Predicted {
    /// Each target's negative log-likelihood, `[rows]`.
    pub losses: Tensor<1>,
    /// 1 where the target has the first of the largest logits, else 0, `[rows]`.
    pub correct: Tensor<1, Int>,
    /// The gradient of the summed losses with respect to the logits, `softmax - one_hot`: `[rows, vocabulary]`, if asked for.
    pub gradient: Option<Tensor<2>>,
}

/// The cross-entropy of `targets`, one a row and each below the vocabulary; with `with_gradient` the logits become their gradient in place.
///
/// # Shapes
/// - logits: `[rows, vocabulary]`, outside of autodiff
pub(crate) fn cross_entropy(logits: Tensor<2>, targets: &[u32], with_gradient: bool) -> Predicted {
    let device = logits.device();
    let [rows, vocabulary] = logits.dims();
    let mut values = plain(logits).into_values();
    let each = |(row, target): (&mut [f32], &u32)| {
        let target = *target as usize;
        wide(|| {
            let highest = largest(row);
            let first = row.iter().position(|logit| *logit >= highest);
            let logit = row[target];
            row.iter_mut().for_each(|logit| *logit = exp(*logit - highest));
            let total = sum(row, row, |e, _| e);
            if with_gradient {
                let share = 1.0 / total;
                row.iter_mut().for_each(|e| *e *= share);
                row[target] -= 1.0;
            }
            (total.ln() + (highest - logit), i32::from(first == Some(target)))
        })
    };
    let all = values.par_chunks_mut(vocabulary.max(1)).zip(targets);
    let found: Vec<(f32, i32)> = all.map(each).collect();
    let (losses, correct): (Vec<f32>, Vec<i32>) = found.into_iter().unzip();
    Predicted {
        losses: tensor(Array::new(losses, &[rows])),
        correct: Tensor::from_data(TensorData::new(correct, [rows]), &device),
        gradient: with_gradient.then(|| tensor(Array::new(values, &[rows, vocabulary]))),
    }
}
