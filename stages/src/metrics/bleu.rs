//! BLEU-1 to BLEU-4 of a corpus (Papineni et al. 2002), as pycocoevalcap 1.2 computes it.
//!
//! Counts are added up over the corpus before anything is divided; the brevity penalty takes the reference length that
//! is closest to the answer's (the shorter one of two equally close). There is no smoothing.

use super::Caption;
use super::ngrams::{LONGEST, count};

/// Keeps a product of no matches at zero (pycocoevalcap's `tiny`).
const TINY: f64 = 1e-15;
/// Keeps a division by no candidates finite (pycocoevalcap's `small`).
const SMALL: f64 = 1e-9;

/// What one answer adds to the corpus.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BleuCounts {
    /// Runs of 1 to 4 words that a reference has too, each at most as often as there.
    correct: [f64; LONGEST],
    /// Runs of 1 to 4 words.
    guessed: [f64; LONGEST],
    /// Words of the answer.
    candidate: f64,
    /// Words of the closest reference.
    reference: f64,
}

impl BleuCounts {
    /// Counts one answer.
    pub fn of(caption: &Caption) -> Self {
        let words = caption.candidate.len();
        let references: Vec<_> = caption.references.iter().map(|words| count(words)).collect();
        let mut counts = Self { candidate: words as f64, ..Self::default() };
        for (run, times) in count(&caption.candidate) {
            let most = references.iter().filter_map(|reference| reference.get(run).copied());
            counts.guessed[run.len() - 1] += times;
            counts.correct[run.len() - 1] += most.fold(0.0, f64::max).min(times);
        }
        let lengths = caption.references.iter().map(Vec::len);
        let closest = lengths.min_by_key(|length| (length.abs_diff(words), *length));
        counts.reference = closest.unwrap_or(0) as f64;
        counts
    }

    /// Adds `other`, `weight` times.
    pub fn add(&mut self, other: &Self, weight: f64) {
        for n in 0..LONGEST {
            self.correct[n] += weight * other.correct[n];
            self.guessed[n] += weight * other.guessed[n];
        }
        self.candidate += weight * other.candidate;
        self.reference += weight * other.reference;
    }

    /// BLEU-1 to BLEU-4, from 0 to 1.
    pub fn score(&self) -> [f64; LONGEST] {
        let ratio = (self.candidate + TINY) / (self.reference + SMALL);
        let penalty = if ratio < 1.0 { (1.0 - 1.0 / ratio).exp() } else { 1.0 };
        let mut product = 1.0;
        std::array::from_fn(|n| {
            product *= (self.correct[n] + TINY) / (self.guessed[n] + SMALL);
            product.powf(1.0 / (n + 1) as f64) * penalty
        })
    }
}

/// BLEU-1 to BLEU-4 of rows that stand `weights` times each in the corpus.
pub fn bleu(rows: &[BleuCounts], weights: &[f64]) -> [f64; LONGEST] {
    let mut corpus = BleuCounts::default();
    rows.iter().zip(weights).for_each(|(row, weight)| corpus.add(row, *weight));
    corpus.score()
}
