//! `y = x W^T + b`, with an optional low-rank adapter beside the frozen weight.
//!
//! Weights keep PyTorch's shape `[out, in]`.

use burn::tensor::{DType, Device, Tensor};

use crate::lora::LoraAdapter;
use crate::source::{Init, Loader, ParameterVisitor};

/// Into how many products a vector's product is split on the CPU: a multiple of usual thread counts that
/// divides the widths of published models.
const SPANS: usize = 8;

/// Outputs of a bf16 weight multiplied at once on the CPU, a multiple of [`SPANS`]. The backend converts what it multiplies to
/// f32: of a head with 151,936 outputs of 1,024 inputs that would be 622 MB.
const PIECE: usize = 8192;

/// A linear layer of a checkpoint: `weight` `[out, in]`, `bias` `[out]`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Tensor<2>,
    /// `[out]`.
    pub bias: Option<Tensor<1>>,
    /// The trainable low-rank branch, when there is one.
    pub adapter: Option<LoraAdapter>,
}

impl Linear {
    /// A linear layer without bias, filled by `init` when made from scratch.
    pub fn without_bias(mut loader: Loader<'_>, inputs: usize, outputs: usize, init: Init) -> Self {
        let weight = loader.tensor("weight", [outputs, inputs], init);
        Self { weight, bias: None, adapter: None }
    }

    /// A linear layer with bias, both filled by `init` and `bias` when made from scratch.
    pub fn with_bias(mut loader: Loader<'_>, inputs: usize, outputs: usize, init: Init, bias: Init) -> Self {
        let weight = loader.tensor("weight", [outputs, inputs], init);
        let bias = Some(loader.tensor("bias", [outputs], bias));
        Self { weight, bias, adapter: None }
    }

    /// # Shapes
    /// - x: `[..., in]` -> `[..., out]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let mut shape = x.dims();
        let [outputs, inputs] = self.weight.dims();
        // One product over all rows: a batched one would read the weight once per batch entry.
        let x: Tensor<2> = x.reshape([-1, inputs as i32]);
        let mut y = rows_by_weight(x.clone(), &self.weight);
        if let Some(bias) = &self.bias {
            y = y + bias.clone().unsqueeze();
        }
        if let Some(adapter) = &self.adapter {
            y = adapter.add_to(y, x);
        }
        shape[D - 1] = outputs;
        y.reshape(shape)
    }

    /// Shows the parameters at `path` (which ends in a dot).
    pub fn visit(&mut self, path: &str, visitor: &mut impl ParameterVisitor) {
        visitor.visit(&format!("{path}weight"), &mut self.weight);
        if let Some(bias) = &mut self.bias {
            visitor.visit(&format!("{path}bias"), bias);
        }
        if let Some(adapter) = &mut self.adapter {
            adapter.visit(path, visitor);
        }
    }
}

/// `x W^T`.
///
/// # Shapes
/// - x: `[rows, in]`, weight: `[out, in]` -> `[rows, out]`
pub fn rows_by_weight(x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    let weight = weight.clone();
    if x.device() != Device::flex() {
        return x.matmul(weight.transpose());
    }
    let [outputs, _] = weight.dims();
    let tracked = x.is_tracked() || weight.is_tracked();
    if weight.dtype() != DType::BF16 || outputs <= PIECE || tracked {
        return product_on_cpu(x, weight);
    }
    let piece = |start: usize| weight.clone().narrow(0, start, PIECE.min(outputs - start));
    let products = (0..outputs).step_by(PIECE).map(|start| product_on_cpu(x.clone(), piece(start)));
    Tensor::cat(products.collect(), 1)
}

fn product_on_cpu(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let ([rows, inputs], [outputs, _]) = (x.dims(), weight.dims());
    if rows == 1 && outputs.is_multiple_of(SPANS) {
        // The CPU backend computes a vector's product on one thread, a batch of them on all: let every span
        // of outputs be one of the batch, and decoding reads the weight on all threads.
        let spans = weight.reshape([SPANS, outputs / SPANS, inputs]);
        return spans.matmul(x.reshape([1, inputs, 1])).reshape([1, outputs]);
    }
    // `(W x^T)^T`: gemm would repack a `[out, in]` weight on the right value by value, which takes as long as
    // multiplying it by 100 rows. So does the backward pass of the plain form, if the weight is `[in, out]`.
    // The reshape lays the rows out one after the other again.
    weight.matmul(x.transpose()).transpose().reshape([rows, outputs])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Distribution, FloatDType};

    /// Sizes around one piece and several, and a piece that is no multiple of [`SPANS`].
    #[test]
    fn a_bf16_product_in_pieces_equals_the_whole_one_bit_for_bit() {
        let device = Device::flex();
        device.seed(7);
        let random = |shape: [usize; 2]| {
            Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device).cast(FloatDType::BF16)
        };
        for outputs in [PIECE, PIECE + 8, 2 * PIECE + 1, 3 * PIECE + 4480] {
            let weight = random([outputs, 192]);
            for rows in [1, 2, 5] {
                let x = random([rows, 192]);
                let pieces = rows_by_weight(x.clone(), &weight);
                assert_eq!(pieces.dims(), [rows, outputs]);
                let whole = product_on_cpu(x, weight.clone());
                assert_eq!(pieces.into_data(), whole.into_data(), "{rows} rows by {outputs} outputs");
            }
        }
    }
}
