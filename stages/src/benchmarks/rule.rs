//! A scorer: how an answer is read, and which numbers come of all of them.

use super::item::Item;
use std::collections::BTreeMap;

/// An answer as a rule reads it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judged {
    /// What the rule takes as the answer: a letter, yes or no, normalised words; empty when it can read none.
    pub read: String,
    /// What it is worth, from 0 to 1.
    pub score: f64,
}

impl Judged {
    /// A right answer is worth 1.
    pub fn of(read: impl Into<String>, right: bool) -> Self {
        Self { read: read.into(), score: f64::from(right) }
    }
}

/// All questions with their answers.
#[derive(Debug)]
pub struct Answered<'a> {
    /// The questions.
    pub items: &'a [Item],
    /// The answers, as the model wrote them.
    pub answers: &'a [String],
    /// The answers, as the rule reads them.
    pub judged: &'a [Judged],
}

/// Numbers by name, in the units of whose rule it is.
pub type Numbers = Vec<(String, f64)>;

/// The numbers of rows that stand `weights` times each.
pub type Measure<'a> = Box<dyn Fn(&[f64]) -> Numbers + 'a>;

/// A scorer.
#[derive(Debug)]
pub struct Rule {
    /// Whose rule it is.
    pub name: &'static str,
    /// Reads one answer.
    pub judge: fn(&Item, &str) -> Judged,
    /// The numbers, the headline first.
    pub measure: for<'a> fn(&'a Answered<'a>) -> Measure<'a>,
}

/// Weighted mean over some rows; NaN of none.
pub fn mean(rows: impl IntoIterator<Item = (f64, f64)>) -> f64 {
    let (mut sum, mut total) = (0.0, 0.0);
    for (score, weight) in rows {
        sum += score * weight;
        total += weight;
    }
    sum / total
}

impl Answered<'_> {
    /// Rows by a key, in the order of the key.
    pub fn groups<K: Ord>(&self, key: impl Fn(&Item) -> Option<K>) -> BTreeMap<K, Vec<usize>> {
        let mut groups: BTreeMap<K, Vec<usize>> = BTreeMap::new();
        for (row, item) in self.items.iter().enumerate() {
            if let Some(key) = key(item) {
                groups.entry(key).or_default().push(row);
            }
        }
        groups
    }

    /// The mean score of some rows.
    pub fn mean_of(&self, rows: &[usize], weights: &[f64]) -> f64 {
        mean(rows.iter().map(|row| (self.judged[*row].score, weights[*row])))
    }

    /// The share of groups in which every row is right. A group weighs as its first row: its rows are about one image.
    pub fn all_right(&self, groups: impl IntoIterator<Item = impl AsRef<[usize]>>, weights: &[f64]) -> f64 {
        mean(groups.into_iter().map(|rows| {
            let rows = rows.as_ref();
            let right = rows.iter().all(|row| self.judged[*row].score >= 1.0);
            (f64::from(right), rows.first().map_or(0.0, |row| weights[*row]))
        }))
    }

    /// All rows.
    pub fn all(&self) -> Vec<usize> {
        (0..self.items.len()).collect()
    }
}
