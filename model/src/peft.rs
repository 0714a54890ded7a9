//! PEFT adapters: `adapter_config.json` and `adapter_model.safetensors`, as PEFT 0.21 writes and reads them.
//!
//! Keys are `base_model.model.` + the linear's name + `.lora_A.weight` `[r, in]` or `.lora_B.weight` `[out, r]`. Only
//! LoRA on linears is supported; a setting that would change the arithmetic is an error by its name, never
//! ignored (`peft/tuners/lora/config.py`, 0.21.2).

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config::ConfigError;
use crate::config::fields::{Field, Object, Table, is_unset};
use crate::hub::{self, HubError};
use crate::lora::{LoraConfig, TargetModules};

/// The settings of an adapter.
pub const CONFIG: &str = "adapter_config.json";
/// The tensors of an adapter.
pub const WEIGHTS: &str = "adapter_model.safetensors";
/// The tensors of an adapter as PEFT wrote them before safetensors.
const OLD_WEIGHTS: &str = "adapter_model.bin";

/// An adapter that this crate cannot apply.
#[derive(Debug, thiserror::Error)]
pub enum PeftError {
    /// A file is missing.
    #[error(transparent)]
    Missing(#[from] HubError),
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not JSON, or a field of the wrong type.
    #[error("{}: is no adapter configuration: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A setting that is not supported.
    #[error("{}: {source}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The setting and its value.
        source: ConfigError,
    },
}

use Field::{Harmless, Only, Used};

const REPLACED: &str = "replacing other weights is not supported";
const PLAIN: &str = "only plain LoRA on linears is supported";

/// Every setting of `LoraConfig` (0.21.2) but those that a loaded adapter does not feel.
const FIELDS: Table = &[
    ("peft_type", Only(|value| value == "LORA", "only LORA adapters are supported")),
    ("task_type", Only(|value| value == "CAUSAL_LM", "only CAUSAL_LM adapters are supported")),
    ("r", Used),
    ("lora_alpha", Used),
    ("lora_dropout", Used),
    ("use_rslora", Used),
    ("target_modules", Used),
    ("exclude_modules", Used),
    ("rank_pattern", Used),
    ("alpha_pattern", Used),
    ("layers_to_transform", Used),
    // The first number in a name is the layer's, whatever stands before it.
    ("layers_pattern", Only(names_layers, "the layers of Qwen3 are called `layers`")),
    ("bias", Only(|value| value == "none", "only \"none\" is supported")),
    ("init_lora_weights", Only(keeps_base, "it changes the base model's weights, which is not supported")),
    ("modules_to_save", Only(is_unset, REPLACED)),
    ("trainable_token_indices", Only(is_unset, REPLACED)),
    ("layer_replication", Only(is_unset, PLAIN)),
    ("target_parameters", Only(is_unset, PLAIN)),
    ("lora_bias", Only(is_unset, PLAIN)),
    ("use_dora", Only(is_unset, PLAIN)),
    ("use_qalora", Only(is_unset, PLAIN)),
    ("use_bdlora", Only(is_unset, PLAIN)),
    ("alora_invocation_tokens", Only(is_unset, PLAIN)),
    ("arrow_config", Only(is_unset, PLAIN)),
    ("kasa_config", Only(is_unset, PLAIN)),
    ("megatron_config", Only(is_unset, PLAIN)),
    ("monteclora_config", Only(is_unset, PLAIN)),
    ("velora_config", Only(is_unset, PLAIN)),
    ("fan_in_fan_out", Harmless), // PEFT turns it off for linears
    ("auto_mapping", Harmless),
    ("base_model_name_or_path", Harmless),
    ("corda_config", Harmless),
    ("ensure_weight_tying", Harmless),
    ("eva_config", Harmless),
    ("inference_mode", Harmless),
    ("loftq_config", Harmless),
    ("lora_ga_config", Harmless),
    ("megatron_core", Harmless),
    ("peft_version", Harmless),
    ("qalora_group_size", Harmless),
    ("revision", Harmless),
    ("runtime_config", Harmless),
];

/// Whether an initialisation of A and B leaves the base weights as they are.
fn keeps_base(init: &Value) -> bool {
    init.is_boolean() || init.as_str().is_some_and(|name| ["gaussian", "orthogonal", "eva"].contains(&name))
}

fn names_layers(pattern: &Value) -> bool {
    is_unset(pattern) || *pattern == json!("layers") || *pattern == json!(["layers"])
}

/// The settings of the adapter in `folder`.
pub fn read_config(folder: &Path) -> Result<LoraConfig, PeftError> {
    let path = hub::require_file(folder, CONFIG)?;
    let text = fs::read_to_string(&path).map_err(|source| PeftError::Io { path: path.clone(), source })?;
    let json = |source| PeftError::Json { path: path.clone(), source };
    let value: Value = serde_json::from_str(&text).map_err(json)?;
    let unsupported = |source| PeftError::Unsupported { path: path.clone(), source };
    let object = Object::checked("LoRA", &value, &[FIELDS]).map_err(unsupported)?;
    let config: LoraConfig = serde_json::from_str(&text).map_err(json)?;
    if config.layers_to_transform.is_some() && matches!(config.target_modules, TargetModules::Pattern(_)) {
        let reason = "it goes with a list of target_modules only, as in PEFT";
        return Err(unsupported(object.refuse("layers_to_transform", reason)));
    }
    Ok(config)
}

/// The file of the adapter's tensors in `folder`.
pub fn weights_file(folder: &Path) -> Result<PathBuf, HubError> {
    let old = folder.join(OLD_WEIGHTS);
    if !folder.join(WEIGHTS).is_file() && old.is_file() {
        return Ok(old);
    }
    hub::require_file(folder, WEIGHTS)
}

/// Where PEFT finds the model that an adapter belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseModel {
    /// `base_model_name_or_path`: a name on the hub or a folder.
    pub name: String,
    /// The branch, tag or commit, when it is not the main one.
    pub revision: Option<String>,
}

impl BaseModel {
    /// The model that a locator (`hub:ORG/NAME[@REV]` or a folder) names.
    pub fn of(locator: &str) -> Self {
        match hub::Source::of(locator) {
            None => Self { name: locator.to_owned(), revision: None },
            // PEFT asks Hugging Face, where a model has the same name but other revisions than at ModelScope.
            Some((source, text)) => {
                let (name, revision) = text.split_once('@').unzip();
                let revision = revision.filter(|_| source == hub::Source::HuggingFace);
                Self { name: name.unwrap_or(text).to_owned(), revision: revision.map(str::to_owned) }
            }
        }
    }
}

/// The text of an `adapter_config.json` for `config` on `base`, with every field that PEFT 0.21.2 writes.
pub fn config_json(config: &LoraConfig, base: &BaseModel) -> String {
    let fields = json!({
        "alora_invocation_tokens": null,
        "alpha_pattern": config.alpha_pattern,
        "arrow_config": null,
        "auto_mapping": null,
        "base_model_name_or_path": base.name,
        "bias": "none",
        "corda_config": null,
        "ensure_weight_tying": false,
        "eva_config": null,
        "exclude_modules": config.exclude_modules.clone().map(TargetModules::sorted),
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "kasa_config": null,
        "layer_replication": null,
        "layers_pattern": null,
        "layers_to_transform": config.layers_to_transform,
        "loftq_config": {},
        "lora_alpha": number(config.lora_alpha),
        "lora_bias": false,
        "lora_dropout": config.lora_dropout,
        "lora_ga_config": null,
        "megatron_config": null,
        "megatron_core": "megatron.core",
        "modules_to_save": null,
        "monteclora_config": null,
        "peft_type": "LORA",
        "peft_version": "0.21.2",
        "qalora_group_size": 16,
        "r": config.r,
        "rank_pattern": config.rank_pattern,
        "revision": base.revision,
        "target_modules": config.target_modules.clone().sorted(),
        "target_parameters": null,
        "task_type": "CAUSAL_LM",
        "trainable_token_indices": null,
        "use_bdlora": null,
        "use_dora": false,
        "use_qalora": false,
        "use_rslora": config.use_rslora,
        "velora_config": null,
    });
    format!("{fields:#}\n")
}

/// A whole number without the `.0` that PEFT's integer fields would not have.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peft_looks_for_a_base_at_hugging_face_wherever_it_came_from() {
        let base = |locator: &str| {
            let BaseModel { name, revision } = BaseModel::of(locator);
            (name, revision)
        };
        let named = |revision: Option<&str>| ("a/b".to_owned(), revision.map(str::to_owned));
        assert_eq!(base("hub:a/b@v1"), named(Some("v1")));
        assert_eq!(base("ms:a/b@v1"), named(None));
        assert_eq!(base("/models/a"), ("/models/a".to_owned(), None));
    }
}
