//! Models from folders on the disk: configuration, weights and adapter, checked to fit.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::Value;

use crate::clip::ClipVision;
use crate::config::{ClipVisionConfig, ConfigError, Dtype, PixelNorm, Qwen3Config};
use crate::hub::{self, HubError};
use crate::lora::LoraError;
use crate::peft::{self, PeftError};
use crate::projector::Projector;
use crate::qwen3::Qwen3;
use crate::source::Loader;
use crate::weights::{Checkpoint, CheckpointSource, Layout, WeightsError};

/// Why a folder gives no model.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A folder or file is not there.
    #[error(transparent)]
    Hub(#[from] HubError),
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
    fs::read_to_string(&path).map_err(|source| LoadError::Io { path, source })
}

/// The configuration of the language model in `folder`.
pub fn qwen3_config(folder: &Path) -> Result<Qwen3Config, LoadError> {
    let text = read_text(folder, "config.json")?;
    Qwen3Config::from_json(&text)
        .map_err(|source| LoadError::Config { path: folder.join("config.json"), source })
}

/// The configuration of the vision tower in `folder`.
pub fn clip_config(folder: &Path) -> Result<ClipVisionConfig, LoadError> {
    let text = read_text(folder, "config.json")?;
    ClipVisionConfig::from_json(&text)
        .map_err(|source| LoadError::Config { path: folder.join("config.json"), source })
}

/// The language model in `folder`: `config.json` and weights.
pub fn qwen3(folder: &Path, device: &Device, dtype: Dtype) -> Result<Qwen3, LoadError> {
    let config = qwen3_config(folder)?;
    let checkpoint = Checkpoint::open(folder)?;
    let mut source = CheckpointSource::new(&checkpoint, Layout::QWEN3);
    let model = Qwen3::load(Loader::new(&mut source, device, dtype), &config);
    source.finish()?;
    Ok(model)
}

/// The vision tower in `folder`: `config.json` and weights, alone or inside a whole CLIP model.
pub fn clip(folder: &Path, device: &Device, dtype: Dtype) -> Result<ClipVision, LoadError> {
    let config = clip_config(folder)?;
    let checkpoint = Checkpoint::open(folder)?;
    let mut source = CheckpointSource::new(&checkpoint, Layout::CLIP_VISION);
    let model = ClipVision::load(Loader::new(&mut source, device, dtype), &config);
    source.finish()?;
    Ok(model)
}

/// The projector in the file `path`, from `vision` to `hidden` values.
pub fn projector(
    path: &Path,
    vision: usize,
    hidden: usize,
    device: &Device,
    dtype: Dtype,
) -> Result<Projector, LoadError> {
    let checkpoint = Checkpoint::open_file(path)?;
    let mut source = CheckpointSource::new(&checkpoint, Layout::EXACT);
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
    let config = peft::read_config(folder)?;
    let checkpoint = Checkpoint::open_file(&hub::require_file(folder, peft::WEIGHTS)?)?;
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

/// How pictures are normalised for the tower in `folder`: `image_mean` and `image_std` of
/// `preprocessor_config.json`, otherwise OpenAI's constants.
pub fn pixel_norm(folder: &Path) -> Result<PixelNorm, LoadError> {
    let mut norm = PixelNorm::default();
    let Some(config) = optional_json(folder, "preprocessor_config.json")? else { return Ok(norm) };
    for (name, values) in [("image_mean", &mut norm.mean), ("image_std", &mut norm.std)] {
        if let Some(value) = config.get(name) {
            *values = serde_json::from_value(value.clone()).map_err(|error| LoadError::Content {
                path: folder.join("preprocessor_config.json"),
                why: format!("{name} must be three numbers: {error}."),
            })?;
        }
    }
    Ok(norm)
}

/// The JSON in `folder/name`; `None` when there is no such file.
fn optional_json(folder: &Path, name: &str) -> Result<Option<Value>, LoadError> {
    let path = folder.join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).map_err(|source| LoadError::Io { path: path.clone(), source })?;
    let value = serde_json::from_str(&text)
        .map_err(|error| LoadError::Content { path, why: format!("is no valid JSON: {error}.") })?;
    Ok(Some(value))
}
