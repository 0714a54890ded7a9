//! Benchmark scorers against lmms-eval's and VLMEvalKit's own code; the values and their script stand in `benchmarks/`.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use llavm_stages::benchmarks::item::Item;
use llavm_stages::benchmarks::predictions::Paired;
use llavm_stages::benchmarks::record::Record;
use llavm_stages::benchmarks::rule::{Answered, Judged};
use llavm_stages::benchmarks::score::score;
use llavm_stages::benchmarks::{BENCHMARKS, find};
use serde_json::Value;
use std::collections::BTreeSet;

/// Differences that rounding in another order may leave.
const BOUND: f64 = 1e-10;

fn cases() -> Vec<Value> {
    serde_json::from_str(include_str!("benchmarks/golden.json")).unwrap()
}

fn items(case: &Value) -> Vec<Item> {
    let rows = case["rows"].as_array().unwrap().iter().enumerate();
    rows.map(|(n, row)| Item::of(Record(row.as_object().unwrap().clone()), n).unwrap()).collect()
}

fn answers(case: &Value) -> Vec<String> {
    case["answers"].as_array().unwrap().iter().map(|answer| answer.as_str().unwrap().to_owned()).collect()
}

#[test]
fn answers_are_read_as_by_the_projects_own_code() {
    for case in cases() {
        let (name, rule) = (case["benchmark"].as_str().unwrap(), case["rule"].as_str().unwrap());
        let rule = find(name).unwrap().rule(Some(rule)).unwrap();
        let scores = case["scores"].as_array().unwrap();
        let mut wrong = Vec::new();
        for ((item, answer), expected) in items(&case).iter().zip(answers(&case)).zip(scores) {
            let Judged { read, score } = (rule.judge)(item, &answer);
            if (score - expected.as_f64().unwrap()).abs() > BOUND {
                wrong.push(format!(
                    "{answer:?} to {:?} (right {:?}): {read:?} {score}, theirs {expected}",
                    item.options, item.answers
                ));
            }
        }
        assert!(wrong.is_empty(), "{name} {}: {} wrong\n{}", rule.name, wrong.len(), wrong.join("\n"));
    }
}

#[test]
fn numbers_equal_those_of_the_projects_own_code() {
    for case in cases() {
        let (name, rule) = (case["benchmark"].as_str().unwrap(), case["rule"].as_str().unwrap());
        let rule = find(name).unwrap().rule(Some(rule)).unwrap();
        let (items, answers) = (items(&case), answers(&case));
        let judged: Vec<Judged> =
            items.iter().zip(&answers).map(|(item, answer)| (rule.judge)(item, answer)).collect();
        let answered = Answered { items: &items, answers: &answers, judged: &judged };
        let numbers = (rule.measure)(&answered)(&vec![1.0; items.len()]);
        for (number, expected) in case["numbers"].as_object().unwrap() {
            let ours = numbers.iter().find(|(known, _)| known == number);
            let (_, ours) =
                ours.unwrap_or_else(|| panic!("{name} {}: no {number} in {numbers:?}", rule.name));
            let theirs = expected.as_f64().unwrap();
            assert!((ours - theirs).abs() < BOUND, "{name} {} {number}: {ours} {theirs}", rule.name);
        }
    }
}

#[test]
fn every_rule_but_those_that_share_code_is_held_to_the_original() {
    let held: BTreeSet<(String, String)> = cases()
        .iter()
        .map(|case| {
            (case["benchmark"].as_str().unwrap().to_owned(), case["rule"].as_str().unwrap().to_owned())
        })
        .collect();
    let all = BENCHMARKS
        .iter()
        .flat_map(|benchmark| benchmark.rules.iter().map(|rule| (benchmark.name, rule.name)));
    let rest: Vec<String> = all
        .filter(|(name, rule)| !held.contains(&((*name).to_owned(), (*rule).to_owned())))
        .map(|(name, rule)| format!("{name} {rule}"))
        .collect();
    assert_eq!(
        rest,
        [
            "pope pope", // metrics/yes_no.rs
            "mmbench-cn vlmevalkit",
            "mmbench-cn lmms-eval",
            "ccbench vlmevalkit",
            "ccbench lmms-eval",
            "scienceqa-img vlmevalkit",
            "seed-bench vlmevalkit",
            "ai2d vlmevalkit",
            "realworldqa vlmevalkit",
            "captions lmms-eval", // tests/metrics.rs
        ]
    );
}

#[test]
fn intervals_are_drawn_over_images_and_unread_answers_are_counted() {
    let row = |n: usize, image: usize| {
        let row = serde_json::json!({"index": n, "question": "?", "A": "cat", "B": "dog", "answer": "A", "image": image.to_string()});
        Item::of(Record(row.as_object().unwrap().clone()), n).unwrap()
    };
    let answer = |n: usize| if (n / 4).is_multiple_of(3) { "A" } else { "I do not know" }.to_owned();
    let width = |units: usize| {
        let paired = Paired {
            items: (0..120).map(|n| row(n, n / units)).collect(),
            answers: (0..120).map(answer).collect(),
        };
        let benchmark = find("mmstar").unwrap();
        let score = score(benchmark, benchmark.rule(Some("vlmevalkit")).unwrap(), &paired, 500, 1);
        assert_eq!((score.rows, score.unread), (120, 80));
        let overall = &score.numbers[0];
        assert!((overall.value.unwrap() - 1.0 / 3.0).abs() < 1e-12);
        let [lo, hi] = overall.ci.unwrap();
        hi - lo
    };
    assert!(width(4) > 1.6 * width(1));
}
