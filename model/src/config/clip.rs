//! `config.json` of a CLIP vision tower: a whole CLIP model's (`vision_config` inside) or the tower's own.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::fields::{COMMON, Field, Object, Table};
use super::{ConfigError, parse, require_positive};

use Field::{Harmless, Only, Used};

const MODEL: &str = "CLIP vision config";

/// The fields of `CLIPVisionConfig` (`transformers/models/clip/configuration_clip.py`, 5.24).
const FIELDS: Table = &[
    ("hidden_size", Used),
    ("intermediate_size", Used),
    ("num_hidden_layers", Used),
    ("num_attention_heads", Used),
    ("num_channels", Used),
    ("image_size", Used),
    ("patch_size", Used),
    ("hidden_act", Used),
    ("layer_norm_eps", Used),
    ("initializer_range", Used),
    ("projection_dim", Harmless),
    ("vocab_size", Harmless), // LlavaConfig writes it here
];

/// The fields of a whole `CLIPConfig`, beside those of any configuration. The text tower is not read.
const WHOLE: Table = &[
    ("model_type", Only(|value| value == "clip", SUPPORTED)),
    ("vision_config", Used),
    ("vision_config_dict", Used),
    ("text_config", Harmless),
    ("text_config_dict", Harmless),
    ("projection_dim", Harmless),
    ("logit_scale_init_value", Harmless),
];

const SUPPORTED: &str = "only CLIP vision towers (`clip`, `clip_vision_model`) are supported";

/// Activation of the tower's MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenAct {
    /// `x * sigmoid(1.702 x)`, OpenAI's CLIP.
    QuickGelu,
    /// The exact GELU, as later CLIP trainings use it.
    Gelu,
}

/// Sizes of a CLIP vision tower. Defaults are those of transformers' `CLIPVisionConfig` (ViT-B/32).
#[derive(Clone, Debug, PartialEq)]
pub struct ClipVisionConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Encoder layers.
    pub num_hidden_layers: usize,
    /// Attention heads of width `hidden_size / num_attention_heads`.
    pub num_attention_heads: usize,
    /// Colour channels of an image.
    pub num_channels: usize,
    /// Side of the square image, in pixels.
    pub image_size: usize,
    /// Side of a square patch, in pixels.
    pub patch_size: usize,
    /// Activation of the MLP.
    pub hidden_act: HiddenAct,
    /// Added to the variance in every layer norm.
    pub layer_norm_eps: f64,
    /// Standard deviation of random positions; other random weights are scaled by width and depth.
    pub initializer_range: f64,
}

impl Default for ClipVisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: HiddenAct::QuickGelu,
            layer_norm_eps: 1e-5,
            initializer_range: 0.02,
        }
    }
}

impl ClipVisionConfig {
    /// Reads the text of a `config.json`, of the whole CLIP model or of its vision tower.
    ///
    /// `vision_config_dict`, which early conversions wrote, is complete with its defaults and wins over `vision_config`.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let value = parse(MODEL, text)?;
        let is_whole = ["vision_config", "vision_config_dict"].iter().any(|name| value.get(name).is_some());
        if !is_whole {
            return Self::from_value(&value);
        }
        let whole = Object::checked("CLIP config", &value, &[WHOLE, COMMON])?;
        let vision = whole.raw("vision_config_dict").or_else(|| whole.raw("vision_config"));
        Self::from_value(vision.unwrap_or(&Value::Object(Map::new())))
    }

    /// Reads a configuration that stands inside another one (`vision_config`).
    pub fn from_value(value: &Value) -> Result<Self, ConfigError> {
        let model = value.get("model_type").unwrap_or(&Value::Null);
        if !model.is_null() && model != "clip_vision_model" {
            return Err(ConfigError::value(MODEL, "model_type", model, SUPPORTED));
        }
        let object = Object::checked(MODEL, value, &[FIELDS, COMMON])?;
        let config = Self::from_object(&object)?;
        config.validate()?;
        Ok(config)
    }

    fn from_object(object: &Object<'_>) -> Result<Self, ConfigError> {
        let default = Self::default();
        let size = |name, default| Ok::<usize, ConfigError>(object.get(name)?.unwrap_or(default));
        Ok(Self {
            hidden_size: size("hidden_size", default.hidden_size)?,
            intermediate_size: size("intermediate_size", default.intermediate_size)?,
            num_hidden_layers: size("num_hidden_layers", default.num_hidden_layers)?,
            num_attention_heads: size("num_attention_heads", default.num_attention_heads)?,
            num_channels: size("num_channels", default.num_channels)?,
            image_size: side(object, "image_size")?.unwrap_or(default.image_size),
            patch_size: side(object, "patch_size")?.unwrap_or(default.patch_size),
            hidden_act: object.get("hidden_act")?.unwrap_or(default.hidden_act),
            layer_norm_eps: object.get("layer_norm_eps")?.unwrap_or(default.layer_norm_eps),
            initializer_range: object.get("initializer_range")?.unwrap_or(default.initializer_range),
        })
    }

    /// Patches of an image, which is the number of image tokens: 49 for ViT-B/32 at 224 pixels.
    pub fn num_patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// Values of one image: `num_channels * image_size * image_size`.
    pub fn pixels(&self) -> usize {
        self.num_channels * self.image_size * self.image_size
    }

    /// Checks what the arithmetic of the model relies on.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("image_size", self.image_size),
            ("patch_size", self.patch_size),
        ];
        require_positive(MODEL, &sizes)?;
        let fail = |field, value: usize, reason| Err(ConfigError::value(MODEL, field, &value.into(), reason));
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return fail("num_attention_heads", self.num_attention_heads, "must divide hidden_size");
        }
        if self.num_channels != 3 {
            return fail("num_channels", self.num_channels, "images have 3 channels (RGB)");
        }
        if !self.image_size.is_multiple_of(self.patch_size) {
            return fail("patch_size", self.patch_size, "must divide image_size");
        }
        Ok(())
    }

    /// As the `config.json` of a `CLIPVisionModel` that transformers loads.
    pub fn to_json(&self) -> Value {
        json!({
            "architectures": ["CLIPVisionModel"],
            "model_type": "clip_vision_model",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_channels": self.num_channels,
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "hidden_act": self.hidden_act,
            "layer_norm_eps": self.layer_norm_eps,
            "initializer_range": self.initializer_range,
            "attention_dropout": 0.0,
        })
    }
}

/// A side of a square: a number, or two equal ones.
fn side(object: &Object<'_>, name: &str) -> Result<Option<usize>, ConfigError> {
    if !object.raw(name).is_some_and(Value::is_array) {
        return object.get(name);
    }
    match object.get::<Vec<usize>>(name)?.as_deref() {
        Some([height, width]) if height == width => Ok(Some(*height)),
        _ => Err(object.refuse(name, "must be one number: images and patches are squares")),
    }
}

/// How `CLIPImageProcessor` normalises an image: `(pixel / 255 - mean) / std`, per channel R, G, B.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PixelNorm {
    /// Subtracted, per channel.
    pub mean: [f32; 3],
    /// Divided by, per channel.
    pub std: [f32; 3],
}

impl Default for PixelNorm {
    #[expect(clippy::excessive_precision, reason = "digits as published")]
    /// OpenAI's constants, the defaults of transformers' `CLIPImageProcessor`.
    fn default() -> Self {
        Self {
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_58, 0.275_777_11],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_clip_config_and_the_towers_own_read_equal() {
        let own = json!({"model_type": "clip_vision_model", "patch_size": 16, "hidden_act": "gelu"});
        let whole =
            json!({"model_type": "clip", "vision_config": own.clone(), "text_config": {"hidden_size": 512}});
        let own = ClipVisionConfig::from_json(&own.to_string()).unwrap();
        assert_eq!(ClipVisionConfig::from_json(&whole.to_string()).unwrap(), own);
        assert_eq!((own.num_patches(), own.hidden_act), (196, HiddenAct::Gelu));
    }

    /// What transformers 5.24 reads from the same text.
    #[test]
    fn vision_config_dict_wins_with_its_defaults() {
        let vision = json!({"model_type": "clip_vision_model", "patch_size": 16, "hidden_act": "gelu"});
        let whole = json!({"model_type": "clip", "vision_config": vision, "vision_config_dict": {"image_size": [64, 64]}});
        let config = ClipVisionConfig::from_json(&whole.to_string()).unwrap();
        assert_eq!(config, ClipVisionConfig { image_size: 64, ..ClipVisionConfig::default() });
        let null =
            json!({"model_type": "clip", "vision_config": {"patch_size": 16}, "vision_config_dict": null});
        assert_eq!(ClipVisionConfig::from_json(&null.to_string()).unwrap().patch_size, 16);
    }

    #[test]
    fn a_model_that_only_holds_a_clip_tower_is_refused() {
        let llava = json!({"model_type": "llava", "vision_config": {"model_type": "clip_vision_model"}});
        let error = ClipVisionConfig::from_json(&llava.to_string()).unwrap_err().to_string();
        assert!(error.contains("model_type"), "{error}");
    }

    /// `config.json` of openai/clip-vit-base-patch32 as it was first published, the text tower left out.
    #[test]
    fn the_first_published_config_reads() {
        let config = ClipVisionConfig::from_json(include_str!(
            "../../tests/fixtures/config/clip-vit-base-patch32.json"
        ));
        assert_eq!(config.unwrap(), ClipVisionConfig::default());
    }

    #[test]
    fn the_published_base_model_has_49_image_tokens() {
        assert_eq!(ClipVisionConfig::default().num_patches(), 49);
    }

    #[test]
    fn what_is_written_reads_back_equal() {
        let config = ClipVisionConfig { patch_size: 16, ..ClipVisionConfig::default() };
        assert_eq!(ClipVisionConfig::from_json(&config.to_json().to_string()).unwrap(), config);
    }

    #[test]
    fn an_impossible_tower_is_refused_by_the_field_that_differs() {
        let cases = [
            ("patch_size", json!(15)),
            ("num_attention_heads", json!(7)),
            ("num_channels", json!(4)),
            ("image_size", json!(0)),
            ("hidden_act", json!("relu")),
            ("model_type", json!("siglip_vision_model")),
            ("image_size", json!([224, 336])),
            ("attention_dropout", json!(0.1)),
            ("use_head", json!(true)),
        ];
        for (field, value) in cases {
            let mut config = ClipVisionConfig::default().to_json();
            config[field] = value.clone();
            let error = ClipVisionConfig::from_json(&config.to_string()).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
