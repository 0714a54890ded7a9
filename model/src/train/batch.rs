//! One forward pass's worth of rows, as it comes from the feed.

use burn::tensor::{DType, Tensor, TensorData};

use crate::attention::TokenMask;
use crate::config::PixelNorm;
use crate::vlm::Vlm;

/// The images of a micro-batch, in the order of their pads.
#[derive(Clone, Debug)]
pub enum Images {
    /// No row has an image.
    None,
    /// RGB bytes, `[images, 3, image_size, image_size]` one after the other.
    Pixels(Vec<u8>),
    /// Patch states of the vision tower, `[images, patches, vision hidden]`, of any float type.
    Features(TensorData),
}

/// Rows that go through the model together.
#[derive(Clone, Debug)]
pub struct MicroBatch {
    /// Token ids, `[rows, tokens]` row after row.
    pub input_ids: Vec<u32>,
    /// The token that follows each id, or a negative number where there is no loss; as many as ids.
    pub labels: Vec<i32>,
    /// Which ids are real.
    pub mask: TokenMask,
    /// The rows' images.
    pub images: Images,
}

impl MicroBatch {
    /// Labels that are tokens.
    pub fn answer_tokens(&self) -> usize {
        self.labels.iter().filter(|label| **label >= 0).count()
    }

    /// Ids that are no padding.
    pub fn tokens(&self) -> usize {
        self.mask.real().iter().filter(|real| **real).count()
    }
}

impl Images {
    /// Patch states in f16, little-endian, one after the other: `[images, patches, vision hidden]`.
    pub fn half_features(bytes: Vec<u8>, shape: [usize; 3]) -> Self {
        Self::Features(TensorData::from_bytes_vec(bytes, shape, DType::F16))
    }

    /// The patch states on the model's device: `[images, patches, vision hidden]`.
    pub fn features(self, model: &Vlm, norm: &PixelNorm) -> Result<Option<Tensor<3>>, String> {
        match self {
            Self::None => Ok(None),
            Self::Pixels(bytes) if bytes.is_empty() => Ok(None),
            Self::Pixels(bytes) => pixels(bytes, model, norm).map(Some),
            Self::Features(data) => features(data, model).map(Some),
        }
    }
}

fn pixels(bytes: Vec<u8>, model: &Vlm, norm: &PixelNorm) -> Result<Tensor<3>, String> {
    let Some(clip) = &model.clip else {
        return Err("holds pixels, but the model has no vision tower".to_owned());
    };
    let one = clip.config().pixels().max(1);
    if !bytes.len().is_multiple_of(one) {
        return Err(format!("{} bytes of pixels, but an image of the vision tower has {one}", bytes.len()));
    }
    Ok(clip.forward(clip.normalise(bytes, norm)))
}

fn features(data: TensorData, model: &Vlm) -> Result<Tensor<3>, String> {
    let [_, width] = model.projector.dense1.weight.dims();
    if data.shape().len() != 3 || data.shape().last() != Some(&width) {
        return Err(format!(
            "features of shape {:?}, but the projector takes [images, patches, {width}]",
            data.shape()
        ));
    }
    let device = model.qwen.embed_tokens.device().inner();
    Ok(Tensor::from_data(data, (&device, model.qwen.dtype().storage())))
}
