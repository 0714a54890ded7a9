//! `x W^T + b`, and the products of its gradient.
//!
//! Weights are `[out, in]` as in checkpoints, and read where they lie.

use burn::tensor::Tensor;

#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::graph::{Array, Gradient, Input, record};
use super::matrix::{Matrix, Out, in_pieces, multiply};

/// Rows up to which reading the weight takes longest.
#[cfg(target_arch = "x86_64")]
const FEW: usize = 6;

/// `x W^T + b`.
///
/// # Shapes
/// - x: `[rows, in]`, weight: `[out, in]`, bias: `[out]` -> `[rows, out]`
pub(crate) fn linear(x: Tensor<2>, weight: &Tensor<2>, bias: Option<&Tensor<1>>) -> Tensor<2> {
    let ([rows, _], [outputs, _]) = (x.dims(), weight.dims());
    let shape = [rows, outputs];
    let (x, weight) = (Input::of(x), Input::of(weight.clone()));
    let (values, held) = (x.array().dense(), weight.array().dense());
    let Some(bias) = bias else {
        let y = Array::new(forward(&values, &held, &[]), &shape);
        return record([x, weight], y, || Linear { x: values.clone(), weight: held.clone() });
    };
    let bias = Input::of(bias.clone());
    let y = Array::new(forward(&values, &held, bias.array().dense().values()), &shape);
    record([x, weight, bias], y, || Linear { x: values.clone(), weight: held.clone() })
}

/// `a W`, outside of autodiff.
///
/// # Shapes
/// - a: `[rows, out]`, weight: `[out, in]` -> `[rows, in]`
pub(crate) fn product(a: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    let [a, weight] = [a, weight.clone()].map(|tensor| super::graph::plain(tensor).dense());
    super::graph::tensor(input_gradient(&a, &weight))
}

#[derive(Clone, Debug)]
struct Linear {
    x: Array,
    weight: Array,
}

impl Gradient<2> for Linear {
    fn inputs(self, output: Array, wanted: [bool; 2]) -> [Option<Array>; 2] {
        let x = wanted[0].then(|| input_gradient(&output, &self.weight));
        let weight = wanted[1].then(|| weight_gradient(&output, &self.x));
        [x, weight]
    }
}

impl Gradient<3> for Linear {
    fn inputs(self, output: Array, wanted: [bool; 3]) -> [Option<Array>; 3] {
        let bias = wanted[2].then(|| bias_gradient(&output));
        let [x, weight] = Gradient::<2>::inputs(self, output, [wanted[0], wanted[1]]);
        [x, weight, bias]
    }
}

/// An array of two dimensions.
fn matrix(array: &Array) -> Matrix<'_> {
    let [rows, columns] = array.dims();
    Matrix { values: array.values(), rows, columns, by_row: columns, by_column: 1 }
}

/// `x W^T + b`; an empty `bias` adds nothing.
fn forward(x: &Array, weight: &Array, bias: &[f32]) -> Vec<f32> {
    let (x, weight) = (matrix(x), matrix(weight));
    let (rows, outputs) = (x.rows, weight.rows);
    #[cfg(target_arch = "x86_64")]
    if avx512::available() {
        let few = rows <= FEW;
        return if few { avx512::few(&x, &weight, bias) } else { avx512::forward(&x, &weight, bias) };
    }
    let mut y = Vec::with_capacity(rows * outputs);
    let out = Out::of(&mut y);
    in_pieces(outputs, rows * x.columns * outputs, |piece| {
        let part = out.part(piece.start, outputs, 1);
        // SAFETY: each piece is its own columns of `y`.
        unsafe {
            multiply(part, &x, &weight.some_rows(&piece).turned(), false);
            add_bias(part, rows, bias.get(piece).unwrap_or_default());
        }
    });
    // SAFETY: every column of every row was written.
    unsafe { y.set_len(rows * outputs) }
    y
}

/// Adds `bias` to as many columns of `rows` rows.
///
/// # Safety
/// They were written, and nobody else uses them meanwhile.
unsafe fn add_bias(out: Out, rows: usize, bias: &[f32]) {
    for row in 0..rows {
        for (column, bias) in bias.iter().enumerate() {
            // SAFETY: the caller's.
            unsafe { *out.pointer(row, column) += bias }
        }
    }
}

/// `dy W`: `[rows, out]` -> `[rows, in]`.
fn input_gradient(dy: &Array, weight: &Array) -> Array {
    let (dy, weight) = (matrix(dy), matrix(weight));
    let (rows, inputs) = (dy.rows, weight.columns);
    let mut dx = Vec::with_capacity(rows * inputs);
    let out = Out::of(&mut dx);
    in_pieces(inputs, rows * inputs * weight.rows, |piece| {
        // SAFETY: each piece is its own columns of `dx`.
        unsafe {
            multiply(
                out.part(piece.start, inputs, 1),
                &dy,
                &weight.turned().some_rows(&piece).turned(),
                false,
            );
        }
    });
    // SAFETY: every column of every row was written.
    unsafe { dx.set_len(rows * inputs) }
    Array::new(dx, &[rows, inputs])
}

/// `dy^T x`: `[out, in]`.
fn weight_gradient(dy: &Array, x: &Array) -> Array {
    let (dy, x) = (matrix(dy), matrix(x));
    let (outputs, inputs) = (dy.columns, x.columns);
    let mut dw = Vec::with_capacity(outputs * inputs);
    let out = Out::of(&mut dw);
    in_pieces(outputs, x.rows * inputs * outputs, |piece| {
        // SAFETY: each piece is its own rows of `dw`.
        unsafe {
            multiply(out.part(piece.start * inputs, inputs, 1), &dy.turned().some_rows(&piece), &x, false);
        }
    });
    // SAFETY: every row was written.
    unsafe { dw.set_len(outputs * inputs) }
    Array::new(dw, &[outputs, inputs])
}

/// The sum over rows.
fn bias_gradient(dy: &Array) -> Array {
    let width = dy.width();
    let mut total = vec![0.0; width];
    for row in dy.values().chunks_exact(width) {
        total.iter_mut().zip(row).for_each(|(total, dy)| *total += dy);
    }
    Array::new(total, &[width])
}
