//! SEED-Bench (arXiv:2307.16125): questions with four options.
//!
//! | rule | an answer | numbers |
//! |---|---|---|
//! | `lmms-eval` (`tasks/seedbench/utils.py`) | its first character, in either case | shares: of all, of images, of videos |
//! | `vlmevalkit` | as in `multiple_choice.rs` | shares |

use super::item::Item;
use super::multiple_choice::VANILLA;
use super::rule::{Answered, Judged, Measure, Rule};
use super::{Benchmark, LMMS_EVAL, prompt};

/// The benchmark.
pub const SEED_BENCH: Benchmark = Benchmark {
    name: "seed-bench",
    about: "options: twelve kinds of understanding",
    prompt: prompt::letter,
    rules: &[Rule { name: LMMS_EVAL, judge: first, measure: shares }, VANILLA],
};

fn first(item: &Item, answer: &str) -> Judged {
    let read: String = answer.trim().chars().take(1).collect();
    let right = read.to_lowercase().trim() == item.answer().to_lowercase().trim();
    Judged::of(if read.chars().all(char::is_alphabetic) { read } else { String::new() }, right)
}

fn shares<'a>(of: &'a Answered<'a>) -> Measure<'a> {
    let kinds = of.groups(|item| item.record.text(&["data_type"]));
    let all = of.all();
    Box::new(move |weights| {
        let mut numbers = vec![("seed_all".to_owned(), of.mean_of(&all, weights))];
        numbers.extend(kinds.iter().map(|(kind, rows)| (format!("seed_{kind}"), of.mean_of(rows, weights))));
        numbers
    })
}
