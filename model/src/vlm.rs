//! The vision-language model (LLaVA, arXiv:2304.08485): image features take the places of the image pads.
//!
//! In: token ids with `<|image_pad|>` where a patch goes, the patch states of the images, and the mask. Out:
//! hidden states, the loss of answer tokens, or logits at chosen positions.

use burn::tensor::{Device, FloatDType, Gradients, Int, Tensor, TensorData};

use crate::attention::TokenMask;
use crate::cache::KvCache;
use crate::clip::ClipVision;
use crate::loss::{AnswerLoss, answer_loss, answer_positions};
use crate::projector::Projector;
use crate::qwen3::{Kept, Past, Qwen3, rows};
use crate::source::ParameterVisitor;

/// Vision tower, projector and language model.
#[derive(Clone, Debug)]
pub struct Vlm {
    /// Makes patch states of pixels. May be left out where these are already computed.
    pub clip: Option<ClipVision>,
    /// From the tower's width to the language model's.
    pub projector: Projector,
    /// The language model.
    pub qwen: Qwen3,
    /// The token that a patch replaces: `<|image_pad|>`, 151655 in Qwen3's tokenizer.
    pub image_pad_id: u32,
    /// Whether the decoder's input gathers gradients along with the parameters: on everything but the CPU.
    /// Burn issue 5162: on some GPU backends a backward that tracks parameters alone gives zero or NaN
    /// gradients. `doctor` checks the result.
    pub track_input: bool,
}

/// One padded batch.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// Token ids, `[batch, tokens]` row after row.
    pub input_ids: &'a [u32],
    /// Which of them are real.
    pub mask: &'a TokenMask,
    /// Patch states `[images, patches, vision hidden]` of the images, in the order of their pads. `None`
    /// when no row has an image.
    pub features: Option<Tensor<3>>,
}

/// Why a batch fits no model.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BatchError {
    /// Ids and mask differ in number.
    #[error("batch: {ids} token ids, but a mask of {mask}")]
    Length {
        /// Token ids.
        ids: usize,
        /// Entries of the mask.
        mask: usize,
    },
    /// Pads and patches differ in number.
    #[error(
        "batch: {pads} image pads for {patches} patches (images: {images}); `count` of image-pads must equal \
         the patches of the vision tower"
    )]
    Pads {
        /// Image pads among the ids.
        pads: usize,
        /// Patch states given.
        patches: usize,
        /// Images given.
        images: usize,
    },
    /// An id has no embedding.
    #[error("batch: token id {id}, but the language model has {vocab} embeddings; is the tokenizer its own?")]
    Vocabulary {
        /// The id.
        id: u32,
        /// Rows of the embedding.
        vocab: usize,
    },
    /// More tokens than the model was trained for.
    #[error("batch: {tokens} tokens, but the language model ends at max_position_embeddings = {limit}")]
    Positions {
        /// Tokens of a row, those in the cache included.
        tokens: usize,
        /// The limit.
        limit: usize,
    },
    /// The cache holds another number of rows.
    #[error("batch: {rows} rows, but the cache holds the past of {cached}")]
    Rows {
        /// Rows of the batch.
        rows: usize,
        /// Rows of the cache.
        cached: usize,
    },
    /// No label is a token.
    #[error("batch: no label is a token, so there is no loss")]
    NoAnswer,
}

impl Vlm {
    /// A model of its parts, all on one device.
    pub fn new(clip: Option<ClipVision>, projector: Projector, qwen: Qwen3, image_pad_id: u32) -> Self {
        let track_input = qwen.embed_tokens.device() != Device::flex();
        Self { clip, projector, qwen, image_pad_id, track_input }
    }

    /// Embeddings of the ids, with the projected patch states at the image pads, in order.
    ///
    /// # Shapes
    /// - result: `[batch, tokens, hidden_size]`
    pub fn embed(&self, batch: &Batch<'_>) -> Result<Tensor<3>, BatchError> {
        self.check(batch)?;
        let shape = [batch.mask.batch(), batch.mask.tokens(), self.qwen.config().hidden_size];
        let is_pad = |id: &u32| *id == self.image_pad_id;
        let Some(features) = batch.features.as_ref().filter(|features| features.dims()[0] > 0) else {
            return Ok(self.qwen.embed(batch.input_ids).reshape(shape));
        };
        let words: Vec<u32> = batch.input_ids.iter().copied().filter(|id| !is_pad(id)).collect();
        let patches = self.projector.forward(features.clone()).flatten::<2>(0, 1);
        if words.is_empty() {
            return Ok(patches.reshape(shape));
        }
        // Every position takes its row from the words or from the patches that follow them.
        let (mut word, mut patch) = (0, words.len() as i32);
        let rows = batch.input_ids.iter().map(|id| {
            let next = if is_pad(id) { &mut patch } else { &mut word };
            *next += 1;
            *next - 1
        });
        let rows: Vec<i32> = rows.collect();
        let count = rows.len();
        let device = patches.device().inner();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &device);
        Ok(Tensor::cat(vec![self.qwen.embed(&words), patches], 0).select(0, rows).reshape(shape))
    }

    /// The final hidden states, `[batch, tokens, hidden_size]`.
    pub fn hidden(&self, batch: &Batch<'_>) -> Result<Tensor<3>, BatchError> {
        Ok(self.qwen.forward(self.decoder_input(batch)?, batch.mask))
    }

    /// As [`Vlm::hidden`] for tokens that follow those in `cache`; adds them to it.
    pub fn hidden_cached(&self, batch: &Batch<'_>, cache: &mut KvCache) -> Result<Tensor<3>, BatchError> {
        self.check_past(batch, cache)?;
        Ok(self.qwen.forward_cached(self.decoder_input(batch)?, batch.mask, cache))
    }

    /// As [`Vlm::hidden_cached`], of each row's last token alone: `[batch, hidden_size]`.
    pub fn last_hidden_cached(
        &self,
        batch: &Batch<'_>,
        cache: &mut KvCache,
    ) -> Result<Tensor<2>, BatchError> {
        self.check_past(batch, cache)?;
        let tokens = batch.mask.tokens();
        let last: Vec<usize> = (1..=batch.mask.batch()).map(|row| row * tokens - 1).collect();
        Ok(self.qwen.forward_at(self.decoder_input(batch)?, batch.mask, Past::Cache(cache), &last))
    }

    /// Logits at `positions` of the flattened batch: `[positions, vocab_size]`.
    pub fn logits_at(&self, hidden: Tensor<3>, positions: &[usize]) -> Tensor<2> {
        self.qwen.logits(rows(hidden, positions))
    }

    /// The loss at the positions whose label is a token (not negative). `labels` has the shape of the ids;
    /// each label is the token that follows its position.
    pub fn loss(&self, batch: &Batch<'_>, labels: &[i32]) -> Result<AnswerLoss, BatchError> {
        self.answer_loss(batch, labels, Past::Empty)
    }

    /// As [`Vlm::loss`] for rows that all follow the one row in `prefix`, which is computed once and shared.
    /// Only for a language model that stays as it was when `prefix` was made: no gradient passes through it.
    pub fn loss_after(
        &self,
        prefix: &KvCache,
        batch: &Batch<'_>,
        labels: &[i32],
    ) -> Result<AnswerLoss, BatchError> {
        self.check_positions(prefix.tokens() + batch.mask.tokens())?;
        self.answer_loss(batch, labels, Past::Shared(prefix))
    }

    /// As [`Vlm::loss`] or [`Vlm::loss_after`], and goes back through the model at once, computing every decoder layer again
    /// (`qwen3/recompute.rs`): `gather` is handed the gradients of the loss divided by `answer_tokens`, those of some parameters
    /// at a time.
    pub fn learn(
        &self,
        prefix: Option<&KvCache>,
        batch: &Batch<'_>,
        labels: &[i32],
        answer_tokens: usize,
        gather: &mut dyn FnMut(Gradients),
    ) -> Result<AnswerLoss, BatchError> {
        let (positions, targets) = self.answers(batch, labels)?;
        self.check_positions(prefix.map_or(0, KvCache::tokens) + batch.mask.tokens())?;
        let input = self.decoder_input(batch)?;
        let plain = self.untracked().qwen;
        let mut kept = Kept::of(&plain, input.clone().inner(), batch.mask, prefix);
        let Some((last, hidden)) = kept.last(&self.qwen, &positions) else {
            return Err(BatchError::NoAnswer);
        };
        let loss = answer_loss(hidden, self.qwen.head(), &targets);
        let mut gradients = (loss.sum.clone() / answer_tokens as f64).backward();
        let gradient = last.grad_remove(&mut gradients);
        gather(gradients);
        let gradient = gradient.and_then(|gradient| kept.back(&self.qwen, gradient, gather));
        if let Some(gradient) = gradient.filter(|_| input.is_tracked()) {
            gather((input * gradient).sum().backward());
        }
        Ok(AnswerLoss { sum: loss.sum.inner(), ..loss })
    }

    /// Shows every parameter; the projector's keys gain `projector.` in front.
    pub fn visit(&mut self, visitor: &mut impl ParameterVisitor) {
        if let Some(clip) = &mut self.clip {
            clip.visit(visitor);
        }
        self.projector.visit("projector.", visitor);
        self.qwen.visit(visitor);
    }

    /// Makes every parameter whose key `chosen` accepts gather gradients, and no other.
    pub fn train_only(&mut self, chosen: impl Fn(&str) -> bool) {
        self.visit(&mut Trainable { chosen });
    }

    /// The same model for inference: outside of autodiff, so that no graph is kept, and with dropout off.
    #[must_use]
    pub fn for_inference(&self) -> Self {
        let mut model = self.untracked();
        model.qwen.for_each_adapter(|_, adapter| adapter.draw = None);
        model
    }

    /// The same model on the CPU in f32, outside of autodiff.
    #[must_use]
    pub(crate) fn on_cpu(&self) -> Self {
        let mut model = self.clone();
        model.visit(&mut ToCpu);
        model.qwen.computes_in_f32();
        if let Some(clip) = &mut model.clip {
            clip.computes_in_f32();
        }
        model.track_input = false;
        model
    }

    /// The same model outside of autodiff; it drops what this one does.
    fn untracked(&self) -> Self {
        let mut model = self.clone();
        model.train_only(|_| false);
        model
    }

    fn answer_loss(
        &self,
        batch: &Batch<'_>,
        labels: &[i32],
        past: Past<'_>,
    ) -> Result<AnswerLoss, BatchError> {
        let (positions, targets) = self.answers(batch, labels)?;
        let input = self.decoder_input(batch)?;
        let hidden = self.qwen.forward_at(input, batch.mask, past, &positions);
        Ok(answer_loss(hidden, self.qwen.head(), &targets))
    }

    /// Where the answer tokens of a batch are predicted, and what they are.
    fn answers(&self, batch: &Batch<'_>, labels: &[i32]) -> Result<(Vec<usize>, Vec<u32>), BatchError> {
        if labels.len() != batch.input_ids.len() {
            return Err(BatchError::Length { ids: labels.len(), mask: batch.input_ids.len() });
        }
        let (positions, targets) = answer_positions(labels);
        if targets.is_empty() {
            return Err(BatchError::NoAnswer);
        }
        self.check_ids(&targets)?;
        Ok((positions, targets))
    }

    /// The embeddings, gathering gradients where [`Vlm::track_input`] asks for it.
    fn decoder_input(&self, batch: &Batch<'_>) -> Result<Tensor<3>, BatchError> {
        let embeddings = self.embed(batch)?;
        if !self.track_input || embeddings.is_tracked() {
            return Ok(embeddings);
        }
        let mut any = AnyTrainable(false);
        self.clone().visit(&mut any);
        Ok(if any.0 { embeddings.autodiff().require_grad() } else { embeddings })
    }

    fn check(&self, batch: &Batch<'_>) -> Result<(), BatchError> {
        let (ids, mask) = (batch.input_ids.len(), batch.mask.real().len());
        if ids != mask {
            return Err(BatchError::Length { ids, mask });
        }
        let [images, per_image, _] = batch.features.as_ref().map_or([0; 3], Tensor::dims);
        let pads = batch.input_ids.iter().filter(|id| **id == self.image_pad_id).count();
        if pads != images * per_image {
            return Err(BatchError::Pads { pads, patches: images * per_image, images });
        }
        self.check_positions(batch.mask.tokens())?;
        self.check_ids(batch.input_ids)
    }

    /// Whether the batch can follow what is in the cache.
    fn check_past(&self, batch: &Batch<'_>, cache: &KvCache) -> Result<(), BatchError> {
        let (rows, cached) = (batch.mask.batch(), cache.rows().unwrap_or(batch.mask.batch()));
        if rows != cached {
            return Err(BatchError::Rows { rows, cached });
        }
        self.check_positions(cache.tokens() + batch.mask.tokens())
    }

    fn check_positions(&self, tokens: usize) -> Result<(), BatchError> {
        let limit = self.qwen.config().max_position_embeddings;
        if tokens > limit { Err(BatchError::Positions { tokens, limit }) } else { Ok(()) }
    }

    fn check_ids(&self, ids: &[u32]) -> Result<(), BatchError> {
        let vocab = self.qwen.config().vocab_size;
        let unknown = ids.iter().find(|id| **id as usize >= vocab && **id != self.image_pad_id);
        unknown.map_or(Ok(()), |id| Err(BatchError::Vocabulary { id: *id, vocab }))
    }
}

struct Trainable<F> {
    chosen: F,
}

impl<F: Fn(&str) -> bool> ParameterVisitor for Trainable<F> {
    fn visit<const D: usize>(&mut self, key: &str, parameter: &mut Tensor<D>) {
        let plain = parameter.clone().inner();
        *parameter = if (self.chosen)(key) { plain.autodiff().require_grad() } else { plain };
    }
}

/// Moves parameters to the CPU, in f32.
struct ToCpu;

impl ParameterVisitor for ToCpu {
    fn visit<const D: usize>(&mut self, _key: &str, parameter: &mut Tensor<D>) {
        *parameter = parameter.clone().inner().to_device(&Device::flex()).cast(FloatDType::F32);
    }
}

/// Whether any parameter gathers gradients.
struct AnyTrainable(bool);

impl ParameterVisitor for AnyTrainable {
    fn visit<const D: usize>(&mut self, _key: &str, parameter: &mut Tensor<D>) {
        self.0 |= parameter.is_require_grad();
    }
}
