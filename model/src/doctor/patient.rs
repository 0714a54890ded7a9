//! What doctor looks at: a small fixed model's outputs on one device.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::{DType, Device, Gradients, Tensor};

use crate::attention::TokenMask;
use crate::cache::KvCache;
use crate::clip::ClipVision;
use crate::config::{ClipVisionConfig, Dtype, HiddenAct, PixelNorm, Qwen3Config};
use crate::device::{DeviceError, DeviceName};
use crate::lora::LoraConfig;
use crate::projector::Projector;
use crate::qwen3::Qwen3;
use crate::source::{Init, Loader, ParameterVisitor, RandomSource, TensorSource};
use crate::vlm::{Batch, BatchError, Vlm};

/// The seed of the fixed model's weights.
const SEED: u64 = 2024;
/// Words of the fixed model; the last is its image pad.
const VOCAB: u32 = 96;
/// Tokens of the prompt before decoding goes on one by one, and of the whole.
const PROMPT: usize = 9;
const WHOLE: usize = 14;

/// Something to examine: a device, or a stand-in for one in a test.
pub trait Patient {
    /// What the report calls it.
    fn name(&self) -> String;

    /// The fixed model's outputs on it, or why there are none.
    fn symptoms(&self, dtype: Dtype) -> Result<Symptoms, String>;
}

/// Outputs of the fixed model.
#[derive(Clone, Debug, PartialEq)]
pub struct Symptoms {
    /// Patch states of two pictures.
    pub features: Vec<f32>,
    /// Final hidden states of the real tokens of a padded batch.
    pub hidden: Vec<f32>,
    /// Mean loss of its answer tokens.
    pub loss: f32,
    /// Gradients by key when the projector is all that trains.
    pub projector: Vec<(String, Vec<f32>)>,
    /// Gradients by key when the projector and adapters train.
    pub lora: Vec<(String, Vec<f32>)>,
    /// Logits of a text, in one pass.
    pub uncached: Vec<f32>,
    /// Logits of the same text, a prompt first and then token by token.
    pub cached: Vec<f32>,
}

/// A device of this binary.
#[derive(Clone, Debug)]
pub struct DeviceUnderTest {
    name: DeviceName,
    device: Device,
}

impl DeviceUnderTest {
    /// The device called `name`.
    pub fn open(name: DeviceName) -> Result<Self, DeviceError> {
        Ok(Self { name, device: name.open()? })
    }

    /// The reference.
    pub fn cpu() -> Self {
        Self { name: DeviceName::Cpu, device: Device::flex() }
    }

    /// What tells this device from another of the same name: the part and its driver, as the backend reports
    /// them. Opens the device.
    pub fn identity(&self) -> String {
        #[cfg(any(feature = "cuda", feature = "wgpu"))]
        if !self.name.is_reference() {
            let identity = catch_unwind(AssertUnwindSafe(|| format!("{:?}", self.device.identity())));
            let driver = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
            return format!("{} {} {driver}", self.name, identity.unwrap_or_default());
        }
        self.name.to_string()
    }
}

impl Patient for DeviceUnderTest {
    fn name(&self) -> String {
        self.name.to_string()
    }

    fn symptoms(&self, dtype: Dtype) -> Result<Symptoms, String> {
        if !self.device.supports_dtype(dtype.storage()) {
            return Err(format!("{} does not compute in {dtype}", self.name));
        }
        // A backend without its hardware or driver panics.
        let run = || examine_model(&mut RandomSource::new(SEED), &self.device, dtype);
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(symptoms) => symptoms.map_err(|error| error.to_string()),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                Err(text
                    .or(panic.downcast_ref::<&str>().copied())
                    .unwrap_or("the backend panicked")
                    .to_owned())
            }
        }
    }
}

/// The outputs of the fixed model with weights from `source`, on `device` in `dtype`.
pub fn examine_model(
    source: &mut dyn TensorSource,
    device: &Device,
    dtype: Dtype,
) -> Result<Symptoms, BatchError> {
    let model = fixed_model(source, device, dtype);
    let features = features(&model);
    let mut adapted = model.clone();
    let lora = LoraConfig { r: 4, lora_dropout: 0.0, ..LoraConfig::default() };
    let mut noise = RandomSource::new(SEED + 1).with("lora_B.weight", Init::Normal(0.2));
    // The targets are all there: the configuration is fixed.
    let _ = adapted.qwen.add_lora(Loader::new(&mut noise, device, dtype), &lora);
    let on_batch = on_batch(&model, &features)?;
    Ok(Symptoms {
        hidden: on_batch.0,
        loss: on_batch.1,
        projector: gradients(model.clone(), &features, |key| key.starts_with("projector."))?,
        lora: gradients(adapted, &features, |key| key.starts_with("projector.") || key.contains(".lora_"))?,
        uncached: decode(&model, None)?,
        cached: decode(&model, Some(&mut KvCache::new()))?,
        features: values(features),
    })
}

/// Two layers of each tower, grouped heads, heads wider than their share of the hidden size.
fn fixed_model(source: &mut dyn TensorSource, device: &Device, dtype: Dtype) -> Vlm {
    let qwen = Qwen3Config {
        vocab_size: VOCAB as usize,
        hidden_size: 64,
        intermediate_size: 128,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 32,
        max_position_embeddings: 64,
        rms_norm_eps: 1e-6,
        rope_theta: 1e4,
        attention_bias: false,
        tie_word_embeddings: true,
        initializer_range: 0.12,
        dtype,
    };
    let clip = ClipVisionConfig {
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        image_size: 32,
        patch_size: 16,
        hidden_act: HiddenAct::QuickGelu,
        initializer_range: 0.12,
        ..ClipVisionConfig::default()
    };
    let tower = ClipVision::load(Loader::new(source, device, dtype), &clip);
    let projector = Projector::load(Loader::new(source, device, dtype), clip.hidden_size, qwen.hidden_size);
    let language = Qwen3::load(Loader::new(source, device, dtype), &qwen);
    Vlm::new(Some(tower), projector, language, VOCAB - 1)
}

/// Patch states of two pictures of fixed bytes.
fn features(model: &Vlm) -> Tensor<3> {
    match &model.clip {
        Some(clip) => {
            let bytes = (0..2 * clip.config().pixels()).map(|n| (n * 37 % 251) as u8).collect();
            clip.forward(clip.normalise(bytes, &PixelNorm::default()))
        }
        None => Tensor::zeros([0, 0, 0], &model.qwen.embed_tokens.device()),
    }
}

/// A row of 16 tokens and one of 12, a picture of 4 patches in each, padded on the right; labels at the ends.
fn batch_inputs() -> (Vec<u32>, TokenMask, Vec<i32>) {
    let lengths = [16, 12];
    let row = |row: usize| {
        (0..16).map(move |at| if (3..7).contains(&at) { VOCAB - 1 } else { (row * 29 + at * 13) as u32 % 90 })
    };
    let ids = (0..2).flat_map(row).collect();
    let labels = lengths.iter().flat_map(|length| {
        (0..16).map(move |at| if at + 4 >= *length && at < *length { (at * 7 % 90) as i32 } else { -100 })
    });
    (ids, TokenMask::right_padded(&lengths, 16), labels.collect())
}

/// Hidden states of the real tokens, and the mean loss.
fn on_batch(model: &Vlm, features: &Tensor<3>) -> Result<(Vec<f32>, f32), BatchError> {
    let (ids, mask, labels) = batch_inputs();
    let batch = Batch { input_ids: &ids, mask: &mask, features: Some(features.clone()) };
    let width = model.qwen.config().hidden_size;
    let hidden = values(model.hidden(&batch)?);
    let rows = hidden.chunks(width).zip(mask.real()).filter(|(_, real)| **real);
    let loss = values(model.loss(&batch, &labels)?.per_token);
    Ok((rows.flat_map(|(row, _)| row.to_vec()).collect(), loss.iter().sum::<f32>() / loss.len() as f32))
}

/// Gradients of the mean loss with respect to what `chosen` names; everything else is frozen.
fn gradients(
    mut model: Vlm,
    features: &Tensor<3>,
    chosen: impl Fn(&str) -> bool,
) -> Result<Vec<(String, Vec<f32>)>, BatchError> {
    model.train_only(chosen);
    let (ids, mask, labels) = batch_inputs();
    let batch = Batch { input_ids: &ids, mask: &mask, features: Some(features.clone()) };
    let loss = model.loss(&batch, &labels)?;
    let tokens = loss.per_token.dims()[0] as f64;
    let all = (loss.sum / tokens).backward();
    let mut collect = Collect { all: &all, by_key: Vec::new() };
    model.visit(&mut collect);
    Ok(collect.by_key)
}

struct Collect<'a> {
    all: &'a Gradients,
    by_key: Vec<(String, Vec<f32>)>,
}

impl ParameterVisitor for Collect<'_> {
    fn visit<const D: usize>(&mut self, key: &str, parameter: &mut Tensor<D>) {
        if parameter.is_require_grad() {
            let gradient = parameter.grad(self.all).map(values).unwrap_or_default();
            self.by_key.push((key.to_owned(), gradient));
        }
    }
}

/// Logits of a fixed text from the last token of the prompt on: in one pass, or by way of `cache`.
fn decode(model: &Vlm, cache: Option<&mut KvCache>) -> Result<Vec<f32>, BatchError> {
    let ids: Vec<u32> = (0..WHOLE as u32).map(|at| at * 11 % 90).collect();
    let Some(cache) = cache else {
        let batch = Batch { input_ids: &ids, mask: &TokenMask::full(1, WHOLE), features: None };
        let rows: Vec<usize> = (PROMPT - 1..WHOLE).collect();
        return Ok(values(model.logits_at(model.hidden(&batch)?, &rows)));
    };
    let mut logits = Vec::new();
    let pieces = std::iter::once(&ids[..PROMPT]).chain(ids[PROMPT..].chunks(1));
    for piece in pieces {
        let mask = TokenMask::full(1, piece.len());
        let hidden = model.hidden_cached(&Batch { input_ids: piece, mask: &mask, features: None }, cache)?;
        logits.extend(values(model.logits_at(hidden, &[piece.len() - 1])));
    }
    Ok(logits)
}

/// A tensor's values in f32, row after row. Values that cannot be read are none.
fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.try_into_data_dtype(DType::F32);
    data.ok().and_then(|data| data.as_slice::<f32>().map(<[f32]>::to_vec).ok()).unwrap_or_default()
}
