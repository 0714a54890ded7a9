//! ScienceQA (arXiv:2209.09513), the questions with an image.
//!
//! | rule | an answer |
//! |---|---|
//! | `lmms-eval` (`tasks/scienceqa/utils.py`, as LLaVA reads it) | the letter alone, in either case, or a capital followed by a point at the beginning |
//! | `vlmevalkit` | as in `multiple_choice.rs` |

use super::item::Item;
use super::multiple_choice::{VANILLA, exact_match};
use super::rule::Judged;
use super::{Benchmark, prompt};

/// The benchmark.
pub const SCIENCEQA_IMG: Benchmark = Benchmark {
    name: "scienceqa-img",
    about: "options: school science",
    prompt: prompt::scienceqa,
    rules: &[exact_match(letter), VANILLA],
};

fn letter(item: &Item, answer: &str) -> Judged {
    let target = item.answer().trim().to_lowercase();
    let answer = answer.trim();
    if answer.to_lowercase() == target {
        return Judged::of(answer, true);
    }
    let mut letters = answer.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some('.')) if first.is_uppercase() => {
            Judged::of(first, first.to_lowercase().collect::<String>() == target)
        }
        _ => Judged::of("", false),
    }
}
