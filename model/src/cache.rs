//! Keys and values of the tokens a decoder has seen, so that each token is computed once.
//!
//! Every layer holds `[batch, kv_heads, capacity, head_dim]` twice; new tokens are written in place and the
//! capacity grows by whole blocks. The cache can be cut back to a prefix: a chat reuses what did not change.

use burn::tensor::{Int, Tensor, TensorData};

use crate::attention::TokenMask;

/// Tokens by which the capacity grows.
const BLOCK: usize = 256;

/// The cache of one decoder for one batch. Starts empty; fitted to model and batch by the first forward.
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    mask: Option<TokenMask>,
}

/// One layer's share.
#[derive(Clone, Debug)]
struct LayerCache {
    k: Tensor<4>,
    v: Tensor<4>,
}

impl KvCache {
    /// A cache that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tokens seen per row, padding included.
    pub fn tokens(&self) -> usize {
        self.mask.as_ref().map_or(0, TokenMask::tokens)
    }

    /// Rows of the batch, unless nothing was seen yet.
    pub fn rows(&self) -> Option<usize> {
        self.mask.as_ref().map(TokenMask::batch)
    }

    /// Forgets all but the first `tokens` tokens of each row.
    pub fn truncate(&mut self, tokens: usize) {
        if tokens == 0 {
            *self = Self::default();
        } else if let Some(mask) = &mut self.mask {
            *mask = mask.prefix(tokens);
        }
    }

    /// A copy of the first `tokens` tokens of each row, which are there, in memory of its own.
    #[must_use]
    pub fn prefix(&self, tokens: usize) -> Self {
        if tokens == 0 {
            return Self::default();
        }
        let capacity = Self::capacity(tokens);
        let copy = |held: &Tensor<4>| {
            let [batch, heads, _, width] = held.dims();
            let first = held.clone().narrow(2, 0, tokens);
            empty_like(held, capacity).slice_assign([0..batch, 0..heads, 0..tokens, 0..width], first)
        };
        let layers = self.layers.iter().map(|layer| LayerCache { k: copy(&layer.k), v: copy(&layer.v) });
        Self { layers: layers.collect(), mask: self.mask.as_ref().map(|mask| mask.prefix(tokens)) }
    }

    /// Bytes of the keys and values, room for later tokens included.
    pub fn bytes(&self) -> usize {
        let bytes = |held: &Tensor<4>| held.dims().iter().product::<usize>() * held.dtype().size();
        self.layers.iter().map(|layer| bytes(&layer.k) + bytes(&layer.v)).sum()
    }

    /// For how many tokens room is made where `tokens` are to be held.
    pub fn capacity(tokens: usize) -> usize {
        tokens.next_multiple_of(BLOCK)
    }

    /// The keys and values that this holds of `layer` for one row, before those of new tokens of all rows of a batch.
    ///
    /// # Shapes
    /// - k, v: `[batch, kv_heads, new, head_dim]` -> `[batch, kv_heads, tokens + new, head_dim]` each
    pub(crate) fn before(&self, layer: usize, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let Some(held) = self.layers.get(layer) else { return (k, v) };
        let join = |held: &Tensor<4>, new: Tensor<4>| {
            let [batch, heads, _, width] = new.dims();
            let first = held.clone().narrow(2, 0, self.tokens());
            Tensor::cat(vec![first.expand([batch, heads, self.tokens(), width]), new], 2)
        };
        (join(&held.k, k), join(&held.v, v))
    }

    /// The mask of the tokens of one row that this holds and of those that follow it in every row of a batch.
    pub(crate) fn mask_before(&self, next: &TokenMask) -> TokenMask {
        self.mask.as_ref().map_or_else(|| next.clone(), |mask| mask.repeat(next.batch()).followed_by(next))
    }

    /// The same without room for later tokens.
    pub(crate) fn fitted(&self) -> Self {
        let fit = |held: &Tensor<4>| {
            let [batch, heads, _, width] = held.dims();
            let exact = Tensor::zeros([batch, heads, self.tokens(), width], (&held.device(), held.dtype()));
            exact.slice_assign(
                [0..batch, 0..heads, 0..self.tokens(), 0..width],
                held.clone().narrow(2, 0, self.tokens()),
            )
        };
        let layers = self.layers.iter().map(|layer| LayerCache { k: fit(&layer.k), v: fit(&layer.v) });
        Self { layers: layers.collect(), mask: self.mask.clone() }
    }

    /// The past of these rows, in this order; a row may be named more than once.
    #[must_use]
    pub fn pick(&self, rows: &[usize]) -> Self {
        let picked = |held: &Tensor<4>| {
            let rows: Vec<i32> = rows.iter().map(|row| *row as i32).collect();
            let count = rows.len();
            let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &held.device());
            held.clone().select(0, rows)
        };
        let layers = self.layers.iter().map(|layer| LayerCache { k: picked(&layer.k), v: picked(&layer.v) });
        Self { layers: layers.collect(), mask: self.mask.as_ref().map(|mask| mask.pick(rows)) }
    }

    /// Announces new tokens; answers with the mask of all tokens, old and new.
    pub(crate) fn extend(&mut self, next: &TokenMask) -> TokenMask {
        let mask = match &self.mask {
            Some(seen) => seen.followed_by(next),
            None => next.clone(),
        };
        self.mask = Some(mask.clone());
        mask
    }

    /// Writes the keys and values of announced tokens of `layer` (layers in order); answers with those of
    /// all tokens.
    ///
    /// # Shapes
    /// - k, v: `[batch, kv_heads, new, head_dim]` -> `[batch, kv_heads, tokens, head_dim]` each
    pub(crate) fn write(&mut self, layer: usize, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let tokens = self.tokens();
        let capacity = Self::capacity(tokens);
        if layer == self.layers.len() {
            self.layers.push(LayerCache { k: empty_like(&k, capacity), v: empty_like(&v, capacity) });
        }
        let cache = &mut self.layers[layer];
        (write(&mut cache.k, k, tokens, capacity), write(&mut cache.v, v, tokens, capacity))
    }
}

/// Zeros like `x` with room for `capacity` tokens.
fn empty_like(x: &Tensor<4>, capacity: usize) -> Tensor<4> {
    let [batch, heads, _, width] = x.dims();
    Tensor::zeros([batch, heads, capacity, width], (&x.device(), x.dtype()))
}

/// Puts `new` before the end of the first `tokens` places of `held`; answers with those places.
fn write(held: &mut Tensor<4>, new: Tensor<4>, tokens: usize, capacity: usize) -> Tensor<4> {
    let [batch, heads, room, width] = held.dims();
    if room < capacity {
        let larger = empty_like(held, capacity);
        held.inplace(|held| larger.slice_assign([0..batch, 0..heads, 0..room, 0..width], held));
    }
    let start = tokens - new.dims()[2];
    held.inplace(|held| held.slice_assign([0..batch, 0..heads, start..tokens, 0..width], new));
    held.clone().narrow(2, 0, tokens)
}
