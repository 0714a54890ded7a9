//! HallusionBench (arXiv:2310.14566): yes/no questions about figures and edited figures. `aAcc`: answers that are right;
//! `fAcc`: figures all of whose questions are; `qAcc`: questions that are right about all of their figures. Per cent.
//!
//! | rule | an answer |
//! |---|---|
//! | `vlmevalkit` (`dataset/utils/yorn.py`) | yes or no, whichever of the two words is in it; both or none is unknown |
//! | `lmms-eval` (`tasks/hallusion_bench/evaluate_hb.py`, `…_intern`) | yes when the letters y, e, s stand in it anywhere, else no; as shares. Its other rule asks a judge model, and is left out |

use super::item::Item;
use super::pope::word;
use super::rule::{Answered, Judged, Measure, Numbers, Rule};
use super::{Benchmark, LMMS_EVAL, VLMEVALKIT, prompt};
use std::collections::BTreeMap;

/// The benchmark.
pub const HALLUSIONBENCH: Benchmark = Benchmark {
    name: "hallusionbench",
    about: "yes/no: figures, and figures that were edited",
    prompt: prompt::plain,
    rules: &[
        Rule { name: VLMEVALKIT, judge: word, measure: vlmevalkit },
        Rule { name: LMMS_EVAL, judge: letters, measure: lmms_eval },
    ],
};

fn letters(item: &Item, answer: &str) -> Judged {
    let read = if answer.to_lowercase().contains("yes") { "1" } else { "0" };
    let truth = item.record.text(&["gt_answer"]).unwrap_or_else(|| yes_as_number(item.answer()));
    Judged::of(read, read == truth)
}

/// VLMEvalKit's table says yes and no in words.
fn yes_as_number(answer: &str) -> String {
    if answer.eq_ignore_ascii_case("yes") { "1" } else { "0" }.to_owned()
}

fn lmms_eval<'a>(of: &'a Answered<'a>) -> Measure<'a> {
    // Category, subcategory and set, and of the figures or of the questions the number.
    let key = |part: usize| {
        move |item: &Item| {
            let parts: Vec<&str> = item.index.split('_').collect();
            Some([0, 1, 3, part].map(|at| parts.get(at).copied().unwrap_or_default()).join("_"))
        }
    };
    let (figures, questions) = (of.groups(key(4)), of.groups(key(5)));
    let all = of.all();
    Box::new(move |weights| three(of, &all, &figures, &questions, weights, 1.0, ""))
}

fn vlmevalkit<'a>(of: &'a Answered<'a>) -> Measure<'a> {
    let mut slices: Vec<(String, Vec<usize>)> = vec![(String::new(), of.all())];
    slices.extend(of.groups(|item| item.category.clone()));
    slices.extend(of.groups(|item| item.l2_category.clone()));
    Box::new(move |weights| {
        let slice = |(name, rows): &(String, Vec<usize>)| {
            let prefix = if name.is_empty() { String::new() } else { format!("{name} ") };
            let (figures, questions) = (by_index(of, rows, 4), by_index(of, rows, 5));
            three(of, rows, &figures, &questions, weights, 100.0, &prefix)
        };
        slices.iter().flat_map(slice).collect()
    })
}

/// Rows by kind, set, and a part of the index such as `VD_figure_0_2_1_0`.
fn by_index(of: &Answered<'_>, rows: &[usize], part: usize) -> BTreeMap<String, Vec<usize>> {
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for row in rows {
        let item = &of.items[*row];
        let parts: Vec<&str> = item.index.split('_').collect();
        let at = |part: usize| parts.get(part).copied().unwrap_or_default();
        let kind = item.l2_category.as_deref().unwrap_or_default();
        groups.entry(format!("{kind}_{}_{}", at(3), at(part))).or_default().push(*row);
    }
    groups
}

fn three(
    of: &Answered<'_>,
    rows: &[usize],
    figures: &BTreeMap<String, Vec<usize>>,
    questions: &BTreeMap<String, Vec<usize>>,
    weights: &[f64],
    unit: f64,
    prefix: &str,
) -> Numbers {
    vec![
        (format!("{prefix}aAcc"), unit * of.mean_of(rows, weights)),
        (format!("{prefix}fAcc"), unit * of.all_right(figures.values(), weights)),
        (format!("{prefix}qAcc"), unit * of.all_right(questions.values(), weights)),
    ]
}
