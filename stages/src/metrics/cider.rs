//! CIDEr-D (Vedantam et al. 2015), as pycocoevalcap 1.2 computes it.
//!
//! Runs of 1 to 4 words, weighted by tf·idf with the document frequency over the references of this very corpus; cosine
//! similarity with each weight clipped to the reference's; a Gaussian penalty (sigma 6) on the difference of lengths, where
//! pycocoevalcap's length is the number of word pairs; times 10. A corpus of one row scores 0, since log 1 is 0.

use super::Caption;
use super::ngrams::{Counts, LONGEST, count};
use std::collections::{BTreeMap, BTreeSet};

const SIGMA: f64 = 6.0;

/// A text as tf·idf weights.
struct Vector<'a> {
    weights: Counts<'a>,
    /// Euclidean norm of the weights of each run length.
    norms: [f64; LONGEST],
    /// Pairs of words.
    length: f64,
}

/// The score of each row, from 0 to 10. The score of a corpus is the mean.
pub fn cider_d(rows: &[Caption]) -> Vec<f64> {
    let frequency = document_frequency(rows);
    let documents = (rows.len() as f64).ln();
    let score = |row: &Caption| {
        let candidate = Vector::of(&row.candidate, documents, &frequency);
        let reference = |words| Vector::of(words, documents, &frequency);
        let sum: f64 = row.references.iter().map(|words| similarity(&candidate, &reference(words))).sum();
        10.0 * sum / row.references.len().max(1) as f64
    };
    rows.iter().map(score).collect()
}

/// In the references of how many rows each run stands.
fn document_frequency(rows: &[Caption]) -> BTreeMap<&[String], f64> {
    let mut frequency = BTreeMap::new();
    for row in rows {
        let runs: BTreeSet<&[String]> =
            row.references.iter().flat_map(|words| count(words).into_keys()).collect();
        runs.into_iter().for_each(|run| *frequency.entry(run).or_default() += 1.0);
    }
    frequency
}

impl<'a> Vector<'a> {
    fn of(words: &'a [String], documents: f64, frequency: &BTreeMap<&[String], f64>) -> Self {
        let mut weights = count(words);
        let mut squares = [0.0; LONGEST];
        for (run, weight) in &mut weights {
            *weight *= documents - frequency.get(run).copied().unwrap_or(1.0).ln();
            squares[run.len() - 1] += *weight * *weight;
        }
        let length = words.len().saturating_sub(1) as f64;
        Self { weights, norms: squares.map(f64::sqrt), length }
    }
}

/// Mean over the run lengths of the clipped cosine, with the penalty.
fn similarity(candidate: &Vector<'_>, reference: &Vector<'_>) -> f64 {
    let mut products = [0.0; LONGEST];
    for (run, weight) in &candidate.weights {
        let other = reference.weights.get(run).copied().unwrap_or(0.0);
        products[run.len() - 1] += weight.min(other) * other;
    }
    let cosine = |n: usize| match candidate.norms[n] * reference.norms[n] {
        0.0 => products[n],
        norms => products[n] / norms,
    };
    let apart = candidate.length - reference.length;
    let penalty = (-apart * apart / (2.0 * SIGMA * SIGMA)).exp();
    (0..LONGEST).map(cosine).sum::<f64>() * penalty / LONGEST as f64
}
