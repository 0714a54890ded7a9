//! How a whole number is spread over rows: exact counts of each value, from which quantiles and a histogram are taken.

use serde::Serialize;
use std::collections::BTreeMap;

/// Bars of a histogram, about.
const BARS: u64 = 30;
/// The share of rows that the bars but the last one cover: a few very long rows would leave the others one bar.
const COVERED: f64 = 0.995;

/// How often each value occurs.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    counts: BTreeMap<u64, u64>,
    rows: u64,
    sum: u128,
}

/// One bar: the rows with a value of `from..=to`, or of at least `from` when there is no `to`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bar {
    pub from: u64,
    pub to: Option<u64>,
    pub rows: u64,
}

impl Spread {
    /// One more row.
    pub fn add(&mut self, value: u64) {
        *self.counts.entry(value).or_default() += 1;
        self.rows += 1;
        self.sum += u128::from(value);
    }

    /// Rows counted.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Sum of all values.
    pub fn sum(&self) -> u128 {
        self.sum
    }

    /// The mean; 0 without rows.
    pub fn mean(&self) -> f64 {
        self.sum as f64 / self.rows.max(1) as f64
    }

    /// The smallest value that at least `share` of the rows do not exceed (the "inverted CDF" of numpy); 0 without rows.
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = ((share * self.rows as f64).ceil() as u64).max(1);
        let mut rows = 0;
        let found = self.counts.iter().find(|(_, count)| {
            rows += **count;
            rows >= wanted
        });
        found.or(self.counts.iter().next_back()).map_or(0, |(value, _)| *value)
    }

    /// Rows with a value below `limit`.
    pub fn below(&self, limit: u64) -> u64 {
        self.counts.range(..limit).map(|(_, count)| count).sum()
    }

    /// Bars of equal width from the smallest value on; the last one holds what is beyond [`COVERED`].
    pub fn bars(&self) -> Vec<Bar> {
        let (Some((&least, _)), Some((&most, _))) =
            (self.counts.iter().next(), self.counts.iter().next_back())
        else {
            return Vec::new();
        };
        let end = self.quantile(COVERED);
        let width = round_up((end - least) / BARS + 1);
        let first = least / width * width;
        let mut bars: Vec<Bar> = (first..=end)
            .step_by(width as usize)
            .map(|from| Bar { from, to: Some(from + width - 1), rows: 0 })
            .collect();
        let beyond = first + width * bars.len() as u64;
        if most >= beyond {
            bars.push(Bar { from: beyond, to: None, rows: 0 });
        }
        let last = bars.len() - 1;
        for (value, count) in &self.counts {
            bars[last.min(((value - first) / width) as usize)].rows += count;
        }
        bars
    }
}

/// The next of 1, 2, 5, 10, 20, 50, ….
fn round_up(width: u64) -> u64 {
    let mut power = 1;
    loop {
        for step in [1, 2, 5] {
            if width <= step * power {
                return step * power;
            }
        }
        power *= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Spread {
        let mut spread = Spread::default();
        values.into_iter().for_each(|value| spread.add(value));
        spread
    }

    /// `numpy.quantile(x, [0, .5, .9, 1], method="inverted_cdf")` of 1, 2, 2, 3, 10 gives 1, 2, 10, 10.
    #[test]
    fn quantiles_are_those_of_numpy() {
        let spread = of([3, 1, 2, 10, 2]);
        assert_eq!([0.0, 0.5, 0.9, 1.0].map(|share| spread.quantile(share)), [1, 2, 10, 10]);
        assert_eq!((spread.mean(), spread.sum(), spread.below(3)), (3.6, 18, 3));
        assert_eq!(Spread::default().quantile(0.5), 0);
    }

    #[test]
    fn bars_hold_every_row_once() {
        for values in [vec![7], (0..1000).collect(), (0..500).map(|n| n * n).collect(), vec![5; 9]] {
            let spread = of(values.iter().copied());
            let bars = spread.bars();
            assert_eq!(bars.iter().map(|bar| bar.rows).sum::<u64>(), values.len() as u64);
            assert!(bars.len() <= 2 * BARS as usize + 2, "{}", bars.len());
        }
        assert!(Spread::default().bars().is_empty());
    }

    #[test]
    fn a_few_huge_values_share_the_last_bar() {
        let bars = of((0..1000).map(|n| n % 10).chain([1_000_000, u64::MAX])).bars();
        assert_eq!(bars.len(), 11);
        assert_eq!(bars[10], Bar { from: 10, to: None, rows: 2 });
        assert_eq!(bars[3], Bar { from: 3, to: Some(3), rows: 100 });
    }

    #[test]
    fn widths_are_round_numbers() {
        assert_eq!([1, 3, 6, 11, 49, 51, 700].map(round_up), [1, 5, 10, 20, 50, 100, 1000]);
    }
}
