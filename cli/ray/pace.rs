//! How many partitions a task takes: so many that it lasts one to three minutes.

use std::collections::BTreeMap;

/// How long a task should last.
const SECONDS: f64 = 120.0;

/// Partitions of the first tasks of a stage, whose pace is not known.
const FIRST_BATCH: usize = 8;

/// By stage: seconds of a partition, what followed it included.
#[derive(Debug, Default)]
pub struct Pace(BTreeMap<String, f64>);

impl Pace {
    /// So many partitions took so long.
    pub fn remember(&mut self, stage: &str, partitions: usize, seconds: f64) {
        let each = seconds / partitions.max(1) as f64;
        let known = self.0.entry(stage.to_owned()).or_insert(each);
        *known = f64::midpoint(*known, each);
    }

    /// Partitions of the next task, when so many are ready and so many tasks may run at a time.
    pub fn batch(&self, stage: &str, ready: usize, slots: usize) -> usize {
        let pace = self.0.get(stage).copied();
        let wanted = pace.map_or(FIRST_BATCH, |seconds| (SECONDS / seconds.max(1e-3)) as usize);
        wanted.min(ready.div_ceil(slots.max(1))).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_last_two_minutes_and_leave_something_for_every_slot() {
        let mut pace = Pace::default();
        assert_eq!(pace.batch("pixels", 1000, 4), FIRST_BATCH);
        pace.remember("pixels", 8, 16.0);
        assert_eq!(pace.batch("pixels", 1000, 4), 60);
        assert_eq!(pace.batch("pixels", 100, 4), 25);
        assert_eq!(pace.batch("pixels", 0, 4), 1);
        pace.remember("pixels", 60, 60.0);
        assert_eq!(pace.batch("pixels", 1000, 4), 80, "half of what is known, half of what is new");
    }
}
