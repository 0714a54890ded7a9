//! `y = x W^T + b`, with an optional low-rank adapter beside the frozen weight.
//!
//! Weights keep PyTorch's shape `[out, in]`.

use burn::tensor::{FloatDType, Tensor};

use crate::lora::LoraAdapter;
use crate::product::rows_by_weight_and_bias;
use crate::source::{Init, Loader, ParameterVisitor};

/// A linear layer of a checkpoint: `weight` `[out, in]`, `bias` `[out]`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Tensor<2>,
    /// `[out]`.
    pub bias: Option<Tensor<1>>,
    /// The trainable low-rank branch, when there is one.
    pub adapter: Option<LoraAdapter>,
}

impl Linear {
    /// A linear layer without bias, filled by `init` when made from scratch.
    pub fn without_bias(mut loader: Loader<'_>, inputs: usize, outputs: usize, init: Init) -> Self {
        let weight = loader.tensor("weight", [outputs, inputs], init);
        Self { weight, bias: None, adapter: None }
    }

    /// A linear layer with bias, both filled by `init` and `bias` when made from scratch.
    pub fn with_bias(mut loader: Loader<'_>, inputs: usize, outputs: usize, init: Init, bias: Init) -> Self {
        let weight = loader.tensor("weight", [outputs, inputs], init);
        let bias = Some(loader.tensor("bias", [outputs], bias));
        Self { weight, bias, adapter: None }
    }

    /// # Shapes
    /// - x: `[..., in]` -> `[..., out]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let mut shape = x.dims();
        let [outputs, inputs] = self.weight.dims();
        // One product over all rows: a batched one would read the weight once per batch entry.
        let x: Tensor<2> = x.reshape([-1, inputs as i32]);
        let mut y = rows_by_weight_and_bias(x.clone(), &self.weight, self.bias.as_ref());
        if let Some(adapter) = &self.adapter {
            y = adapter.add_to(y, x);
        }
        shape[D - 1] = outputs;
        y.reshape(shape)
    }

    /// Shows the parameters at `path` (which ends in a dot).
    pub fn visit(&mut self, path: &str, visitor: &mut impl ParameterVisitor) {
        visitor.visit(&format!("{path}weight"), &mut self.weight);
        if let Some(bias) = &mut self.bias {
            visitor.visit(&format!("{path}bias"), bias);
        }
        if let Some(adapter) = &mut self.adapter {
            adapter.visit(path, visitor);
        }
    }

    /// Adds the update to the weight, so that inference costs nothing extra; rounded to the weight's type at the end.
    pub fn merge(&mut self) {
        self.fold(false, |weight, update| weight + update);
    }

    /// Takes the update out of the weight again, exact to rounding.
    pub fn unmerge(&mut self) {
        self.fold(true, |weight, update| weight - update);
    }

    fn fold(&mut self, merged: bool, change: impl Fn(Tensor<2>, Tensor<2>) -> Tensor<2>) {
        if let Some(adapter) = self.adapter.as_mut().filter(|adapter| adapter.merged == merged) {
            let (dtype, weight) = (self.weight.dtype(), self.weight.clone().cast(FloatDType::F32));
            self.weight = change(weight, adapter.update().cast(FloatDType::F32)).cast(dtype);
            adapter.merged = !merged;
        }
    }
}
