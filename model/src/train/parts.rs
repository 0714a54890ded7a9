//! The parts of a model that can be trained, by name.

use serde::{Deserialize, Serialize};

use crate::source::ParameterVisitor;
use burn::tensor::Tensor;

/// A part of the model; what `trainable = [...]` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The two layers between the towers.
    Projector,
    /// The language model itself, its embeddings included.
    Language,
    /// The vision tower.
    Vision,
    /// The low-rank branches beside the language model's linears.
    Lora,
}

impl Part {
    /// The part to which the parameter `key` belongs.
    pub fn of(key: &str) -> Self {
        if key.ends_with(".lora_A.weight") || key.ends_with(".lora_B.weight") {
            Self::Lora
        } else if key.starts_with("projector.") {
            Self::Projector
        } else if key.starts_with("vision_model.") {
            Self::Vision
        } else {
            Self::Language
        }
    }
}

/// Counts parameters: all, and those that gather gradients.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) all: u64,
    pub(super) trained: u64,
}

impl ParameterVisitor for Counted {
    fn visit<const D: usize>(&mut self, _key: &str, parameter: &mut Tensor<D>) {
        let values = parameter.dims().iter().product::<usize>() as u64;
        self.all += values;
        self.trained += if parameter.is_require_grad() { values } else { 0 };
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Projector => "projector",
            Self::Language => "language",
            Self::Vision => "vision",
            Self::Lora => "lora",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_its_part() {
        let parts = [
            ("projector.dense1.weight", Part::Projector),
            ("model.layers.0.self_attn.q_proj.lora_A.weight", Part::Lora),
            ("model.layers.0.self_attn.q_proj.weight", Part::Language),
            ("lm_head.weight", Part::Language),
            ("vision_model.encoder.layers.0.self_attn.q_proj.weight", Part::Vision),
        ];
        for (key, part) in parts {
            assert_eq!(Part::of(key), part, "{key}");
            assert_eq!(serde_json::to_value(part).unwrap(), part.to_string());
        }
    }
}
