//! The model at work: the loss of right answers, and what it answers by itself.
//!
//! Loss and answers share work. A right answer that the model finds the likeliest token after token is what it would
//! write by itself, so only the other questions are answered one token at a time. Questions of like length go through
//! together; the pictures' features are computed beforehand, once per row.

use super::questions::Tokens;
use burn::tensor::Tensor;
use llavm_model::attention::TokenMask;
use llavm_model::generate::assistant::Assistant;
use llavm_model::generate::{Options, Prompt, generate};
use llavm_model::sampler::Sampling;
use llavm_model::vlm::Batch;
use llavm_pipeline::StageError;
use std::ops::ControlFlow;

/// A label that carries no loss.
const IGNORED: i32 = -100;

/// The model with what it needs to know of the rows.
pub struct Engine<'a> {
    /// Loaded, and its tokenizer.
    pub assistant: &'a Assistant,
    /// Patch states of each row's pictures.
    pub features: &'a [Option<Tensor<3>>],
    /// Most tokens of an answer.
    pub max_new_tokens: usize,
    /// Questions at once.
    pub batch_size: usize,
    /// Told how many questions are done; an error ends the work.
    pub done: Box<dyn Fn(usize) -> Result<(), StageError> + 'a>,
}

/// A question to the model.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// Prompt and right answer.
    pub tokens: &'a Tokens,
    /// The row whose pictures are shown.
    pub shown: usize,
}

/// What became of a question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Nats per token of the right answer.
    pub loss: f64,
    /// For each token of the right answer, whether it was the likeliest.
    pub correct: Vec<bool>,
    /// What the model says.
    pub answer: String,
}

impl Engine<'_> {
    /// Loss and answer of each task, in order.
    pub fn examine(&self, tasks: &[Task<'_>]) -> Result<Vec<Outcome>, StageError> {
        let mut outcomes = vec![Outcome::default(); tasks.len()];
        for batch in self.batches(tasks, |task| task.tokens.input_ids.len()) {
            let tasks: Vec<Task<'_>> = batch.iter().map(|at| tasks[*at]).collect();
            for (at, outcome) in batch.iter().zip(self.losses(&tasks)?) {
                outcomes[*at] = outcome;
            }
            (self.done)(tasks.len())?;
        }
        let mut open = Vec::new();
        for (at, task) in tasks.iter().enumerate() {
            match self.known_answer(task.tokens, &outcomes[at].correct) {
                Some(ids) => outcomes[at].answer = self.text(&ids)?,
                None => open.push(at),
            }
        }
        (self.done)(tasks.len() - open.len())?;
        let asked: Vec<Task<'_>> = open.iter().map(|at| tasks[*at]).collect();
        for (at, answer) in open.into_iter().zip(self.answer(&asked)?) {
            outcomes[at].answer = answer;
        }
        Ok(outcomes)
    }

    /// What the model answers to each task, in order.
    pub fn answer(&self, tasks: &[Task<'_>]) -> Result<Vec<String>, StageError> {
        let mut answers = vec![String::new(); tasks.len()];
        for batch in self.batches(tasks, |task| task.tokens.prompt().len()) {
            let prompt = |at: &usize| Prompt {
                ids: tasks[*at].tokens.prompt().to_vec(),
                features: self.features[tasks[*at].shown].clone(),
            };
            let prompts: Vec<Prompt> = batch.iter().map(prompt).collect();
            let found = generate(&self.assistant.model, &prompts, 0, &self.options(), &mut |_, _| {
                ControlFlow::Continue(())
            });
            let found = found.map_err(|error| StageError::new(error.to_string()).because(error))?;
            for (at, ids) in batch.iter().zip(found) {
                answers[*at] = self.text(&ids)?;
            }
            (self.done)(batch.len())?;
        }
        Ok(answers)
    }

    fn options(&self) -> Options {
        Options {
            max_new_tokens: self.max_new_tokens,
            sampling: Sampling::default(),
            eos: self.assistant.eos.clone(),
        }
    }

    /// Indices of tasks that go through together, the longest first.
    fn batches(&self, tasks: &[Task<'_>], length: impl Fn(&Task<'_>) -> usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..tasks.len()).collect();
        order.sort_by_key(|at| (std::cmp::Reverse(length(&tasks[*at])), *at));
        order.chunks(self.batch_size.max(1)).map(<[usize]>::to_vec).collect()
    }

    /// One forward pass with the right answers in place.
    fn losses(&self, tasks: &[Task<'_>]) -> Result<Vec<Outcome>, StageError> {
        let lengths: Vec<usize> = tasks.iter().map(|task| task.tokens.input_ids.len()).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let pad = u32::from(self.assistant.model.image_pad_id == 0);
        let (mut ids, mut labels) = (Vec::new(), Vec::new());
        for (n, task) in tasks.iter().enumerate() {
            ids.extend(&task.tokens.input_ids);
            ids.resize((n + 1) * longest, pad);
            labels.extend(&task.tokens.labels);
            labels.resize((n + 1) * longest, IGNORED);
        }
        let features: Vec<Tensor<3>> =
            tasks.iter().filter_map(|task| self.features[task.shown].clone()).collect();
        let batch = Batch {
            input_ids: &ids,
            mask: &TokenMask::right_padded(&lengths, longest),
            features: (!features.is_empty()).then(|| Tensor::cat(features, 0)),
        };
        let loss = self.assistant.model.loss(&batch, &labels);
        let loss = loss.map_err(|error| StageError::new(error.to_string()).because(error))?;
        let losses = read(loss.per_token.try_into_vec_as::<f32>())?;
        let correct = read(loss.correct.try_into_vec_as::<i32>())?;
        let mut tokens = losses.into_iter().zip(correct);
        Ok(tasks.iter().map(|task| outcome(tokens.by_ref().take(task.tokens.answer.len()))).collect())
    }

    /// The right answer, cut as generation would cut it, when the model's own is the same.
    fn known_answer(&self, tokens: &Tokens, correct: &[bool]) -> Option<Vec<u32>> {
        let ids: Vec<u32> = tokens.answer().collect();
        let end = ids.iter().position(|id| self.assistant.eos.contains(id)).map(|at| at + 1);
        let enough = end.unwrap_or(usize::MAX).min(self.max_new_tokens);
        (enough <= ids.len() && correct[..enough].iter().all(|correct| *correct))
            .then(|| ids[..enough].to_vec())
    }

    /// An answer as people read it: without control tokens and without what the model thought.
    fn text(&self, ids: &[u32]) -> Result<String, StageError> {
        let text =
            self.assistant.text(ids).map_err(|error| StageError::new(error.to_string()).because(error))?;
        Ok(without_thoughts(&text).trim().to_owned())
    }
}

fn outcome(tokens: impl Iterator<Item = (f32, i32)>) -> Outcome {
    let (losses, correct): (Vec<f64>, Vec<bool>) =
        tokens.map(|(loss, correct)| (f64::from(loss), correct != 0)).unzip();
    let loss = losses.iter().sum::<f64>() / losses.len() as f64;
    Outcome { loss, correct, answer: String::new() }
}

/// What follows the think block that an answer may begin with.
fn without_thoughts(text: &str) -> &str {
    let thoughts = text.trim_start().strip_prefix("<think>").and_then(|rest| rest.split_once("</think>"));
    thoughts.map_or(text, |(_, answer)| answer)
}

/// Values read back from the device.
fn read<T>(values: Result<Vec<T>, impl std::fmt::Display>) -> Result<Vec<T>, StageError> {
    values.map_err(|error| {
        StageError::new(format!("the device failed: {error}"))
            .help("`llavm doctor` tells whether it can be trusted.")
    })
}
