//! MMStar (arXiv:2403.20330): questions with options that need the image.
//!
//! | rule | an answer | numbers |
//! |---|---|---|
//! | `lmms-eval` (`tasks/mmstar/utils.py`) | `extract_mcq_answer` with A to D | of each category, and `average` of all: the mean over finer categories of their means |
//! | `vlmevalkit` | as in `multiple_choice.rs` | shares |

use super::choice;
use super::item::Item;
use super::multiple_choice::VANILLA;
use super::rule::{Answered, Judged, Measure, Rule};
use super::{Benchmark, LMMS_EVAL, prompt};
use std::collections::BTreeMap;

/// The benchmark.
pub const MMSTAR: Benchmark = Benchmark {
    name: "mmstar",
    about: "options: questions that need the image",
    prompt: prompt::mmstar,
    rules: &[Rule { name: LMMS_EVAL, judge: extracted, measure: averages }, VANILLA],
};

/// `extract_mcq_answer` with A to D against the letter.
pub(super) fn extracted(item: &Item, answer: &str) -> Judged {
    let read = choice::lmms_eval(answer, &['A', 'B', 'C', 'D']).map(String::from).unwrap_or_default();
    let right = read == item.answer().trim().to_uppercase();
    Judged::of(read, right)
}

fn averages<'a>(of: &'a Answered<'a>) -> Measure<'a> {
    let average: Vec<Vec<usize>> = of.groups(|item| Some(item.l2_category.clone())).into_values().collect();
    let mut categories: BTreeMap<String, Vec<Vec<usize>>> = BTreeMap::new();
    for ((category, _), rows) in of.groups(|item| Some((item.category.clone()?, item.l2_category.clone()))) {
        categories.entry(category).or_default().push(rows);
    }
    Box::new(move |weights| {
        let mean = |groups: &[Vec<usize>]| {
            let means: Vec<f64> = groups.iter().map(|rows| of.mean_of(rows, weights)).collect();
            means.iter().sum::<f64>() / means.len() as f64
        };
        let mut numbers = vec![("average".to_owned(), mean(&average))];
        numbers.extend(categories.iter().map(|(name, groups)| (name.clone(), mean(groups))));
        numbers
    })
}
