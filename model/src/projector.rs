//! From CLIP's width to the language model's: `dense2(silu(dense1(x)))`, both with bias.

use burn::tensor::{Tensor, activation::silu};

use crate::linear::Linear;
use crate::source::{Init, Loader, ParameterVisitor};

/// The two-layer projector between the towers.
#[derive(Clone, Debug)]
pub struct Projector {
    /// `[hidden, vision]`.
    pub dense1: Linear,
    /// `[hidden, hidden]`.
    pub dense2: Linear,
}

impl Projector {
    /// A projector from `vision` to `hidden` values; from scratch as `torch.nn.Linear` starts.
    pub fn load(mut loader: Loader<'_>, vision: usize, hidden: usize) -> Self {
        let (one, two) = (Init::linear(vision), Init::linear(hidden));
        Self {
            dense1: Linear::with_bias(loader.at("dense1"), vision, hidden, one, one),
            dense2: Linear::with_bias(loader.at("dense2"), hidden, hidden, two, two),
        }
    }

    /// # Shapes
    /// - features: `[images, patches, vision]` -> `[images, patches, hidden]`
    pub fn forward(&self, features: Tensor<3>) -> Tensor<3> {
        self.dense2.forward(silu(self.dense1.forward(features)))
    }

    /// Shows the parameters at `path` (empty, or ending in a dot).
    pub fn visit(&mut self, path: &str, visitor: &mut impl ParameterVisitor) {
        self.dense1.visit(&format!("{path}dense1."), visitor);
        self.dense2.visit(&format!("{path}dense2."), visitor);
    }
}
