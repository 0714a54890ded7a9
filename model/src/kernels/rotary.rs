//! Rotary embedding (arXiv:2104.09864) in Hugging Face's half-split layout.

use burn::tensor::Tensor;

use super::buffer::by_row;
use super::graph::{Array, Gradient, Input, plain, record};

/// Turns value `i` and value `i + head_dim / 2` of every head by the angle of its token.
///
/// # Shapes
/// - x: `[batch, tokens, heads, head_dim]` -> the same
/// - cos, sin: `[batch, tokens, 1, head_dim / 2]`, or `[1, tokens, 1, head_dim / 2]`
pub(crate) fn rotate(x: Tensor<4>, cos: &Tensor<4>, sin: &Tensor<4>) -> Tensor<4> {
    let inputs = [Input::of(x)];
    let [cos, sin] = [cos, sin].map(|angles| plain(angles.clone()).dense());
    let y = turn(&inputs[0].array().dense(), &cos, &sin, 1.0);
    record(inputs, y, || Rotate { cos: cos.clone(), sin: sin.clone() })
}

#[derive(Clone, Debug)]
struct Rotate {
    cos: Array,
    sin: Array,
}

impl Gradient<1> for Rotate {
    fn inputs(self, output: Array, _: [bool; 1]) -> [Option<Array>; 1] {
        [Some(turn(&output, &self.cos, &self.sin, -1.0))]
    }
}

/// Turns forward (`direction` 1) or back (-1).
fn turn(x: &Array, cos: &Array, sin: &Array, direction: f32) -> Array {
    let shape @ [batch, tokens, heads, width] = x.dims();
    let half = width / 2;
    let (values, cos, sin) = (x.values(), cos.values(), sin.values());
    let angled = (cos.len() / half.max(1)).max(1);
    let y = by_row(batch * tokens * heads, width, |row, out| {
        let (first, second) = values[row * width..(row + 1) * width].split_at(half);
        let token = row / heads % angled;
        let angles = token * half..(token + 1) * half;
        let angles = cos[angles.clone()].iter().zip(&sin[angles]);
        let (out_first, out_second) = out.split_at_mut(half);
        let pairs = first.iter().zip(second).zip(angles);
        for ((out_first, out_second), ((x, y), (cos, sin))) in out_first.iter_mut().zip(out_second).zip(pairs)
        {
            let sin = sin * direction;
            out_first.write(x * cos - y * sin);
            out_second.write(y * cos + x * sin);
        }
    });
    Array::new(y, &shape)
}
