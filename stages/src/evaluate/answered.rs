//! One question and what became of it.

use std::collections::BTreeMap;

/// One question and what became of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prediction {
    /// The source row.
    pub id: String,
    /// Which of its questions, from 0.
    pub turn: u32,
    /// Digest of what the row shows; `None` without an image.
    pub image: Option<String>,
    /// As the data has it.
    pub question: String,
    /// As the data has it.
    pub reference: String,
    /// All right answers, where there are several: `reference` first.
    pub references: Vec<String>,
    /// What the model says.
    pub answer: String,
    /// Nats per answer token of the reference.
    pub loss: f64,
    /// Tokens of the reference that carry loss.
    pub answer_tokens: u32,
    /// Those that were the likeliest.
    pub correct_tokens: u32,
    /// What the model says when shown another image.
    pub image_swap: Option<ImageSwap>,
    /// What the model says when asked something else.
    pub question_swap: Option<QuestionSwap>,
    /// The row's value in each slice column.
    pub slices: Vec<Option<String>>,
}

impl Prediction {
    /// The right answers.
    pub fn references(&self) -> &[String] {
        if self.references.is_empty() { std::slice::from_ref(&self.reference) } else { &self.references }
    }
}

/// The same question about another row's image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageSwap {
    /// The row whose image was shown.
    pub id: String,
    /// What the model says.
    pub answer: String,
    /// Nats per answer token of the unswapped reference.
    pub loss: f64,
}

/// Another question about the same image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuestionSwap {
    /// What was asked.
    pub question: String,
    /// What is right, where the data says it of this image.
    pub reference: Option<String>,
    /// What the model says.
    pub answer: String,
}

/// What is drawn together when answers are resampled: questions about one image stand or fall together, and so do those of
/// a row without an image. Equal numbers, from 0, are equal units.
pub fn units(predictions: &[Prediction]) -> Vec<usize> {
    let mut numbers = BTreeMap::new();
    let mut unit = |row: &Prediction| {
        let next = numbers.len();
        let key = row.image.clone().ok_or_else(|| row.id.clone());
        *numbers.entry(key).or_insert(next)
    };
    predictions.iter().map(&mut unit).collect()
}
