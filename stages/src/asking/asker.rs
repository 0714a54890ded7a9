//! Prompts to answers. Prompts of like length go through together, those about one image one behind the other, so that they share
//! its features and what they begin with (`llavm_model::generate::shared`). Answers that are kept are not asked for.

use super::kept::Kept;
use super::seen::Seen;
use burn::tensor::Tensor;
use llavm_model::generate::assistant::Assistant;
use llavm_model::generate::shared::generate_shared;
use llavm_model::generate::{Options, Prompt};
use llavm_model::sampler::Sampling;
use llavm_pipeline::StageError;
use serde_json::json;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// A model with what it needs to know.
pub struct Asker<'a> {
    /// Loaded, and its processor.
    pub assistant: &'a Assistant,
    /// The images that questions show.
    pub seen: &'a Seen,
    /// Most tokens of an answer.
    pub max_new_tokens: usize,
    /// Questions at once.
    pub batch_size: usize,
    /// Answers of earlier runs.
    pub kept: Option<&'a Kept>,
    /// Called with how many questions are done; an error ends the work.
    pub done: Box<dyn Fn(usize) -> Result<(), StageError> + 'a>,
}

/// A question.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The prompt.
    pub ids: &'a [u32],
    /// The number of its images in [`Seen`].
    pub shown: Option<usize>,
}

impl Asker<'_> {
    /// The answer to each question, in order.
    pub fn answers(&self, questions: &[Question<'_>]) -> Result<Vec<String>, StageError> {
        let keys: Vec<Option<String>> = questions.iter().map(|question| self.key(*question)).collect();
        let mut answers: Vec<Option<String>> = keys.iter().map(|key| self.kept?.get(key.as_ref()?)).collect();
        // Of questions that are the same in everything, the first is asked.
        let mut first: BTreeMap<&str, usize> = BTreeMap::new();
        let asked_as: Vec<usize> = (keys.iter().enumerate())
            .map(|(at, key)| key.as_deref().map_or(at, |key| *first.entry(key).or_insert(at)))
            .collect();
        let different: Vec<usize> = (0..questions.len()).filter(|at| asked_as[*at] == *at).collect();
        let open = different.iter().filter(|at| answers[**at].is_none()).count();
        if let Some(kept) = self.kept {
            kept.count(open, questions.len() - open);
        }
        (self.done)(questions.len() - open)?;
        let batches = self.batches(questions, different);
        for batch in unanswered(batches, self.batch_size, |at| answers[at].is_some()) {
            let texts = self.ask(&batch.iter().map(|at| questions[*at]).collect::<Vec<_>>())?;
            if let Some(kept) = self.kept {
                let pairs = batch.iter().zip(&texts);
                let pairs = pairs.filter_map(|(at, text)| Some((keys[*at].clone()?, text.clone())));
                kept.add(&pairs.collect::<Vec<_>>())?;
            }
            for (at, text) in batch.iter().zip(texts) {
                answers[*at] = Some(text);
            }
            (self.done)(batch.len())?;
        }
        let answer = |at: &usize| answers[*at].clone().unwrap_or_default();
        Ok(asked_as.iter().map(answer).collect())
    }

    /// The kept answer of a question about the images that `image` stands for.
    pub fn known(&self, ids: &[u32], image: &str) -> Option<String> {
        let kept = self.kept?;
        kept.get(&kept.key(ids, image, &self.wanted()))
    }

    fn key(&self, question: Question<'_>) -> Option<String> {
        let image = question.shown.map_or("", |number| self.seen.digest(number));
        self.kept.map(|kept| kept.key(question.ids, image, &self.wanted()))
    }

    /// What decides how an answer ends.
    fn wanted(&self) -> serde_json::Value {
        json!(["answer", self.max_new_tokens, self.assistant.eos()])
    }

    /// Questions that go through together, the longest first; those about one image are neighbours.
    fn batches(&self, questions: &[Question<'_>], mut all: Vec<usize>) -> Vec<Vec<usize>> {
        let mut longest: BTreeMap<Option<usize>, usize> = BTreeMap::new();
        for at in &all {
            let length = longest.entry(questions[*at].shown).or_default();
            *length = questions[*at].ids.len().max(*length);
        }
        all.sort_by_key(|at| {
            let Question { ids, shown } = questions[*at];
            // Without an image there is nothing to share beyond the first words.
            let group = shown.and_then(|_| longest.get(&shown).copied()).unwrap_or(ids.len());
            (std::cmp::Reverse(group), shown, std::cmp::Reverse(ids.len()), *at)
        });
        all.chunks(self.batch_size.max(1)).map(<[usize]>::to_vec).collect()
    }

    fn ask(&self, questions: &[Question<'_>]) -> Result<Vec<String>, StageError> {
        let numbers: Vec<usize> = questions.iter().filter_map(|question| question.shown).collect();
        let mut features = self.seen.features(self.assistant, &numbers)?.into_iter();
        let prompt = |question: &Question<'_>| {
            let features: Option<Tensor<3>> = question.shown.and_then(|_| features.next());
            Prompt { ids: question.ids.to_vec(), features }
        };
        let prompts: Vec<Prompt> = questions.iter().map(prompt).collect();
        let shown = questions.iter().map(|question| question.shown.map_or(u64::MAX, |number| number as u64));
        let options = Options {
            max_new_tokens: self.max_new_tokens,
            sampling: Sampling::default(),
            eos: self.assistant.eos().to_vec(),
        };
        let mut go_on = |_: usize, _: u32| ControlFlow::Continue(());
        let model = &self.assistant.model;
        let found = generate_shared(model, &prompts, &shown.collect::<Vec<_>>(), 0, &options, &mut go_on);
        let found = found.map_err(|error| StageError::new(error.to_string()).because(error))?;
        found.iter().map(|ids| self.text(ids)).collect()
    }

    /// An answer as people read it: without control tokens and without what the model thought.
    pub fn text(&self, ids: &[u32]) -> Result<String, StageError> {
        let text = self.assistant.text(ids);
        let text = text.map_err(|error| StageError::new(error.to_string()).because(error))?;
        Ok(without_thoughts(&text).trim().to_owned())
    }
}

/// The batches of which nothing is known, as they are, so that a run which goes on behind another asks in the very batches in which
/// that one would have: what others a question is asked with shows in the last bits. What is left of batches of which
/// something is known, because other questions were asked before, is put together.
pub fn unanswered(
    batches: Vec<Vec<usize>>,
    batch_size: usize,
    is_known: impl Fn(usize) -> bool,
) -> Vec<Vec<usize>> {
    let (mut whole, mut rest) = (Vec::new(), Vec::new());
    for batch in batches {
        let open: Vec<usize> = batch.iter().copied().filter(|at| !is_known(*at)).collect();
        if open.len() == batch.len() { whole.push(batch) } else { rest.extend(open) }
    }
    whole.extend(rest.chunks(batch_size.max(1)).map(<[usize]>::to_vec));
    whole
}

/// What follows the think block that an answer may begin with.
fn without_thoughts(text: &str) -> &str {
    let thoughts = text.trim_start().strip_prefix("<think>").and_then(|rest| rest.split_once("</think>"));
    thoughts.map_or(text, |(_, answer)| answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_of_which_nothing_is_known_stay_as_they_are() {
        let batches = vec![vec![0, 1], vec![2, 3], vec![4, 5], vec![6, 7]];
        let known = [0, 1, 3, 4];
        let open = unanswered(batches, 2, |at| known.contains(&at));
        assert_eq!(open, [vec![6, 7], vec![2, 5]]);
    }

    #[test]
    fn thoughts_are_no_part_of_an_answer() {
        assert_eq!(without_thoughts("<think>\nhm\n</think>\n\nYes."), "\n\nYes.");
        assert_eq!(without_thoughts("Yes <think>"), "Yes <think>");
    }
}
