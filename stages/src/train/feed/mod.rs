//! From token shards to batches on their way to the trainer.
//!
//! In: a shard stage's folder or folders, and the images of their rows. Out: optimiser steps, each a list of padded
//! [`MicroBatch`]es, in an order that seed and epoch alone decide.
//!
//! Batches are put together on the run's pool while the trainer works; a bounded channel holds those that are ready, and
//! the time the trainer waits for it is counted. One thread of the job's own hands the work out; it ends with the job.

mod images;
mod order;
mod shards;

use crossbeam_channel::{Receiver, Sender, bounded};
use llavm_model::attention::TokenMask;
use llavm_model::train::{Images, MicroBatch};
use llavm_pipeline::StageError;
use llavm_pipeline::stage::JobContext;
use rayon::prelude::*;
use std::time::{Duration, Instant};

pub use images::{Form, ImageRows};
pub use order::{Batching, Order, RowRef, StepRows};
pub use shards::{Split, Unit, Units};

/// Which rows of the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Train,
    Validation,
}

/// One optimiser step, ready.
pub struct Step {
    pub micro_batches: Vec<MicroBatch>,
    pub rows: StepRows,
}

/// Makes batches of rows.
pub struct Feed<'a> {
    pub context: &'a dyn JobContext,
    pub units: &'a Units<'a>,
    pub images: ImageRows<'a>,
    /// What fills up short rows; any token but the image pad.
    pub pad_id: u32,
    /// Values of a patch state.
    pub vision_width: usize,
    /// Steps that are made ahead.
    pub ahead: usize,
}

/// The trainer's end of the channel.
pub struct Steps {
    receiver: Receiver<Result<Step, StageError>>,
    /// Time spent waiting.
    pub waited: Duration,
}

impl Iterator for Steps {
    type Item = Result<Step, StageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = Instant::now();
        let step = self.receiver.recv().ok();
        self.waited += start.elapsed();
        step
    }
}

impl Feed<'_> {
    /// Lets `consume` take the steps that `next` names, made ready beforehand.
    pub fn run<R>(
        &self,
        which: Which,
        next: impl FnMut() -> Result<Option<StepRows>, StageError> + Send,
        consume: impl FnOnce(Steps) -> R,
    ) -> R {
        let (sender, receiver) = bounded(self.ahead);
        std::thread::scope(|scope| {
            scope.spawn(move || self.produce(which, next, &sender));
            consume(Steps { receiver, waited: Duration::ZERO })
        })
    }

    /// Sends steps in order until there are no more, something fails or nobody listens.
    fn produce(
        &self,
        which: Which,
        mut next: impl FnMut() -> Result<Option<StepRows>, StageError>,
        sender: &Sender<Result<Step, StageError>>,
    ) {
        let mut more = true;
        while more {
            let mut several = Vec::new();
            while more && several.len() < self.at_once() {
                let rows = next().transpose();
                more = matches!(rows, Some(Ok(_)));
                several.extend(rows);
            }
            let make = |rows: Result<StepRows, StageError>| rows.and_then(|rows| self.step(which, rows));
            let steps: Vec<_> = self.context.pool().install(|| several.into_par_iter().map(make).collect());
            for step in steps {
                more &= step.is_ok();
                if sender.send(step).is_err() {
                    return;
                }
            }
        }
    }

    /// Steps that are put together side by side.
    fn at_once(&self) -> usize {
        self.context.pool().current_num_threads().clamp(1, self.ahead)
    }

    /// Puts one step together, its micro-batches side by side.
    fn step(&self, which: Which, rows: StepRows) -> Result<Step, StageError> {
        let micro_batches: Result<Vec<MicroBatch>, StageError> =
            rows.par_iter().map(|rows| self.micro_batch(which, rows)).collect();
        Ok(Step { micro_batches: micro_batches?, rows })
    }

    /// Rows padded on the right to the longest of them, in multiples of 8, and their images.
    fn micro_batch(&self, which: Which, rows: &[RowRef]) -> Result<MicroBatch, StageError> {
        let lengths: Vec<usize> = rows.iter().map(|row| row.length as usize).collect();
        let tokens = Batching::padded(lengths.iter().copied().max().unwrap_or(0));
        let mut input_ids = Vec::with_capacity(tokens * rows.len());
        let mut labels = Vec::with_capacity(tokens * rows.len());
        let mut places = Vec::new();
        for (n, row) in (1..).zip(rows) {
            let unit = self.unit(row.unit)?;
            let row = unit.split(which).row(row.row as usize)?;
            input_ids.extend_from_slice(row.input_ids);
            labels.extend_from_slice(row.labels);
            input_ids.resize(n * tokens, self.pad_id);
            labels.resize(n * tokens, -100);
            if row.n_images > 0 {
                places.push((row.at, row.n_images));
            }
        }
        let images = self.images(&places)?;
        Ok(MicroBatch { input_ids, labels, mask: TokenMask::right_padded(&lengths, tokens), images })
    }

    fn images(&self, places: &[(shards::Place, u32)]) -> Result<Images, StageError> {
        if places.is_empty() {
            return Ok(Images::None);
        }
        let count: u32 = places.iter().map(|(_, count)| count).sum();
        let bytes = self.images.read(places)?;
        match self.images.form {
            Form::Pixels => Ok(Images::Pixels(bytes)),
            Form::Features => self.features(bytes, count as usize),
        }
    }

    /// `[images, patches, vision width]` of f16.
    fn features(&self, bytes: Vec<u8>, images: usize) -> Result<Images, StageError> {
        let one_patch = 2 * self.vision_width * images;
        if one_patch == 0 || !bytes.len().is_multiple_of(one_patch) {
            return Err(StageError::new(format!(
                "features of {} bytes are no patch states of {} values",
                bytes.len() / images.max(1),
                self.vision_width
            ))
            .help("`encode-images` and `train` must name the same `clip`."));
        }
        let shape = [images, bytes.len() / one_patch, self.vision_width];
        Ok(Images::half_features(bytes, shape))
    }

    fn unit(&self, number: u32) -> Result<std::sync::Arc<Unit>, StageError> {
        self.units.get(number as usize)?.ok_or_else(|| StageError::new("a folder of shards is gone"))
    }

    /// What the data set calls these rows.
    pub fn ids(&self, which: Which, rows: &[RowRef]) -> Vec<String> {
        let id = |row: &RowRef| self.unit(row.unit).and_then(|unit| unit.split(which).id(row.row as usize));
        rows.iter().map(|row| id(row).unwrap_or_else(|error| format!("({error})"))).collect()
    }

    /// The first `most` validation rows, in the order of the shards; waits for as many folders as that takes.
    pub fn validation_rows(&self, most: Option<usize>) -> Result<Vec<RowRef>, StageError> {
        let most = most.unwrap_or(usize::MAX);
        let mut rows = Vec::new();
        let mut number = 0;
        while rows.len() < most
            && let Some(unit) = self.units.get(number as usize)?
        {
            let lengths = (0..).zip(unit.validation.lengths()?);
            rows.extend(lengths.map(|(row, length)| RowRef { unit: number, row, length }));
            number += 1;
        }
        rows.truncate(most);
        Ok(rows)
    }
}

impl Unit {
    pub fn split(&self, which: Which) -> &Split {
        match which {
            Which::Train => &self.train,
            Which::Validation => &self.validation,
        }
    }
}
