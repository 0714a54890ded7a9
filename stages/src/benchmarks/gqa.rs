//! GQA (arXiv:1902.09506): questions about scenes, answered with a word or two.
//!
//! | rule | an answer | numbers |
//! |---|---|---|
//! | `lmms-eval` (`tasks/gqa/gqa.yaml`, `exact_match`) | the reference without regard to case and ASCII punctuation | share |
//! | `vlmevalkit` (`dataset/utils/vqa_eval.py`, `accuracy`) | the reference without regard to case and spaces around it | per cent |

use super::item::Item;
use super::multiple_choice::exact_match;
use super::rule::{Answered, Judged, Measure, Rule};
use super::{Benchmark, VLMEVALKIT, prompt};

/// The benchmark.
pub const GQA: Benchmark = Benchmark {
    name: "gqa",
    about: "a word or two: scenes",
    prompt: prompt::word,
    rules: &[exact_match(words), Rule { name: VLMEVALKIT, judge: spaces, measure: per_cent }],
};

/// Lower case, without Python's `string.punctuation`.
pub(super) fn without_punctuation(text: &str) -> String {
    text.to_lowercase().chars().filter(|letter| !letter.is_ascii_punctuation()).collect()
}

fn words(item: &Item, answer: &str) -> Judged {
    let read = without_punctuation(answer);
    let right = read == without_punctuation(item.answer());
    Judged::of(read, right)
}

fn spaces(item: &Item, answer: &str) -> Judged {
    let read = answer.trim().to_lowercase();
    let right = read == item.answer().trim().to_lowercase();
    Judged::of(read, right)
}

/// The mean per cent, overall and by category.
pub(super) fn per_cent<'a>(of: &'a Answered<'a>) -> Measure<'a> {
    let (all, categories) = (of.all(), of.groups(|item| item.category.clone()));
    Box::new(move |weights| {
        let mut numbers = vec![("Overall".to_owned(), 100.0 * of.mean_of(&all, weights))];
        let category =
            |(name, rows): (&String, &Vec<usize>)| (name.clone(), 100.0 * of.mean_of(rows, weights));
        numbers.extend(categories.iter().map(category));
        numbers
    })
}
