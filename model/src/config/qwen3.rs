//! `config.json` of a dense Qwen3 language model.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ConfigError, Dtype, require_positive, saved_dtype};

const MODEL: &str = "Qwen3";

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

/// The JSON's own spelling of what has a default or moved between transformers 4 and 5.
#[derive(Deserialize)]
struct Raw {
    model_type: Option<String>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_act: Option<String>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_parameters: Option<RopeParameters>,
    rope_scaling: Option<Value>,
    attention_bias: Option<bool>,
    use_sliding_window: Option<bool>,
    tie_word_embeddings: Option<bool>,
    initializer_range: Option<f64>,
}

#[derive(Deserialize)]
struct RopeParameters {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
}

impl Qwen3Config {
    /// Reads the text of a `config.json`.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let json = |source| ConfigError::Json { model: MODEL, source };
        let value: Value = serde_json::from_str(text).map_err(json)?;
        let dtype = saved_dtype(&value);
        let raw: Raw = serde_json::from_value(value).map_err(json)?;
        raw.refuse_variants()?;
        let config = raw.into_config(dtype);
        config.validate()?;
        Ok(config)
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
        let fail =
            |field, value: String, reason| Err(ConfigError::Value { model: MODEL, field, value, reason });
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let value = self.num_key_value_heads.to_string();
            return fail("num_key_value_heads", value, "must divide num_attention_heads");
        }
        if !self.head_dim.is_multiple_of(2) {
            return fail("head_dim", self.head_dim.to_string(), "must be even: rotary embedding turns pairs");
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return fail("rope_theta", self.rope_theta.to_string(), "must be a positive number");
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps >= 0.0) {
            return fail("rms_norm_eps", self.rms_norm_eps.to_string(), "must not be negative");
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

impl Raw {
    /// Refuses what shares Qwen3's file format but not its arithmetic.
    fn refuse_variants(&self) -> Result<(), ConfigError> {
        let fail = |field, value: &str, reason| {
            Err(ConfigError::Value { model: MODEL, field, value: value.to_owned(), reason })
        };
        if let Some(kind) = self.model_type.as_deref().filter(|kind| *kind != "qwen3") {
            return fail("model_type", kind, "only dense Qwen3 (`qwen3`) language models are supported");
        }
        if let Some(act) = self.hidden_act.as_deref().filter(|act| *act != "silu") {
            return fail("hidden_act", act, "Qwen3 uses `silu`");
        }
        if self.use_sliding_window == Some(true) {
            return fail("use_sliding_window", "true", "sliding-window attention is not supported");
        }
        if let Some(scaling) = self.rope_scaling.as_ref().filter(|scaling| !is_default_rope(scaling)) {
            return fail("rope_scaling", &scaling.to_string(), "scaled rotary embeddings are not supported");
        }
        let rope_type = self.rope_parameters.as_ref().and_then(|rope| rope.rope_type.as_deref());
        if let Some(kind) = rope_type.filter(|kind| *kind != "default") {
            return fail("rope_parameters.rope_type", kind, "only `default` rotary embeddings are supported");
        }
        Ok(())
    }

    fn into_config(self, dtype: Dtype) -> Qwen3Config {
        let rope_theta = self.rope_parameters.and_then(|rope| rope.rope_theta).or(self.rope_theta);
        Qwen3Config {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            head_dim: self.head_dim.unwrap_or(128),
            max_position_embeddings: self.max_position_embeddings.unwrap_or(32_768),
            rms_norm_eps: self.rms_norm_eps.unwrap_or(1e-6),
            rope_theta: rope_theta.unwrap_or(10_000.0),
            attention_bias: self.attention_bias.unwrap_or(false),
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(false),
            initializer_range: self.initializer_range.unwrap_or(0.02),
            dtype,
        }
    }
}

/// `rope_scaling` of transformers 4: null, or an object whose type is `default`.
fn is_default_rope(scaling: &Value) -> bool {
    let kind = scaling.get("rope_type").or_else(|| scaling.get("type")).and_then(Value::as_str);
    scaling.is_null() || kind == Some("default")
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
            ("use_sliding_window", json!(true)),
            ("hidden_act", json!("gelu")),
        ];
        for (field, value) in cases {
            let error = changed(field, value).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn a_missing_size_is_named() {
        let error = Qwen3Config::from_json(r#"{"vocab_size": 8}"#).unwrap_err().to_string();
        assert_eq!(error, "Qwen3 config: missing field `hidden_size`");
    }
}
