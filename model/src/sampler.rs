//! From logits to the next token: greedy, or drawn after temperature, top-k, top-p and repetition penalty.
//!
//! In: one row of logits in f32 and the ids of its sequence so far. Out: a token id. Processors and their order
//! follow transformers 5.23 (`generation/logits_process.py`, `GenerationMixin._get_logits_processor`), so the
//! probabilities are its own; draws come from `ChaCha8` and differ from torch's.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// How the next token is chosen. The default is greedy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token (greedy). Default 0.
    pub temperature: f32,
    /// Draw from this many most likely tokens only; 0 means all. Default 0.
    pub top_k: usize,
    /// Draw from the smallest set of tokens whose probabilities reach this sum, 0..=1. Default 1 (all).
    pub top_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen before. Default 1 (off).
    pub repetition_penalty: f32,
    /// Seed of the draws. Default 42.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 42 }
    }
}

/// A setting outside its range.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{name} = {value}: must be {range}")]
pub struct SamplingError {
    /// The setting.
    pub name: &'static str,
    /// What it was set to.
    pub value: f32,
    /// What it may be.
    pub range: &'static str,
}

impl Sampling {
    /// Checks every setting's range.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let checks = [
            ("temperature", self.temperature, self.temperature >= 0.0, "0 (greedy) or more"),
            ("top_p", self.top_p, (0.0..=1.0).contains(&self.top_p), "between 0 and 1"),
            ("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0.0, "above 0"),
        ];
        match checks.into_iter().find(|(_, value, valid, _)| !valid || !value.is_finite()) {
            Some((name, value, _, range)) => Err(SamplingError { name, value, range }),
            None => Ok(()),
        }
    }

    /// The generator of sequence `number`: its draws do not depend on what else is in the batch.
    pub fn rng(&self, number: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(number);
        rng
    }

    /// The next token of a sequence that so far is `seen`. Changes `logits`; they must not be empty.
    pub fn next(&self, logits: &mut [f32], seen: &[u32], rng: &mut ChaCha8Rng) -> u32 {
        self.penalise(logits, seen);
        if self.temperature == 0.0 {
            return argmax(logits);
        }
        self.warp(logits);
        draw(&probabilities(logits), rng)
    }

    /// Makes tokens that were seen less likely, each once however often it was seen.
    fn penalise(&self, logits: &mut [f32], seen: &[u32]) {
        let mut seen = seen.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            if let Some(logit) = logits.get_mut(id as usize) {
                let shrink = *logit > 0.0;
                *logit =
                    if shrink { *logit / self.repetition_penalty } else { *logit * self.repetition_penalty };
            }
        }
    }

    /// Temperature, then top-k, then top-p; what is cut off becomes minus infinity.
    fn warp(&self, logits: &mut [f32]) {
        for logit in logits.iter_mut() {
            *logit /= self.temperature;
        }
        if self.top_k > 0 && self.top_k < logits.len() {
            keep_top_k(logits, self.top_k);
        }
        if self.top_p < 1.0 {
            keep_top_p(logits, f64::from(self.top_p));
        }
    }
}

/// The first of the largest logits, as `torch.argmax` on the CPU.
fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, logit) in logits.iter().enumerate() {
        if *logit > best.1 {
            best = (id, *logit);
        }
    }
    best.0 as u32
}

/// Cuts every logit below the `k`-th largest; ties with it stay.
fn keep_top_k(logits: &mut [f32], k: usize) {
    let mut sorted = logits.to_vec();
    let (_, kth, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    let kth = *kth;
    for logit in logits.iter_mut().filter(|logit| **logit < kth) {
        *logit = f32::NEG_INFINITY;
    }
}

/// Cuts the least likely tokens whose probabilities together are at most `1 - p`; one token stays.
fn keep_top_p(logits: &mut [f32], p: f64) {
    let probabilities = probabilities(logits);
    let mut rising: Vec<usize> = (0..logits.len()).filter(|id| probabilities[*id] > 0.0).collect();
    rising.sort_by(|a, b| logits[*a].total_cmp(&logits[*b]));
    rising.pop();
    let mut sum = 0.0;
    for id in rising {
        sum += probabilities[id];
        if sum > 1.0 - p {
            break;
        }
        logits[id] = f32::NEG_INFINITY;
    }
}

/// Softmax in f64.
fn probabilities(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits.iter().map(|logit| f64::from(logit - largest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// A token by its probability.
fn draw(probabilities: &[f64], rng: &mut ChaCha8Rng) -> u32 {
    // 53 random bits are every f64 in [0, 1) that is a multiple of 2^-53.
    let mut left = (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let possible = || probabilities.iter().enumerate().filter(|(_, probability)| **probability > 0.0);
    for (id, probability) in possible() {
        if left < *probability {
            return id as u32;
        }
        left -= probability;
    }
    possible().next_back().map_or(0, |(id, _)| id as u32) // rounding ate the last crumb
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Case {
        temperature: f32,
        top_k: usize,
        top_p: f32,
        repetition_penalty: f32,
        seen: Vec<u32>,
        logits: Vec<f32>,
        probabilities: Vec<f64>,
    }

    #[test]
    fn probabilities_are_those_of_transformers() {
        let cases: Vec<Case> =
            serde_json::from_str(include_str!("../tests/fixtures/sampling/cases.json")).unwrap();
        assert_eq!(cases.len(), 120);
        for (number, case) in cases.into_iter().enumerate() {
            let Case { temperature, top_k, top_p, repetition_penalty, .. } = case;
            let sampling = Sampling { temperature, top_k, top_p, repetition_penalty, seed: 0 };
            let mut logits = case.logits;
            sampling.penalise(&mut logits, &case.seen);
            sampling.warp(&mut logits);
            for (ours, theirs) in probabilities(&logits).iter().zip(&case.probabilities) {
                assert!((ours - theirs).abs() < 1e-6, "case {number}, {sampling:?}: {ours} and {theirs}");
            }
        }
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
        let mut rng = sampling.rng(0);
        let mut counts = [0_usize; 4];
        for _ in 0..20_000 {
            let mut logits = [0.1_f32.ln(), f32::NEG_INFINITY, 0.6_f32.ln(), 0.3_f32.ln()];
            counts[sampling.next(&mut logits, &[], &mut rng) as usize] += 1;
        }
        // Four standard deviations of the largest binomial, sqrt(20000 * 0.6 * 0.4) = 69.
        for (count, expected) in counts.into_iter().zip([2000_usize, 0, 12_000, 6000]) {
            assert!(count.abs_diff(expected) < 280, "{counts:?}");
        }
        assert_eq!(counts[1], 0);
    }

    #[test]
    fn a_seed_and_a_number_name_one_sequence_of_draws() {
        let sampling = Sampling { seed: 7, ..Sampling::default() };
        let draws = |seed, number| Sampling { seed, ..sampling.clone() }.rng(number).next_u64();
        assert_eq!(draws(7, 3), draws(7, 3));
        assert_ne!(draws(7, 3), draws(7, 4));
        assert_ne!(draws(7, 3), draws(8, 3));
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        let mut rng = Sampling::default().rng(0);
        assert_eq!(Sampling::default().next(&mut [1.0, 3.0, 3.0], &[], &mut rng), 1);
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let bad = |sampling: Sampling| sampling.validate().unwrap_err().to_string();
        assert_eq!(
            bad(Sampling { top_p: 1.5, ..Sampling::default() }),
            "top_p = 1.5: must be between 0 and 1"
        );
        assert_eq!(
            bad(Sampling { temperature: f32::NAN, ..Sampling::default() }),
            "temperature = NaN: must be 0 (greedy) or more"
        );
        assert_eq!(
            bad(Sampling { repetition_penalty: 0.0, ..Sampling::default() }),
            "repetition_penalty = 0: must be above 0"
        );
    }
}
