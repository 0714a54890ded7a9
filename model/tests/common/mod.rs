//! The fixtures of `tests/fixtures/make_fixtures.py`: small models, and what transformers computed with them.

#![allow(dead_code, reason = "each test file uses its share")]
#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};
use llavm_model::attention::TokenMask;
use llavm_model::clip::ClipVision;
use llavm_model::config::{ClipVisionConfig, Dtype, PixelNorm, Qwen3Config};
use llavm_model::lora::LoraConfig;
use llavm_model::projector::Projector;
use llavm_model::qwen3::Qwen3;
use llavm_model::source::{Loader, TensorSource, TensorSpec};
use llavm_model::vlm::{Batch, Vlm};
use llavm_model::weights::Checkpoint;
use safetensors::SafeTensors;

pub const SHAPES: [&str; 3] = ["gqa", "untied", "biased"];

/// One fixture folder.
pub struct Fixture {
    pub folder: PathBuf,
    expected: Vec<u8>,
}

/// The batch of a fixture in the types that the model takes.
pub struct Inputs {
    pub ids: Vec<u32>,
    pub mask: TokenMask,
    pub labels: Vec<i32>,
}

/// A checkpoint of ours as a source: panics on a missing key.
struct Files(Checkpoint, &'static str);

impl TensorSource for Files {
    fn take(&mut self, wanted: &TensorSpec<'_>) -> TensorData {
        // transformers 5 leaves `vision_model.` out.
        let bare = wanted.key.strip_prefix("vision_model.").unwrap_or(wanted.key);
        let keys = [format!("{}{}", self.1, wanted.key), bare.to_owned()];
        let key = keys.iter().find(|key| self.0.shape(key).is_some()).unwrap_or_else(|| panic!("{keys:?}"));
        assert_eq!(self.0.shape(key).unwrap(), wanted.shape, "{key}");
        self.0.read(key, wanted.dtype.storage()).unwrap().unwrap()
    }
}

impl Fixture {
    pub fn open(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        let expected = std::fs::read(folder.join("expected.safetensors")).unwrap();
        Self { folder, expected }
    }

    /// The model without its adapter.
    pub fn model(&self, device: &Device, dtype: Dtype) -> Vlm {
        let json = |part: &str| std::fs::read_to_string(self.folder.join(part).join("config.json")).unwrap();
        let clip_config = ClipVisionConfig::from_json(&json("clip")).unwrap();
        let qwen_config = Qwen3Config::from_json(&json("qwen")).unwrap();
        let open = |part: &str| Files(Checkpoint::open(&self.folder.join(part)).unwrap(), "");
        let clip = ClipVision::load(Loader::new(&mut open("clip"), device, dtype), &clip_config);
        let qwen = Qwen3::load(Loader::new(&mut open("qwen"), device, dtype), &qwen_config);
        let (vision, hidden) = (clip_config.hidden_size, qwen_config.hidden_size);
        let mut file = Files(Checkpoint::open_file(&self.folder.join("projector.safetensors")).unwrap(), "");
        let projector = Projector::load(Loader::new(&mut file, device, dtype), vision, hidden);
        Vlm::new(Some(clip), projector, qwen, self.ints("image_pad_id")[0] as u32)
    }

    /// The model with its adapter beside the frozen weights.
    pub fn adapted(&self, device: &Device, dtype: Dtype) -> Vlm {
        let mut model = self.model(device, dtype);
        let json = std::fs::read_to_string(self.folder.join("adapter/adapter_config.json")).unwrap();
        let config: LoraConfig = serde_json::from_str(&json).unwrap();
        let file = Checkpoint::open_file(&self.folder.join("adapter/adapter_model.safetensors")).unwrap();
        model
            .qwen
            .add_lora(Loader::new(&mut Files(file, "base_model.model."), device, dtype), &config)
            .unwrap();
        model
    }

    /// Bytes of the fixture's images `from..to`.
    pub fn pixels(&self, from: usize, to: usize) -> Vec<u8> {
        let file = SafeTensors::deserialize(&self.expected).unwrap();
        let view = file.tensor("pixels").unwrap();
        let one = view.data().len() / view.shape()[0];
        view.data()[from * one..to * one].to_vec()
    }

    /// Patch states of images `from..to`.
    pub fn features(&self, model: &Vlm, from: usize, to: usize) -> Tensor<3> {
        let clip = model.clip.as_ref().unwrap();
        clip.forward(clip.normalise(self.pixels(from, to), &PixelNorm::default()))
    }

    pub fn inputs(&self) -> Inputs {
        let real = self.ints("attention_mask");
        let tokens = real.len() / 2;
        let lengths: Vec<usize> = real.chunks(tokens).map(|row| row.iter().sum::<i32>() as usize).collect();
        Inputs {
            ids: self.ints("input_ids").into_iter().map(|id| id as u32).collect(),
            mask: TokenMask::right_padded(&lengths, tokens),
            labels: self.ints("labels"),
        }
    }

    pub fn ints(&self, key: &str) -> Vec<i32> {
        let file = SafeTensors::deserialize(&self.expected).unwrap();
        let view = file.tensor(key).unwrap();
        view.data().chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    pub fn ids(&self, key: &str) -> Vec<u32> {
        self.ints(key).into_iter().map(|id| id as u32).collect()
    }

    pub fn floats(&self, key: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.expected).unwrap();
        let view = file.tensor(key).unwrap_or_else(|_| panic!("{key} is not in the fixture"));
        view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// Keys of the fixture that start with `prefix`, without it.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let file = SafeTensors::deserialize(&self.expected).unwrap();
        let names = file.names();
        let mut keys: Vec<String> =
            names.iter().filter_map(|key| key.strip_prefix(prefix)).map(Into::into).collect();
        keys.sort();
        keys
    }
}

impl Inputs {
    pub fn batch(&self, features: Tensor<3>) -> Batch<'_> {
        Batch { input_ids: &self.ids, mask: &self.mask, features: Some(features) }
    }

    /// Positions of the flattened batch that hold real tokens.
    pub fn real(&self) -> Vec<usize> {
        (0..self.ids.len()).filter(|position| self.mask.real()[*position]).collect()
    }
}

/// `max |a - b| / max |b|`, the measure of every comparison here.
pub fn difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let apart = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(ours.iter().all(|value| value.is_finite()));
    apart / theirs.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()))
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data_dtype(DType::F32).as_slice::<f32>().unwrap().to_vec()
}

/// The rows of `values` (of `width` each) at `positions`.
pub fn rows(values: &[f32], width: usize, positions: &[usize]) -> Vec<f32> {
    positions.iter().flat_map(|position| values[position * width..(position + 1) * width].to_vec()).collect()
}
