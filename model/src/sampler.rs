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

/// Logits of which none can be chosen: the model's arithmetic failed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the logits are not numbers (NaN or infinite); run `llavm doctor`")]
pub struct NotFinite;

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

    /// The next token of a sequence that so far is `seen`. Changes `logits`. Minus infinity excludes a token; some token must
    /// be left.
    pub fn next(&self, logits: &mut [f32], seen: &[u32], rng: &mut ChaCha8Rng) -> Result<u32, NotFinite> {
        // Without a branch for each value: a vocabulary of 150,000 is looked through for every token.
        let is_wrong = |logit: f32| logit.is_nan() || (logit >= f32::INFINITY);
        let wrong = logits.iter().fold(0, |wrong, logit| wrong | u32::from(is_wrong(*logit)));
        let highest = largest(logits);
        if wrong > 0 || !highest.is_finite() {
            return Err(NotFinite);
        }
        if (self.repetition_penalty - 1.0).abs() > 0.0 {
            self.penalise(logits, seen);
        }
        if self.temperature == 0.0 {
            return Ok(argmax(logits));
        }
        self.warp(logits);
        Ok(draw(&probabilities(logits), rng))
    }

    /// Makes tokens that were seen less likely, each once however often it was seen.
    fn penalise(&self, logits: &mut [f32], seen: &[u32]) {
        let mut seen = seen.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            if let Some(logit) = logits.get_mut(id as usize) {
                let shrink = *logit > 0.0;
                let changed =
                    if shrink { *logit / self.repetition_penalty } else { *logit * self.repetition_penalty };
                *logit = changed.min(f32::MAX); // a penalty near 0 must not make it infinite
            }
        }
    }

    /// Temperature, then top-k, then top-p; what is cut off becomes minus infinity.
    fn warp(&self, logits: &mut [f32]) {
        // Less the largest, which changes no probability: near 0 the quotients grow without bounds, but downwards only, and
        // the draw becomes the likeliest token. Transformers divides infinities there and fails.
        let largest = largest(logits);
        for logit in logits.iter_mut() {
            *logit = (*logit - largest) / self.temperature;
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
    let highest = largest(logits);
    logits.iter().position(|logit| *logit >= highest).unwrap_or(0) as u32
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

fn largest(logits: &[f32]) -> f32 {
    // Several at a time: the largest of all does not depend on the order.
    let (whole, rest) = logits.as_chunks::<16>();
    let larger = |one: f32, two: f32| if two > one { two } else { one };
    let mut lanes = [f32::NEG_INFINITY; 16];
    for logits in whole {
        lanes.iter_mut().zip(logits).for_each(|(lane, logit)| *lane = larger(*lane, *logit));
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
}

/// Softmax in f64.
fn probabilities(logits: &[f32]) -> Vec<f64> {
    let largest = largest(logits);
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
            counts[sampling.next(&mut logits, &[], &mut rng).unwrap() as usize] += 1;
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
        assert_eq!(Sampling::default().next(&mut [1.0, 3.0, 3.0], &[], &mut rng), Ok(1));
    }

    /// The tokens that can be drawn of these logits.
    fn drawn(sampling: &Sampling, logits: &[f32]) -> std::collections::BTreeSet<u32> {
        let mut rng = sampling.rng(0);
        (0..200).map(|_| sampling.next(&mut logits.to_vec(), &[0], &mut rng).unwrap()).collect()
    }

    #[test]
    fn near_zero_a_temperature_is_greedy() {
        let logits = [30.0, 31.0, -5.0, f32::NEG_INFINITY, 31.0 - 1e-3];
        for temperature in [1e-6, 1e-20, 1e-38, f32::MIN_POSITIVE, f32::from_bits(1)] {
            for (top_k, top_p) in [(0, 1.0), (2, 1.0), (0, 0.5), (3, 1e-30)] {
                let sampling = Sampling { temperature, top_k, top_p, ..Sampling::default() };
                assert_eq!(drawn(&sampling, &logits), [1].into(), "{sampling:?}");
            }
        }
        let tie = Sampling { temperature: 1e-30, ..Sampling::default() };
        assert_eq!(drawn(&tie, &[2.0, 5.0, 5.0]), [1, 2].into());
    }

    #[test]
    fn at_the_ends_of_their_ranges_settings_still_draw_a_token() {
        let logits = [1.0, 2.0, 1.5];
        let all: std::collections::BTreeSet<u32> = [0, 1, 2].into();
        let warm = |top_k, top_p| Sampling { temperature: 1.0, top_k, top_p, ..Sampling::default() };
        for top_p in [0.0, f32::MIN_POSITIVE, 1e-9] {
            assert_eq!(drawn(&warm(0, top_p), &logits), [1].into(), "top_p = {top_p}");
        }
        for top_k in [3, 4, usize::MAX] {
            assert_eq!(drawn(&warm(top_k, 1.0), &logits), all, "top_k = {top_k}");
        }
        assert_eq!(drawn(&Sampling { temperature: f32::MAX, ..warm(0, 1.0) }, &logits), all);
        for repetition_penalty in [f32::MIN_POSITIVE, f32::MAX] {
            let likeliest = u32::from(repetition_penalty >= 1.0);
            let sampling = Sampling { repetition_penalty, ..warm(0, 0.5) };
            assert_eq!(drawn(&sampling, &logits), [likeliest].into());
        }
    }

    #[test]
    fn logits_that_are_no_numbers_are_no_answer() {
        let broken: [&[f32]; 4] = [&[1.0, f32::NAN], &[f32::INFINITY, 1.0], &[f32::NEG_INFINITY; 3], &[]];
        for logits in broken {
            for temperature in [0.0, 1.0] {
                let sampling = Sampling { temperature, ..Sampling::default() };
                let next = sampling.next(&mut logits.to_vec(), &[], &mut sampling.rng(0));
                assert_eq!(next, Err(NotFinite), "{logits:?}");
            }
        }
        let one = &mut [f32::NEG_INFINITY, 3.0];
        assert_eq!(Sampling::default().next(one, &[], &mut Sampling::default().rng(0)), Ok(1));
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
