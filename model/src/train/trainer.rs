//! The loop's body: one optimiser step from several micro-batches.

use burn::tensor::Device;

use super::adamw::Pace;
use super::all_reduce::all_reduce;
use super::arguments::TrainingArguments;
use super::batch::MicroBatch;
use super::error::TrainError;
use super::flat::Flat;
use super::gradients::clip_factor;
use super::masters::{self, Masters};
use super::parts::{Counted, Part};
use super::prefix::Prefixes;
use super::rank::{Rank, Seen, Share};
use super::ranks::{Gone, Ranks};
use super::schedule::Schedule;
use crate::config::PixelNorm;
use crate::vlm::Vlm;

/// A model in training.
#[derive(Debug)]
pub struct Trainer {
    pub(super) ranks: Ranks,
    pub(super) schedule: Schedule,
    /// Steps taken.
    pub(super) step: u64,
    /// Answer tokens learned from.
    pub(super) answer_tokens: u64,
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
        let flat = Flat::of(&mut model, trained);
        flat.show(&mut model);
        let schedule = arguments.schedule(total_steps);
        let rank = Rank {
            model,
            flat,
            arguments,
            parts,
            norm,
            prefixes: None,
            gradients: Vec::new(),
            pending: Vec::new(),
        };
        Ok(Self { ranks: Ranks::one(rank), schedule, step: 0, answer_tokens: 0, frozen_masters })
    }

    /// Trains on these devices too, besides the model's own: device i of all takes micro-batches i, i + n, i + 2n, … of a step, each
    /// device holds the whole model, and their gradients are summed before all make the same update. So a step is the same whatever
    /// the number of devices, but for the order in which gradients are summed.
    #[must_use]
    pub fn across(mut self, devices: &[Device]) -> Self {
        self.ranks.spread(devices);
        self
    }

    /// Computes what all rows of a micro-batch begin with once, and not again while the beginning stays the same. Only where
    /// the language model learns nothing; otherwise this does nothing.
    #[must_use]
    pub fn with_shared_prefix(mut self) -> Self {
        let learns = [Part::Language, Part::Lora].iter().any(|part| self.parts().contains(part));
        self.ranks.first.prefixes = (!learns).then(Prefixes::default);
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
        let gone = |gone: Gone| TrainError::Device { step, why: gone.to_string() };
        let shares = shares(micro_batches, step, answer_tokens, self.ranks.world());
        let jobs = shares.into_iter().map(|share| move |rank: &mut Rank| rank.accumulate(share));
        first_fault(self.ranks.each(jobs).map_err(gone)?)?;
        if self.ranks.world() > 1 {
            all_reduce(&mut self.ranks).map_err(|why| TrainError::Device { step, why })?;
        }
        let (loss, correct, grad_norm) = self.read(step)?;
        let factor = clip_factor(grad_norm, self.arguments().max_grad_norm);
        let learning_rate = self.schedule.at(self.step);
        let pace = Pace { factor, learning_rate };
        self.ranks.all(move |rank| rank.apply(pace)).map_err(gone)?;
        self.step = step;
        self.answer_tokens += answer_tokens as u64;
        let loss = loss / answer_tokens as f64;
        Ok(StepReport { step, loss, learning_rate, grad_norm, answer_tokens, correct, tokens })
    }

    /// Loss summed over answer tokens, answers that were the likeliest, and the gradient's norm; refused unless all are numbers.
    fn read(&mut self, step: u64) -> Result<(f64, usize, f32), TrainError> {
        let read = self.ranks.all(move |rank| rank.read(step));
        let read = read.map_err(|gone| TrainError::Device { step, why: gone.to_string() })?;
        let read = read.into_iter().collect::<Result<Vec<_>, _>>()?;
        // Every rank has the gradient of all.
        let grad_norm = read.first().map_or(0.0, |(_, norm)| *norm);
        let mut seen: Vec<Seen> = read.into_iter().flat_map(|(seen, _)| seen).collect();
        seen.sort_by_key(|seen| seen.micro_batch);
        let (mut loss, mut correct) = (0.0, 0);
        for seen in seen {
            if !seen.loss.is_finite() {
                return Err(TrainError::Loss { step, micro_batch: seen.micro_batch, value: seen.loss });
            }
            loss += f64::from(seen.loss);
            correct += seen.correct;
        }
        if !grad_norm.is_finite() {
            return Err(TrainError::GradientNorm { step, value: grad_norm });
        }
        Ok((loss, correct, grad_norm))
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
        &self.ranks.first.parts
    }

    pub(super) fn arguments(&self) -> &TrainingArguments {
        &self.ranks.first.arguments
    }

    /// How many values the model has, and how many of them are trained.
    pub fn parameters(&mut self) -> (u64, u64) {
        let mut counted = Counted::default();
        self.ranks.first.model.visit(&mut counted);
        (counted.all, counted.trained)
    }

    /// The model as it is now; to measure it, use its [`Vlm::for_inference`].
    pub fn model(&self) -> &Vlm {
        &self.ranks.first.model
    }

    /// The model, outside of autodiff, with projector and adapters in f32: to be saved.
    pub fn into_model(self) -> Vlm {
        let Rank { model, flat, .. } = self.ranks.first;
        let mut model = model.for_inference();
        let mut masters = self.frozen_masters;
        masters.extend(flat.masters());
        masters::join(&mut model, masters);
        model
    }
}

/// Micro-batch i to rank i modulo `world`.
fn shares(micro_batches: Vec<MicroBatch>, step: u64, answer_tokens: usize, world: usize) -> Vec<Share> {
    let none = || Share { step, answer_tokens, micro_batches: Vec::new() };
    let mut shares: Vec<Share> = (0..world).map(|_| none()).collect();
    for (index, micro_batch) in micro_batches.into_iter().enumerate() {
        shares[index % world].micro_batches.push((index, micro_batch));
    }
    shares
}

/// The error about the first micro-batch, whoever met it first.
fn first_fault(done: Vec<Result<(), TrainError>>) -> Result<(), TrainError> {
    let place = |error: &TrainError| match error {
        TrainError::Batch { micro_batch, .. } | TrainError::Images { micro_batch, .. } => *micro_batch,
        _ => usize::MAX,
    };
    let faults = done.into_iter().filter_map(Result::err);
    faults.min_by_key(place).map_or(Ok(()), Err)
}
