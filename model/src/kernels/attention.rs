//! Scaled dot-product attention, a key/value head of a row at a time.
//!
//! ```text
//! s = q k^T / sqrt(head_dim) + bias      p = softmax(s)      y = p v
//! dv = p^T dy    dp = dy v^T    ds = p (dp - sum(p dp)) / sqrt(head_dim)    dq = ds k    dk = ds^T q
//! ```
//!
//! Scores live in a buffer of one head, and are computed again for the gradient; queries, keys and values are read where they lie.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::activation::exp;
use super::buffer::{largest, sum, wide};
use super::graph::{Array, Gradient, Input, plain, record};
use super::matrix::{Matrix, Out, multiply};

/// Multiplications below which one thread does all heads.
const ALONE: usize = 1 << 17;

/// `softmax(q k^T / sqrt(head_dim) + bias) v`; each key/value head serves the query heads that follow one another.
///
/// # Shapes
/// - q: `[batch, tokens, heads, head_dim]`
/// - k, v: `[batch, kv_heads, keys, head_dim]`
/// - bias: `[batch or 1, 1, 1, tokens, keys]`
/// - result: `[batch, tokens, heads * head_dim]`
pub(crate) fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, bias: Option<&Tensor<5>>) -> Tensor<3> {
    let [batch, tokens, heads, head_dim] = q.dims();
    let inputs = [Input::of(q), Input::of(k), Input::of(v)];
    let [q, k, v] = inputs.each_ref().map(|input| input.array().lined_up());
    let bias = bias.map(|bias| plain(bias.clone()).dense());
    let heads = Heads { q, k, v, bias, batch, tokens, count: heads, head_dim };
    let y = heads.forward();
    record(inputs, Array::new(y, &[batch, tokens, heads.count * head_dim]), || heads.clone())
}

/// What the gradient needs, and the sizes.
#[derive(Clone, Debug)]
struct Heads {
    q: Array,
    k: Array,
    v: Array,
    bias: Option<Array>,
    batch: usize,
    tokens: usize,
    count: usize,
    head_dim: usize,
}

impl Heads {
    fn forward(&self) -> Vec<f32> {
        let (width, count) =
            (self.count * self.head_dim, self.batch * self.tokens * self.count * self.head_dim);
        let mut y = Vec::with_capacity(count);
        let out = Out::of(&mut y);
        self.each(|row, kv_head, queries| {
            let (k, v) = (self.keys(&self.k, row, kv_head), self.keys(&self.v, row, kv_head));
            let mut p = vec![0.0; self.tokens * k.rows];
            for head in queries {
                self.probabilities(row, head, &k, &mut p);
                let place = row * self.tokens * width + head * self.head_dim;
                // SAFETY: each head of each row has its own part of `y`.
                unsafe { multiply(out.part(place, width, 1), &self.over_keys(&p, k.rows), &v, false) }
            }
        });
        // SAFETY: every head of every row was written.
        unsafe { y.set_len(count) }
        y
    }

    /// Calls `each` for every row and key/value head with the query heads that it serves; on all threads if that is worth it.
    fn each(&self, each: impl Fn(usize, usize, std::ops::Range<usize>) + Sync) {
        let [_, kv_heads, keys, _] = self.k.dims();
        let groups = self.count / kv_heads;
        let one = |n: usize| {
            let (row, kv_head) = (n / kv_heads, n % kv_heads);
            wide(|| each(row, kv_head, kv_head * groups..(kv_head + 1) * groups));
        };
        let work = self.batch * self.count * self.tokens * keys * self.head_dim;
        if work <= ALONE {
            (0..self.batch * kv_heads).for_each(one);
        } else {
            (0..self.batch * kv_heads).into_par_iter().for_each(one);
        }
    }

    /// One head's keys or values, `[keys, head_dim]`.
    fn keys<'a>(&self, held: &'a Array, row: usize, kv_head: usize) -> Matrix<'a> {
        let (values, [by_row, by_head, by_key, by_value]) = held.strided();
        let [_, _, keys, _] = held.dims();
        let values = &values[row * by_row + kv_head * by_head..];
        Matrix { values, rows: keys, columns: self.head_dim, by_row: by_key, by_column: by_value }
    }

    /// One head of an array like the queries, `[tokens, head_dim]`.
    fn queries<'a>(&self, held: &'a Array, row: usize, head: usize) -> Matrix<'a> {
        let (values, [by_row, by_token, by_head, by_value]) = held.strided();
        let values = &values[row * by_row + head * by_head..];
        Matrix { values, rows: self.tokens, columns: self.head_dim, by_row: by_token, by_column: by_value }
    }

    /// One head's scores or what is made of them, `[tokens, keys]`.
    fn over_keys<'a>(&self, values: &'a [f32], keys: usize) -> Matrix<'a> {
        Matrix { values, rows: self.tokens, columns: keys, by_row: keys, by_column: 1 }
    }

    /// Fills `p`, `[tokens, keys]`.
    fn probabilities(&self, row: usize, head: usize, k: &Matrix<'_>, p: &mut Vec<f32>) {
        // SAFETY: `p` has the size of the product and is nobody else's.
        unsafe {
            multiply(Out::of(p).part(0, k.rows, 1), &self.queries(&self.q, row, head), &k.turned(), false);
        }
        let scale = 1.0 / (self.head_dim as f32).sqrt();
        let bias = self.bias.as_ref().map(|bias| {
            let [rows, ..] = bias.dims::<5>();
            let all = bias.values();
            if rows == 1 { all } else { &all[row * self.tokens * k.rows..] }
        });
        for (token, p) in p.chunks_exact_mut(k.rows).enumerate() {
            match bias.map(|bias| &bias[token * k.rows..(token + 1) * k.rows]) {
                Some(bias) => p.iter_mut().zip(bias).for_each(|(s, bias)| *s = *s * scale + bias),
                None => p.iter_mut().for_each(|s| *s *= scale),
            }
            softmax(p);
        }
    }
}

/// Softmax in place.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled with the caller's registers")]
fn softmax(scores: &mut [f32]) {
    let highest = largest(scores);
    scores.iter_mut().for_each(|s| *s = exp(*s - highest));
    let total = 1.0 / sum(scores, scores, |e, _| e);
    scores.iter_mut().for_each(|e| *e *= total);
}

impl Gradient<3> for Heads {
    fn inputs(self, output: Array, _: [bool; 3]) -> [Option<Array>; 3] {
        let [_, kv_heads, keys, _] = self.k.dims();
        let Self { batch, tokens, count: heads, head_dim, .. } = self;
        let dy = output.shaped(&[batch, tokens, heads, head_dim]);
        let (query_width, key_width) = (heads * head_dim, kv_heads * head_dim);
        let mut dq = Vec::with_capacity(batch * tokens * query_width);
        let [mut dk, mut dv] = [(); 2].map(|()| Vec::with_capacity(batch * keys * key_width));
        let (out_q, out_k, out_v) = (Out::of(&mut dq), Out::of(&mut dk), Out::of(&mut dv));
        let scale = 1.0 / (head_dim as f32).sqrt();
        self.each(|row, kv_head, queries| {
            let (k, v) = (self.keys(&self.k, row, kv_head), self.keys(&self.v, row, kv_head));
            let [mut p, mut ds] = [(); 2].map(|()| vec![0.0; tokens * keys]);
            let key_place = row * keys * key_width + kv_head * head_dim;
            for (nth, head) in queries.enumerate() {
                self.probabilities(row, head, &k, &mut p);
                let (q, dy) = (self.queries(&self.q, row, head), self.queries(&dy, row, head));
                let query_place = row * tokens * query_width + head * head_dim;
                // SAFETY: each key/value head of each row, and each query head, has its own part of the results.
                unsafe {
                    multiply(
                        out_v.part(key_place, key_width, 1),
                        &self.over_keys(&p, keys).turned(),
                        &dy,
                        nth > 0,
                    );
                    multiply(Out::of(&mut ds).part(0, keys, 1), &dy, &v.turned(), false);
                    for (p, ds) in p.chunks_exact(keys).zip(ds.chunks_exact_mut(keys)) {
                        let mean = sum(p, ds, |p, dp| p * dp);
                        p.iter().zip(ds).for_each(|(p, ds)| *ds = p * (*ds - mean) * scale);
                    }
                    let ds = self.over_keys(&ds, keys);
                    multiply(out_q.part(query_place, query_width, 1), &ds, &k, false);
                    multiply(out_k.part(key_place, key_width, 1), &ds.turned(), &q, nth > 0);
                }
            }
        });
        // SAFETY: every head of every row was written.
        unsafe {
            dq.set_len(batch * tokens * query_width);
            dk.set_len(batch * keys * key_width);
            dv.set_len(batch * keys * key_width);
        }
        // As they come out of a projection: the view that swaps tokens and heads needs no copy on the way back.
        let keys = |values: Vec<f32>| Array::new(values, &[batch, keys, kv_heads, head_dim]).swapped();
        [Some(Array::new(dq, &[batch, tokens, heads, head_dim])), Some(keys(dk)), Some(keys(dv))]
    }
}
