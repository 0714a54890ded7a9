//! Gradient checkpointing (arXiv:1604.06174), one segment a layer: only the input of every layer is kept, and a layer is
//! computed again when its turn comes in the backward pass.
//!
//! ```text
//! forward, no graph:       x[n+1] = layer[n](x[n])                         every x is kept
//! the last layer, graph:   loss(norm(layer[last](x[last])))                backward: gradient of x[last]
//! n = last-1 .. 0, graph:  y = layer[n](x[n])                              backward of sum(y * gradient of y)
//! ```
//!
//! In memory at once: `layers * batch * tokens * hidden_size` values and the graph of one layer, instead of the graphs of all.
//! It costs one more forward pass of all layers but the last.
//!
//! Burn's own strategy keeps the result of every product. A dropout mask is drawn from a number of its own, not from a generator's
//! state, so that it is the same when a layer is computed again.

use burn::tensor::{Gradients, Tensor};

use super::{Pass, Past, Qwen3, rows};
use crate::attention::TokenMask;
use crate::cache::KvCache;

/// A forward pass, ready to be gone through backward.
pub struct Kept<'a> {
    /// What goes into each layer, outside of autodiff.
    inputs: Vec<Tensor<3>>,
    pass: Pass<'a>,
}

impl<'a> Kept<'a> {
    /// Goes through all layers of `qwen` but the last. It must gather no gradients, but drop what the model that learns does.
    ///
    /// # Shapes
    /// - x: `[batch, tokens, hidden_size]` (embeddings), outside of autodiff
    pub fn of(qwen: &Qwen3, x: Tensor<3>, mask: &TokenMask, prefix: Option<&'a KvCache>) -> Self {
        let past = prefix.map_or(Past::Empty, Past::Shared);
        let mut kept = Self { inputs: vec![x], pass: qwen.pass(mask, past) };
        for n in 1..qwen.layers.len() {
            // As a graph computes it, though there is none: by itself the backend has other kernels, which round otherwise.
            let x = kept.inputs[n - 1].clone().autodiff();
            let y = kept.layer(qwen, n - 1, x).inner();
            kept.inputs.push(y);
        }
        kept
    }

    /// The last layer and the norm, with a graph: its input, which gathers a gradient, and the hidden states at `positions` of
    /// the flattened batch, `[positions, hidden_size]`.
    pub fn last(&mut self, qwen: &Qwen3, positions: &[usize]) -> Option<(Tensor<3>, Tensor<2>)> {
        let x = self.inputs.pop()?.autodiff().require_grad();
        let hidden = match qwen.layers.last() {
            Some(last) => last.forward_at(x.clone(), self.inputs.len(), &mut self.pass, positions),
            None => rows(x.clone(), positions),
        };
        Some((x, qwen.norm.forward(hidden)))
    }

    /// From the gradient of the last layer's input to that of the embeddings; `gather` takes what every layer's weights get.
    pub fn back(
        mut self,
        qwen: &Qwen3,
        mut gradient: Tensor<3>,
        gather: &mut dyn FnMut(Gradients),
    ) -> Option<Tensor<3>> {
        while let Some(x) = self.inputs.pop() {
            let x = x.autodiff().require_grad();
            let y = self.layer(qwen, self.inputs.len(), x.clone());
            let mut gradients = (y * gradient).sum().backward();
            gradient = x.grad_remove(&mut gradients)?;
            gather(gradients);
        }
        Some(gradient)
    }

    fn layer(&mut self, qwen: &Qwen3, n: usize, x: Tensor<3>) -> Tensor<3> {
        qwen.layers[n].forward(x, n, &mut self.pass)
    }
}
