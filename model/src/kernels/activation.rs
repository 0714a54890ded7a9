//! `silu(gate) * up`, quick GELU, and the `exp` that they and softmax are made of.

use burn::tensor::Tensor;

use super::buffer::{by_row, by_row_pair};
use super::graph::{Array, Gradient, Input, plain, record, tensor};

/// `e^x` to about one unit in the last place, the same on every machine; 0 below -87, infinity above 88.
///
/// `2^n e^r` with `x = n ln 2 + r`, `|r| <= ln 2 / 2`, and Cephes' polynomial (`expf.c`). In plain arithmetic, so that a loop over it
/// is computed in wide registers; the standard library's is a call for each value.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest whole number in the last bits
    let clamped = x.clamp(-87.0, 88.0);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127).wrapping_shl(23));
    let y = (p * r * r + r + 1.0) * power;
    let y = if x < -87.0 { 0.0 } else { y };
    if x > 88.0 { f32::INFINITY } else { y }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled with the caller's registers")]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `silu(gate) * up`.
///
/// # Shapes
/// - gate, up: `[..., width]` -> the same
pub(crate) fn swiglu<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    let shape = gate.dims();
    let inputs = [Input::of(gate), Input::of(up)];
    let [gate, up] = inputs.each_ref().map(|input| input.array().dense());
    let (width, g, u) = (gate.width(), gate.values(), up.values());
    let y = by_row(g.len() / width, width, |row, out| {
        let row = row * width..(row + 1) * width;
        for ((out, g), u) in out.iter_mut().zip(&g[row.clone()]).zip(&u[row]) {
            out.write(g * sigmoid(*g) * u);
        }
    });
    record(inputs, Array::new(y, &shape), || Swiglu { gate: gate.clone(), up: up.clone() })
}

#[derive(Clone, Debug)]
struct Swiglu {
    gate: Array,
    up: Array,
}

impl Gradient<2> for Swiglu {
    fn inputs(self, output: Array, _: [bool; 2]) -> [Option<Array>; 2] {
        let (width, g, u, dy) = (self.gate.width(), self.gate.values(), self.up.values(), output.values());
        let gradients = by_row_pair(g.len() / width, width, |row, [dg, du]| {
            let row = row * width..(row + 1) * width;
            let inputs = g[row.clone()].iter().zip(&u[row.clone()]).zip(&dy[row]);
            for ((dg, du), ((g, u), dy)) in dg.iter_mut().zip(du).zip(inputs) {
                let s = sigmoid(*g);
                dg.write(dy * u * s * (1.0 + g * (1.0 - s)));
                du.write(dy * g * s);
            }
        });
        let shape = output.shape();
        gradients.map(|gradient| Some(Array::new(gradient, &shape)))
    }
}

/// `x * sigmoid(1.702 x)`, outside of autodiff.
pub(crate) fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let shape = x.dims();
    let x = plain(x).dense();
    let (width, values) = (x.width(), x.values());
    let y = by_row(values.len() / width, width, |row, out| {
        for (out, x) in out.iter_mut().zip(&values[row * width..(row + 1) * width]) {
            out.write(x * sigmoid(1.702 * x));
        }
    });
    tensor(Array::new(y, &shape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_exact_to_a_few_units_in_the_last_place() {
        for n in -86_999..88_000 {
            let x = n as f32 / 1000.0;
            let (found, expected) = (exp(x), f64::from(x).exp());
            assert!((f64::from(found) / expected - 1.0).abs() < 3e-7, "{x}: {found} {expected}");
        }
        assert_eq!((exp(0.0), exp(-1e30), exp(89.0)), (1.0, 0.0, f32::INFINITY));
        assert!(exp(f32::NAN).is_nan());
    }
}
