//! The loop's body: one optimiser step from several micro-batches.

use burn::tensor::{FloatDType, Tensor};

use super::adamw::AdamW;
use super::arguments::TrainingArguments;
use super::batch::MicroBatch;
use super::error::TrainError;
use super::gradients::{Gradients, clip_factor};
use super::masters::{self, Masters};
use super::parts::{Counted, Part};
use super::prefix::Prefixes;
use super::schedule::Schedule;
use crate::config::PixelNorm;
use crate::loss::AnswerLoss;
use crate::vlm::{Batch, Vlm};

/// A model in training.
#[derive(Clone, Debug)]
pub struct Trainer {
    pub(super) model: Vlm,
    pub(super) arguments: TrainingArguments,
    pub(super) parts: Vec<Part>,
    pub(super) schedule: Schedule,
    pub(super) optimizer: AdamW,
    /// Steps taken.
    pub(super) step: u64,
    /// Answer tokens learned from.
    pub(super) answer_tokens: u64,
    norm: PixelNorm,
    prefixes: Option<Prefixes>,
    /// Of parameters that are not trained, as they were given.
    frozen_masters: Masters,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Steps taken, this one included.
    pub step: u64,
    /// Mean negative log-likelihood of the step's answer tokens in nats, before the update.
    pub loss: f64,
    /// The learning rate of the update.
    pub learning_rate: f64,
    /// Length of the gradient before clipping.
    pub grad_norm: f32,
    /// Answer tokens of the step.
    pub answer_tokens: usize,
    /// Answer tokens that were the likeliest, before the update.
    pub correct: usize,
    /// Tokens of the step, padding left out.
    pub tokens: usize,
}

/// Values of a step that wait on the device: `[1]` each.
struct Pending {
    micro_batch: usize,
    loss: Tensor<1>,
    correct: Tensor<1>,
}

impl Trainer {
    /// A trainer of the `parts` of `model` for `total_steps` steps. `norm` is applied to the bytes of pixels. Parameters that are
    /// f32 in a model of another type are masters: training goes on from them, not from what is left after rounding.
    pub fn new(
        mut model: Vlm,
        norm: PixelNorm,
        arguments: TrainingArguments,
        parts: &[Part],
        total_steps: u64,
    ) -> Result<Self, TrainError> {
        arguments.validate()?;
        let mut parts = parts.to_vec();
        parts.sort_unstable();
        parts.dedup();
        let masters = masters::split(&mut model);
        Part::train(&parts, &mut model)?;
        let (trained, frozen_masters) =
            masters.into_iter().partition(|(key, _)| parts.contains(&Part::of(key)));
        let mut optimizer = AdamW::new(&arguments);
        optimizer.begin_from(trained);
        Ok(Self {
            schedule: arguments.schedule(total_steps),
            optimizer,
            frozen_masters,
            step: 0,
            answer_tokens: 0,
            model,
            arguments,
            parts,
            norm,
            prefixes: None,
        })
    }

    /// Computes what all rows of a micro-batch begin with once, and not again while the beginning stays the same. Only where
    /// the language model learns nothing; otherwise this does nothing.
    #[must_use]
    pub fn with_shared_prefix(mut self) -> Self {
        let learns = [Part::Language, Part::Lora].iter().any(|part| self.parts.contains(part));
        self.prefixes = (!learns).then(Prefixes::default);
        self
    }

    /// One optimiser step. The loss is the mean over the answer tokens of all `micro_batches` together, not the
    /// mean of their means. After an error nothing has changed.
    pub fn step(&mut self, micro_batches: Vec<MicroBatch>) -> Result<StepReport, TrainError> {
        let step = self.step + 1;
        let answer_tokens: usize = micro_batches.iter().map(MicroBatch::answer_tokens).sum();
        let tokens = micro_batches.iter().map(MicroBatch::tokens).sum();
        if answer_tokens == 0 {
            return Err(TrainError::NoAnswer { step });
        }
        let mut gradients = Gradients::default();
        let mut pending = Vec::with_capacity(micro_batches.len());
        for (index, micro_batch) in micro_batches.into_iter().enumerate() {
            if micro_batch.answer_tokens() == 0 {
                continue;
            }
            self.draw_dropout(step, index);
            let answer = self.learn(micro_batch, index, answer_tokens, &mut gradients)?;
            pending.push(Pending {
                micro_batch: index,
                loss: answer.sum.inner(),
                correct: answer.correct.cast(FloatDType::F32).sum(),
            });
        }
        let (loss, correct, grad_norm) = read(step, pending, &gradients)?;
        let factor = clip_factor(grad_norm, self.arguments.max_grad_norm);
        if factor < 1.0 {
            gradients.scale(factor);
        }
        let learning_rate = self.schedule.at(self.step);
        self.optimizer.update(&mut self.model, &mut gradients, learning_rate);
        self.step = step;
        self.answer_tokens += answer_tokens as u64;
        let loss = loss / answer_tokens as f64;
        Ok(StepReport { step, loss, learning_rate, grad_norm, answer_tokens, correct, tokens })
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Answer tokens learned from in all steps.
    pub fn answer_tokens(&self) -> u64 {
        self.answer_tokens
    }

    /// The learning rates of the run.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The parts that are trained, each once, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// How many values the model has, and how many of them are trained.
    pub fn parameters(&mut self) -> (u64, u64) {
        let mut counted = Counted::default();
        self.model.visit(&mut counted);
        (counted.all, counted.trained)
    }

    /// The model as it is now; to measure it, use its [`Vlm::for_inference`].
    pub fn model(&self) -> &Vlm {
        &self.model
    }

    /// The model, outside of autodiff, with projector and adapters in f32: to be saved.
    pub fn into_model(self) -> Vlm {
        let mut model = self.model.for_inference();
        let mut masters = self.frozen_masters;
        let slots = self.optimizer.slots.into_iter();
        masters.extend(slots.filter_map(|(key, slot)| Some((key, slot.master?))));
        masters::join(&mut model, masters);
        model
    }

    /// The loss of a micro-batch; adds the gradients of its share in the loss of a step with `answer_tokens`.
    fn learn(
        &mut self,
        mut micro_batch: MicroBatch,
        index: usize,
        answer_tokens: usize,
        gradients: &mut Gradients,
    ) -> Result<AnswerLoss, TrainError> {
        let step = self.step + 1;
        let fault = |source| TrainError::Batch { step, micro_batch: index, source };
        let prefix = match &mut self.prefixes {
            Some(prefixes) => prefixes.split(&self.model, &mut micro_batch).map_err(fault)?,
            None => None,
        };
        let MicroBatch { input_ids, labels, mask, images } = micro_batch;
        let features = images.features(&self.model, &self.norm).map_err(|why| TrainError::Images {
            step,
            micro_batch: index,
            why,
        })?;
        let batch = Batch { input_ids: &input_ids, mask: &mask, features };
        let prefix = prefix.as_ref();
        if self.arguments.gradient_checkpointing {
            let mut model = self.model.clone();
            let mut gather = |found| gradients.add(&mut model, found);
            return self.model.learn(prefix, &batch, &labels, answer_tokens, &mut gather).map_err(fault);
        }
        let loss = match prefix {
            Some(prefix) => self.model.loss_after(prefix, &batch, &labels),
            None => self.model.loss(&batch, &labels),
        };
        let loss = loss.map_err(fault)?;
        // Rows without images have nothing to teach a projector that is trained alone.
        if loss.sum.is_tracked() {
            gradients.add(&mut self.model, (loss.sum.clone() / answer_tokens as f64).backward());
        }
        Ok(loss)
    }

    /// Dropout masks depend on seed, step, micro-batch and adapter alone, so that a continued run draws what an undisturbed
    /// one would, and a layer that is computed again drops the same.
    fn draw_dropout(&mut self, step: u64, micro_batch: usize) {
        if !self.parts.contains(&Part::Lora) {
            return;
        }
        let mut hasher = blake3::Hasher::new();
        for number in [self.arguments.seed, step, micro_batch as u64] {
            hasher.update(&number.to_le_bytes());
        }
        self.model.qwen.for_each_adapter(|name, adapter| {
            let hash = *hasher.clone().update(name.as_bytes()).finalize().as_bytes();
            adapter.draw = hash.first_chunk().map(|first| u64::from_le_bytes(*first));
        });
    }
}

/// Loss summed over answer tokens, answers that were the likeliest, and the gradient's norm: read from the device
/// in one go, and refused unless all are numbers.
fn read(step: u64, pending: Vec<Pending>, gradients: &Gradients) -> Result<(f64, usize, f32), TrainError> {
    let indices: Vec<usize> = pending.iter().map(|pending| pending.micro_batch).collect();
    let mut values: Vec<Tensor<1>> = pending.into_iter().flat_map(|p| [p.loss, p.correct]).collect();
    values.extend(gradients.norm());
    let device = |why: String| TrainError::Device { step, why };
    let values =
        Tensor::cat(values, 0).try_into_vec_as::<f32>().map_err(|error| device(error.to_string()))?;

    let (mut loss, mut correct) = (0.0, 0);
    for (micro_batch, pair) in indices.iter().zip(values.chunks_exact(2)) {
        let [sum, right] = pair else { continue };
        if !sum.is_finite() {
            return Err(TrainError::Loss { step, micro_batch: *micro_batch, value: *sum });
        }
        loss += f64::from(*sum);
        correct += *right as usize;
    }
    let grad_norm = values.get(2 * indices.len()).copied().unwrap_or(0.0);
    if !grad_norm.is_finite() {
        return Err(TrainError::GradientNorm { step, value: grad_norm });
    }
    Ok((loss, correct, grad_norm))
}
