//! PEFT adapters: `adapter_config.json` and `adapter_model.safetensors`, as PEFT 0.21 writes and reads them.
//!
//! Keys are `base_model.model.` + the linear's name + `.lora_A.weight` `[r, in]` or `.lora_B.weight` `[out, r]`. Only
//! plain LoRA on linears is supported; a setting that would change the arithmetic is an error by its name, never
//! ignored (`peft/tuners/lora/config.py`, 0.21.2).

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::hub::{self, HubError};
use crate::lora::LoraConfig;

/// The settings of an adapter.
pub const CONFIG: &str = "adapter_config.json";
/// The tensors of an adapter.
pub const WEIGHTS: &str = "adapter_model.safetensors";

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
    /// A setting that plain LoRA does not have.
    #[error("{}: {field} = {value} is not supported; {supported}.", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The setting.
        field: String,
        /// Its value, as JSON.
        value: String,
        /// What it must be instead.
        supported: &'static str,
    },
}

/// Settings whose value does not change what a trained adapter computes.
const WITHOUT_EFFECT: [&str; 13] = [
    "auto_mapping",
    "base_model_name_or_path",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "corda_config",
    "ensure_weight_tying",
];

/// Initialisations of A and B that leave the base weights as they are.
const HARMLESS_INITS: [&str; 2] = ["gaussian", "orthogonal"];

/// The settings of the adapter in `folder`.
pub fn read_config(folder: &Path) -> Result<LoraConfig, PeftError> {
    let path = hub::require_file(folder, CONFIG)?;
    let text = fs::read_to_string(&path).map_err(|source| PeftError::Io { path: path.clone(), source })?;
    let fields: Map<String, Value> =
        serde_json::from_str(&text).map_err(|source| PeftError::Json { path: path.clone(), source })?;
    for (field, value) in &fields {
        if let Some(supported) = objection(field, value) {
            let (field, value) = (field.clone(), value.to_string());
            return Err(PeftError::Unsupported { path, field, value, supported });
        }
    }
    serde_json::from_value(Value::Object(fields)).map_err(|source| PeftError::Json { path, source })
}

/// What would be supported instead of `field` = `value`; `None` when it is fine.
fn objection(field: &str, value: &Value) -> Option<&'static str> {
    let fine = match field {
        "peft_type" => return (value != "LORA").then_some("the type must be LORA"),
        "task_type" => value.is_null() || value == "CAUSAL_LM",
        "bias" => return (value != "none").then_some("it must be \"none\""),
        "r" | "lora_alpha" | "lora_dropout" | "use_rslora" => true,
        "target_modules" => return (!value.is_array()).then_some("it must be a list of module names"),
        "init_lora_weights" => {
            value.is_boolean() || value.as_str().is_some_and(|name| HARMLESS_INITS.contains(&name))
        }
        known if WITHOUT_EFFECT.contains(&known) => true,
        _ => is_unset(value),
    };
    (!fine).then_some("the adapter must be plain LoRA with one rank and alpha for all targets")
}

/// Whether a setting is off: null, false, zero or empty.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// The text of an `adapter_config.json` for `config` on the base model `base` (a hub name or a folder), with every
/// field that PEFT 0.21.2 writes.
pub fn config_json(config: &LoraConfig, base: &str) -> String {
    let mut target_modules = config.target_modules.clone();
    target_modules.sort();
    let fields = json!({
        "alora_invocation_tokens": null,
        "alpha_pattern": {},
        "arrow_config": null,
        "auto_mapping": null,
        "base_model_name_or_path": base,
        "bias": "none",
        "corda_config": null,
        "ensure_weight_tying": false,
        "eva_config": null,
        "exclude_modules": null,
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "kasa_config": null,
        "layer_replication": null,
        "layers_pattern": null,
        "layers_to_transform": null,
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
        "rank_pattern": {},
        "revision": null,
        "target_modules": target_modules,
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
