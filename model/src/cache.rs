//! Keys and values of the tokens a decoder has seen, so that each token is computed once.
//!
//! Every layer holds `[batch, kv_heads, capacity, head_dim]` twice; new tokens are written in place and the
//! capacity grows by whole blocks. The cache can be cut back to a prefix: a chat reuses what did not change.

use burn::tensor::Tensor;

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

    /// The same past for each row of a batch, from a cache of one row: the tokens that all prompts begin with
    /// are computed once.
    #[must_use]
    pub fn repeat(&self, batch: usize) -> Self {
        let rows = |held: &Tensor<4>| held.clone().repeat_dim(0, batch);
        let layers = self.layers.iter().map(|layer| LayerCache { k: rows(&layer.k), v: rows(&layer.v) });
        Self { layers: layers.collect(), mask: self.mask.as_ref().map(|mask| mask.repeat(batch)) }
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
        let capacity = tokens.div_ceil(BLOCK) * BLOCK;
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
