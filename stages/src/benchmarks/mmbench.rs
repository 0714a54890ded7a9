//! MMBench (arXiv:2307.06281), English and Chinese, and `CCBench`: questions with options, asked again with the options rotated. A
//! question counts when it is right in every rotation (`CircularEval`). Rotations have the index of their question plus a
//! multiple of a million.
//!
//! | rule | an answer |
//! |---|---|
//! | `vlmevalkit` (`dataset/utils/multiple_choice.py`, `mcq_circular_eval`, model `exact_matching`) | as in `multiple_choice.rs`; shares by ability |
//! | `lmms-eval` (`tasks/mmbench/mmbench_evals.py`, `eval_method = "static"`) | its own `can_infer`, then `extract_mcq_answer`; per cent. Its default asks a judge model, and draws at random after three failures |

use super::choice;
use super::item::Item;
use super::multiple_choice::{letter, report};
use super::rule::{Answered, Judged, Measure, Rule};
use super::{Benchmark, LMMS_EVAL, VLMEVALKIT, prompt};

/// Rotations of question n are n + 1 000 000, n + 2 000 000 …
const ROTATION: u64 = 1_000_000;

const RULES: &[Rule] = &[
    Rule { name: VLMEVALKIT, judge: letter, measure: circular },
    Rule { name: LMMS_EVAL, judge: static_letter, measure: static_score },
];

/// English.
pub const MMBENCH_EN: Benchmark = Benchmark {
    name: "mmbench-en",
    about: "options, rotated: twenty abilities, in English",
    prompt: prompt::mmbench_en,
    rules: RULES,
};
/// Chinese.
pub const MMBENCH_CN: Benchmark = Benchmark {
    name: "mmbench-cn",
    about: "options, rotated: twenty abilities, in Chinese",
    prompt: prompt::mmbench_cn,
    rules: RULES,
};
/// Chinese culture.
pub const CCBENCH: Benchmark = Benchmark {
    name: "ccbench",
    about: "options, rotated: Chinese culture",
    prompt: prompt::mmbench_cn,
    rules: RULES,
};

fn number(item: &Item) -> Option<u64> {
    item.index.parse().ok()
}

/// The rows of each question that is there unrotated.
fn questions(of: &Answered<'_>) -> Vec<Vec<usize>> {
    let groups = of.groups(|item| Some(number(item)? % ROTATION));
    let whole = groups.into_iter().filter_map(|(question, mut rows)| {
        rows.sort_by_key(|row| number(&of.items[*row]));
        rows.first().is_some_and(|row| number(&of.items[*row]) == Some(question)).then_some(rows)
    });
    whole.collect()
}

fn circular<'a>(of: &'a Answered<'a>) -> Measure<'a> {
    report(of, questions(of))
}

fn static_letter(item: &Item, answer: &str) -> Judged {
    let answer = answer.trim();
    // Cells without an option hold the text "nan" in these files, and are taken for one.
    let choices: Vec<(char, &str)> = (item.options.iter())
        .filter(|(letter, _)| ('A'..='D').contains(letter))
        .map(|(letter, text)| (*letter, text.as_str()))
        .collect();
    let letters: Vec<char> = choices.iter().map(|(letter, _)| *letter).collect();
    let read = choice::mmbench(answer, &choices).or_else(|| choice::lmms_eval(answer, &letters));
    let read = read.map(String::from).unwrap_or_default();
    let right = read == item.answer();
    Judged::of(read, right)
}

fn static_score<'a>(of: &'a Answered<'a>) -> Measure<'a> {
    let questions = questions(of);
    Box::new(move |weights| vec![("static_score".to_owned(), 100.0 * of.all_right(&questions, weights))])
}
