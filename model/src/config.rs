//! Sizes of the two towers, read from the Hugging Face `config.json` they are published with.
//!
//! In: JSON text of a Qwen3 or CLIP checkpoint, as transformers 4 or 5 writes it. Out: validated sizes, or
//! a [`ConfigError`] that names the field. Field names equal the JSON's. No field is ignored that could change a number:
//! `fields.rs` has the rule, and each file its table.

mod clip;
pub(crate) mod fields;
mod llava;
mod qwen3;

use burn::tensor::{DType, FloatDType};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use clip::{ClipVisionConfig, HiddenAct, PixelNorm};
pub use llava::LlavaConfig;
pub use qwen3::Qwen3Config;

/// Why a configuration describes nothing that this crate can run.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is no JSON.
    #[error("{file}: {source}")]
    Json {
        /// Which file was being read.
        file: &'static str,
        /// What the parser found, with line and column.
        source: serde_json::Error,
    },
    /// A field has no default and is not there.
    #[error("{file}: missing field `{field}`")]
    Missing {
        /// Which file was being read.
        file: &'static str,
        /// The field of the JSON.
        field: String,
    },
    /// A field is there, but no model of this crate can have this value.
    #[error("{file}: {field} = {value}: {reason}")]
    Value {
        /// Which file was being read.
        file: &'static str,
        /// The field of the JSON.
        field: String,
        /// What it holds, as JSON.
        value: String,
        /// What it must hold instead.
        reason: String,
    },
}

impl ConfigError {
    /// A [`ConfigError::Value`].
    pub(crate) fn value(file: &'static str, field: &str, value: &Value, reason: &str) -> Self {
        let (field, value) = (field.to_owned(), value.to_string());
        Self::Value { file, field, value, reason: reason.to_owned() }
    }
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
            other => Err(ConfigError::value("model", "dtype", &other.into(), "must be f32, f16 or bf16")),
        }
    }
}

/// The text as JSON; `file` is what errors call it.
fn parse(file: &'static str, text: &str) -> Result<Value, ConfigError> {
    serde_json::from_str(text).map_err(|source| ConfigError::Json { file, source })
}

/// The dtype a checkpoint says it was saved in: `dtype` (transformers 5) or `torch_dtype` (4), as transformers 5 prefers them.
fn saved_dtype(object: &fields::Object<'_>) -> Dtype {
    let name = object.raw("dtype").or_else(|| object.raw("torch_dtype")).and_then(Value::as_str);
    name.and_then(|name| name.parse().ok()).unwrap_or_default()
}

/// Sizes that must not be zero, checked together so that no later division can fail.
fn require_positive(file: &'static str, sizes: &[(&'static str, usize)]) -> Result<(), ConfigError> {
    match sizes.iter().find(|(_, size)| *size == 0) {
        None => Ok(()),
        Some((field, _)) => Err(ConfigError::value(file, field, &0.into(), "must be at least 1")),
    }
}
