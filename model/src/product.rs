//! `x W^T`, the product of every linear layer, in the form that the backend computes fastest.

use burn::tensor::{DType, Device, Tensor};

use crate::kernels;

/// Into how many products a vector's product is split on the CPU: a multiple of usual thread counts that
/// divides the widths of published models.
const SPANS: usize = 8;

/// Outputs of a bf16 weight multiplied at once on the CPU, a multiple of [`SPANS`]. The backend converts what it multiplies to
/// f32: of a head with 151,936 outputs of 1,024 inputs that would be 622 MB.
const PIECE: usize = 8192;

/// `x W^T`.
///
/// # Shapes
/// - x: `[rows, in]`, weight: `[out, in]` -> `[rows, out]`
pub fn rows_by_weight(x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    if kernels::takes(&x) && kernels::takes(weight) {
        return kernels::linear(x, weight, None);
    }
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

/// `x W^T + b`.
///
/// # Shapes
/// - x: `[rows, in]`, weight: `[out, in]`, bias: `[out]` -> `[rows, out]`
pub fn rows_by_weight_and_bias(x: Tensor<2>, weight: &Tensor<2>, bias: Option<&Tensor<1>>) -> Tensor<2> {
    if kernels::takes(&x) && kernels::takes(weight) {
        return kernels::linear(x, weight, bias);
    }
    let y = rows_by_weight(x, weight);
    match bias {
        Some(bias) => y + bias.clone().unsqueeze(),
        None => y,
    }
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
