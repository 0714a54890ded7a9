//! The model at work: the loss of right answers, and what it answers by itself.
//!
//! Loss and answers share work. A right answer that the model finds the likeliest token after token is what it would
//! write by itself, so only the other questions are answered one token at a time. Both are kept (`asking/kept.rs`).

use super::questions::Tokens;
use crate::asking::asker::{Asker, Question, unanswered};
use burn::tensor::Tensor;
use llavm_model::attention::TokenMask;
use llavm_model::vlm::Batch;
use llavm_pipeline::StageError;
use serde_json::json;
use std::collections::BTreeMap;

/// A label that carries no loss.
const IGNORED: i32 = -100;
/// Rows are padded to a multiple of this, and only with rows of that length: what a row is padded to follows from the row, so
/// that its loss does not depend on which others are asked.
const STEP: usize = 16;

/// A question to the model.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// Prompt and right answer.
    pub tokens: &'a Tokens,
    /// The number of the images that are shown.
    pub shown: Option<usize>,
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

/// Loss and answer of each task, in order.
pub fn examine(asker: &Asker<'_>, tasks: &[Task<'_>]) -> Result<Vec<Outcome>, StageError> {
    let mut outcomes = losses(asker, tasks)?;
    let mut open = Vec::new();
    for (at, task) in tasks.iter().enumerate() {
        match known_answer(asker, task.tokens, &outcomes[at].correct) {
            Some(ids) => outcomes[at].answer = asker.text(&ids)?,
            None => open.push(at),
        }
    }
    (asker.done)(tasks.len() - open.len())?;
    let asked: Vec<Task<'_>> = open.iter().map(|at| tasks[*at]).collect();
    for (at, answer) in open.into_iter().zip(answer(asker, &asked)?) {
        outcomes[at].answer = answer;
    }
    Ok(outcomes)
}

/// What the model answers to each task, in order.
pub fn answer(asker: &Asker<'_>, tasks: &[Task<'_>]) -> Result<Vec<String>, StageError> {
    let question =
        |task: &Task<'_>| -> (Vec<u32>, Option<usize>) { (task.tokens.prompt().to_vec(), task.shown) };
    let asked: Vec<(Vec<u32>, Option<usize>)> = tasks.iter().map(question).collect();
    let questions = asked.iter().map(|(ids, shown)| Question { ids, shown: *shown });
    asker.answers(&questions.collect::<Vec<_>>())
}

/// The losses of all tasks: those that are kept, and those of one forward pass with the right answers in place.
fn losses(asker: &Asker<'_>, tasks: &[Task<'_>]) -> Result<Vec<Outcome>, StageError> {
    let key = |task: &Task<'_>| {
        let image = task.shown.map_or("", |number| asker.seen.digest(number));
        asker.kept.map(|kept| kept.key(&task.tokens.input_ids, image, &json!(["loss", task.tokens.labels])))
    };
    let keys: Vec<Option<String>> = tasks.iter().map(key).collect();
    let mut outcomes: Vec<Option<Outcome>> =
        keys.iter().map(|key| unwritten(&asker.kept?.get(key.as_ref()?)?)).collect();
    let known = outcomes.iter().flatten().count();
    (asker.done)(known)?;
    if let Some(kept) = asker.kept {
        kept.count(tasks.len() - known, known);
    }
    let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, task) in tasks.iter().enumerate() {
        by_length.entry(padded(task)).or_default().push(at);
    }
    let batches = by_length.values().rev().flat_map(|rows| rows.chunks(asker.batch_size.max(1)));
    let batches: Vec<Vec<usize>> = batches.map(<[usize]>::to_vec).collect();
    let lengths = |batch: &Vec<usize>| batch.iter().map(|at| padded(&tasks[*at])).collect::<Vec<usize>>();
    let open = unanswered(batches, asker.batch_size, |at| outcomes[at].is_some());
    // What is left of several batches may be of several lengths.
    let open = open.iter().flat_map(|batch| {
        let lengths = lengths(batch);
        let mut same: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        batch.iter().zip(lengths).for_each(|(at, length)| same.entry(length).or_default().push(*at));
        same.into_values()
    });
    for batch in open.collect::<Vec<_>>() {
        let found = forward(asker, &batch.iter().map(|at| tasks[*at]).collect::<Vec<_>>())?;
        let pairs = batch.iter().zip(&found);
        let pairs = pairs.filter_map(|(at, outcome)| Some((keys[*at].clone()?, written(outcome))));
        if let Some(kept) = asker.kept {
            kept.add(&pairs.collect::<Vec<_>>())?;
        }
        for (at, outcome) in batch.iter().zip(found) {
            outcomes[*at] = Some(outcome);
        }
        (asker.done)(batch.len())?;
    }
    Ok(outcomes.into_iter().map(Option::unwrap_or_default).collect())
}

/// The tokens that a task is padded to.
fn padded(task: &Task<'_>) -> usize {
    task.tokens.input_ids.len().next_multiple_of(STEP)
}

/// One forward pass of tasks of one padded length.
fn forward(asker: &Asker<'_>, tasks: &[Task<'_>]) -> Result<Vec<Outcome>, StageError> {
    let lengths: Vec<usize> = tasks.iter().map(|task| task.tokens.input_ids.len()).collect();
    let limit = asker.assistant.model.qwen.config().max_position_embeddings;
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let longest = tasks.iter().map(padded).max().unwrap_or(0).min(limit.max(longest));
    let pad = u32::from(asker.assistant.model.image_pad_id == 0);
    let (mut ids, mut labels) = (Vec::new(), Vec::new());
    for (n, task) in tasks.iter().enumerate() {
        ids.extend(&task.tokens.input_ids);
        ids.resize((n + 1) * longest, pad);
        labels.extend(&task.tokens.labels);
        labels.resize((n + 1) * longest, IGNORED);
    }
    let numbers: Vec<usize> = tasks.iter().filter_map(|task| task.shown).collect();
    let features: Vec<Tensor<3>> = asker.seen.features(asker.assistant, &numbers)?;
    let batch = Batch {
        input_ids: &ids,
        mask: &TokenMask::right_padded(&lengths, longest),
        features: (!features.is_empty()).then(|| Tensor::cat(features, 0)),
    };
    let loss = asker.assistant.model.loss(&batch, &labels);
    let loss = loss.map_err(|error| StageError::new(error.to_string()).because(error))?;
    let losses = read(loss.per_token.try_into_vec_as::<f32>())?;
    let correct = read(loss.correct.try_into_vec_as::<i32>())?;
    let mut tokens = losses.into_iter().zip(correct);
    Ok(tasks.iter().map(|task| outcome(tokens.by_ref().take(task.tokens.answer.len()))).collect())
}

/// The right answer, cut as generation would cut it, when the model's own is the same.
fn known_answer(asker: &Asker<'_>, tokens: &Tokens, correct: &[bool]) -> Option<Vec<u32>> {
    let ids: Vec<u32> = tokens.answer().collect();
    let end = ids.iter().position(|id| asker.assistant.eos().contains(id)).map(|at| at + 1);
    let enough = end.unwrap_or(usize::MAX).min(asker.max_new_tokens);
    (enough <= ids.len() && correct[..enough].iter().all(|correct| *correct)).then(|| ids[..enough].to_vec())
}

fn outcome(tokens: impl Iterator<Item = (f32, i32)>) -> Outcome {
    let (losses, correct): (Vec<f64>, Vec<bool>) =
        tokens.map(|(loss, correct)| (f64::from(loss), correct != 0)).unzip();
    let loss = losses.iter().sum::<f64>() / losses.len() as f64;
    Outcome { loss, correct, answer: String::new() }
}

/// Loss and likeliest tokens as text, the loss to the last bit.
fn written(outcome: &Outcome) -> String {
    let correct: String = outcome.correct.iter().map(|correct| if *correct { '1' } else { '0' }).collect();
    format!("{:016x} {correct}", outcome.loss.to_bits())
}

fn unwritten(text: &str) -> Option<Outcome> {
    let (loss, correct) = text.split_once(' ')?;
    let loss = f64::from_bits(u64::from_str_radix(loss, 16).ok()?);
    Some(Outcome { loss, correct: correct.chars().map(|c| c == '1').collect(), answer: String::new() })
}

/// Values read back from the device.
fn read<T>(values: Result<Vec<T>, impl std::fmt::Display>) -> Result<Vec<T>, StageError> {
    values.map_err(|error| {
        StageError::new(format!("the device failed: {error}"))
            .help("`llavm doctor` shows whether it can be trusted.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_kept_to_the_last_bit() {
        let outcome = Outcome { loss: 0.1 + 0.2, correct: vec![true, false], answer: String::new() };
        assert_eq!(unwritten(&written(&outcome)), Some(outcome));
        assert_eq!(unwritten("no"), None);
    }
}
