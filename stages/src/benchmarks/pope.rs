//! POPE (arXiv:2305.10355): is this object in the image?
//!
//! | rule | an answer | numbers |
//! |---|---|---|
//! | `lmms-eval` (`tasks/pope/utils.py`) | right when it is the word yes or no, give or take case and spaces | shares; an answer that is neither misses recall's denominator; `pope_yes_ratio` is that of the references |
//! | `vlmevalkit` (`dataset/utils/yorn.py`) | yes or no, whichever of the two words is in it; both or none is unknown | per cent; `Overall` is F1; questions of several categories count in each |
//! | `pope` (POPE's `evaluate.py`) | any of No, no, not in the first sentence is no, all else yes | shares |

use super::answer::yes_or_no;
use super::item::Item;
use super::rule::{Answered, Judged, Measure, Numbers, Rule, mean};
use super::{Benchmark, LMMS_EVAL, VLMEVALKIT, prompt};
use crate::metrics::yes_no::{self, YesNo};

/// The benchmark.
pub const POPE: Benchmark = Benchmark {
    name: "pope",
    about: "yes/no: is this object in the image",
    prompt: prompt::word,
    rules: &[
        Rule { name: LMMS_EVAL, judge: exact, measure: lmms_eval },
        Rule { name: VLMEVALKIT, judge: word, measure: vlmevalkit },
        Rule { name: "pope", judge: own, measure: popes },
    ],
};

fn truth(item: &Item) -> bool {
    item.answer().trim().eq_ignore_ascii_case("yes")
}

fn exact(item: &Item, answer: &str) -> Judged {
    let answer = answer.to_lowercase().trim().to_owned();
    let right = answer == item.answer().to_lowercase().trim();
    let read = if answer == "yes" || answer == "no" { answer } else { String::new() };
    Judged::of(read, right)
}

fn lmms_eval<'a>(of: &'a Answered<'a>) -> Measure<'a> {
    Box::new(move |weights| {
        let all = of.all();
        let count = |read: &str, truth_is: bool| -> f64 {
            let rows =
                all.iter().filter(|row| of.judged[**row].read == read && truth(&of.items[**row]) == truth_is);
            rows.map(|row| weights[*row]).sum()
        };
        let (hits, alarms, misses) = (count("yes", true), count("yes", false), count("no", true));
        let (precision, recall) = (share(hits, hits + alarms), share(hits, hits + misses));
        let yes = mean(all.iter().map(|row| (f64::from(truth(&of.items[*row])), weights[*row])));
        named([
            ("pope_accuracy", of.mean_of(&all, weights)),
            ("pope_precision", precision),
            ("pope_recall", recall),
            ("pope_f1_score", share(2.0 * (precision * recall), precision + recall)),
            ("pope_yes_ratio", yes),
        ])
    })
}

/// Right when the word is the reference as VLMEvalKit's table writes it, with a capital; lmms-eval's files have small letters.
pub(super) fn word(item: &Item, answer: &str) -> Judged {
    let read = yes_or_no(answer);
    let truth = ["Yes", "No"].into_iter().find(|word| word.eq_ignore_ascii_case(item.answer().trim()));
    Judged::of(if read == "Unknown" { "" } else { read }, Some(read) == truth)
}

fn vlmevalkit<'a>(of: &'a Answered<'a>) -> Measure<'a> {
    let categories = |item: &Item| -> Vec<String> {
        item.category.iter().flat_map(|all| all.split(',')).map(str::to_owned).collect()
    };
    let copies: Vec<(usize, Option<String>)> = (of.items.iter().enumerate())
        .flat_map(|(row, item)| {
            let named = categories(item);
            let one = if named.is_empty() { vec![(row, None)] } else { Vec::new() };
            one.into_iter().chain(named.into_iter().map(move |name| (row, Some(name))))
        })
        .collect();
    let mut names: Vec<String> = copies.iter().filter_map(|(_, name)| name.clone()).collect();
    names.sort();
    names.dedup();
    Box::new(move |weights| {
        let rows = |wanted: Option<&String>| -> Vec<usize> {
            let of_name = copies.iter().filter(|(_, name)| wanted.is_none() || name.as_ref() == wanted);
            of_name.map(|(row, _)| *row).collect()
        };
        let mut numbers = f1(of, &rows(None), weights, "");
        for name in &names {
            numbers.extend(f1(of, &rows(Some(name)), weights, &format!("{name} ")));
        }
        numbers
    })
}

/// `Overall`, `acc`, `precision` and `recall` of some rows, per cent. Unknown counts as no.
fn f1(of: &Answered<'_>, rows: &[usize], weights: &[f64], prefix: &str) -> Numbers {
    let count = |yes: bool, truth_is: bool| -> f64 {
        let is_truth = |row: usize| truth(&of.items[row]);
        let rows =
            rows.iter().filter(|row| (of.judged[**row].read == "Yes") == yes && is_truth(**row) == truth_is);
        rows.map(|row| weights[*row]).sum()
    };
    let (hits, alarms, misses) = (count(true, true), count(true, false), count(false, true));
    let (precision, recall) = (share(hits, hits + alarms), share(hits, hits + misses));
    let numbers = [
        ("Overall", 100.0 * share(2.0 * (precision * recall), precision + recall)),
        ("acc", 100.0 * of.mean_of(rows, weights)),
        ("precision", 100.0 * precision),
        ("recall", 100.0 * recall),
    ];
    numbers.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)).collect()
}

fn own(item: &Item, answer: &str) -> Judged {
    let said = yes_no::pope(answer);
    Judged::of(if said { "yes" } else { "no" }, said == truth(item))
}

fn popes<'a>(of: &'a Answered<'a>) -> Measure<'a> {
    Box::new(move |weights| {
        let judged = |row: usize| yes_no::Judged {
            said: Some(of.judged[row].read == "yes"),
            truth: truth(&of.items[row]),
        };
        let table = YesNo::of((0..of.items.len()).map(|row| (judged(row), weights[row])));
        named([
            ("accuracy", table.accuracy()),
            ("precision", table.precision()),
            ("recall", table.recall()),
            ("f1", table.f1()),
            ("yes_ratio", table.yes_ratio()),
        ])
    })
}

/// Numbers with owned names.
pub(super) fn named<const N: usize>(numbers: [(&str, f64); N]) -> Numbers {
    numbers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn share(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::benchmarks::predictions::Paired;
    use crate::benchmarks::record::Record;
    use crate::benchmarks::score::score;

    #[test]
    fn either_projects_file_gets_the_same_score_by_either_rule() {
        let numbers = |yes: &str, no: &str| -> Vec<Vec<Option<f64>>> {
            let item = |(n, answer): (usize, &&str)| {
                let row = serde_json::json!({"index": n, "question": "?", "answer": answer});
                let serde_json::Value::Object(row) = row else { panic!() };
                Item::of(Record(row), n).unwrap()
            };
            let paired = Paired {
                items: [yes, no, yes, no].iter().enumerate().map(item).collect(),
                answers: ["Yes", "no", "No", "maybe"].map(str::to_owned).to_vec(),
            };
            let of = |rule: &Rule| score(&POPE, rule, &paired, 0, 0).numbers;
            POPE.rules.iter().map(|rule| of(rule).into_iter().map(|number| number.value).collect()).collect()
        };
        let capital = numbers("Yes", "No");
        assert_eq!(numbers("yes", "no"), capital);
        assert_eq!(capital[0][..2], [Some(0.5), Some(1.0)]);
        assert_eq!(capital[1][1..3], [Some(50.0), Some(100.0)]);
    }
}
