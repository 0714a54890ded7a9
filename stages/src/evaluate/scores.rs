//! What each prediction is worth, row by row: everything that reports, intervals and comparisons add up.

use super::prediction::Prediction;
use crate::metrics::Caption;
use crate::metrics::bleu::{BleuCounts, bleu};
use crate::metrics::cider::cider_d;
use crate::metrics::exact::{is_exact, normalise};
use crate::metrics::resample::mean;
use crate::metrics::rouge::rouge_l;
use crate::metrics::words::{Tokenisation, Words, is_chinese};
use crate::metrics::yes_no::{Judged, YesNo, pope, says, truth};
use std::collections::BTreeMap;

/// One number per prediction and measure.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    /// Sum of the loss over the answer tokens, in nats.
    pub loss: Vec<f64>,
    /// Answer tokens.
    pub tokens: Vec<f64>,
    /// Answer tokens that were the likeliest.
    pub correct: Vec<f64>,
    /// 1 where the answer is a reference.
    pub exact: Vec<f64>,
    /// Words by jieba where the reference is Chinese, else the Penn Treebank way.
    pub bleu: Vec<BleuCounts>,
    /// As for `bleu`.
    pub rouge_l: Vec<f64>,
    /// As for `bleu`; document frequencies are those of all references together.
    pub cider_d: Vec<f64>,
    /// Of yes/no questions: what was said, and what is right.
    pub yes_no: Vec<Option<Judged>>,
    /// The same by POPE's own rule.
    pub pope: Vec<Option<Judged>>,
    /// How the words were found.
    pub tokenisation: Vec<Tokenisation>,
    /// With another image: loss summed as above, and 1 where the answer still is the reference.
    pub image_swap: Vec<Option<(f64, f64)>>,
    /// Asked something else: see [`Listens`].
    pub question_swap: Vec<Option<Listens>>,
}

/// What another question did to an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Listens {
    /// 1 where the answer differs, 0 where not; `None` where both questions have the same right answer.
    pub changed: Option<f64>,
    /// 1 where it is right for the other question; `None` where the data does not say what is right.
    pub exact: Option<f64>,
}

impl Scores {
    /// Scores all predictions.
    pub fn of(predictions: &[Prediction]) -> Self {
        let each = |score: fn(&Prediction) -> f64| predictions.iter().map(score).collect();
        let tokenisation: Vec<Tokenisation> = predictions.iter().map(tokenisation).collect();
        let captions = captions(predictions, &tokenisation);
        let mut words = Words::new();
        Self {
            loss: each(|row| row.loss * f64::from(row.answer_tokens)),
            tokens: each(|row| f64::from(row.answer_tokens)),
            correct: each(|row| f64::from(row.correct_tokens)),
            exact: each(|row| f64::from(is_any(&row.answer, row))),
            bleu: captions.iter().map(BleuCounts::of).collect(),
            rouge_l: captions.iter().map(rouge_l).collect(),
            cider_d: cider_d(&captions),
            yes_no: predictions.iter().map(|row| yes_no(row, |answer| says(answer, &mut words))).collect(),
            pope: predictions.iter().map(|row| yes_no(row, |answer| Some(pope(answer)))).collect(),
            tokenisation,
            image_swap: predictions.iter().map(image_swap).collect(),
            question_swap: predictions.iter().map(question_swap).collect(),
        }
    }

    /// How many predictions there are.
    pub fn rows(&self) -> usize {
        self.exact.len()
    }

    /// Nats per answer token.
    pub fn mean_loss(&self, weights: &[f64]) -> f64 {
        ratio(&self.loss, &self.tokens, weights)
    }

    /// Share of the answer tokens that were the likeliest.
    pub fn token_accuracy(&self, weights: &[f64]) -> f64 {
        ratio(&self.correct, &self.tokens, weights)
    }

    /// Share of the answers that are the reference.
    pub fn exact_match(&self, weights: &[f64]) -> f64 {
        mean(&self.exact, weights)
    }

    /// BLEU-1 to 4.
    pub fn bleu(&self, weights: &[f64]) -> [f64; 4] {
        bleu(&self.bleu, weights)
    }

    /// The yes/no questions.
    pub fn yes_no(&self, weights: &[f64]) -> YesNo {
        table(&self.yes_no, weights)
    }

    /// The yes/no questions by POPE's own rule.
    pub fn pope(&self, weights: &[f64]) -> YesNo {
        table(&self.pope, weights)
    }
}

fn table(judged: &[Option<Judged>], weights: &[f64]) -> YesNo {
    YesNo::of(judged.iter().zip(weights).filter_map(|(judged, weight)| Some(((*judged)?, *weight))))
}

/// Weighted sum over weighted sum.
pub fn ratio(above: &[f64], below: &[f64], weights: &[f64]) -> f64 {
    let sum = |values: &[f64]| values.iter().zip(weights).map(|(value, weight)| value * weight).sum::<f64>();
    sum(above) / sum(below)
}

/// The weighted mean of the values that there are.
pub fn mean_of_some(values: impl Iterator<Item = Option<f64>>, weights: &[f64]) -> f64 {
    let (mut sum, mut total) = (0.0, 0.0);
    for (value, weight) in values.zip(weights).filter_map(|(value, weight)| Some((value?, weight))) {
        sum += value * weight;
        total += weight;
    }
    sum / total
}

/// Whether the answer says what one of the references says.
fn is_any(answer: &str, row: &Prediction) -> bool {
    row.references().iter().any(|reference| is_exact(answer, reference))
}

fn tokenisation(row: &Prediction) -> Tokenisation {
    if is_chinese(&row.reference) { Tokenisation::Jieba } else { Tokenisation::Ptb }
}

/// Answers and references in words. A handful of texts is asked for again and again, so each is split once.
pub fn captions(predictions: &[Prediction], tokenisation: &[Tokenisation]) -> Vec<Caption> {
    let mut splitter = Splitter::default();
    let rows = predictions.iter().zip(tokenisation);
    rows.map(|(row, how)| Caption {
        candidate: splitter.split(&row.answer, *how),
        references: row.references().iter().map(|text| splitter.split(text, *how)).collect(),
    })
    .collect()
}

/// Splits each text once.
#[derive(Default)]
struct Splitter<'a> {
    words: Words,
    known: BTreeMap<(Tokenisation, &'a str), Vec<String>>,
}

impl<'a> Splitter<'a> {
    fn split(&mut self, text: &'a str, how: Tokenisation) -> Vec<String> {
        self.known.entry((how, text)).or_insert_with(|| self.words.of(text, how)).clone()
    }
}

fn yes_no(row: &Prediction, mut said: impl FnMut(&str) -> Option<bool>) -> Option<Judged> {
    let truth = truth(&row.reference)?;
    Some(Judged { said: said(&row.answer), truth })
}

fn image_swap(row: &Prediction) -> Option<(f64, f64)> {
    let swap = row.image_swap.as_ref()?;
    let exact = is_any(&swap.answer, row);
    Some((swap.loss * f64::from(row.answer_tokens), f64::from(exact)))
}

fn question_swap(row: &Prediction) -> Option<Listens> {
    let swap = row.question_swap.as_ref()?;
    let same_answer = swap.reference.as_ref().is_some_and(|other| is_exact(other, &row.reference));
    let changed = f64::from(normalise(&swap.answer) != normalise(&row.answer));
    Some(Listens {
        changed: (!same_answer).then_some(changed),
        exact: swap.reference.as_ref().map(|right| f64::from(is_exact(&swap.answer, right))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::prediction::{ImageSwap, QuestionSwap};

    fn asked(answer: &str, reference: &str) -> Prediction {
        Prediction {
            answer: answer.to_owned(),
            reference: reference.to_owned(),
            loss: 0.5,
            answer_tokens: 4,
            correct_tokens: 3,
            ..Prediction::default()
        }
    }

    fn instead(question: &str, reference: Option<&str>, answer: &str) -> QuestionSwap {
        let (question, reference) = (question.to_owned(), reference.map(str::to_owned));
        QuestionSwap { question, reference, answer: answer.to_owned() }
    }

    #[test]
    fn losses_are_means_over_tokens_not_over_rows() {
        let short = Prediction { loss: 2.0, answer_tokens: 1, correct_tokens: 0, ..asked("a", "b") };
        let scores = Scores::of(&[asked("a", "a"), short]);
        assert!((scores.mean_loss(&[1.0, 1.0]) - 4.0 / 5.0).abs() < 1e-12);
        assert!((scores.token_accuracy(&[1.0, 1.0]) - 3.0 / 5.0).abs() < 1e-12);
        assert!((scores.exact_match(&[1.0, 3.0]) - 0.25).abs() < 1e-12);
    }

    #[test]
    fn only_pairs_with_different_right_answers_can_change() {
        let mut rows =
            vec![asked("Red.", "red"), asked("red", "red"), asked("red", "red"), asked("red", "red")];
        rows[0].question_swap = Some(instead("Where?", Some("left"), "left"));
        rows[1].question_swap = Some(instead("Where?", Some("left"), "red!"));
        rows[2].question_swap = Some(instead("Is it red or blue?", Some("Red"), "blue"));
        rows[3].question_swap = Some(instead("From elsewhere?", None, "two"));
        let found: Vec<_> = Scores::of(&rows).question_swap.into_iter().flatten().collect();
        let pairs = |pair: &Listens| (pair.changed, pair.exact);
        let expected = [(Some(1.0), Some(1.0)), (Some(0.0), Some(0.0)), (None, Some(0.0)), (Some(1.0), None)];
        assert_eq!(found.iter().map(pairs).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_answer_that_stays_right_about_another_image_was_not_seen() {
        let mut row = asked("red", "red");
        row.image_swap = Some(ImageSwap { id: "other".to_owned(), answer: "Red".to_owned(), loss: 0.25 });
        assert_eq!(Scores::of(&[row]).image_swap, [Some((1.0, 1.0))]);
    }

    #[test]
    fn any_of_several_references_is_right_and_all_count_for_captions() {
        let mut row = asked("a red disc", "a red circle");
        let alone = Scores::of(std::slice::from_ref(&row));
        row.references = ["a red circle", "A red disc.", "one circle"].map(str::to_owned).into();
        let scores = Scores::of(&[row]);
        assert_eq!((alone.exact[0], scores.exact[0]), (0.0, 1.0));
        assert!(alone.rouge_l[0] < 0.7 && (scores.rouge_l[0] - 1.0).abs() < 1e-12);
        assert!((scores.bleu(&[1.0])[2] - 1.0).abs() < 1e-8);
    }

    #[test]
    fn words_are_found_by_the_language_of_the_reference() {
        let scores = Scores::of(&[asked("红色的圆形", "红色的圆形"), asked("a red circle", "a red circle")]);
        assert_eq!(scores.tokenisation, [Tokenisation::Jieba, Tokenisation::Ptb]);
        assert_eq!(scores.rouge_l, [1.0, 1.0]);
    }

    #[test]
    fn an_answer_equal_to_its_reference_is_right_in_every_language() {
        let texts = ["是的，图中有一只不大的狗。", "没有", "NO", "No!", "Yes, no doubt.", "否"];
        let scores = Scores::of(&texts.map(|text| asked(text, text)));
        assert!((scores.yes_no(&[1.0; 6]).accuracy() - 1.0).abs() < 1e-12, "{:?}", scores.yes_no);
        let scores = Scores::of(&["不锈钢", "No parking", "有一架无人机"].map(|text| asked(text, text)));
        assert_eq!(scores.yes_no, [None; 3]);
        assert_eq!(Scores::of(&[asked("NO", "no")]).pope[0].map(|judged| judged.said), Some(Some(true)));
    }
}
