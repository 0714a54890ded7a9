//! What doctor looks at: a small fixed model's outputs on one device.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::{Device, Tensor};

use super::cases::{self, Case};
use super::fixed_model::{batch_inputs, features, fixed_model, gradients, values};
use crate::attention::TokenMask;
use crate::cache::KvCache;
use crate::config::Dtype;
use crate::device::{DeviceError, DeviceName};
use crate::lora::LoraConfig;
use crate::source::{Init, Loader, RandomSource, TensorSource};
use crate::vlm::{Batch, BatchError, Vlm};

/// The seed of the fixed model's weights.
const SEED: u64 = 2024;
/// Tokens of the prompt before decoding goes on one by one, and of the whole.
const PROMPT: usize = 9;
const WHOLE: usize = 14;

/// What is checked: a device, or a stand-in for one in a test.
pub trait Subject {
    /// What the report calls it.
    fn name(&self) -> String;

    /// Whether its products of f32 matrices may be of numbers with 11 bits (TF32), as on NVIDIA's tensor cores.
    fn rounds_products(&self) -> bool {
        false
    }

    /// The fixed model's outputs on it, or why there are none.
    fn outputs(&self, dtype: Dtype) -> Result<Outputs, String>;
}

/// Outputs of the fixed model.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    /// Patch states of two images.
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
    /// What a training or an answer does in a way of its own.
    pub cases: Vec<Case>,
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

    /// What distinguishes this device from another of the same name: the part and its driver, as the backend reports
    /// them. Opens the device.
    pub fn identity(&self) -> String {
        #[cfg(any(feature = "cuda-llvm", feature = "cube-cpu", feature = "wgpu"))]
        if !self.name.is_reference() {
            let identity = catch_unwind(AssertUnwindSafe(|| format!("{:?}", self.device.identity())));
            let driver = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
            return format!("{} {} {driver}", self.name, identity.unwrap_or_default());
        }
        self.name.to_string()
    }
}

impl Subject for DeviceUnderTest {
    fn name(&self) -> String {
        self.name.to_string()
    }

    fn rounds_products(&self) -> bool {
        #[cfg(feature = "cuda-llvm")]
        return matches!(self.name, DeviceName::Cuda(_));
        #[cfg(not(feature = "cuda-llvm"))]
        false
    }

    fn outputs(&self, dtype: Dtype) -> Result<Outputs, String> {
        // A backend without its hardware or driver panics, at the first question already.
        let run = || {
            if !self.device.supports_dtype(dtype.storage()) {
                return Err(format!("{} does not compute in {dtype}", self.name));
            }
            let outputs = run_model(&mut RandomSource::new(SEED), &self.device, dtype);
            outputs.map_err(|error| error.to_string())
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(outputs) => outputs,
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
pub fn run_model(
    source: &mut dyn TensorSource,
    device: &Device,
    dtype: Dtype,
) -> Result<Outputs, BatchError> {
    let model = fixed_model(source, device, dtype);
    let features = features(&model);
    let mut adapted = model.clone();
    let lora = LoraConfig { r: 4, lora_dropout: 0.0, ..LoraConfig::default() };
    let mut noise = RandomSource::new(SEED + 1).with("lora_B.weight", Init::Normal(0.2));
    // The targets are all there: the configuration is fixed.
    let _ = adapted.qwen.add_lora(Loader::new(&mut noise, device, dtype), &lora);
    let on_batch = on_batch(&model, &features)?;
    let cases = cases::run(&model, &adapted, &features)?;
    Ok(Outputs {
        hidden: on_batch.0,
        loss: on_batch.1,
        projector: gradients(model.clone(), &features, |key| key.starts_with("projector."))?,
        lora: gradients(adapted, &features, |key| key.starts_with("projector.") || key.contains(".lora_"))?,
        uncached: decode(&model, None)?,
        cached: decode(&model, Some(&mut KvCache::new()))?,
        features: values(features),
        cases,
    })
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
