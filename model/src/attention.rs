//! Scaled dot-product attention, with key/value heads shared by groups of query heads (GQA,
//! arXiv:2305.13245), and the mask of a padded batch.

use burn::tensor::{Device, FloatDType, Tensor, TensorData, activation::softmax};

use crate::kernels;

/// Added to the score of a key that must not be seen. Finite, so that a query without any key (a padding
/// token on the left) gets some average instead of NaN; its output is never read.
const MASK_VALUE: f32 = -1e30;

/// `softmax(q k^T / sqrt(head_dim) + bias) v`. Each key/value head serves the `heads / kv_heads` query heads
/// that follow one another; it is multiplied with all of them at once, never copied.
///
/// # Shapes
/// - q: `[batch, tokens, heads, head_dim]`
/// - k, v: `[batch, kv_heads, keys, head_dim]`
/// - bias: `[batch or 1, 1, 1, tokens, keys]`
/// - result: `[batch, tokens, heads * head_dim]`
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, bias: Option<&Tensor<5>>) -> Tensor<3> {
    if kernels::takes(&q) {
        return kernels::attention(q, k, v, bias);
    }
    let [batch, tokens, heads, head_dim] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    let groups = heads / kv_heads;
    let dtype = q.dtype();

    let q = (q / (head_dim as f64).sqrt())
        .reshape([batch, tokens, kv_heads, groups, head_dim])
        .permute([0, 2, 3, 1, 4])
        .reshape([batch, kv_heads, groups * tokens, head_dim]);
    // Softmax in f32 whatever the dtype, as in Hugging Face's eager attention.
    let scores = q.matmul(k.transpose()).cast(FloatDType::F32);
    let scores = scores.reshape([batch, kv_heads, groups, tokens, keys]);
    let scores = match bias {
        Some(bias) => scores + bias.clone(),
        None => scores,
    };
    let weights = softmax(scores, 4).cast(dtype).reshape([batch, kv_heads, groups * tokens, keys]);
    weights.matmul(v).reshape([batch, kv_heads, groups, tokens, head_dim]).permute([0, 3, 1, 2, 4]).reshape([
        batch,
        tokens,
        heads * head_dim,
    ])
}

/// Which tokens of a batch are real and which are padding, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMask {
    real: Vec<bool>,
    batch: usize,
}

impl TokenMask {
    /// A batch without padding.
    pub fn full(batch: usize, tokens: usize) -> Self {
        Self { real: vec![true; batch * tokens], batch }
    }

    /// Rows of `lengths[row]` real tokens, padded on the left (generation) to `tokens`.
    pub fn left_padded(lengths: &[usize], tokens: usize) -> Self {
        let real = lengths.iter().flat_map(|length| (0..tokens).map(move |at| at + length >= tokens));
        Self { real: real.collect(), batch: lengths.len() }
    }

    /// Rows of `lengths[row]` real tokens, padded on the right (training) to `tokens`.
    pub fn right_padded(lengths: &[usize], tokens: usize) -> Self {
        let real = lengths.iter().flat_map(|length| (0..tokens).map(move |at| at < *length));
        Self { real: real.collect(), batch: lengths.len() }
    }

    /// Rows of the batch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Tokens of each row, padding included.
    pub fn tokens(&self) -> usize {
        self.real.len() / self.batch.max(1)
    }

    /// Whether each token is real, row after row.
    pub fn real(&self) -> &[bool] {
        &self.real
    }

    /// The tokens of `self` followed by those of `next`, row by row.
    #[must_use]
    pub fn followed_by(&self, next: &Self) -> Self {
        let (before, after) = (self.tokens(), next.tokens());
        let row = |row: usize| {
            let first = &self.real[row * before..(row + 1) * before];
            [first, &next.real[row * after..(row + 1) * after]].concat()
        };
        Self { real: (0..next.batch).flat_map(row).collect(), batch: next.batch }
    }

    /// All rows, `times` over.
    #[must_use]
    pub fn repeat(&self, times: usize) -> Self {
        Self { real: self.real.repeat(times), batch: self.batch * times }
    }

    /// These rows, in this order.
    #[must_use]
    pub fn pick(&self, rows: &[usize]) -> Self {
        let tokens = self.tokens();
        let row = |row: &usize| self.real[row * tokens..(row + 1) * tokens].iter().copied();
        Self { real: rows.iter().flat_map(row).collect(), batch: rows.len() }
    }

    /// The first `tokens` tokens of each row.
    #[must_use]
    pub fn prefix(&self, tokens: usize) -> Self {
        let rows = self.real.chunks(self.tokens().max(1));
        Self { real: rows.flat_map(|row| row[..tokens.min(row.len())].to_vec()).collect(), batch: self.batch }
    }

    /// All but the first `tokens` tokens of each row.
    #[must_use]
    pub fn without(&self, tokens: usize) -> Self {
        let rows = self.real.chunks(self.tokens().max(1));
        Self { real: rows.flat_map(|row| row[tokens.min(row.len())..].to_vec()).collect(), batch: self.batch }
    }

    /// Each token's position: real tokens are counted from 0, padding sits at the count so far.
    pub fn positions(&self) -> Vec<u32> {
        let mut positions = Vec::with_capacity(self.real.len());
        for row in self.real.chunks(self.tokens().max(1)) {
            let mut seen = 0_u32;
            for real in row {
                positions.push(seen);
                seen += u32::from(*real);
            }
        }
        positions
    }

    /// Whether padding stands before a real token. Padding behind all of them is later than every query that counts, so that
    /// being causal hides it.
    fn pads_before(&self) -> bool {
        self.real.chunks(self.tokens().max(1)).any(|row| !row.is_sorted_by(|one, next| one >= next))
    }

    /// What is added to the scores of the last `queries` tokens of each row: 0 where the key may be seen, [`MASK_VALUE`]
    /// elsewhere. A key may be seen if it is not later than the query and no padding before real tokens; padding behind them all
    /// needs no hiding. `None` when nothing is hidden.
    ///
    /// # Shapes
    /// - result: `[batch or 1, 1, 1, queries, tokens]`
    pub fn causal_bias(&self, queries: usize, device: &Device) -> Option<Tensor<5>> {
        let tokens = self.tokens();
        let padded = self.pads_before();
        if queries == 1 && !padded {
            return None;
        }
        let rows = if padded { self.batch } else { 1 };
        let mut bias = Vec::with_capacity(rows * queries * tokens);
        for real in self.real.chunks(tokens.max(1)).take(rows) {
            for query in tokens - queries..tokens {
                let may = |key: usize, real: bool| key <= query && (real || !padded);
                let seen = |(key, real): (usize, &bool)| if may(key, *real) { 0.0 } else { MASK_VALUE };
                bias.extend(real.iter().enumerate().map(seen));
            }
        }
        Some(Tensor::from_data(TensorData::new(bias, [rows, 1, 1, queries, tokens]), device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_real_tokens_from_zero() {
        assert_eq!(TokenMask::left_padded(&[2, 4], 4).positions(), [0, 0, 0, 1, 0, 1, 2, 3]);
        assert_eq!(TokenMask::right_padded(&[2, 4], 4).positions(), [0, 1, 2, 2, 0, 1, 2, 3]);
    }

    #[test]
    fn a_query_sees_real_keys_up_to_itself() {
        let bias = TokenMask::left_padded(&[2, 3], 3).causal_bias(2, &Device::flex()).unwrap();
        assert_eq!(bias.dims(), [2, 1, 1, 2, 3]);
        let seen: Vec<bool> = bias.into_data().as_slice::<f32>().unwrap().iter().map(|b| *b == 0.0).collect();
        #[rustfmt::skip]
        let expected = [
            false, true, false,
            false, true, true,
            true, true, false,
            true, true, true,
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn padding_behind_the_real_tokens_needs_no_mask_of_its_own() {
        let (right, full) = (TokenMask::right_padded(&[2, 3], 3), TokenMask::full(1, 3));
        let bias = |mask: &TokenMask| mask.causal_bias(3, &Device::flex()).unwrap().into_data();
        assert_eq!(bias(&right), bias(&full));
        assert_eq!(
            right.followed_by(&right).causal_bias(3, &Device::flex()).unwrap().dims(),
            [2, 1, 1, 3, 6]
        );
    }

    #[test]
    fn one_new_token_without_padding_needs_no_bias() {
        assert!(TokenMask::full(2, 7).causal_bias(1, &Device::flex()).is_none());
        assert!(TokenMask::left_padded(&[6, 7], 7).causal_bias(1, &Device::flex()).is_some());
    }

    #[test]
    fn masks_grow_and_shrink_row_by_row() {
        let prompt = TokenMask::left_padded(&[1, 2], 2);
        let grown = prompt.followed_by(&TokenMask::full(2, 1));
        assert_eq!(grown.real(), [false, true, true, true, true, true]);
        assert_eq!(grown.prefix(2), prompt);
        assert_eq!(prompt.pick(&[1, 0, 1]).real(), [true, true, false, true, true, true]);
    }
}
