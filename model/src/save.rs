//! Models to folders that `transformers` and PEFT load.
//!
//! Out: `model.safetensors` (in shards with an index above [`SHARD_BYTES`]), `config.json`, and copies of the
//! generation and tokenizer files of the folder that the model came from; `projector.safetensors`; `adapter/`.
//! Files carry the metadata `{"format": "pt"}` that transformers asks for. One tensor at a time is copied off its device.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Tensor, TensorData};
use serde_json::{Value, json};

use crate::clip::ClipVision;
use crate::config::{Dtype, LlavaConfig};
use crate::folder::{self, Description, FolderError};
use crate::lora::LoraConfig;
use crate::peft::{self, BaseModel};
use crate::projector::Projector;
use crate::qwen3::Qwen3;
use crate::source::ParameterVisitor;
use crate::vlm::Vlm;

/// Most bytes of tensors in one file: 5 GB, what transformers 4 took and the hub serves well.
pub const SHARD_BYTES: u64 = 5_000_000_000;

/// The version of transformers that a configuration is written for, where its origin names none.
const FIRST_WITH_QWEN3: &str = "4.51.0";

/// Files beside the weights of a language model that say how to use it.
const COMPANIONS: [&str; 8] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
];

/// A model that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The operating system refused.
    #[error("{}: cannot be written: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A tensor could not be read back from its device.
    #[error("{}: `{key}` cannot be read from its device: {why}", path.display())]
    Tensor {
        /// The file being written.
        path: PathBuf,
        /// The parameter.
        key: String,
        /// The backend's words.
        why: String,
    },
    /// A model without vision tower is no LLaVA.
    #[error("{}: the model was loaded without its vision tower", .0.display())]
    NoTower(PathBuf),
    /// The folder or its description.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// One parameter to be written.
pub(crate) struct Parameter {
    /// As it is written.
    pub(crate) shape: Vec<usize>,
    /// Reads it from its device.
    pub(crate) fetch: Box<dyn Fn() -> Result<TensorData, String>>,
}

/// Gathers the parameters that `rename` gives a key.
struct Gather<F> {
    rename: F,
    parameters: BTreeMap<String, Parameter>,
}

impl<F: Fn(&str) -> Option<String>> ParameterVisitor for Gather<F> {
    fn visit<const D: usize>(&mut self, key: &str, parameter: &mut Tensor<D>) {
        let Some(key) = (self.rename)(key) else { return };
        let shape = parameter.dims().to_vec();
        let tensor = parameter.clone().inner();
        let fetch = Box::new(move || tensor.try_to_data().map_err(|error| error.to_string()));
        self.parameters.insert(key, Parameter { shape, fetch });
    }
}

impl<F: Fn(&str) -> Option<String>> Gather<F> {
    fn by(rename: F) -> Self {
        Self { rename, parameters: BTreeMap::new() }
    }
}

/// Base parameters keep their keys; LoRA's are left to [`adapter`].
fn base_key(key: &str) -> Option<String> {
    (!is_lora(key)).then(|| key.to_owned())
}

fn is_lora(key: &str) -> bool {
    key.ends_with(".lora_A.weight") || key.ends_with(".lora_B.weight")
}

/// Writes the language model (without its LoRA branches, unless they are merged) as `folder`, which must exist.
///
/// `origin` is the folder that it came from: its `config.json` is kept but for the dtype, its generation and
/// tokenizer files are copied.
pub fn qwen3(model: &mut Qwen3, folder: &Path, dtype: Dtype, origin: Option<&Path>) -> Result<(), SaveError> {
    let mut gather = Gather::by(base_key);
    model.visit(&mut gather);
    write_sharded(folder, &gather.parameters, dtype, SHARD_BYTES)?;
    write_json(folder, "config.json", &merged_config(model.config().to_json(), dtype, origin))?;
    copy_files(origin, folder, &COMPANIONS)
}

/// Writes the vision tower as `folder`, which must exist; `origin` as in [`qwen3`].
pub fn clip(
    model: &mut ClipVision,
    folder: &Path,
    dtype: Dtype,
    origin: Option<&Path>,
) -> Result<(), SaveError> {
    let mut gather = Gather::by(base_key);
    model.visit(&mut gather);
    write_sharded(folder, &gather.parameters, dtype, SHARD_BYTES)?;
    write_json(folder, "config.json", &merged_config(model.config().to_json(), dtype, None))?;
    copy_files(origin, folder, &["preprocessor_config.json"])
}

/// Writes the whole model as `folder`, which must exist: a `LlavaForConditionalGeneration` of transformers, with its adapters
/// in the weights only if they are merged. `origin` is the folder that the language model came from.
///
/// Keys are those of transformers 4, which version 5 writes as well, but for the vision tower's, where version 5 reads both.
pub fn llava(model: &mut Vlm, folder: &Path, dtype: Dtype, origin: Option<&Path>) -> Result<(), SaveError> {
    let vision = model
        .clip
        .as_ref()
        .map(|clip| clip.config().clone())
        .ok_or_else(|| SaveError::NoTower(folder.to_owned()))?;
    let mut gather = Gather::by(llava_key);
    model.visit(&mut gather);
    write_sharded(folder, &gather.parameters, dtype, SHARD_BYTES)?;
    let text = model.qwen.config().clone();
    let text_config = merged_config(text.to_json(), dtype, origin);
    let vision_config = merged_config(vision.to_json(), dtype, None);
    let version = text_config.get("transformers_version").cloned().unwrap_or_default();
    let config = LlavaConfig { vision, text, image_token_id: model.image_pad_id };
    let mut config = config.to_json(text_config, vision_config, dtype);
    if let Some(fields) = config.as_object_mut() {
        fields.insert("transformers_version".to_owned(), version);
    }
    write_json(folder, "config.json", &config)
}

fn llava_key(key: &str) -> Option<String> {
    if is_lora(key) {
        return None;
    }
    let renamed = [
        ("projector.dense1.", "multi_modal_projector.linear_1."),
        ("projector.dense2.", "multi_modal_projector.linear_2."),
        ("vision_model.", "vision_tower.vision_model."),
        ("model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
    ];
    renamed.iter().find_map(|(ours, theirs)| Some(format!("{theirs}{}", key.strip_prefix(ours)?)))
}

/// Writes the projector as the file `path`.
pub fn projector(model: &mut Projector, path: &Path, dtype: Dtype) -> Result<(), SaveError> {
    let mut gather = Gather::by(base_key);
    model.visit("", &mut gather);
    write_file(path, &gather.parameters.iter().collect::<Vec<_>>(), dtype)
}

/// Writes the LoRA branches of `model` as the PEFT adapter `folder`, which must exist. `base` is where PEFT's `AutoPeftModel`
/// looks for the base model.
pub fn adapter(
    model: &mut Qwen3,
    config: &LoraConfig,
    base: &BaseModel,
    folder: &Path,
    dtype: Dtype,
) -> Result<(), SaveError> {
    let mut gather = Gather::by(|key: &str| is_lora(key).then(|| format!("base_model.model.{key}")));
    model.visit(&mut gather);
    write_file(&folder.join(peft::WEIGHTS), &gather.parameters.iter().collect::<Vec<_>>(), dtype)?;
    write_text(&folder.join(peft::CONFIG), &peft::config_json(config, base))
}

/// What of a model is written in full, beside the projector.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// The LoRA branches' settings, when there are branches to write.
    pub lora: Option<LoraConfig>,
    /// Write the language model to `qwen/`; the folder that it came from, if any.
    pub qwen: Option<Option<PathBuf>>,
    /// Write the vision tower to `clip/`; the folder that it came from, if any.
    pub clip: Option<Option<PathBuf>>,
}

/// Writes a model folder, whole or not at all: towers in the description's type, projector and adapter in f32. `description.qwen` and `description.clip` are replaced by the
/// folders inside when those parts are written in full.
pub fn model_folder(
    target: &Path,
    model: &mut Vlm,
    mut description: Description,
    parts: &Parts,
) -> Result<(), SaveError> {
    let dtype = description.dtype;
    folder::write_atomically(target, |folder| {
        projector(&mut model.projector, &folder.join(folder::PROJECTOR), Dtype::F32)?;
        if let Some(config) = &parts.lora {
            let base = BaseModel::of(&description.qwen);
            adapter(&mut model.qwen, config, &base, &make(folder, folder::ADAPTER)?, Dtype::F32)?;
        }
        if let Some(origin) = &parts.qwen {
            qwen3(&mut model.qwen, &make(folder, "qwen")?, dtype, origin.as_deref())?;
            "qwen".clone_into(&mut description.qwen);
        }
        if let (Some(origin), Some(tower)) = (&parts.clip, &mut model.clip) {
            clip(tower, &make(folder, "clip")?, dtype, origin.as_deref())?;
            "clip".clone_into(&mut description.clip);
        }
        write_text(&folder.join(folder::DESCRIPTION), &description.to_toml()?)
    })
}

fn make(folder: &Path, name: &str) -> Result<PathBuf, SaveError> {
    let path = folder.join(name);
    fs::create_dir_all(&path).map_err(|source| SaveError::Io { path: path.clone(), source })?;
    Ok(path)
}

pub(crate) fn write_text(path: &Path, text: &str) -> Result<(), SaveError> {
    fs::write(path, text).map_err(|source| SaveError::Io { path: path.to_owned(), source })
}

/// A configuration: the fields of the origin's where there is one, under those of `config`, which say what the model is in the
/// spelling of transformers 4 and 5 both.
fn merged_config(config: Value, dtype: Dtype, origin: Option<&Path>) -> Value {
    let kept = origin.and_then(|origin| fs::read_to_string(origin.join("config.json")).ok());
    let kept: Value = kept.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    // The language model of a LLaVA.
    let kept = kept.get("text_config").cloned().unwrap_or(kept);
    let mut merged = kept.as_object().cloned().unwrap_or_default();
    merged.remove("rope_scaling"); // transformers 5 reads it before `rope_parameters`
    if let Value::Object(fields) = config {
        merged.extend(fields);
    }
    // Where there is none, transformers 4.57 takes every large tokenizer for Mistral's and advises to change it.
    merged.entry("transformers_version").or_insert_with(|| json!(FIRST_WITH_QWEN3));
    for name in ["dtype", "torch_dtype"] {
        merged.insert(name.to_owned(), json!(dtype.hf_name()));
    }
    Value::Object(merged)
}

fn write_json(folder: &Path, name: &str, value: &Value) -> Result<(), SaveError> {
    write_text(&folder.join(name), &format!("{value:#}\n"))
}

fn copy_files(origin: Option<&Path>, folder: &Path, names: &[&str]) -> Result<(), SaveError> {
    let Some(origin) = origin else { return Ok(()) };
    for name in names.iter().filter(|name| origin.join(name).is_file()) {
        let path = folder.join(name);
        fs::copy(origin.join(name), &path).map_err(|source| SaveError::Io { path, source })?;
    }
    Ok(())
}

/// Writes `parameters` by key order into as few files of at most `limit` bytes as that order allows.
fn write_sharded(
    folder: &Path,
    parameters: &BTreeMap<String, Parameter>,
    dtype: Dtype,
    limit: u64,
) -> Result<(), SaveError> {
    let mut shards: Vec<Vec<(&String, &Parameter)>> = Vec::new();
    let (mut size, mut total) = (limit, 0);
    for (key, parameter) in parameters {
        let bytes = bytes(parameter, dtype);
        total += bytes;
        size += bytes;
        if size > limit || shards.is_empty() {
            shards.push(Vec::new());
            size = bytes;
        }
        if let Some(shard) = shards.last_mut() {
            shard.push((key, parameter));
        }
    }
    if let [shard] = shards.as_slice() {
        return write_file(&folder.join("model.safetensors"), shard, dtype);
    }
    let mut weight_map = BTreeMap::new();
    for (number, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len());
        write_file(&folder.join(&name), shard, dtype)?;
        weight_map.extend(shard.iter().map(|(key, _)| ((*key).clone(), name.clone())));
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
    write_text(&folder.join("model.safetensors.index.json"), &format!("{index:#}\n"))
}

fn bytes(parameter: &Parameter, dtype: Dtype) -> u64 {
    parameter.shape.iter().product::<usize>() as u64 * dtype.size() as u64
}

/// Writes one safetensors file: header length, JSON header padded to 8 bytes, tensors in the order of `parameters`.
pub(crate) fn write_file(
    path: &Path,
    parameters: &[(&String, &Parameter)],
    dtype: Dtype,
) -> Result<(), SaveError> {
    let io = |source| SaveError::Io { path: path.to_owned(), source };
    let mut out = BufWriter::new(File::create(path).map_err(io)?);
    out.write_all(&header(parameters, dtype)).map_err(io)?;
    for (key, parameter) in parameters {
        let fault = |why| SaveError::Tensor { path: path.to_owned(), key: (*key).clone(), why };
        let data = (parameter.fetch)().map_err(fault)?;
        let data = data.try_cast(DType::from(dtype.float())).map_err(|error| fault(error.to_string()))?;
        out.write_all(data.bytes()).map_err(io)?;
    }
    out.into_inner().map_err(|error| io(error.into_error()))?.sync_all().map_err(io)
}

fn header(parameters: &[(&String, &Parameter)], dtype: Dtype) -> Vec<u8> {
    let name = match dtype {
        Dtype::F32 => "F32",
        Dtype::F16 => "F16",
        Dtype::Bf16 => "BF16",
    };
    let mut fields = serde_json::Map::new();
    fields.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut start = 0;
    for (key, parameter) in parameters {
        let end = start + bytes(parameter, dtype);
        let tensor = json!({"dtype": name, "shape": parameter.shape, "data_offsets": [start, end]});
        fields.insert((*key).clone(), tensor);
        start = end;
    }
    let mut text = Value::Object(fields).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes()[..], &text].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Checkpoint;

    /// Three tensors of 24, 16 and 8 bytes in f32.
    fn parameters() -> BTreeMap<String, Parameter> {
        let sizes = [("a.weight", vec![2, 3]), ("b.weight", vec![4]), ("c.bias", vec![2])];
        let parameter = |(key, shape): (&str, Vec<usize>)| {
            let values: Vec<f32> = (0..shape.iter().product()).map(|n: usize| n as f32 + 0.5).collect();
            let data = TensorData::new(values, shape.clone());
            (key.to_owned(), Parameter { shape, fetch: Box::new(move || Ok(data.clone())) })
        };
        sizes.into_iter().map(parameter).collect()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn shards_and_their_index_hold_what_one_file_holds() {
        let (one, many) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write_sharded(one.path(), &parameters(), Dtype::F32, 48).unwrap();
        write_sharded(many.path(), &parameters(), Dtype::F32, 24).unwrap();
        assert_eq!(names(one.path()), ["model.safetensors"]);
        let (first, second) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
        assert_eq!(names(many.path()), [first, second, "model.safetensors.index.json"]);

        let index = fs::read_to_string(many.path().join("model.safetensors.index.json")).unwrap();
        let weight_map = json!({"a.weight": first, "b.weight": second, "c.bias": second});
        let expected = json!({"metadata": {"total_size": 48}, "weight_map": weight_map});
        assert_eq!(serde_json::from_str::<Value>(&index).unwrap(), expected);

        let read = |folder: &Path| {
            let checkpoint = Checkpoint::open(folder).unwrap();
            let keys: Vec<String> = checkpoint.keys().map(str::to_owned).collect();
            let data = |key: &String| checkpoint.read(key, DType::F32).unwrap().unwrap();
            keys.iter().map(|key| (key.clone(), data(key))).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(read(one.path()), read(many.path()));
        assert_eq!(read(many.path()).len(), 3);
    }

    #[test]
    fn a_tensor_above_the_limit_has_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        write_sharded(folder.path(), &parameters(), Dtype::F32, 10).unwrap();
        assert_eq!(names(folder.path()).len(), 4);
    }
}
