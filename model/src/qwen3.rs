//! The Qwen3 decoder (arXiv:2505.09388), dense variants.
//!
//! In: token embeddings `[batch, tokens, hidden_size]` and the mask of the batch. Out: the last hidden
//! states, and logits at the rows asked for. Follows transformers 5.23, `models/qwen3/modeling_qwen3.py`.
//!
//! ```text
//! x = embed_tokens(ids)
//! each layer:  x = x + attention(input_layernorm(x))
//!              x = x + mlp(post_attention_layernorm(x))
//! logits = lm_head(norm(x))
//! ```

mod recompute;

use burn::tensor::{FloatDType, Int, Tensor, TensorData, activation::silu};

use crate::attention::{TokenMask, attention};
use crate::cache::KvCache;
use crate::config::{Dtype, Qwen3Config};
use crate::kernels;
use crate::linear::Linear;
use crate::lora::{LoraAdapter, LoraConfig, LoraError};
use crate::norm::RmsNorm;
use crate::product::rows_by_weight;
use crate::rotary::{RotaryEmbedding, Rotation};
use crate::source::{Init, Loader, ParameterVisitor};

pub(crate) use recompute::Kept;

/// `model.layers.N.self_attn`: grouped-query attention with an RMS norm on every query and key head before
/// the rotary embedding.
#[derive(Clone, Debug)]
pub struct Attention {
    /// `[heads * head_dim, hidden_size]`.
    pub q_proj: Linear,
    /// `[kv_heads * head_dim, hidden_size]`.
    pub k_proj: Linear,
    /// `[kv_heads * head_dim, hidden_size]`.
    pub v_proj: Linear,
    /// `[hidden_size, heads * head_dim]`.
    pub o_proj: Linear,
    /// Over `head_dim`.
    pub q_norm: RmsNorm,
    /// Over `head_dim`.
    pub k_norm: RmsNorm,
    head_dim: usize,
}

/// `model.layers.N.mlp`: `down_proj(silu(gate_proj(x)) * up_proj(x))`.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// `[intermediate_size, hidden_size]`.
    pub gate_proj: Linear,
    /// `[intermediate_size, hidden_size]`.
    pub up_proj: Linear,
    /// `[hidden_size, intermediate_size]`.
    pub down_proj: Linear,
}

/// `model.layers.N`.
#[derive(Clone, Debug)]
pub struct DecoderLayer {
    /// Before attention.
    pub input_layernorm: RmsNorm,
    /// Attention.
    pub self_attn: Attention,
    /// Before the MLP.
    pub post_attention_layernorm: RmsNorm,
    /// Gated MLP.
    pub mlp: Mlp,
}

/// The whole language model.
#[derive(Clone, Debug)]
pub struct Qwen3 {
    /// `model.embed_tokens.weight`, `[vocab_size, hidden_size]`.
    pub embed_tokens: Tensor<2>,
    /// `model.layers`.
    pub layers: Vec<DecoderLayer>,
    /// `model.norm`.
    pub norm: RmsNorm,
    /// `lm_head.weight`, `[vocab_size, hidden_size]`; `None` when it is the token embedding (tied).
    pub lm_head: Option<Tensor<2>>,
    config: Qwen3Config,
    rotary: RotaryEmbedding,
    dtype: Dtype,
}

/// What all layers share in one forward pass.
struct Pass<'a> {
    rotation: Rotation,
    bias: Option<Tensor<5>>,
    past: Past<'a>,
}

/// What the tokens of a pass follow.
#[derive(Debug)]
pub enum Past<'a> {
    /// Nothing.
    Empty,
    /// The tokens in a cache, row by row; the new ones are added to it.
    Cache(&'a mut KvCache),
    /// The tokens of the one row in a cache, which all rows follow; it stays as it is.
    Shared(&'a KvCache),
}

impl Past<'_> {
    /// Keys and values of all tokens that those of `layer` may see.
    fn join(&mut self, layer: usize, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        match self {
            Self::Empty => (k, v),
            Self::Cache(cache) => cache.write(layer, k, v),
            Self::Shared(cache) => cache.before(layer, k, v),
        }
    }

    /// Announces new tokens; answers with the mask of all tokens.
    fn extend(&mut self, mask: &TokenMask) -> TokenMask {
        match self {
            Self::Empty => mask.clone(),
            Self::Cache(cache) => cache.extend(mask),
            Self::Shared(cache) => cache.mask_before(mask),
        }
    }
}

impl Attention {
    fn load(mut loader: Loader<'_>, config: &Qwen3Config) -> Self {
        let (hidden, head_dim) = (config.hidden_size, config.head_dim);
        let queries = config.num_attention_heads * head_dim;
        let keys = config.num_key_value_heads * head_dim;
        let mut linear = |name: &str, inputs, outputs| {
            let init = Init::Normal(config.initializer_range);
            if config.attention_bias {
                Linear::with_bias(loader.at(name), inputs, outputs, init, Init::Zeros)
            } else {
                Linear::without_bias(loader.at(name), inputs, outputs, init)
            }
        };
        Self {
            q_proj: linear("q_proj", hidden, queries),
            k_proj: linear("k_proj", hidden, keys),
            v_proj: linear("v_proj", hidden, keys),
            o_proj: linear("o_proj", queries, hidden),
            q_norm: RmsNorm::load(loader.at("q_norm"), head_dim, config.rms_norm_eps),
            k_norm: RmsNorm::load(loader.at("k_norm"), head_dim, config.rms_norm_eps),
            head_dim,
        }
    }

    /// What the heads gather, before `o_proj`.
    ///
    /// # Shapes
    /// - x: `[batch, tokens, hidden_size]` -> `[batch, tokens, heads * head_dim]`
    fn mix(&self, x: Tensor<3>, layer: usize, pass: &mut Pass<'_>) -> Tensor<3> {
        let (q, k, v) = self.project(x, &pass.rotation);
        let (k, v) = pass.past.join(layer, k, v);
        attention(q, k, v, pass.bias.as_ref())
    }

    /// As [`Attention::mix`] of one new token of each of several sequences, each after a past of its own.
    fn mix_each(
        &self,
        x: Tensor<3>,
        layer: usize,
        rotation: &Rotation,
        pasts: &mut [&mut KvCache],
    ) -> Tensor<3> {
        let (q, k, v) = self.project(x, rotation);
        let one = |row: usize, x: &Tensor<4>| x.clone().narrow(0, row, 1);
        let rows = pasts.iter_mut().enumerate().map(|(row, past)| {
            let (keys, values) = past.write(layer, one(row, &k), one(row, &v));
            attention(one(row, &q), keys, values, None)
        });
        Tensor::cat(rows.collect(), 0)
    }

    /// Queries, keys and values, turned by their positions.
    ///
    /// # Shapes
    /// - x: `[batch, tokens, hidden_size]`
    /// - result: `[batch, tokens, heads, head_dim]`, then `[batch, kv_heads, tokens, head_dim]` twice
    fn project(&self, x: Tensor<3>, rotation: &Rotation) -> (Tensor<4>, Tensor<4>, Tensor<4>) {
        let heads = |x: Tensor<3>| {
            let [batch, tokens, width] = x.dims();
            x.reshape([batch, tokens, width / self.head_dim, self.head_dim])
        };
        let q = self.q_norm.forward(heads(self.q_proj.forward(x.clone())));
        let k = self.k_norm.forward(heads(self.k_proj.forward(x.clone())));
        let v = heads(self.v_proj.forward(x));
        (rotation.apply(q), rotation.apply(k).swap_dims(1, 2), v.swap_dims(1, 2))
    }
}

impl Mlp {
    fn load(mut loader: Loader<'_>, config: &Qwen3Config) -> Self {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let init = Init::Normal(config.initializer_range);
        Self {
            gate_proj: Linear::without_bias(loader.at("gate_proj"), hidden, wide, init),
            up_proj: Linear::without_bias(loader.at("up_proj"), hidden, wide, init),
            down_proj: Linear::without_bias(loader.at("down_proj"), wide, hidden, init),
        }
    }

    /// # Shapes
    /// - x: `[..., hidden_size]` -> the same
    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let (gate, up) = (self.gate_proj.forward(x.clone()), self.up_proj.forward(x));
        self.down_proj.forward(if kernels::takes(&gate) {
            kernels::swiglu(gate, up)
        } else {
            silu(gate) * up
        })
    }
}

impl DecoderLayer {
    fn load(mut loader: Loader<'_>, config: &Qwen3Config) -> Self {
        let (hidden, eps) = (config.hidden_size, config.rms_norm_eps);
        Self {
            input_layernorm: RmsNorm::load(loader.at("input_layernorm"), hidden, eps),
            self_attn: Attention::load(loader.at("self_attn"), config),
            post_attention_layernorm: RmsNorm::load(loader.at("post_attention_layernorm"), hidden, eps),
            mlp: Mlp::load(loader.at("mlp"), config),
        }
    }

    /// # Shapes
    /// - x: `[batch, tokens, hidden_size]` -> the same
    fn forward(&self, x: Tensor<3>, layer: usize, pass: &mut Pass<'_>) -> Tensor<3> {
        let mixed = self.self_attn.mix(self.input_layernorm.forward(x.clone()), layer, pass);
        self.after_attention(x, mixed)
    }

    /// What becomes of the stream `x` and of what the heads gathered for it, `mixed`.
    fn after_attention<const D: usize>(&self, x: Tensor<D>, mixed: Tensor<D>) -> Tensor<D> {
        let x = x + self.self_attn.o_proj.forward(mixed);
        x.clone() + self.mlp.forward(self.post_attention_layernorm.forward(x))
    }

    /// As [`DecoderLayer::forward`] of one new token of each of several sequences.
    fn forward_each(
        &self,
        x: Tensor<3>,
        layer: usize,
        rotation: &Rotation,
        pasts: &mut [&mut KvCache],
    ) -> Tensor<3> {
        let mixed = self.self_attn.mix_each(self.input_layernorm.forward(x.clone()), layer, rotation, pasts);
        self.after_attention(x, mixed)
    }

    /// As [`DecoderLayer::forward`], of the rows at `positions` of the flattened batch alone: what is not looked at
    /// afterwards needs keys and values, but no output and no MLP.
    ///
    /// # Shapes
    /// - x: `[batch, tokens, hidden_size]` -> `[positions, hidden_size]`
    fn forward_at(&self, x: Tensor<3>, layer: usize, pass: &mut Pass<'_>, positions: &[usize]) -> Tensor<2> {
        let mixed = self.self_attn.mix(self.input_layernorm.forward(x.clone()), layer, pass);
        self.after_attention(rows(x, positions), rows(mixed, positions))
    }

    /// The layer's linears by their names in it.
    fn linears(&mut self) -> [(&'static str, &mut Linear); 7] {
        let (attn, mlp) = (&mut self.self_attn, &mut self.mlp);
        [
            ("self_attn.q_proj", &mut attn.q_proj),
            ("self_attn.k_proj", &mut attn.k_proj),
            ("self_attn.v_proj", &mut attn.v_proj),
            ("self_attn.o_proj", &mut attn.o_proj),
            ("mlp.gate_proj", &mut mlp.gate_proj),
            ("mlp.up_proj", &mut mlp.up_proj),
            ("mlp.down_proj", &mut mlp.down_proj),
        ]
    }

    fn visit(&mut self, path: &str, visitor: &mut impl ParameterVisitor) {
        self.input_layernorm.visit(&format!("{path}input_layernorm."), visitor);
        for (name, linear) in self.linears() {
            linear.visit(&format!("{path}{name}."), visitor);
        }
        self.self_attn.q_norm.visit(&format!("{path}self_attn.q_norm."), visitor);
        self.self_attn.k_norm.visit(&format!("{path}self_attn.k_norm."), visitor);
        self.post_attention_layernorm.visit(&format!("{path}post_attention_layernorm."), visitor);
    }
}

impl Qwen3 {
    /// Builds the model that `config` describes.
    pub fn load(mut loader: Loader<'_>, config: &Qwen3Config) -> Self {
        let init = Init::Normal(config.initializer_range);
        let table = [config.vocab_size, config.hidden_size];
        let mut model = loader.at("model");
        let embed_tokens = model.tensor("embed_tokens.weight", table, init);
        let mut layers = model.at("layers");
        let layers =
            (0..config.num_hidden_layers).map(|n| DecoderLayer::load(layers.at(n), config)).collect();
        let norm = RmsNorm::load(model.at("norm"), config.hidden_size, config.rms_norm_eps);
        Self {
            embed_tokens,
            layers,
            norm,
            lm_head: (!config.tie_word_embeddings).then(|| loader.tensor("lm_head.weight", table, init)),
            rotary: RotaryEmbedding::new(config.head_dim, config.rope_theta),
            dtype: loader.dtype(),
            config: config.clone(),
        }
    }

    /// The sizes.
    pub fn config(&self) -> &Qwen3Config {
        &self.config
    }

    /// What weights and activations are held in.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Says that all weights are f32 now.
    pub(crate) fn computes_in_f32(&mut self) {
        self.dtype = Dtype::F32;
    }

    /// The embeddings of `ids`, which must be below `vocab_size`: `[ids, hidden_size]`.
    pub fn embed(&self, ids: &[u32]) -> Tensor<2> {
        let ids: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let count = ids.len();
        let device = self.embed_tokens.device().inner();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), &device);
        let table = self.embed_tokens.clone();
        if !table.is_tracked() {
            return table.select(0, ids);
        }
        // The gradients of one token's places add up in f32: in bf16 the 257th of equal ones no longer counts.
        table.cast(FloatDType::F32).select(0, ids).cast(self.dtype.float())
    }

    /// The final hidden states, after `model.norm`.
    ///
    /// # Shapes
    /// - x: `[batch, tokens, hidden_size]` (embeddings) -> the same
    pub fn forward(&self, x: Tensor<3>, mask: &TokenMask) -> Tensor<3> {
        let mut pass = self.pass(mask, Past::Empty);
        self.norm.forward(self.run(x, &mut pass))
    }

    /// The final hidden states at `positions` of the flattened batch alone, of tokens that follow `past`: the last layer
    /// leaves the others out.
    ///
    /// # Shapes
    /// - x: `[batch, tokens, hidden_size]` (embeddings) -> `[positions, hidden_size]`
    pub fn forward_at(
        &self,
        x: Tensor<3>,
        mask: &TokenMask,
        past: Past<'_>,
        positions: &[usize],
    ) -> Tensor<2> {
        let mut pass = self.pass(mask, past);
        let Some((last, before)) = self.layers.split_last() else {
            return self.norm.forward(rows(x, positions));
        };
        let x = before.iter().enumerate().fold(x, |x, (n, layer)| layer.forward(x, n, &mut pass));
        self.norm.forward(last.forward_at(x, before.len(), &mut pass, positions))
    }

    /// As [`Qwen3::forward`] for tokens that follow those in `cache`; adds them to it. `mask` says which of
    /// the new tokens are real.
    pub fn forward_cached(&self, x: Tensor<3>, mask: &TokenMask, cache: &mut KvCache) -> Tensor<3> {
        let mut pass = self.pass(mask, Past::Cache(cache));
        self.norm.forward(self.run(x, &mut pass))
    }

    /// The final hidden states of one new token of each of several sequences, each after a past of its own, to which the token
    /// is added. The linears see all rows at once, so that a weight is read once for all of them; attention sees each sequence
    /// alone, so that nothing is padded and a sequence can join or leave between two tokens.
    ///
    /// # Shapes
    /// - x: `[sequences, 1, hidden_size]` (embeddings) -> the same
    pub fn forward_each(&self, x: Tensor<3>, pasts: &mut [&mut KvCache]) -> Tensor<3> {
        let one = TokenMask::full(1, 1);
        let positions: Vec<u32> = pasts
            .iter_mut()
            .map(|past| past.extend(&one).positions().last().copied().unwrap_or_default())
            .collect();
        let device = self.embed_tokens.device().inner();
        let rotation = self.rotary.at(&positions, positions.len(), &device, self.dtype);
        let layers = self.layers.iter().enumerate();
        let x = layers.fold(x, |x, (n, layer)| layer.forward_each(x, n, &rotation, pasts));
        self.norm.forward(x)
    }

    /// The embeddings, then every layer's output (the last before `model.norm`).
    pub fn hidden_states(&self, x: Tensor<3>, mask: &TokenMask) -> Vec<Tensor<3>> {
        let mut pass = self.pass(mask, Past::Empty);
        let mut states = vec![x];
        for (n, layer) in self.layers.iter().enumerate() {
            let x = states[n].clone();
            states.push(layer.forward(x, n, &mut pass));
        }
        states
    }

    /// `[rows, hidden_size]` final hidden states -> `[rows, vocab_size]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        rows_by_weight(hidden, self.head())
    }

    /// The head's weight, `[vocab_size, hidden_size]`.
    pub fn head(&self) -> &Tensor<2> {
        self.lm_head.as_ref().unwrap_or(&self.embed_tokens)
    }

    /// Puts an adapter beside every linear that `config` targets; keys are PEFT's without their
    /// `base_model.model.` in front. At least one linear must be targeted.
    pub fn add_lora(&mut self, mut loader: Loader<'_>, config: &LoraConfig) -> Result<(), LoraError> {
        config.validate(&self.linear_names())?;
        let matcher = config.matcher()?;
        self.for_each_linear(|name, linear| {
            if let Some(adapter) = matcher.adapter(name) {
                let [outputs, inputs] = linear.weight.dims();
                linear.adapter = Some(LoraAdapter::load(loader.at(name), &adapter, inputs, outputs));
            }
        });
        Ok(())
    }

    /// The dotted names of the layers' linears, which an adapter may target.
    pub fn linear_names(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        self.for_each_linear(|name, _| names.push(name.to_owned()));
        names
    }

    /// Adds every adapter's update to its weight.
    pub fn merge_lora(&mut self) {
        self.for_each_linear(|_, linear| linear.merge());
    }

    /// Takes every merged update out again.
    pub fn unmerge_lora(&mut self) {
        self.for_each_linear(|_, linear| linear.unmerge());
    }

    /// Every linear of the layers with its dotted name, such as `model.layers.0.self_attn.q_proj`.
    pub fn for_each_linear(&mut self, mut each: impl FnMut(&str, &mut Linear)) {
        for (n, layer) in self.layers.iter_mut().enumerate() {
            for (name, linear) in layer.linears() {
                each(&format!("model.layers.{n}.{name}"), linear);
            }
        }
    }

    /// Every adapter with the dotted name of its linear.
    pub fn for_each_adapter(&mut self, mut each: impl FnMut(&str, &mut LoraAdapter)) {
        self.for_each_linear(|name, linear| {
            if let Some(adapter) = &mut linear.adapter {
                each(name, adapter);
            }
        });
    }

    /// Shows every parameter with its checkpoint key.
    pub fn visit(&mut self, visitor: &mut impl ParameterVisitor) {
        visitor.visit("model.embed_tokens.weight", &mut self.embed_tokens);
        for (n, layer) in self.layers.iter_mut().enumerate() {
            layer.visit(&format!("model.layers.{n}."), visitor);
        }
        self.norm.visit("model.norm.", visitor);
        if let Some(head) = &mut self.lm_head {
            visitor.visit("lm_head.weight", head);
        }
    }

    fn run(&self, x: Tensor<3>, pass: &mut Pass<'_>) -> Tensor<3> {
        self.layers.iter().enumerate().fold(x, |x, (n, layer)| layer.forward(x, n, pass))
    }

    /// Angles and mask of new tokens behind `past`.
    fn pass<'a>(&self, new: &TokenMask, mut past: Past<'a>) -> Pass<'a> {
        let (mask, new) = (past.extend(new), new.tokens());
        let device = self.embed_tokens.device().inner();
        let positions = mask.positions();
        let last = positions.chunks(mask.tokens().max(1)).flat_map(|row| &row[row.len() - new..]);
        let last: Vec<u32> = last.copied().collect();
        Pass {
            rotation: self.rotary.at(&last, mask.batch(), &device, self.dtype),
            bias: mask.causal_bias(new, &device),
            past,
        }
    }
}

/// The rows of `x` at `positions` of the flattened batch: `[positions, width]`.
pub(crate) fn rows(x: Tensor<3>, positions: &[usize]) -> Tensor<2> {
    let positions: Vec<i32> = positions.iter().map(|position| *position as i32).collect();
    let count = positions.len();
    let device = x.device().inner();
    let positions = Tensor::<1, Int>::from_data(TensorData::new(positions, [count]), &device);
    x.flatten::<2>(0, 1).select(0, positions)
}
