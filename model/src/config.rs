//! Sizes of the two towers, read from the Hugging Face `config.json` they are published with.
//!
//! In: JSON text of a Qwen3 or CLIP checkpoint, as transformers 4 or 5 writes it. Out: validated sizes, or
//! a [`ConfigError`] that names the field. Field names equal the JSON's.

mod clip;
mod qwen3;

use burn::tensor::{DType, FloatDType};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use clip::{ClipVisionConfig, HiddenAct, PixelNorm};
pub use qwen3::Qwen3Config;

/// Why a `config.json` describes no model that this crate can run.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is no JSON, or a field is missing or of the wrong type.
    #[error("{model} config: {source}")]
    Json {
        /// Which config was being read.
        model: &'static str,
        /// What the parser found, with line and column.
        source: serde_json::Error,
    },
    /// A field is there, but no model can have this value.
    #[error("{model} config: {field} = {value}: {reason}")]
    Value {
        /// Which config was being read.
        model: &'static str,
        /// The field of the JSON.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What it must hold instead.
        reason: &'static str,
    },
}

/// Element type of weights and activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dtype {
    /// 32-bit float, the reference precision.
    #[default]
    #[serde(rename = "f32", alias = "float32")]
    F32,
    /// IEEE half precision.
    #[serde(rename = "f16", alias = "float16")]
    F16,
    /// Brain float: the range of f32 with 8 bits of mantissa.
    #[serde(rename = "bf16", alias = "bfloat16")]
    Bf16,
}

impl Dtype {
    /// Burn's name of this type.
    pub fn float(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::F16 => FloatDType::F16,
            Self::Bf16 => FloatDType::BF16,
        }
    }

    /// As a storage type.
    pub fn storage(self) -> DType {
        self.float().into()
    }

    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// As `config.json` spells it.
    pub fn hf_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

impl std::str::FromStr for Dtype {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text {
            "f32" | "float32" => Ok(Self::F32),
            "f16" | "float16" => Ok(Self::F16),
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            other => Err(ConfigError::Value {
                model: "model",
                field: "dtype",
                value: other.to_owned(),
                reason: "must be f32, f16 or bf16",
            }),
        }
    }
}

/// The dtype a checkpoint says it was saved in: `dtype` (transformers 5) or `torch_dtype` (4).
fn saved_dtype(json: &Value) -> Dtype {
    let name = json.get("dtype").or_else(|| json.get("torch_dtype")).and_then(Value::as_str);
    name.and_then(|name| name.parse().ok()).unwrap_or_default()
}

/// Sizes that must not be zero, checked together so that no later division can fail.
fn require_positive(model: &'static str, sizes: &[(&'static str, usize)]) -> Result<(), ConfigError> {
    match sizes.iter().find(|(_, size)| *size == 0) {
        None => Ok(()),
        Some((field, _)) => {
            Err(ConfigError::Value { model, field, value: "0".to_owned(), reason: "must be at least 1" })
        }
    }
}
