//! How often each run of one to four words stands in a text.

use std::collections::BTreeMap;

/// Longest run that is counted.
pub const LONGEST: usize = 4;

/// Counts by run of words; ordered, so that sums over it do not depend on a hash.
pub type Counts<'a> = BTreeMap<&'a [String], f64>;

/// The runs of 1 to [`LONGEST`] words.
pub fn count(words: &[String]) -> Counts<'_> {
    let mut counts = Counts::new();
    for run in (1..=LONGEST).flat_map(|length| words.windows(length)) {
        *counts.entry(run).or_default() += 1.0;
    }
    counts
}
