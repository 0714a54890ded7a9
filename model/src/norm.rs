//! Normalisation over the last dimension.

use burn::tensor::{FloatDType, Tensor, module::layer_norm};

use crate::kernels;
use crate::source::{Init, Loader, ParameterVisitor};

/// Root-mean-square norm (arXiv:1910.07467): `x / sqrt(mean(x^2) + eps) * weight`.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    /// `[width]`.
    pub weight: Tensor<1>,
    eps: f64,
}

impl RmsNorm {
    /// A norm over `width` values, from `weight` at the loader's place.
    pub fn load(mut loader: Loader<'_>, width: usize, eps: f64) -> Self {
        Self { weight: loader.tensor("weight", [width], Init::Ones), eps }
    }

    /// Mean and division in f32 whatever the dtype, as in Hugging Face's `Qwen3RMSNorm`.
    ///
    /// # Shapes
    /// - x: `[..., width]` -> `[..., width]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if kernels::takes(&x) && kernels::takes(&self.weight) {
            return kernels::rms_norm(x, &self.weight, self.eps);
        }
        let dtype = x.dtype();
        let x = x.cast(FloatDType::F32);
        let mean_square = x.clone().square().mean_dim(D - 1);
        let scale = (mean_square + self.eps).sqrt().recip();
        (x * scale).cast(dtype) * self.weight.clone().unsqueeze()
    }

    /// Shows the weight at `path` (which ends in a dot).
    pub fn visit(&mut self, path: &str, visitor: &mut impl ParameterVisitor) {
        visitor.visit(&format!("{path}weight"), &mut self.weight);
    }
}

/// Layer norm: `(x - mean) / sqrt(var + eps) * weight + bias`.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// `[width]`.
    pub weight: Tensor<1>,
    /// `[width]`.
    pub bias: Tensor<1>,
    eps: f64,
}

impl LayerNorm {
    /// A norm over `width` values, from `weight` and `bias` at the loader's place.
    pub fn load(mut loader: Loader<'_>, width: usize, eps: f64) -> Self {
        let weight = loader.tensor("weight", [width], Init::Ones);
        let bias = loader.tensor("bias", [width], Init::Zeros);
        Self { weight, bias, eps }
    }

    /// # Shapes
    /// - x: `[..., width]` -> `[..., width]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let tracks = [&self.weight, &self.bias].iter().any(|weight| weight.is_autodiff()) || x.is_autodiff();
        if !tracks && kernels::takes(&x) && kernels::takes(&self.weight) {
            return kernels::layer_norm(x, &self.weight, &self.bias, self.eps);
        }
        // Mean and variance in f32 whatever the dtype, as in PyTorch: backends that round in between lose bf16's few bits.
        let dtype = x.dtype();
        let [weight, bias] = [&self.weight, &self.bias].map(|values| values.clone().cast(FloatDType::F32));
        layer_norm(x.cast(FloatDType::F32), weight, Some(bias), self.eps).cast(dtype)
    }

    /// Shows weight and bias at `path` (which ends in a dot).
    pub fn visit(&mut self, path: &str, visitor: &mut impl ParameterVisitor) {
        visitor.visit(&format!("{path}weight"), &mut self.weight);
        visitor.visit(&format!("{path}bias"), &mut self.bias);
    }
}
