//! `config.json` of a LLaVA of transformers (`LlavaForConditionalGeneration`): a CLIP tower, a projector and Qwen3.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::fields::{COMMON, Field, Object, Table, is_unset};
use super::{ClipVisionConfig, ConfigError, Dtype, Qwen3Config, parse};

use crate::clip::FeatureSelect;

use Field::{Harmless, Only, Used};

const MODEL: &str = "LLaVA config";

/// The fields of `LlavaConfig` (`transformers/models/llava/configuration_llava.py`, 5.24), and those of its relatives that
/// cut images into several.
const FIELDS: Table = &[
    ("model_type", Only(|value| value == "llava", "only LLaVA (`llava`) is supported")),
    ("vision_config", Used),
    ("text_config", Used),
    ("image_token_index", Used),
    ("image_token_id", Used),
    ("image_seq_length", Used),
    ("vision_feature_layer", Used),
    ("projector_hidden_act", Only(|value| value == "silu", PROJECTOR)),
    ("multimodal_projector_bias", Only(|value| *value == true, "the projector's layers have biases")),
    (
        "vision_feature_select_strategy",
        Only(|value| value == "default", "only `default` is supported: the class token is dropped"),
    ),
    ("image_grid_pinpoints", Only(is_unset, "images of several tiles are not supported")),
    ("ignore_index", Harmless),
    ("vocab_size", Harmless), // the first versions repeated it here
];

const PROJECTOR: &str = "only `silu` is supported between the projector's layers";

/// What transformers fills in where a `vision_config` of a LLaVA is missing: CLIP ViT-L/14 at 336 pixels.
const NO_TOWER: &str = "must be there: a tower without a configuration is another model's";

/// Sizes of a LLaVA.
#[derive(Clone, Debug, PartialEq)]
pub struct LlavaConfig {
    /// The vision tower.
    pub vision: ClipVisionConfig,
    /// The language model.
    pub text: Qwen3Config,
    /// The token that a patch replaces.
    pub image_token_id: u32,
}

impl LlavaConfig {
    /// Whether `folder` holds a LLaVA of transformers, which is towers and projector in one.
    pub fn is_in(folder: &Path) -> bool {
        fs::read_to_string(folder.join("config.json")).is_ok_and(|text| Self::describes(&text))
    }

    /// Whether the text of a `config.json` is a LLaVA's.
    pub fn describes(text: &str) -> bool {
        let model = serde_json::from_str::<Value>(text).ok();
        model.is_some_and(|config| config.get("model_type").is_some_and(|kind| kind == "llava"))
    }

    /// Reads the text of a `config.json`.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let value = parse(MODEL, text)?;
        let object = Object::checked(MODEL, &value, &[FIELDS, COMMON])?;
        let vision = object.raw("vision_config").ok_or_else(|| object.refuse("vision_config", NO_TOWER))?;
        let mut fields: Map<String, Value> = object.require("text_config")?;
        // Either place may say that the head is the embedding.
        if object.get("tie_word_embeddings")?.unwrap_or(false) {
            fields.insert("tie_word_embeddings".to_owned(), true.into());
        }
        for name in ["dtype", "torch_dtype"] {
            if let Some(dtype) = object.raw(name) {
                fields.entry(name).or_insert(dtype.clone());
            }
        }
        // transformers' defaults are those of LLaVA 1.5
        require_model_type(&fields)?;
        let image_token_id = object.get("image_token_index")?.or(object.get("image_token_id")?);
        let config = Self {
            vision: ClipVisionConfig::from_value(vision)?,
            text: Qwen3Config::from_nested(&fields)?,
            image_token_id: image_token_id.unwrap_or(32_000),
        };
        config.check(&object)?;
        Ok(config)
    }

    /// Refuses other features than the last layer's, and a count of image tokens that is not the tower's.
    fn check(&self, object: &Object<'_>) -> Result<(), ConfigError> {
        require_given(object, &["projector_hidden_act", "vision_feature_layer"])?;
        let layers = self.vision.num_hidden_layers as i64;
        let layer: Value = object.require("vision_feature_layer")?;
        let layer = match layer.as_array().map(Vec::as_slice) {
            Some([one]) => one.as_i64(),
            Some(_) => None,
            None => layer.as_i64(),
        };
        if layer != Some(-1) && layer != Some(layers) {
            return Err(object.refuse("vision_feature_layer", "only -1, the last layer, is supported"));
        }
        let count = object.get::<usize>("image_seq_length")?;
        if count.is_some_and(|count| count != self.vision.num_patches()) {
            let reason = format!("the vision tower makes {} patches of an image", self.vision.num_patches());
            return Err(object.refuse("image_seq_length", &reason));
        }
        Ok(())
    }

    /// As a `config.json` that transformers 4 and 5 read (and, after its source, vLLM's LLaVA loader, which was not run). `text` and `vision` are the towers' own.
    #[allow(clippy::needless_pass_by_value, reason = "both are put into the answer")]
    pub fn to_json(&self, text: Value, vision: Value, dtype: Dtype) -> Value {
        let select = FeatureSelect::default();
        json!({
            "architectures": ["LlavaForConditionalGeneration"],
            "model_type": "llava",
            "image_seq_length": self.vision.num_patches(),
            "image_token_index": self.image_token_id,
            "multimodal_projector_bias": true,
            "projector_hidden_act": "silu",
            "vision_feature_layer": select.vision_feature_layer,
            "vision_feature_select_strategy": select.vision_feature_select_strategy,
            "tie_word_embeddings": self.text.tie_word_embeddings,
            "text_config": text,
            "vision_config": vision,
            "dtype": dtype.hf_name(),
            "torch_dtype": dtype.hf_name(),
        })
    }
}

/// Without a type, transformers takes the language model for Llama.
fn require_model_type(text: &Map<String, Value>) -> Result<(), ConfigError> {
    match text.get("model_type") {
        Some(Value::String(_)) => Ok(()),
        _ => Err(ConfigError::value(MODEL, "text_config.model_type", &Value::Null, "must be `qwen3`")),
    }
}

/// Fields whose default in transformers is another value than the only one that is supported.
fn require_given(object: &Object<'_>, names: &[&str]) -> Result<(), ConfigError> {
    names.iter().try_for_each(|name| object.require::<Value>(name).map(|_| ()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Value {
        let text =
            json!({"model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 300});
        let vision = json!({"model_type": "clip_vision_model", "image_size": 64, "patch_size": 32});
        json!({"model_type": "llava", "text_config": text, "vision_config": vision, "image_token_index": 290,
            "projector_hidden_act": "silu", "vision_feature_layer": -1, "image_seq_length": 4,
            "tie_word_embeddings": true, "dtype": "bfloat16"})
    }

    #[test]
    fn what_is_written_reads_back_equal() {
        let read = LlavaConfig::from_json(&config().to_string()).unwrap();
        assert_eq!((read.image_token_id, read.vision.num_patches(), read.text.dtype), (290, 4, Dtype::Bf16));
        assert!(read.text.tie_word_embeddings);
        let written = read.to_json(read.text.to_json(), read.vision.to_json(), Dtype::Bf16);
        assert!(LlavaConfig::describes(&written.to_string()));
        assert_eq!(LlavaConfig::from_json(&written.to_string()).unwrap(), read);
    }

    #[test]
    fn what_would_compute_something_else_is_refused_by_the_field() {
        let cases = [
            ("projector_hidden_act", json!("gelu")),
            ("projector_hidden_act", Value::Null), // transformers: gelu
            ("vision_feature_layer", json!(-2)),
            ("vision_feature_layer", Value::Null), // transformers: -2
            ("vision_feature_layer", json!([-2, -1])),
            ("vision_feature_select_strategy", json!("full")),
            ("multimodal_projector_bias", json!(false)),
            ("image_seq_length", json!(576)),
            ("model_type", json!("llava_next")),
            ("image_grid_pinpoints", json!([[336, 672]])),
            ("text_config", json!({"model_type": "llama"})),
            ("text_config", json!({"hidden_size": 64})),
            ("vision_config", Value::Null),
        ];
        for (field, value) in cases {
            let mut config = config();
            config[field] = value;
            let error = LlavaConfig::from_json(&config.to_string()).unwrap_err().to_string();
            assert!(error.contains(field) || error.contains("model_type"), "{field}: {error}");
        }
    }
}
