//! The loop: steps, measurements, checkpoints, until the last step, the end of patience or the user.

use super::checkpoint::Checkpoints;
use super::feed::{Batching, Feed, Order, RowRef, Step, StepRows, Steps, Which};
use super::parameters::Train;
use super::probe::Probes;
use super::progress::{Clock, Timing};
use super::record::{Entry, Record};
use super::setup::failed;
use super::tensorboard::EventFile;
use llavm_model::config::PixelNorm;
use llavm_model::train::{Measured, TrainError, Trainer};
use llavm_pipeline::StageError;
use std::time::Instant;

/// Most row ids in an error.
const NAMED: usize = 16;

/// A training in progress.
pub struct Fit<'f, 'a> {
    pub stage: &'f Train,
    pub feed: &'f Feed<'a>,
    pub probes: Probes,
    pub trainer: Trainer,
    pub norm: PixelNorm,
    pub record: Record,
    pub checkpoints: &'f Checkpoints,
    pub batching: Batching,
    pub seed: u64,
    /// Steps of the whole training.
    pub total: u64,
    /// Whether the first rows were compared with the CPU.
    pub compared: bool,
}

/// How the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The weights are the result.
    Trained,
    /// The user stopped it; the last checkpoint is what a later run goes on from.
    Stopped,
}

impl Fit<'_, '_> {
    /// Goes on from the newest checkpoint, if there is one, to the end.
    pub fn run(&mut self) -> Result<(End, Option<Timing>), StageError> {
        self.checkpoints.resume(&mut self.trainer, &mut self.record)?;
        let (begun, total) = (self.trainer.steps(), self.total);
        let mut end = (End::Trained, None);
        if begun < total && !self.stops_early() {
            let mut order = Order::new(self.feed.units, self.batching, self.seed);
            let mut named = 0;
            let next = move || {
                while named < begun {
                    order.next_step()?;
                    named += 1;
                }
                named += 1;
                if named > total { Ok(None) } else { order.next_step()?.map(Some).ok_or_else(no_rows) }
            };
            let feed = self.feed;
            end = feed.run(Which::Train, next, |steps| self.steps(steps))?;
            // What is written at the end holds the number of all rows; they may be long in coming.
            if end.0 == End::Trained && self.stage.max_steps.is_some() {
                self.save()?;
            }
        }
        if end.0 == End::Trained {
            self.take_best()?;
        }
        Ok(end)
    }

    fn steps(&mut self, mut steps: Steps) -> Result<(End, Option<Timing>), StageError> {
        let validation = self.validation()?;
        let mut events = EventFile::create(&self.feed.context.output().join("runs"), self.trainer.steps())?;
        let mut clock = None;
        loop {
            let (start, waited) = (Instant::now(), steps.waited);
            let step = steps.next();
            if self.feed.context.cancelled() {
                self.save()?;
                return Ok((End::Stopped, None));
            }
            let Some(step) = step else { break };
            let clock = clock.get_or_insert_with(Clock::start);
            let mut entry = self.step(step?)?;
            clock.count(&entry, start.elapsed(), steps.waited.saturating_sub(waited));
            if self.is_due(self.stage.eval_steps) {
                entry.eval = self.measure(&validation)?;
                entry.benchmarks = self.ask_benchmarks()?;
            }
            self.record.0.push(entry.clone());
            events.add(&entry, clock.tokens_per_second())?;
            clock.report(self.feed.context, &entry, self.total);
            if self.should_save(&entry) {
                self.save()?;
            }
            if self.stops_early() {
                break;
            }
        }
        Ok((End::Trained, clock.map(|clock| clock.timing())))
    }

    fn step(&mut self, step: Step) -> Result<Entry, StageError> {
        if let Some(rows) =
            step.micro_batches.first().filter(|_| !std::mem::replace(&mut self.compared, true))
        {
            self.stage.compare_first(&self.trainer, &self.norm, rows)?;
        }
        let samples = step.rows.iter().map(Vec::len).sum();
        match self.trainer.step(step.micro_batches) {
            Ok(report) => Ok(Entry::new(&report, samples)),
            Err(error) => Err(self.explain(error, &step.rows)),
        }
    }

    /// The error with the rows it is about.
    fn explain(&self, error: TrainError, rows: &[Vec<RowRef>]) -> StageError {
        let about: Vec<RowRef> = match &error {
            TrainError::Loss { micro_batch, .. }
            | TrainError::Batch { micro_batch, .. }
            | TrainError::Images { micro_batch, .. } => rows.get(*micro_batch).cloned().unwrap_or_default(),
            _ => rows.concat(),
        };
        let rows = self.named(Which::Train, &about);
        StageError::new(format!("{error}\nrows: {rows}")).because(error)
    }

    /// What the data set calls some rows.
    fn named(&self, which: Which, rows: &[RowRef]) -> String {
        let mut ids = self.feed.ids(which, rows.get(..NAMED).unwrap_or(rows));
        if rows.len() > NAMED {
            ids.push(format!("and {} more", rows.len() - NAMED));
        }
        ids.join(", ")
    }

    /// Validation batches; none when nothing is to be measured.
    fn validation(&self) -> Result<Vec<StepRows>, StageError> {
        if self.stage.eval_steps.is_none() {
            return Ok(Vec::new());
        }
        let rows = self.feed.validation_rows(self.stage.max_eval_samples)?;
        if rows.is_empty() {
            return Err(StageError::new("`eval_steps` is set, but the shards have no validation rows")
                .help("Give the shard stage `validation = 0.05`, or leave `eval_steps` out."));
        }
        let batching =
            Batching { rows: self.stage.per_device_eval_batch_size, accumulation: 1, ..self.batching };
        Ok(batching.for_validation(rows))
    }

    #[tracing::instrument(level = "debug", skip_all)]
    fn ask_benchmarks(&mut self) -> Result<Vec<(String, f64)>, StageError> {
        let model = self.trainer.model().for_inference();
        self.probes.ask(model, self.feed.context.pool())
    }

    #[tracing::instrument(level = "debug", skip_all, fields(batches = batches.len()))]
    fn measure(&self, batches: &[StepRows]) -> Result<Option<(f64, f64)>, StageError> {
        let model = self.trainer.model().for_inference();
        let mut batches = batches.iter().cloned();
        let sum = self.feed.run(
            Which::Validation,
            move || Ok(batches.next()),
            |mut steps| {
                steps.try_fold(Measured::default(), |sum, step| -> Result<Measured, StageError> {
                    let Step { micro_batches, rows } = step?;
                    let sum = micro_batches.into_iter().try_fold(sum, |sum, batch| {
                        Ok::<_, StageError>(sum.and(Measured::of(&model, &self.norm, batch).map_err(failed)?))
                    })?;
                    if sum.loss.is_finite() { Ok(sum) } else { Err(self.no_number(sum.loss, &rows.concat())) }
                })
            },
        );
        Ok(sum?.means())
    }

    /// A measurement that shows the last step to have been one too many; it is not saved.
    fn no_number(&self, loss: f64, rows: &[RowRef]) -> StageError {
        let (step, rows) = (self.trainer.steps(), self.named(Which::Validation, rows));
        StageError::new(format!("step {step}: the loss of validation rows is {loss}\nrows: {rows}"))
            .help("Lower learning_rate, set max_grad_norm, or train in f32.")
    }

    /// Whether something that happens every `steps` steps happens now; always after the last step.
    fn is_due(&self, every: Option<u64>) -> bool {
        let step = self.trainer.steps();
        every.is_some_and(|every| step.is_multiple_of(every) || step == self.total)
    }

    fn should_save(&self, entry: &Entry) -> bool {
        let best = self.record.best().is_some_and(|(step, _)| step == entry.step);
        let step = self.trainer.steps();
        let due = step.is_multiple_of(self.stage.save_steps) && step < self.total;
        due || (self.stage.load_best_model_at_end && best)
    }

    fn stops_early(&self) -> bool {
        let patience = self.stage.early_stopping_patience;
        patience.is_some_and(|patience| self.record.evals_since_best() >= patience)
    }

    fn save(&mut self) -> Result<(), StageError> {
        self.checkpoints.save(&mut self.trainer, &self.record)
    }

    fn take_best(&mut self) -> Result<(), StageError> {
        match self.record.best() {
            Some((step, _)) if self.stage.load_best_model_at_end && step != self.trainer.steps() => {
                self.checkpoints.restore(step, &mut self.trainer)
            }
            _ => Ok(()),
        }
    }
}

fn no_rows() -> StageError {
    StageError::new("the shards have no rows to train on")
        .help("`llavm status` tells how many rows were rejected; rejects.json in the shard folder says why.")
}
