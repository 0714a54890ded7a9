//! `config.json` of a dense Qwen3 language model.

use serde_json::{Map, Value, json};

use super::fields::{COMMON, Field, Object, Table, is_unset};
use super::{ConfigError, Dtype, parse, require_positive, saved_dtype};

use Field::{Harmless, Only, Used};

const MODEL: &str = "Qwen3 config";

/// The fields of a dense Qwen3 (`transformers/models/qwen3/configuration_qwen3.py`, 5.24), and those of its relatives that
/// would change what it computes.
const FIELDS: Table = &[
    ("vocab_size", Used),
    ("hidden_size", Used),
    ("intermediate_size", Used),
    ("num_hidden_layers", Used),
    ("num_attention_heads", Used),
    ("num_key_value_heads", Used),
    ("head_dim", Used),
    ("max_position_embeddings", Used),
    ("rms_norm_eps", Used),
    ("rope_theta", Used),
    ("rope_parameters", Used),
    ("rope_scaling", Used),
    ("attention_bias", Used),
    ("initializer_range", Used),
    ("use_sliding_window", Used),
    ("sliding_window", Used),
    ("max_window_layers", Used),
    ("layer_types", Used),
    ("hidden_act", Only(|value| value == "silu", "Qwen3 uses `silu`")),
    ("mlp_bias", Only(is_unset, "Qwen3's MLP has no biases")),
    ("partial_rotary_factor", Only(is_one, PARTIAL)),
    ("use_mrope", Only(is_unset, "rotary embeddings of several dimensions are not supported")),
    ("original_max_position_embeddings", Harmless), // read by scaled rotary embeddings alone, which are refused
];

/// The fields of `rope_parameters` and `rope_scaling` that do not scale.
const ROPE_FIELDS: Table = &[
    ("rope_theta", Used),
    ("rope_type", Only(|value| value == "default", "only `default` rotary embeddings are supported")),
    ("type", Only(|value| value == "default", "only `default` rotary embeddings are supported")),
    ("partial_rotary_factor", Only(is_one, PARTIAL)),
    // Read by the types that scale, which are refused by their names.
    ("factor", Harmless),
    ("original_max_position_embeddings", Harmless),
    ("attention_factor", Harmless),
    ("beta_fast", Harmless),
    ("beta_slow", Harmless),
    ("mscale", Harmless),
    ("mscale_all_dim", Harmless),
    ("truncate", Harmless),
    ("short_factor", Harmless),
    ("long_factor", Harmless),
    ("low_freq_factor", Harmless),
    ("high_freq_factor", Harmless),
];

const PARTIAL: &str = "rotary embeddings of a part of each head are not supported";

fn is_one(value: &Value) -> bool {
    value.as_f64() == Some(1.0)
}

/// Sizes that a configuration inside another one may leave out, with the defaults of transformers' `Qwen3Config`.
const DEFAULT_SIZES: [(&str, usize); 5] = [
    ("vocab_size", 151_936),
    ("hidden_size", 4096),
    ("intermediate_size", 22_016),
    ("num_hidden_layers", 32),
    ("num_attention_heads", 32),
];

/// Sizes of a Qwen3 decoder. Defaults are those of transformers' `Qwen3Config`.
#[derive(Clone, Debug, PartialEq)]
pub struct Qwen3Config {
    /// Rows of the token embedding; ids are below it.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key/value heads; each serves `num_attention_heads / num_key_value_heads` query heads.
    pub num_key_value_heads: usize,
    /// Width of a head. Independent of `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// Longest sequence the rotary embedding was trained for, in tokens.
    pub max_position_embeddings: usize,
    /// Added to the mean square in every RMS norm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Whether q, k, v and o carry a bias.
    pub attention_bias: bool,
    /// Whether the head shares the token embedding.
    pub tie_word_embeddings: bool,
    /// Standard deviation of random weights.
    pub initializer_range: f64,
    /// What the checkpoint was saved in.
    pub dtype: Dtype,
}

impl Qwen3Config {
    /// Reads the text of a `config.json`.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        Self::from_value(&parse(MODEL, text)?)
    }

    /// Reads a configuration that stands inside another one (`text_config`), where transformers leaves defaults out.
    pub fn from_nested(fields: &Map<String, Value>) -> Result<Self, ConfigError> {
        let mut whole = fields.clone();
        for (name, size) in DEFAULT_SIZES {
            whole.entry(name).or_insert(size.into());
        }
        Self::from_value(&Value::Object(whole))
    }

    fn from_value(value: &Value) -> Result<Self, ConfigError> {
        let model = value.get("model_type").unwrap_or(&Value::Null);
        if !model.is_null() && model != "qwen3" {
            let reason = "only dense Qwen3 (`qwen3`) language models are supported";
            return Err(ConfigError::value(MODEL, "model_type", model, reason));
        }
        let object = Object::checked(MODEL, value, &[FIELDS, COMMON])?;
        let config = Self::from_object(&object)?;
        refuse_sliding_windows(&object, config.num_hidden_layers)?;
        config.validate()?;
        Ok(config)
    }

    /// Defaults are those of transformers' `Qwen3Config`.
    fn from_object(object: &Object<'_>) -> Result<Self, ConfigError> {
        let num_attention_heads = object.require("num_attention_heads")?;
        // Missing and null are not the same here.
        let ungrouped = if object.has("num_key_value_heads") { num_attention_heads } else { 32 };
        Ok(Self {
            vocab_size: object.require("vocab_size")?,
            hidden_size: object.require("hidden_size")?,
            intermediate_size: object.require("intermediate_size")?,
            num_hidden_layers: object.require("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads: object.get("num_key_value_heads")?.unwrap_or(ungrouped),
            head_dim: object.get("head_dim")?.unwrap_or(128),
            max_position_embeddings: object.get("max_position_embeddings")?.unwrap_or(32_768),
            rms_norm_eps: object.get("rms_norm_eps")?.unwrap_or(1e-6),
            rope_theta: rope_theta(object)?,
            attention_bias: object.get("attention_bias")?.unwrap_or(false),
            tie_word_embeddings: object.get("tie_word_embeddings")?.unwrap_or(false),
            initializer_range: object.get("initializer_range")?.unwrap_or(0.02),
            dtype: saved_dtype(object),
        })
    }

    /// Query heads that share one key/value head.
    pub fn num_key_value_groups(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }

    /// Checks what the arithmetic of the model relies on.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        require_positive(MODEL, &sizes)?;
        let fail = |field, value: Value, reason| Err(ConfigError::value(MODEL, field, &value, reason));
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let value = self.num_key_value_heads.into();
            return fail("num_key_value_heads", value, "must divide num_attention_heads");
        }
        if !self.head_dim.is_multiple_of(2) {
            return fail("head_dim", self.head_dim.into(), "must be even: rotary embedding turns pairs");
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return fail("rope_theta", self.rope_theta.into(), "must be a positive number");
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps >= 0.0) {
            return fail("rms_norm_eps", self.rms_norm_eps.into(), "must not be negative");
        }
        Ok(())
    }

    /// As a `config.json` that transformers 4 and 5 load.
    pub fn to_json(&self) -> Value {
        json!({
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_theta": self.rope_theta, "rope_type": "default"},
            "attention_bias": self.attention_bias,
            "use_sliding_window": false,
            "tie_word_embeddings": self.tie_word_embeddings,
            "initializer_range": self.initializer_range,
            "torch_dtype": self.dtype.hf_name(),
            "dtype": self.dtype.hf_name(),
        })
    }
}

/// The base of the rotary frequencies: inside `rope_scaling` (transformers 4; 5 reads it first, when it is not empty) or
/// `rope_parameters` (5), else beside them (`RotaryEmbeddingConfigMixin.convert_rope_params_to_dict`, 5.24).
fn rope_theta(object: &Object<'_>) -> Result<f64, ConfigError> {
    let places = [
        ("rope_scaling", "Qwen3 config, rope_scaling"),
        ("rope_parameters", "Qwen3 config, rope_parameters"),
    ];
    let mut inside = None;
    for (name, file) in places {
        let Some(value) = object.raw(name) else { continue };
        let theta = Object::checked(file, value, &[ROPE_FIELDS])?.get("rope_theta")?;
        inside = inside.or(theta);
    }
    Ok(inside.or(object.get("rope_theta")?).unwrap_or(10_000.0))
}

/// Refuses a model some layer of which looks back at a window of tokens only.
fn refuse_sliding_windows(object: &Object<'_>, layers: usize) -> Result<(), ConfigError> {
    let refused = |name| Err(object.refuse(name, "sliding-window attention is not supported"));
    if let Some(types) = object.get::<Vec<String>>("layer_types")? {
        let sliding = types.iter().any(|layer| layer != "full_attention");
        return if sliding { refused("layer_types") } else { Ok(()) };
    }
    let is_used = object.get("use_sliding_window")?.unwrap_or(false);
    let has_size = !object.has("sliding_window") || object.get::<usize>("sliding_window")?.is_some();
    let first = object.get("max_window_layers")?.unwrap_or(28);
    if is_used && has_size && first < layers { refused("use_sliding_window") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of Qwen/Qwen3-0.6B that matter here, in the spelling of transformers 4.
    const PUBLISHED: &str = r#"{"architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 1024, "initializer_range": 0.02, "intermediate_size": 3072,
        "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
        "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
        "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null, "tie_word_embeddings": true,
        "torch_dtype": "bfloat16", "use_sliding_window": false, "vocab_size": 151936}"#;

    fn changed(field: &str, value: Value) -> Result<Qwen3Config, ConfigError> {
        let mut json: Value = serde_json::from_str(PUBLISHED).unwrap();
        json[field] = value;
        Qwen3Config::from_json(&json.to_string())
    }

    #[test]
    fn rope_theta_is_read_where_transformers_4_and_5_write_it() {
        let four = Qwen3Config::from_json(PUBLISHED).unwrap();
        assert_eq!((four.rope_theta, four.dtype), (1e6, Dtype::Bf16));
        let five = changed("rope_parameters", json!({"rope_theta": 5e5, "rope_type": "default"})).unwrap();
        assert_eq!(five.rope_theta.to_bits(), 5e5_f64.to_bits());
    }

    #[test]
    fn what_is_written_reads_back_equal() {
        let config = Qwen3Config::from_json(PUBLISHED).unwrap();
        assert_eq!(Qwen3Config::from_json(&config.to_json().to_string()).unwrap(), config);
    }

    #[test]
    fn a_config_of_another_model_is_refused_by_the_field_that_differs() {
        let cases = [
            ("model_type", json!("qwen3_moe")),
            ("num_key_value_heads", json!(5)),
            ("head_dim", json!(127)),
            ("num_hidden_layers", json!(0)),
            ("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0})),
            ("rope_scaling", json!({"type": "linear", "factor": 2.0})),
            ("rope_parameters", json!({"rope_type": "default", "mrope_section": [16, 24, 24]})),
            ("rope_parameters", json!({"full_attention": {"rope_theta": 1e6}})),
            ("partial_rotary_factor", json!(0.5)),
            ("layer_types", json!(["full_attention", "sliding_attention"])),
            ("hidden_act", json!("gelu")),
            ("attention_dropout", json!(0.1)),
            ("quantization_config", json!({"quant_method": "gptq"})),
            ("attention_bias", json!("yes")),
            ("attention_sinks", json!(true)),
        ];
        for (field, value) in cases {
            let error = changed(field, value).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn scaled_rotary_embeddings_are_refused_by_their_type() {
        let yarn = json!({"factor": 4.0, "original_max_position_embeddings": 32768, "rope_type": "yarn"});
        let error = changed("rope_scaling", yarn).unwrap_err().to_string();
        insta::assert_snapshot!(error, @r#"Qwen3 config, rope_scaling: rope_type = "yarn": only `default` rotary embeddings are supported"#);
        // Without a type, transformers takes `default`, which has no factor.
        assert_eq!(changed("rope_scaling", json!({"factor": 4.0})).unwrap().rope_theta as u64, 1_000_000);
    }

    #[test]
    fn a_missing_size_is_named() {
        let error =
            Qwen3Config::from_json(r#"{"vocab_size": 8, "num_attention_heads": 4}"#).unwrap_err().to_string();
        assert_eq!(error, "Qwen3 config: missing field `hidden_size`");
    }

    /// Transformers 5.24 gives these bases for these fields.
    #[test]
    fn rope_theta_is_taken_from_where_transformers_takes_it() {
        let theta = |changes: &[(&str, Value)]| {
            let mut json: Value = serde_json::from_str(PUBLISHED).unwrap();
            changes.iter().for_each(|(field, value)| json[field] = value.clone());
            Qwen3Config::from_json(&json.to_string()).unwrap().rope_theta as u64
        };
        let inside = |theta: f64| json!({"rope_type": "default", "rope_theta": theta});
        assert_eq!(theta(&[("rope_scaling", inside(3e5))]), 300_000);
        assert_eq!(theta(&[("rope_scaling", json!({"type": "default"}))]), 1_000_000);
        assert_eq!(theta(&[("rope_scaling", inside(3e5)), ("rope_parameters", inside(5e5))]), 300_000);
        assert_eq!(theta(&[("rope_theta", Value::Null), ("rope_parameters", inside(5e5))]), 500_000);
        assert_eq!(theta(&[("rope_theta", Value::Null)]), 10_000);
    }

    #[test]
    fn a_sliding_window_is_refused_only_where_a_layer_has_it() {
        let read = |changes: Value| {
            let mut json: Value = serde_json::from_str(PUBLISHED).unwrap();
            for (field, value) in changes.as_object().unwrap() {
                json[field] = value.clone();
            }
            Qwen3Config::from_json(&json.to_string()).map(|_| ()).map_err(|error| error.to_string())
        };
        // All 28 layers come before the first that slides.
        read(json!({"use_sliding_window": true, "sliding_window": 4096})).unwrap();
        read(json!({"use_sliding_window": true, "max_window_layers": 0})).unwrap();
        let error =
            read(json!({"use_sliding_window": true, "max_window_layers": 20, "sliding_window": 4096}));
        insta::assert_snapshot!(error.unwrap_err(), @"Qwen3 config: use_sliding_window = true: sliding-window attention is not supported");
    }

    #[test]
    fn what_is_switched_off_or_a_note_is_no_unknown_field() {
        let notes = [("_attn_implementation_autoset", json!(true)), ("attention_sinks", Value::Null)];
        for (field, value) in notes.into_iter().chain([("novel", json!(false)), ("novel", json!([]))]) {
            changed(field, value).unwrap();
        }
        let error = changed("novel", json!(3)).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"Qwen3 config: novel = 3: this version does not know the field; if it changes nothing that the model computes, take it out");
    }

    #[test]
    fn a_nested_config_may_leave_out_what_transformers_has_a_default_for() {
        let nested = json!({"model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2});
        let config = Qwen3Config::from_nested(nested.as_object().unwrap()).unwrap();
        let sizes =
            (config.vocab_size, config.hidden_size, config.num_attention_heads, config.num_key_value_heads);
        assert_eq!((sizes, config.head_dim), ((151_936, 64, 32, 32), 128));
    }
}
