//! How sure a score is, and whether two differ: the bootstrap (Efron 1979) and paired tests.
//!
//! What is drawn with replacement are **units**, not rows: questions about one image stand or fall together, and
//! drawing them one by one would make intervals look too narrow. A replicate says how often each row stands in it (its
//! weight); a statistic is a function of these weights, so that corpus measures such as BLEU are resampled like means.
//! Everything is a function of the seed.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Share of replicates outside of an interval: 95% intervals.
const OUTSIDE: f64 = 0.05;

/// The rows' units and the replicates drawn from them.
#[derive(Clone, Debug)]
pub struct Resampler {
    /// The unit of each row, from 0.
    units: Vec<usize>,
    /// One more than the largest.
    n_units: usize,
    replicates: usize,
    seed: u64,
}

/// The middle 95% of the replicates: `[lo, hi]`.
pub type Interval = [f64; 2];

/// Two runs on the same rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Statistic of the second less that of the first.
    pub difference: f64,
    /// Its interval.
    pub interval: Interval,
    /// Two-sided: twice the share of replicates on the other side of zero, never below 2 / (replicates + 1).
    pub p: f64,
}

impl Resampler {
    /// `units`: what the rows belong to, numbered from 0. No replicates, no intervals.
    pub fn new(units: Vec<usize>, replicates: usize, seed: u64) -> Self {
        let n_units = units.iter().max().map_or(0, |unit| unit + 1);
        Self { units, n_units, replicates, seed }
    }

    /// The weights of the rows as they are: all 1.
    pub fn once(&self) -> Vec<f64> {
        vec![1.0; self.units.len()]
    }

    /// The statistic of every replicate that has one, from small to large.
    fn replicates(&self, statistic: &dyn Fn(&[f64]) -> f64) -> Vec<f64> {
        let mut values = Vec::with_capacity(self.replicates);
        self.each(&mut |weights| values.push(statistic(weights)));
        sorted(values)
    }

    /// Hands over the weights of every replicate.
    fn each(&self, take: &mut dyn FnMut(&[f64])) {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut weights = self.once();
        let mut drawn = vec![0.0; self.n_units];
        for _ in 0..self.replicates {
            drawn.fill(0.0);
            for _ in 0..self.n_units {
                drawn[rng.random_range(0..self.n_units)] += 1.0;
            }
            weights.iter_mut().zip(&self.units).for_each(|(weight, unit)| *weight = drawn[*unit]);
            take(&weights);
        }
    }

    /// The 95% interval of a statistic of row weights; `None` without replicates, or where the statistic has no value.
    pub fn interval(&self, statistic: impl Fn(&[f64]) -> f64) -> Option<Interval> {
        middle(&self.replicates(&statistic))
    }

    /// The intervals of `count` statistics that are computed together.
    pub fn intervals(&self, count: usize, statistics: impl Fn(&[f64]) -> Vec<f64>) -> Vec<Option<Interval>> {
        let mut columns = vec![Vec::with_capacity(self.replicates); count];
        self.each(&mut |weights| {
            columns.iter_mut().zip(statistics(weights)).for_each(|(column, value)| column.push(value));
        });
        columns.into_iter().map(|column| middle(&sorted(column))).collect()
    }

    /// Compares two statistics on the same replicates; `None` as for [`Resampler::interval`].
    pub fn difference(
        &self,
        first: impl Fn(&[f64]) -> f64,
        second: impl Fn(&[f64]) -> f64,
    ) -> Option<Difference> {
        let apart = |weights: &[f64]| second(weights) - first(weights);
        let values = self.replicates(&apart);
        let interval = middle(&values)?;
        let below = values.iter().filter(|value| **value <= 0.0).count();
        let above = values.iter().filter(|value| **value >= 0.0).count();
        let p = 2.0 * (below.min(above) + 1) as f64 / (values.len() + 1) as f64;
        Some(Difference { difference: apart(&self.once()), interval, p: p.min(1.0) })
    }
}

/// The values that there are, from small to large.
fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    values
}

/// The middle of sorted values, by the nearest rank.
fn middle(values: &[f64]) -> Option<Interval> {
    let rank =
        |share: f64| values.get((share * values.len().saturating_sub(1) as f64).round() as usize).copied();
    Some([rank(OUTSIDE / 2.0)?, rank(1.0 - OUTSIDE / 2.0)?])
}

/// The weighted mean of some values; NaN of nothing.
pub fn mean(values: &[f64], weights: &[f64]) -> f64 {
    let sum: f64 = values.iter().zip(weights).map(|(value, weight)| value * weight).sum();
    sum / weights.iter().sum::<f64>()
}

/// The sign test: the chance that a fair coin splits `wins + losses` tosses at least as unevenly. Ties say nothing. On
/// right and wrong answers this is the exact test of `McNemar`.
pub fn sign_test(wins: usize, losses: usize) -> f64 {
    let tosses = wins + losses;
    let fewer = wins.min(losses);
    // ln C(n, k) - n ln 2, from k to k + 1 by a factor (n - k) / (k + 1).
    let mut log = -(tosses as f64) * std::f64::consts::LN_2;
    let mut sum = 0.0;
    for k in 0..=fewer {
        sum += log.exp();
        log += ((tosses - k) as f64).ln() - ((k + 1) as f64).ln();
    }
    (2.0 * sum).min(1.0)
}

/// The p values of several tests corrected for their number (Holm 1979): with all true differences zero, the chance that
/// any is below 0.05 stays below 0.05. In the order given.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut corrected = vec![1.0; p.len()];
    let mut least = 0.0_f64;
    for (rank, at) in order.into_iter().enumerate() {
        least = least.max(p[at] * (p.len() - rank) as f64).min(1.0);
        corrected[at] = least;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrected_p_values_equal_those_of_r() {
        // p.adjust(c(0.01, 0.04, 0.03, 0.005, 0.5), "holm") in R
        let found = holm(&[0.01, 0.04, 0.03, 0.005, 0.5]);
        for (found, expected) in found.iter().zip([0.04, 0.09, 0.09, 0.025, 0.5]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        assert!(holm(&[]).is_empty() && holm(&[0.7, 0.9]) == [1.0, 1.0]);
    }

    fn rows(n: usize) -> Vec<f64> {
        (0..n).map(|row| f64::from(row % 4 == 0)).collect()
    }

    #[test]
    fn the_interval_of_a_share_is_about_two_standard_errors() {
        let values = rows(400);
        let [lo, hi] = Resampler::new((0..400).collect(), 4000, 1).interval(|w| mean(&values, w)).unwrap();
        let error = (0.25_f64 * 0.75 / 400.0).sqrt();
        assert!(
            (0.25 - 1.96 * error - lo).abs() < 0.006 && (0.25 + 1.96 * error - hi).abs() < 0.006,
            "{lo} {hi}"
        );
    }

    #[test]
    fn rows_that_stand_or_fall_together_widen_the_interval() {
        let values: Vec<f64> = rows(100).into_iter().flat_map(|value| [value; 4]).collect();
        let width = |units: Vec<usize>| {
            let [lo, hi] = Resampler::new(units, 2000, 1).interval(|w| mean(&values, w)).unwrap();
            hi - lo
        };
        let ratio = width((0..400).map(|row| row / 4).collect()) / width((0..400).collect());
        assert!((1.8..2.2).contains(&ratio), "{ratio}");
    }

    #[test]
    fn the_seed_decides_and_nothing_else() {
        let values = rows(50);
        let interval = |seed| Resampler::new((0..50).collect(), 200, seed).interval(|w| mean(&values, w));
        assert_eq!(interval(3), interval(3));
        assert_ne!(interval(3), interval(4));
        assert_eq!(Resampler::new(vec![], 100, 0).interval(|w| mean(&[], w)), None);
    }

    #[test]
    fn a_clear_difference_is_told_from_none() {
        let (all, quarter) = (vec![1.0; 100], rows(100));
        let test = Resampler::new((0..100).collect(), 999, 5);
        let clear = test.difference(|w| mean(&quarter, w), |w| mean(&all, w)).unwrap();
        assert!((clear.difference - 0.75).abs() < 1e-12 && (clear.p - 0.002).abs() < 1e-12, "{clear:?}");
        let none = test.difference(|w| mean(&all, w), |w| mean(&all, w)).unwrap();
        assert_eq!((none.difference, none.p), (0.0, 1.0));
    }

    #[test]
    fn the_sign_test_is_the_exact_binomial() {
        // 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n in Python
        for (wins, losses, p) in [
            (0, 0, 1.0),
            (5, 5, 1.0),
            (1, 9, 0.021_484_375),
            (0, 5, 0.0625),
            (30, 60, 0.002_060_265_680_963_08),
        ] {
            assert!(
                (sign_test(wins, losses) - p).abs() < 1e-8,
                "{wins} {losses} {}",
                sign_test(wins, losses)
            );
            assert!((sign_test(losses, wins) - p).abs() < 1e-8);
        }
        assert!(sign_test(4000, 6000) > 0.0);
    }
}
