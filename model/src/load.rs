//! Models from folders on the disk: configuration, weights and adapter, checked to fit.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::Value;

use crate::clip::ClipVision;
use crate::config::{ClipVisionConfig, ConfigError, Dtype, LlavaConfig, Qwen3Config};
use crate::folder::FolderError;
use crate::hub::{self, HubError};
use crate::lora::{LoraError, TargetModules};
use crate::magic::Content;
use crate::peft::{self, PeftError};
use crate::projector::Projector;
use crate::qwen3::Qwen3;
use crate::source::Loader;
use crate::weights::{Checkpoint, CheckpointSource, Layout, WeightsError};

/// The configuration in every folder of transformers.
const CONFIG: &str = "config.json";

/// Why a folder gives no model.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A folder or file is not there.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The model folder, or one that it names.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The weights cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The configuration describes no model.
    #[error("{}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ConfigError,
    },
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds something else than it should.
    #[error("{}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The adapter's configuration cannot be used.
    #[error(transparent)]
    Peft(#[from] PeftError),
    /// The adapter fits no linear of the model.
    #[error("{}: {source}", folder.display())]
    Lora {
        /// The adapter's folder.
        folder: PathBuf,
        /// What does not fit.
        source: LoraError,
    },
    /// The adapter's tensors have the shapes of another model.
    #[error("the adapter in {} belongs to another base model than {}.\n{source}", folder.display(), base.display())]
    OtherBase {
        /// The adapter's folder.
        folder: PathBuf,
        /// The base model's folder.
        base: PathBuf,
        /// Tensor by tensor.
        source: Box<crate::weights::Mismatch>,
    },
}

/// The text of `folder/name`.
pub fn read_text(folder: &Path, name: &str) -> Result<String, LoadError> {
    let path = hub::require_file(folder, name)?;
    match Content::of_file(&path) {
        Ok(Some(content)) => Err(LoadError::Content { path, why: content.to_string() }),
        _ => fs::read_to_string(&path).map_err(|source| LoadError::Io { path, source }),
    }
}

/// The configuration of the language model in `folder`, alone or inside a LLaVA.
pub fn qwen3_config(folder: &Path) -> Result<Qwen3Config, LoadError> {
    let text = read_text(folder, CONFIG)?;
    let read = if LlavaConfig::describes(&text) {
        LlavaConfig::from_json(&text).map(|llava| llava.text)
    } else {
        Qwen3Config::from_json(&text)
    };
    read.map_err(|source| LoadError::Config { path: folder.join(CONFIG), source })
}

/// The configuration of the vision tower in `folder`, alone, inside a whole CLIP model or inside a LLaVA.
pub fn clip_config(folder: &Path) -> Result<ClipVisionConfig, LoadError> {
    let text = read_text(folder, CONFIG)?;
    let read = if LlavaConfig::describes(&text) {
        LlavaConfig::from_json(&text).map(|llava| llava.vision)
    } else {
        ClipVisionConfig::from_json(&text)
    };
    read.map_err(|source| LoadError::Config { path: folder.join(CONFIG), source })
}

/// The configuration of the LLaVA of transformers in `folder`; `None` when it holds something else.
pub fn llava_config(folder: &Path) -> Result<Option<LlavaConfig>, LoadError> {
    if !LlavaConfig::is_in(folder) {
        return Ok(None);
    }
    let read = LlavaConfig::from_json(&read_text(folder, CONFIG)?);
    read.map(Some).map_err(|source| LoadError::Config { path: folder.join(CONFIG), source })
}

/// The language model in `folder`: `config.json` and weights, alone or inside a LLaVA.
pub fn qwen3(folder: &Path, device: &Device, dtype: Dtype) -> Result<Qwen3, LoadError> {
    let mut config = qwen3_config(folder)?;
    let checkpoint = Checkpoint::open(folder)?;
    let layout = if LlavaConfig::is_in(folder) { Layout::LLAVA_TEXT } else { Layout::QWEN3 };
    config.tie_word_embeddings &= !has_own_head(&checkpoint, layout)?;
    let mut source = CheckpointSource::new(&checkpoint, layout);
    let model = Qwen3::load(Loader::new(&mut source, device, dtype), &config);
    source.finish()?;
    Ok(model)
}

/// Whether a checkpoint holds a head that is not the embedding: transformers 5 then ties them not, whatever the
/// configuration says (`PreTrainedModel.tie_weights`).
fn has_own_head(checkpoint: &Checkpoint, layout: Layout) -> Result<bool, LoadError> {
    let keys = ["lm_head.weight", "model.embed_tokens.weight"].map(|key| layout.find(checkpoint, key));
    let [Some(head), Some(embedding)] = keys else { return Ok(false) };
    Ok(checkpoint.are_equal(&head, &embedding)? == Some(false))
}

/// The vision tower in `folder`: `config.json` and weights, alone, inside a whole CLIP model or inside a LLaVA.
pub fn clip(folder: &Path, device: &Device, dtype: Dtype) -> Result<ClipVision, LoadError> {
    let config = clip_config(folder)?;
    let checkpoint = Checkpoint::open(folder)?;
    let layout = if LlavaConfig::is_in(folder) { Layout::LLAVA_VISION } else { Layout::CLIP_VISION };
    let mut source = CheckpointSource::new(&checkpoint, layout);
    let model = ClipVision::load(Loader::new(&mut source, device, dtype), &config);
    source.finish()?;
    Ok(model)
}

/// The projector in the file `path`, or in the folder `path` of a LLaVA, from `vision` to `hidden` values.
pub fn projector(
    path: &Path,
    vision: usize,
    hidden: usize,
    device: &Device,
    dtype: Dtype,
) -> Result<Projector, LoadError> {
    let (checkpoint, layout) = if path.is_dir() {
        (Checkpoint::open(path)?, Layout::LLAVA_PROJECTOR)
    } else {
        (Checkpoint::open_file(path)?, Layout::EXACT)
    };
    let mut source = CheckpointSource::new(&checkpoint, layout);
    let model = Projector::load(Loader::new(&mut source, device, dtype), vision, hidden);
    source.finish()?;
    Ok(model)
}

/// Puts the PEFT adapter in `folder` beside the linears of `model`, which came from the folder `base`.
pub fn adapter(
    model: &mut Qwen3,
    base: &Path,
    folder: &Path,
    device: &Device,
    dtype: Dtype,
) -> Result<(), LoadError> {
    let mut config = peft::read_config(folder)?;
    let checkpoint = Checkpoint::open_file(&peft::weights_file(folder)?)?;
    let named = named_linears(&checkpoint, folder)?;
    if let Err(LoraError::Pattern { field: "target_modules", .. }) = config.matcher() {
        // An expression that only Python reads: PEFT wrote a tensor for each linear that it matched.
        config.target_modules = TargetModules::Names(named);
    }
    let mut source = CheckpointSource::new(&checkpoint, Layout::PEFT);
    model
        .add_lora(Loader::new(&mut source, device, dtype), &config)
        .map_err(|source| LoadError::Lora { folder: folder.to_owned(), source })?;
    match source.finish() {
        Ok(_) => Ok(()),
        Err(WeightsError::Mismatch(source)) => {
            Err(LoadError::OtherBase { folder: folder.to_owned(), base: base.to_owned(), source })
        }
        Err(other) => Err(other.into()),
    }
}

/// The linears that an adapter's tensors belong to; refuses an adapter of something else, and an empty one.
fn named_linears(checkpoint: &Checkpoint, folder: &Path) -> Result<Vec<String>, LoadError> {
    let content = |why: String| LoadError::Content { path: folder.to_owned(), why };
    let mut linears = Vec::new();
    for key in checkpoint.keys() {
        let name = key.trim_start_matches("base_model.model.");
        let Some((linear, _)) = name.split_once(".lora_") else {
            return Err(content(format!(
                "the adapter replaces `{name}`, which is not supported: it must be LoRA alone."
            )));
        };
        if linear == "lm_head" || name.contains(".lora_embedding_") {
            return Err(content(format!(
                "the adapter changes `{linear}`, which is not supported: only the linears of the layers may be adapted."
            )));
        }
        linears.push(linear.to_owned());
    }
    linears.dedup();
    if linears.is_empty() { Err(content("the adapter holds no tensors.".to_owned())) } else { Ok(linears) }
}

/// The ids that end an answer: `eos_token_id` (one or a list) of `generation_config.json`, otherwise of
/// `config.json`; none when neither says.
pub fn eos_ids(folder: &Path) -> Result<Vec<u32>, LoadError> {
    for name in ["generation_config.json", "config.json"] {
        let Some(config) = optional_json(folder, name)? else { continue };
        let ids = match config.get("eos_token_id") {
            None | Some(Value::Null) => continue,
            Some(Value::Array(ids)) => ids.iter().map(id).collect(),
            Some(one) => id(one).map(|id| vec![id]),
        };
        return ids.ok_or_else(|| LoadError::Content {
            path: folder.join(name),
            why: "eos_token_id is no token id and no list of them.".to_owned(),
        });
    }
    Ok(Vec::new())
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

/// The JSON in `folder/name`; `None` when there is no such file.
pub(crate) fn optional_json(folder: &Path, name: &str) -> Result<Option<Value>, LoadError> {
    let path = folder.join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).map_err(|source| LoadError::Io { path: path.clone(), source })?;
    let value = serde_json::from_str(&text)
        .map_err(|error| LoadError::Content { path, why: format!("is no valid JSON: {error}.") })?;
    Ok(Some(value))
}
