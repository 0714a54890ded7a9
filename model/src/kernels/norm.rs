//! RMS norm (arXiv:1910.07467) and layer norm over the last dimension.

use burn::tensor::Tensor;

use super::buffer::{Unwritten, by_row, sum};
use super::graph::{Array, Gradient, Input, plain, record, tensor};

/// `x / sqrt(mean(x^2) + eps) * weight`.
///
/// # Shapes
/// - x: `[..., width]`, weight: `[width]` -> `[..., width]`
pub(crate) fn rms_norm<const D: usize>(x: Tensor<D>, weight: &Tensor<1>, eps: f64) -> Tensor<D> {
    let shape = x.dims();
    let inputs = [Input::of(x), Input::of(weight.clone())];
    let [x, weight] = inputs.each_ref().map(|input| input.array().dense());
    let (width, values, scales) = (x.width(), x.values(), weight.values());
    let eps = eps as f32;
    let y = by_row(values.len() / width, width, |row, out| {
        let x = &values[row * width..(row + 1) * width];
        let scale = rms(x, eps);
        for ((out, x), weight) in out.iter_mut().zip(x).zip(scales) {
            out.write(x * scale * weight);
        }
    });
    record(inputs, Array::new(y, &shape), || RmsNorm { x: x.clone(), weight: weight.clone(), eps })
}

/// `1 / sqrt(mean(x^2) + eps)`.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled with the caller's registers")]
fn rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (sum(x, x, |x, same| x * same) / x.len() as f32 + eps).sqrt()
}

#[derive(Clone, Debug)]
struct RmsNorm {
    x: Array,
    weight: Array,
    eps: f32,
}

impl Gradient<2> for RmsNorm {
    /// With `s = 1 / sqrt(mean(x^2) + eps)` and `h = dy * weight`: `dx = s h - x s^3 mean(h x)`, `dweight = sum over rows of dy x s`.
    fn inputs(self, output: Array, wanted: [bool; 2]) -> [Option<Array>; 2] {
        let (width, x, weight, dy) = (self.x.width(), self.x.values(), self.weight.values(), output.values());
        let shape = output.shape();
        let slice = |row: usize| row * width..(row + 1) * width;
        let dx = |row: usize, out: &mut Unwritten| {
            let (x, dy) = (&x[slice(row)], &dy[slice(row)]);
            let scale = rms(x, self.eps);
            let mut mean = 0.0;
            // In pieces, so that `h` needs no memory of its own.
            for ((x, dy), weight) in x.chunks(PIECE).zip(dy.chunks(PIECE)).zip(weight.chunks(PIECE)) {
                let mut h = [0.0; PIECE];
                for ((h, dy), weight) in h.iter_mut().zip(dy).zip(weight) {
                    *h = dy * weight;
                }
                mean += sum(&h[..x.len()], x, |h, x| h * x);
            }
            let pull = mean / width as f32 * scale * scale * scale;
            for (((out, x), dy), weight) in out.iter_mut().zip(x).zip(dy).zip(weight) {
                out.write(dy * weight * scale - x * pull);
            }
        };
        let rows = x.len() / width;
        let input = wanted[0].then(|| Array::new(by_row(rows, width, dx), &shape));
        let weight = wanted[1].then(|| {
            let mut total = vec![0.0; width];
            for row in 0..rows {
                let (x, dy) = (&x[slice(row)], &dy[slice(row)]);
                let scale = rms(x, self.eps);
                for ((total, x), dy) in total.iter_mut().zip(x).zip(dy) {
                    *total += dy * x * scale;
                }
            }
            Array::new(total, &[width])
        });
        [input, weight]
    }
}

/// Values of a row that are looked at together.
const PIECE: usize = 256;

/// `(x - mean) / sqrt(var + eps) * weight + bias`, outside of autodiff.
///
/// # Shapes
/// - x: `[..., width]`, weight, bias: `[width]` -> `[..., width]`
pub(crate) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    let shape = x.dims();
    let x = plain(x).dense();
    let [weight, bias] = [weight, bias].map(|values| plain(values.clone()).dense());
    let (width, values, weight, bias) = (x.width(), x.values(), weight.values(), bias.values());
    let y = by_row(values.len() / width, width, |row, out| {
        let x = &values[row * width..(row + 1) * width];
        let mean = sum(x, x, |x, _| x) / width as f32;
        let variance = sum(x, x, |x, _| (x - mean) * (x - mean)) / width as f32;
        let scale = 1.0 / (variance + eps as f32).sqrt();
        for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
            out.write((x - mean) * scale * weight + bias);
        }
    });
    tensor(Array::new(y, &shape))
}
