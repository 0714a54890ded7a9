//! One device's part in a step: gradients of its micro-batches, and the update that all devices make alike.

use burn::tensor::{Device, FloatDType, Tensor};

use super::adamw::{AdamW, Pace};
use super::arguments::TrainingArguments;
use super::batch::MicroBatch;
use super::error::TrainError;
use super::flat::{Flat, LinedUp, norm, to_device};
use super::gradients::Gradients;
use super::parts::Part;
use super::prefix::Prefixes;
use crate::config::PixelNorm;
use crate::loss::AnswerLoss;
use crate::source::ParameterVisitor;
use crate::vlm::{Batch, Vlm};

/// A model on a device, and what trains of it.
#[derive(Debug)]
pub(super) struct Rank {
    pub model: Vlm,
    pub flat: Flat,
    pub arguments: TrainingArguments,
    pub parts: Vec<Part>,
    pub norm: PixelNorm,
    pub prefixes: Option<Prefixes>,
    /// Of the step under way.
    pub gradients: LinedUp,
    pub pending: Vec<Pending>,
}

/// What a rank does of a step.
#[derive(Debug)]
pub(super) struct Share {
    /// Counted from 1.
    pub step: u64,
    /// Answer tokens of the whole step.
    pub answer_tokens: usize,
    /// Micro-batches with their places in the step.
    pub micro_batches: Vec<(usize, MicroBatch)>,
}

/// Values of a micro-batch that wait on the device: `[1]` each.
#[derive(Debug)]
pub(super) struct Pending {
    micro_batch: usize,
    loss: Tensor<1>,
    correct: Tensor<1>,
}

/// What a micro-batch gave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub micro_batch: usize,
    /// Summed over answer tokens.
    pub loss: f32,
    /// Answers that were the likeliest.
    pub correct: usize,
}

impl Rank {
    /// The same on another device. What does not train is shared where the device is the same.
    pub fn on(&self, device: &Device) -> Self {
        let mut model = self.model.clone();
        model.visit(&mut Move { device });
        let flat = self.flat.to_device(device);
        flat.show(&mut model);
        Self {
            model,
            flat,
            arguments: self.arguments.clone(),
            parts: self.parts.clone(),
            prefixes: self.prefixes.as_ref().map(|_| Prefixes::default()),
            gradients: Vec::new(),
            pending: Vec::new(),
            ..*self
        }
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.model.qwen.embed_tokens.device().inner()
    }

    /// Goes on from what another rank has learned.
    pub fn take(&mut self, flat: Flat) {
        self.flat = flat;
        self.flat.show(&mut self.model);
    }

    /// Goes through its micro-batches; gradients and losses stay on the device.
    pub fn accumulate(&mut self, share: Share) -> Result<(), TrainError> {
        self.pending.clear();
        self.gradients.clear();
        let mut gradients = Gradients::default();
        for (index, micro_batch) in share.micro_batches {
            if micro_batch.answer_tokens() == 0 {
                continue;
            }
            self.draw_dropout(share.step, index);
            let at = (share.step, index, share.answer_tokens);
            let answer = self.learn(micro_batch, at, &mut gradients)?;
            self.pending.push(Pending {
                micro_batch: index,
                loss: answer.sum.inner(),
                correct: answer.correct.cast(FloatDType::F32).sum(),
            });
        }
        self.gradients = self.flat.line_up(gradients);
        Ok(())
    }

    /// What its micro-batches gave, and the length of the gradient (0 without any), read from the device in one go.
    pub fn read(&mut self, step: u64) -> Result<(Vec<Seen>, f32), TrainError> {
        let pending = std::mem::take(&mut self.pending);
        let indices: Vec<usize> = pending.iter().map(|pending| pending.micro_batch).collect();
        let mut values: Vec<Tensor<1>> = pending.into_iter().flat_map(|p| [p.loss, p.correct]).collect();
        values.extend(norm(&self.gradients));
        if values.is_empty() {
            return Ok((Vec::new(), 0.0));
        }
        let values = Tensor::cat(values, 0)
            .try_into_vec_as::<f32>()
            .map_err(|error| TrainError::Device { step, why: error.to_string() })?;
        let seen = indices.iter().zip(values.chunks_exact(2)).filter_map(|(micro_batch, pair)| {
            let [loss, correct] = pair else { return None };
            Some(Seen { micro_batch: *micro_batch, loss: *loss, correct: *correct as usize })
        });
        let norm = values.get(2 * indices.len()).copied().unwrap_or(0.0);
        Ok((seen.collect(), norm))
    }

    /// Moves all that has a gradient.
    pub fn apply(&mut self, pace: Pace) {
        let gradients = std::mem::take(&mut self.gradients);
        self.flat.update(&mut self.model, gradients, &AdamW::new(&self.arguments), pace);
    }

    /// The loss of a micro-batch; adds the gradients of its share in the loss of the step. `at`: step, place in it, answer tokens
    /// of the step.
    fn learn(
        &mut self,
        mut micro_batch: MicroBatch,
        (step, index, answer_tokens): (u64, usize, usize),
        gradients: &mut Gradients,
    ) -> Result<AnswerLoss, TrainError> {
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

/// Moves parameters to another device.
struct Move<'a> {
    device: &'a Device,
}

impl ParameterVisitor for Move<'_> {
    fn visit<const D: usize>(&mut self, _key: &str, parameter: &mut Tensor<D>) {
        *parameter = to_device(parameter.clone().inner(), self.device);
    }
}
