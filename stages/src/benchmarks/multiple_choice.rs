//! VLMEvalKit's rule for questions with options (`dataset/utils/multiple_choice.py`, `mcq_vanilla_eval` and `report_acc`, model
//! `exact_matching`): the letter that the answer names, or whose option it quotes. An answer with neither is wrong; its
//! other rules ask a judge model about those.

use super::choice;
use super::item::Item;
use super::rule::{Answered, Judged, Measure, Numbers, Rule};
use super::{LMMS_EVAL, VLMEVALKIT};

/// VLMEvalKit's rule.
pub const VANILLA: Rule = Rule { name: VLMEVALKIT, judge: letter, measure: accuracy };

/// A rule of lmms-eval whose number is the mean, called `exact_match`.
pub const fn exact_match(judge: fn(&Item, &str) -> Judged) -> Rule {
    Rule { name: LMMS_EVAL, judge, measure: mean_score }
}

/// The letter.
pub fn letter(item: &Item, answer: &str) -> Judged {
    let choices: Vec<(char, &str)> = item.choices().collect();
    let read = choice::vlmevalkit(answer, &choices).map(String::from).unwrap_or_default();
    let right = read == item.answer();
    Judged::of(read, right)
}

fn mean_score<'a>(of: &'a Answered<'a>) -> Measure<'a> {
    let all = of.all();
    Box::new(move |weights| vec![("exact_match".to_owned(), of.mean_of(&all, weights))])
}

/// VLMEvalKit's short names of `MMBench`'s abilities.
const SHORT: [(&str, &str); 6] = [
    ("coarse_perception", "CP"),
    ("finegrained_perception (instance-level)", "FP-S"),
    ("finegrained_perception (cross-instance)", "FP-C"),
    ("logic_reasoning", "LR"),
    ("relation_reasoning", "RR"),
    ("attribute_reasoning", "AR"),
];

/// Shares: overall, by `l2-category`, by `category`; by split where there are several.
pub fn accuracy<'a>(of: &'a Answered<'a>) -> Measure<'a> {
    let rows: Vec<Vec<usize>> = of.all().into_iter().map(|row| vec![row]).collect();
    report(of, rows)
}

/// The same of groups of rows: a group is right when all of its rows are, and is of its first row's category.
pub fn report<'a>(of: &'a Answered<'a>, groups: Vec<Vec<usize>>) -> Measure<'a> {
    let split = |item: &Item| item.record.text(&["split"]).filter(|name| !name.is_empty());
    let mut slices: Vec<(String, Vec<usize>)> = vec![("Overall".to_owned(), (0..groups.len()).collect())];
    let kinds: [fn(&Item) -> Option<String>; 2] =
        [|item| item.l2_category.clone(), |item| item.category.clone()];
    for kind in kinds {
        let mut by: std::collections::BTreeMap<String, Vec<usize>> = std::collections::BTreeMap::new();
        for (at, group) in groups.iter().enumerate() {
            if let Some(name) = group.first().and_then(|row| kind(&of.items[*row])) {
                by.entry(name).or_default().push(at);
            }
        }
        slices.extend(by.into_iter().map(|(name, members)| (short(&name), members)));
    }
    let mut splits: Vec<Option<String>> =
        groups.iter().filter_map(|group| group.first()).map(|row| split(&of.items[*row])).collect();
    splits.sort();
    splits.dedup();
    Box::new(move |weights| {
        let mut numbers = Numbers::new();
        for wanted in &splits {
            for (name, members) in &slices {
                let of_split = members.iter().map(|at| &groups[*at]);
                let of_split = of_split
                    .filter(|group| group.first().is_some_and(|row| split(&of.items[*row]) == *wanted));
                let name = match wanted {
                    Some(split) if splits.len() > 1 => format!("{split} {name}"),
                    _ => name.clone(),
                };
                numbers.push((name, of.all_right(of_split, weights)));
            }
        }
        numbers
    })
}

fn short(name: &str) -> String {
    SHORT.iter().find(|(long, _)| *long == name).map_or(name, |(_, short)| short).to_owned()
}
