//! `config.json` of a CLIP vision tower: a whole CLIP model's (`vision_config` inside) or the tower's own.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ConfigError, require_positive};

const MODEL: &str = "CLIP vision";

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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipVisionConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Encoder layers.
    pub num_hidden_layers: usize,
    /// Attention heads of width `hidden_size / num_attention_heads`.
    pub num_attention_heads: usize,
    /// Colour channels of a picture.
    pub num_channels: usize,
    /// Side of the square picture, in pixels.
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
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let json = |source| ConfigError::Json { model: MODEL, source };
        let mut value: Value = serde_json::from_str(text).map_err(json)?;
        let vision = match value.get_mut("vision_config") {
            Some(vision) => vision.take(),
            None => value,
        };
        let kind = vision.get("model_type").and_then(Value::as_str).unwrap_or("clip_vision_model");
        if kind != "clip_vision_model" {
            let reason = "only CLIP vision towers (`clip`, `clip_vision_model`) are supported";
            return Err(ConfigError::Value {
                model: MODEL,
                field: "model_type",
                value: kind.to_owned(),
                reason,
            });
        }
        let config: Self = serde_json::from_value(vision).map_err(json)?;
        config.validate()?;
        Ok(config)
    }

    /// Patches of a picture, which is the number of image tokens: 49 for ViT-B/32 at 224 pixels.
    pub fn num_patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// Values of one picture: `num_channels * image_size * image_size`.
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
        let fail = |field, value: usize, reason| {
            Err(ConfigError::Value { model: MODEL, field, value: value.to_string(), reason })
        };
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return fail("num_attention_heads", self.num_attention_heads, "must divide hidden_size");
        }
        if self.num_channels != 3 {
            return fail("num_channels", self.num_channels, "pictures have 3 channels (RGB)");
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

/// How `CLIPImageProcessor` normalises a picture: `(pixel / 255 - mean) / std`, per channel R, G, B.
#[derive(Clone, Copy, Debug, PartialEq)]
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
        ];
        for (field, value) in cases {
            let mut config = ClipVisionConfig::default().to_json();
            config[field] = value.clone();
            let error = ClipVisionConfig::from_json(&config.to_string()).unwrap_err().to_string();
            let named = value.as_str().unwrap_or(field);
            assert!(error.contains(field) || error.contains(named), "{error}");
        }
    }
}
