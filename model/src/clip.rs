//! The CLIP vision transformer (arXiv:2103.00020).
//!
//! In: images as normalised pixels. Out: one state per patch. Follows transformers 5.23,
//! `models/clip/modeling_clip.py`, keys included (`pre_layrnorm` is their spelling).
//!
//! ```text
//! x = [class_embedding, patches * patch_embedding] + position_embedding
//! x = pre_layrnorm(x)
//! each layer:  x = x + self_attn(layer_norm1(x))
//!              x = x + fc2(act(fc1(layer_norm2(x))))
//! features = x without the class token (LLaVA leaves post_layernorm out)
//! ```

use burn::tensor::{
    DType, Device, Int, Tensor, TensorData,
    activation::{gelu, sigmoid},
};

use serde::{Deserialize, Serialize};

use crate::attention::attention;
use crate::config::{ClipVisionConfig, Dtype, HiddenAct, PixelNorm};
use crate::kernels;
use crate::linear::Linear;
use crate::norm::LayerNorm;
use crate::product::rows_by_weight;
use crate::source::{Init, Loader, ParameterVisitor};

/// Which states of a tower are an image's features, in the words of transformers' `LlavaConfig`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureSelect {
    /// The layer that they leave, counted from the last, -1.
    pub vision_feature_layer: i64,
    /// `default`: without the class token.
    pub vision_feature_select_strategy: String,
}

impl Default for FeatureSelect {
    /// What [`ClipVision::forward`] gives.
    fn default() -> Self {
        Self { vision_feature_layer: -1, vision_feature_select_strategy: "default".to_owned() }
    }
}

/// `vision_model.embeddings`.
#[derive(Clone, Debug)]
pub struct Embeddings {
    /// `class_embedding`, `[hidden_size]`.
    pub class_embedding: Tensor<1>,
    /// `patch_embedding.weight`, `[hidden_size, channels, patch_size, patch_size]`.
    pub patch_embedding: Tensor<4>,
    /// `position_embedding.weight`, `[1 + patches, hidden_size]`.
    pub position_embedding: Tensor<2>,
}

/// `vision_model.encoder.layers.N`.
#[derive(Clone, Debug)]
pub struct EncoderLayer {
    /// Before attention.
    pub layer_norm1: LayerNorm,
    /// `self_attn.q_proj`.
    pub q_proj: Linear,
    /// `self_attn.k_proj`.
    pub k_proj: Linear,
    /// `self_attn.v_proj`.
    pub v_proj: Linear,
    /// `self_attn.out_proj`.
    pub out_proj: Linear,
    /// Before the MLP.
    pub layer_norm2: LayerNorm,
    /// `mlp.fc1`, `[intermediate_size, hidden_size]`.
    pub fc1: Linear,
    /// `mlp.fc2`, `[hidden_size, intermediate_size]`.
    pub fc2: Linear,
    heads: usize,
    act: HiddenAct,
}

/// The vision tower.
#[derive(Clone, Debug)]
pub struct ClipVision {
    /// Patches, class token and positions.
    pub embeddings: Embeddings,
    /// `vision_model.pre_layrnorm`.
    pub pre_layrnorm: LayerNorm,
    /// `vision_model.encoder.layers`.
    pub layers: Vec<EncoderLayer>,
    /// `vision_model.post_layernorm`: held to be saved again, not used.
    pub post_layernorm: LayerNorm,
    config: ClipVisionConfig,
    dtype: Dtype,
}

impl Embeddings {
    /// Random patches are scaled by how many values they sum (ViT-B/32: 1 / sqrt 3072 = 0.018, transformers' 0.02), so that a
    /// small tower's positions, `initializer_range`, are not drowned by them: without positions it learns no places.
    fn load(mut loader: Loader<'_>, config: &ClipVisionConfig) -> Self {
        let (hidden, patch, channels) = (config.hidden_size, config.patch_size, config.num_channels);
        let positions = [config.num_patches() + 1, hidden];
        let kernel = [hidden, channels, patch, patch];
        let scale = |inputs: usize| Init::Normal((inputs as f64).powf(-0.5));
        let position = Init::Normal(config.initializer_range);
        Self {
            class_embedding: loader.tensor("class_embedding", [hidden], scale(hidden)),
            patch_embedding: loader.tensor("patch_embedding.weight", kernel, scale(channels * patch * patch)),
            position_embedding: loader.tensor("position_embedding.weight", positions, position),
        }
    }

    /// The convolution's patches do not overlap: it is one product over flattened patches.
    ///
    /// # Shapes
    /// - pixels: `[images, channels, image_size, image_size]` -> `[images, 1 + patches, hidden_size]`
    fn forward(&self, pixels: Tensor<4>) -> Tensor<3> {
        let [images, channels, height, width] = pixels.dims();
        let [hidden, _, patch, _] = self.patch_embedding.dims();
        let (rows, columns) = (height / patch, width / patch);
        let patches = pixels
            .reshape([images, channels, rows, patch, columns, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([images * rows * columns, channels * patch * patch]);
        let kernel = self.patch_embedding.clone().reshape([hidden, channels * patch * patch]);
        let patches = rows_by_weight(patches, &kernel).reshape([images, rows * columns, hidden]);
        let class = self.class_embedding.clone().reshape([1, 1, hidden]).expand([images, 1, hidden]);
        Tensor::cat(vec![class, patches], 1) + self.position_embedding.clone().unsqueeze()
    }

    fn visit(&mut self, path: &str, visitor: &mut impl ParameterVisitor) {
        visitor.visit(&format!("{path}class_embedding"), &mut self.class_embedding);
        visitor.visit(&format!("{path}patch_embedding.weight"), &mut self.patch_embedding);
        visitor.visit(&format!("{path}position_embedding.weight"), &mut self.position_embedding);
    }
}

impl EncoderLayer {
    fn load(mut loader: Loader<'_>, config: &ClipVisionConfig) -> Self {
        let (hidden, wide, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        // As transformers' `CLIPPreTrainedModel._init_weights`.
        let width = (hidden as f64).powf(-0.5);
        let deep = width * (2.0 * config.num_hidden_layers as f64).powf(-0.5);
        let mut linear = |name: &str, inputs, outputs, std| {
            Linear::with_bias(loader.at(name), inputs, outputs, Init::Normal(std), Init::Zeros)
        };
        Self {
            q_proj: linear("self_attn.q_proj", hidden, hidden, deep),
            k_proj: linear("self_attn.k_proj", hidden, hidden, deep),
            v_proj: linear("self_attn.v_proj", hidden, hidden, deep),
            out_proj: linear("self_attn.out_proj", hidden, hidden, width),
            fc1: linear("mlp.fc1", hidden, wide, width * 0.5_f64.sqrt()),
            fc2: linear("mlp.fc2", wide, hidden, deep),
            layer_norm1: LayerNorm::load(loader.at("layer_norm1"), hidden, eps),
            layer_norm2: LayerNorm::load(loader.at("layer_norm2"), hidden, eps),
            heads: config.num_attention_heads,
            act: config.hidden_act,
        }
    }

    /// # Shapes
    /// - x: `[images, tokens, hidden_size]` -> the same
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x.clone() + self.self_attn(self.layer_norm1.forward(x));
        x.clone() + self.mlp(self.layer_norm2.forward(x))
    }

    fn self_attn(&self, x: Tensor<3>) -> Tensor<3> {
        let [images, tokens, hidden] = x.dims();
        let heads = |x: Tensor<3>| x.reshape([images, tokens, self.heads, hidden / self.heads]);
        let q = heads(self.q_proj.forward(x.clone()));
        let k = heads(self.k_proj.forward(x.clone())).swap_dims(1, 2);
        let v = heads(self.v_proj.forward(x)).swap_dims(1, 2);
        self.out_proj.forward(attention(q, k, v, None))
    }

    fn mlp(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.fc1.forward(x);
        self.fc2.forward(match self.act {
            HiddenAct::QuickGelu if !x.is_autodiff() && kernels::takes(&x) => kernels::quick_gelu(x),
            HiddenAct::QuickGelu => x.clone() * sigmoid(x * 1.702),
            HiddenAct::Gelu => gelu(x),
        })
    }

    fn visit(&mut self, path: &str, visitor: &mut impl ParameterVisitor) {
        self.layer_norm1.visit(&format!("{path}layer_norm1."), visitor);
        self.q_proj.visit(&format!("{path}self_attn.q_proj."), visitor);
        self.k_proj.visit(&format!("{path}self_attn.k_proj."), visitor);
        self.v_proj.visit(&format!("{path}self_attn.v_proj."), visitor);
        self.out_proj.visit(&format!("{path}self_attn.out_proj."), visitor);
        self.layer_norm2.visit(&format!("{path}layer_norm2."), visitor);
        self.fc1.visit(&format!("{path}mlp.fc1."), visitor);
        self.fc2.visit(&format!("{path}mlp.fc2."), visitor);
    }
}

impl ClipVision {
    /// Builds the tower that `config` describes.
    pub fn load(mut loader: Loader<'_>, config: &ClipVisionConfig) -> Self {
        let (hidden, eps) = (config.hidden_size, config.layer_norm_eps);
        let mut tower = loader.at("vision_model");
        let embeddings = Embeddings::load(tower.at("embeddings"), config);
        let pre_layrnorm = LayerNorm::load(tower.at("pre_layrnorm"), hidden, eps);
        let mut layers = tower.at("encoder.layers");
        let layers =
            (0..config.num_hidden_layers).map(|n| EncoderLayer::load(layers.at(n), config)).collect();
        let post_layernorm = LayerNorm::load(tower.at("post_layernorm"), hidden, eps);
        let dtype = tower.dtype();
        Self { embeddings, pre_layrnorm, layers, post_layernorm, config: config.clone(), dtype }
    }

    /// The sizes.
    pub fn config(&self) -> &ClipVisionConfig {
        &self.config
    }

    /// Says that all weights are f32 now.
    pub(crate) fn computes_in_f32(&mut self) {
        self.dtype = Dtype::F32;
    }

    /// Normalised pixels -> one state per patch: the last layer's, without the class token.
    ///
    /// # Shapes
    /// - pixels: `[images, channels, image_size, image_size]` -> `[images, patches, hidden_size]`
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<3> {
        let x = self.pre_layrnorm.forward(self.embeddings.forward(pixels));
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x));
        let patches = x.dims()[1] - 1;
        x.narrow(1, 1, patches)
    }

    /// What enters the first layer, then every layer's output.
    pub fn hidden_states(&self, pixels: Tensor<4>) -> Vec<Tensor<3>> {
        let mut states = vec![self.pre_layrnorm.forward(self.embeddings.forward(pixels))];
        for (n, layer) in self.layers.iter().enumerate() {
            states.push(layer.forward(states[n].clone()));
        }
        states
    }

    /// Bytes of RGB images, `[images, 3, image_size, image_size]` each, as the tower wants them. A quarter
    /// of the floats' bytes cross to the device, where they are normalised.
    pub fn normalise(&self, bytes: Vec<u8>, norm: &PixelNorm) -> Tensor<4> {
        let device = self.pre_layrnorm.weight.device().inner();
        let images = bytes.len() / self.config.pixels().max(1);
        let shape = [images, self.config.num_channels, self.config.image_size, self.config.image_size];
        let pixels: Tensor<4> = upload(TensorData::new(bytes, shape), &device).float().cast(DType::F32);
        let channel = |values: [f32; 3]| Tensor::<1>::from_floats(values, &device).reshape([1, 3, 1, 1]);
        ((pixels / 255.0 - channel(norm.mean)) / channel(norm.std)).cast(self.dtype.float())
    }

    /// The patch states of RGB images (bytes as [`ClipVision::normalise`] takes them), as f16: two bytes a number,
    /// `[images, patches, hidden_size]`. The error is the backend's.
    pub fn states_in_f16(&self, bytes: Vec<u8>, norm: &PixelNorm) -> Result<Vec<u8>, String> {
        let states = self.forward(self.normalise(bytes, norm));
        let data = states.try_into_data().map_err(|error| error.to_string())?;
        let data = data.try_cast(DType::F16).map_err(|error| error.to_string())?;
        Ok(data.bytes().to_vec())
    }

    /// Shows every parameter with its checkpoint key.
    pub fn visit(&mut self, visitor: &mut impl ParameterVisitor) {
        self.embeddings.visit("vision_model.embeddings.", visitor);
        self.pre_layrnorm.visit("vision_model.pre_layrnorm.", visitor);
        for (n, layer) in self.layers.iter_mut().enumerate() {
            layer.visit(&format!("vision_model.encoder.layers.{n}."), visitor);
        }
        self.post_layernorm.visit("vision_model.post_layernorm.", visitor);
    }
}

/// Bytes as an integer tensor, widened first where the device has no 8-bit integers.
fn upload(bytes: TensorData, device: &Device) -> Tensor<4, Int> {
    let dtype = if device.supports_dtype(DType::U8) { DType::U8 } else { DType::I32 };
    Tensor::from_data(bytes, (device, dtype))
}
