//! A benchmark's report: the numbers of a rule with their 95% intervals, and the answers that it could not read.

use super::Benchmark;
use super::item::Item;
use super::predictions::Paired;
use super::rule::{Answered, Judged, Rule};
use crate::evaluate::prediction::{Prediction, RIGHT};
use crate::metrics::resample::{Interval, Resampler};
use serde::Serialize;
use std::collections::BTreeMap;

/// What a rule says of some answers.
#[derive(Debug, Serialize)]
pub struct Score {
    /// The benchmark's name.
    pub benchmark: &'static str,
    /// The rule's name.
    pub rule: &'static str,
    /// Questions.
    pub rows: usize,
    /// Answers that the rule could not read, and that a judge model would be asked about elsewhere.
    pub unread: usize,
    /// The headline first.
    pub numbers: Vec<Number>,
    /// How many answers are right by this rule, by category; none where the questions have no categories.
    pub categories: Vec<Category>,
}

/// The questions of one category.
#[derive(Debug, Serialize)]
pub struct Category {
    /// As the benchmark calls it.
    pub name: String,
    /// Questions.
    pub rows: usize,
    /// Mean of what the answers are worth, from 0 to 1.
    pub score: f64,
    /// 95%, drawn over images.
    pub ci: Option<Interval>,
}

/// One number.
#[derive(Debug, Serialize)]
pub struct Number {
    /// As whose rule it is calls it.
    pub name: String,
    /// In their unit; `None` where nothing is there to divide by.
    pub value: Option<f64>,
    /// 95%, drawn over images.
    pub ci: Option<Interval>,
}

/// Scores answers by a rule.
pub fn score(benchmark: &Benchmark, rule: &Rule, paired: &Paired, replicates: usize, seed: u64) -> Score {
    let Paired { items, answers } = paired;
    let judged: Vec<Judged> =
        items.iter().zip(answers).map(|(item, answer)| (rule.judge)(item, answer)).collect();
    let answered = Answered { items, answers, judged: &judged };
    let measure = (rule.measure)(&answered);
    let resampler = Resampler::new(units(items), replicates, seed);
    let values = measure(&resampler.once());
    let intervals = resampler
        .intervals(values.len(), |weights| measure(weights).into_iter().map(|(_, value)| value).collect());
    let numbers = values.into_iter().zip(intervals).map(|((name, value), ci)| Number {
        name,
        // A sum of nothing is -0.
        value: value.is_finite().then_some(value + 0.0),
        ci: ci.filter(|_| value.is_finite()),
    });
    Score {
        benchmark: benchmark.name,
        rule: rule.name,
        rows: items.len(),
        unread: judged.iter().filter(|judged| judged.read.is_empty()).count(),
        numbers: numbers.collect(),
        categories: categories(&answered, &resampler),
    }
}

/// The first number of a benchmark's first rule: its name and value.
pub fn headline(benchmark: &Benchmark, paired: &Paired) -> Option<(String, f64)> {
    let rule = benchmark.rules.first()?;
    score(benchmark, rule, paired, 0, 0)
        .numbers
        .into_iter()
        .find_map(|number| Some((number.name, number.value?)))
}

/// The answers' worth by category, where there are several.
fn categories(answered: &Answered<'_>, resampler: &Resampler) -> Vec<Category> {
    let groups: Vec<(String, Vec<usize>)> =
        answered.groups(|item| item.category.clone()).into_iter().collect();
    if groups.len() < 2 {
        return Vec::new();
    }
    let scores = |weights: &[f64]| {
        groups.iter().map(|(_, rows)| answered.mean_of(rows, weights)).collect::<Vec<f64>>()
    };
    let values = scores(&resampler.once());
    let intervals = resampler.intervals(groups.len(), scores);
    let scored = groups.iter().zip(values).zip(intervals);
    let categories = scored.map(|(((name, rows), score), ci)| {
        let (name, rows) = (name.clone(), rows.len());
        Category { name, rows, score, ci }
    });
    categories.collect()
}

/// Whether each answer is right by a rule.
pub fn right(rule: &Rule, paired: &Paired) -> Vec<bool> {
    let pairs = paired.items.iter().zip(&paired.answers);
    pairs.map(|(item, answer)| (rule.judge)(item, answer).score >= 1.0).collect()
}

/// Questions about one image are drawn together; where nothing stands for the image, those of one index.
fn units(items: &[Item]) -> Vec<usize> {
    let mut numbers = BTreeMap::new();
    let unit = |item: &Item| {
        let next = numbers.len();
        let image = shown(item);
        *numbers.entry(image.ok_or_else(|| item.index.clone())).or_insert(next)
    };
    items.iter().map(unit).collect()
}

/// A number as people read it: shares have four decimals, per cent two, MME's sums one.
pub fn shown_number(value: f64) -> String {
    match value.abs() {
        size if size <= 1.0 => format!("{value:.4}"),
        size if size <= 100.0 => format!("{value:.2}"),
        _ => format!("{value:.1}"),
    }
}

/// What a question is about: the digests of its images, or what its file calls them.
pub fn shown(item: &Item) -> Option<String> {
    if item.images.is_empty() { item.image.clone() } else { Some(item.images.join(" ")) }
}

/// The columns of [`predictions`] beside those of `evaluate`: the category, and 1 where the benchmark's first rule finds the
/// answer right, else 0.
pub const COLUMNS: [&str; 2] = ["category", RIGHT];

/// The same answers as `evaluate` keeps them, so that `report` can set them beside others.
pub fn predictions(benchmark: &Benchmark, paired: &Paired) -> Vec<Prediction> {
    let right = benchmark.rules.first().map(|rule| right(rule, paired)).unwrap_or_default();
    let flag = |right: bool| if right { "1" } else { "0" }.to_owned();
    let prediction = |((item, answer), right): ((&Item, &String), bool)| Prediction {
        slices: vec![item.category.clone(), Some(flag(right))],
        id: item.index.clone(),
        image: shown(item),
        question: item.question.clone(),
        reference: item.answer().to_owned(),
        references: if item.answers.len() > 1 { item.answers.clone() } else { Vec::new() },
        answer: answer.clone(),
        loss: f64::NAN,
        ..Prediction::default()
    };
    paired.items.iter().zip(&paired.answers).zip(right).map(prediction).collect()
}
