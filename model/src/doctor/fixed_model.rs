//! The small fixed model that doctor looks at, its inputs, and how values are read off it.

use burn::tensor::{DType, Device, Gradients, Tensor};

use crate::attention::TokenMask;
use crate::clip::ClipVision;
use crate::config::{ClipVisionConfig, Dtype, HiddenAct, PixelNorm, Qwen3Config};
use crate::projector::Projector;
use crate::qwen3::Qwen3;
use crate::source::{Loader, ParameterVisitor, TensorSource};
use crate::vlm::{Batch, BatchError, Vlm};

/// Words of the fixed model; the last is its image pad.
pub(super) const VOCAB: u32 = 96;

/// Two layers of each tower, grouped heads, heads wider than their share of the hidden size.
pub(super) fn fixed_model(source: &mut dyn TensorSource, device: &Device, dtype: Dtype) -> Vlm {
    let qwen = Qwen3Config {
        vocab_size: VOCAB as usize,
        hidden_size: 64,
        intermediate_size: 128,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 32,
        max_position_embeddings: 512,
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

/// Patch states of two images of fixed bytes.
pub(super) fn features(model: &Vlm) -> Tensor<3> {
    match &model.clip {
        Some(clip) => {
            let bytes = (0..2 * clip.config().pixels()).map(|n| (n * 37 % 251) as u8).collect();
            clip.forward(clip.normalise(bytes, &PixelNorm::default()))
        }
        None => Tensor::zeros([0, 0, 0], &model.qwen.embed_tokens.device()),
    }
}

/// A row of 16 tokens and one of 12, an image of 4 patches in each, padded on the right; labels at the ends.
pub(super) fn batch_inputs() -> (Vec<u32>, TokenMask, Vec<i32>) {
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

/// Gradients of the mean loss with respect to what `chosen` names; everything else is frozen.
pub(super) fn gradients(
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

pub(super) struct Collect<'a> {
    pub all: &'a Gradients,
    pub by_key: Vec<(String, Vec<f32>)>,
}

impl ParameterVisitor for Collect<'_> {
    fn visit<const D: usize>(&mut self, key: &str, parameter: &mut Tensor<D>) {
        if parameter.is_require_grad() {
            let gradient = parameter.grad(self.all).map(values).unwrap_or_default();
            self.by_key.push((key.to_owned(), gradient));
        }
    }
}

/// A tensor's values in f32, row after row. Values that cannot be read are none.
pub(super) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.try_into_data_dtype(DType::F32);
    data.ok().and_then(|data| data.as_slice::<f32>().map(<[f32]>::to_vec).ok()).unwrap_or_default()
}
