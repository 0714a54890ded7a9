//! TextVQA (arXiv:1904.08920), validation: questions about writing in images, with ten answers each. An answer is worth the mean,
//! over each of the ten left out, of how many of the nine others it equals, three being all.
//!
//! | rule | before comparing | numbers |
//! |---|---|---|
//! | `lmms-eval` (`tasks/textvqa/utils.py`) | `EvalAIAnswerProcessor` on both | share |
//! | `vlmevalkit` (`dataset/utils/vqa_eval.py`, `vqa_score`) | `process_answer` on both, which differs about commas, possessives and points | per cent |

use super::answer::{eval_ai, leave_one_out, process_answer};
use super::gqa::per_cent;
use super::item::Item;
use super::multiple_choice::exact_match;
use super::rule::{Judged, Rule};
use super::{Benchmark, VLMEVALKIT, prompt};

/// The benchmark.
pub const TEXTVQA: Benchmark = Benchmark {
    name: "textvqa-val",
    about: "a word or two: writing in images, ten references",
    prompt: prompt::textvqa,
    rules: &[
        exact_match(|item, answer| vote(item, answer, eval_ai)),
        Rule {
            name: VLMEVALKIT,
            judge: |item, answer| vote(item, answer, process_answer),
            measure: per_cent,
        },
    ],
};

fn vote(item: &Item, answer: &str, normal: fn(&str) -> String) -> Judged {
    let references: Vec<String> = item.answers.iter().map(|text| normal(text)).collect();
    let read = normal(answer);
    Judged { score: leave_one_out(&read, &references), read }
}
