//! RealWorldQA (xAI): questions about photographs, with options or with a word to be answered.
//!
//! | rule | an answer |
//! |---|---|
//! | `lmms-eval` (`tasks/realworldqa/utils.py`) | to a letter `extract_mcq_answer` with A to D, to a word all of it, without regard to case and points at its end |
//! | `vlmevalkit` | as in `multiple_choice.rs` |

use super::item::Item;
use super::mmstar::extracted;
use super::multiple_choice::{VANILLA, exact_match};
use super::rule::Judged;
use super::{Benchmark, prompt};

/// The benchmark.
pub const REALWORLDQA: Benchmark = Benchmark {
    name: "realworldqa",
    about: "options and words: photographs of streets and rooms",
    prompt: prompt::realworldqa,
    rules: &[exact_match(letter_or_word), VANILLA],
};

fn letter_or_word(item: &Item, answer: &str) -> Judged {
    let truth = item.answer().trim();
    if ["A", "B", "C", "D"].contains(&truth.to_uppercase().as_str()) {
        return extracted(item, answer);
    }
    let read = answer.to_lowercase().trim().trim_end_matches('.').to_owned();
    let right = read == truth.to_lowercase();
    Judged::of(read, right)
}
