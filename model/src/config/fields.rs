//! Every field of a `config.json` that this crate knows: used, harmless, or refused by name.
//!
//! A field that is ignored although it changes what a model computes is a silent difference. So each reader lists all
//! fields of its file in one table, and anything else is refused unless it is switched off (null, false, 0, empty):
//! a field of a later version may be one that matters. Names that begin with `_` are transformers' own notes.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::ConfigError;

/// What a field means here.
#[derive(Clone, Copy)]
pub(crate) enum Field {
    /// Read and checked by the reader of its file.
    Used,
    /// Changes no number that is computed here.
    Harmless,
    /// Must be one of the values that the function accepts; otherwise the text says why it is refused.
    Only(fn(&Value) -> bool, &'static str),
}

use Field::{Harmless, Only, Used};

/// A table of fields by name.
pub(crate) type Table = &'static [(&'static str, Field)];

/// Fields that every configuration of transformers 4 and 5 may hold (`PretrainedConfig`): how a model is run and called,
/// and the settings of generation that version 4 kept there.
pub(crate) const COMMON: Table = &[
    ("model_type", Used),
    ("dtype", Used),
    ("torch_dtype", Used),
    ("tie_word_embeddings", Used),
    (
        "quantization_config",
        Only(is_unset, "quantised weights are not supported; take the unquantised model"),
    ),
    ("compression_config", Only(is_unset, "compressed weights are not supported; take the plain model")),
    ("per_layer_config", Only(is_unset, "layers of different kinds are not supported")),
    ("pruned_heads", Only(is_unset, "pruned attention heads are not supported")),
    ("add_cross_attention", Only(is_unset, "cross-attention is not supported")),
    ("cross_attention_hidden_size", Only(is_unset, "cross-attention is not supported")),
    ("is_encoder_decoder", Only(is_unset, "encoder-decoder models are not supported")),
    ("attention_dropout", Only(is_unset, "dropout in the attention is not supported; 0 trains without it")),
    ("dropout", Only(is_unset, "dropout is not supported; 0 trains without it")),
    ("architectures", Harmless),
    ("transformers_version", Harmless),
    ("name_or_path", Harmless),
    ("auto_map", Harmless),
    ("attn_implementation", Harmless),
    ("return_dict", Harmless),
    ("output_hidden_states", Harmless),
    ("output_attentions", Harmless),
    ("tie_last_hidden_states", Harmless),
    ("use_cache", Harmless),
    ("torchscript", Harmless),
    ("use_bfloat16", Harmless),
    ("tf_legacy_loss", Harmless),
    ("chunk_size_feed_forward", Harmless),
    ("is_decoder", Harmless),
    ("tie_encoder_decoder", Harmless),
    ("finetuning_task", Harmless),
    ("problem_type", Harmless),
    ("num_labels", Harmless),
    ("id2label", Harmless),
    ("label2id", Harmless),
    ("task_specific_params", Harmless),
    ("tokenizer_class", Harmless),
    ("prefix", Harmless),
    ("initializer_factor", Harmless),
    ("bos_token_id", Harmless),
    ("pad_token_id", Harmless),
    ("sep_token_id", Harmless),
    ("eos_token_id", Harmless),
    ("decoder_start_token_id", Harmless),
    ("unsloth_fixed", Harmless),
    ("unsloth_version", Harmless),
    ("max_length", Harmless),
    ("min_length", Harmless),
    ("max_new_tokens", Harmless),
    ("do_sample", Harmless),
    ("early_stopping", Harmless),
    ("num_beams", Harmless),
    ("num_beam_groups", Harmless),
    ("num_return_sequences", Harmless),
    ("diversity_penalty", Harmless),
    ("temperature", Harmless),
    ("top_k", Harmless),
    ("top_p", Harmless),
    ("typical_p", Harmless),
    ("repetition_penalty", Harmless),
    ("length_penalty", Harmless),
    ("exponential_decay_length_penalty", Harmless),
    ("no_repeat_ngram_size", Harmless),
    ("encoder_no_repeat_ngram_size", Harmless),
    ("bad_words_ids", Harmless),
    ("suppress_tokens", Harmless),
    ("begin_suppress_tokens", Harmless),
    ("forced_bos_token_id", Harmless),
    ("forced_eos_token_id", Harmless),
    ("remove_invalid_values", Harmless),
    ("output_scores", Harmless),
    ("return_dict_in_generate", Harmless),
];

/// One JSON object of a configuration whose fields were checked.
pub(crate) struct Object<'a> {
    file: &'static str,
    fields: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// Checks every field of `value` against `tables`; the first that knows a name decides. `file` is what errors call it.
    pub(crate) fn checked(
        file: &'static str,
        value: &'a Value,
        tables: &[Table],
    ) -> Result<Self, ConfigError> {
        let Some(fields) = value.as_object() else {
            return Err(ConfigError::value(file, "(the whole)", value, "must be a JSON object"));
        };
        for (name, value) in fields {
            let known = tables.iter().flat_map(|table| table.iter()).find(|(known, _)| known == name);
            let refusal = match known {
                Some((_, Used | Harmless)) => None,
                Some((_, Only(accepts, reason))) => (!value.is_null() && !accepts(value)).then_some(*reason),
                None => (!name.starts_with('_') && !is_unset(value)).then_some(
                    "this version does not know the field; if it changes nothing that the model computes, take it out",
                ),
            };
            if let Some(reason) = refusal {
                return Err(ConfigError::value(file, name, value, reason));
            }
        }
        Ok(Self { file, fields })
    }

    /// The field `name`; `None` when it is missing or null.
    pub(crate) fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        let read = serde_json::from_value(value.clone());
        read.map(Some).map_err(|error| ConfigError::value(self.file, name, value, &error.to_string()))
    }

    /// The field `name`, which must be there.
    pub(crate) fn require<T: DeserializeOwned>(&self, name: &str) -> Result<T, ConfigError> {
        self.get(name)?.ok_or_else(|| ConfigError::Missing { file: self.file, field: name.to_owned() })
    }

    /// Whether the field `name` is there, null or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// The value of `name`; `None` when it is missing or null.
    pub(crate) fn raw(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// An error about the field `name`.
    pub(crate) fn refuse(&self, name: &str, reason: &str) -> ConfigError {
        ConfigError::value(self.file, name, self.fields.get(name).unwrap_or(&Value::Null), reason)
    }
}

/// Whether a setting is off: null, false, zero or empty.
pub(crate) fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}
