//! AI2D (arXiv:1603.07396): questions about diagrams, with options.
//!
//! | rule | an answer |
//! |---|---|
//! | `lmms-eval` (`tasks/ai2d/utils.py`) | a capital and a point at the beginning, else all of it, against the letter without regard to case and punctuation |
//! | `vlmevalkit` | as in `multiple_choice.rs` |

use super::gqa::without_punctuation;
use super::item::Item;
use super::multiple_choice::{VANILLA, exact_match};
use super::rule::Judged;
use super::{Benchmark, prompt};

/// The benchmark.
pub const AI2D: Benchmark = Benchmark {
    name: "ai2d",
    about: "options: diagrams of school books",
    prompt: prompt::letter,
    rules: &[exact_match(letter), VANILLA],
};

fn letter(item: &Item, answer: &str) -> Judged {
    let mut letters = answer.trim_start().chars();
    let first = letters.next().filter(char::is_ascii_uppercase).filter(|_| letters.next() == Some('.'));
    let read = first.map_or_else(|| answer.to_owned(), String::from);
    let right = without_punctuation(&read) == without_punctuation(item.answer());
    Judged::of(read, right)
}
