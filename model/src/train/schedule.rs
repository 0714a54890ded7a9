//! The learning rate of each step.
//!
//! Follows `get_*_schedule*` of transformers 5.23, `optimization.py`.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// The course of the learning rate after the warmup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrScheduler {
    /// Straight down to 0.
    #[default]
    Linear,
    /// Down to 0 along half a cosine.
    Cosine,
    /// The peak all the time, without any warmup.
    Constant,
    /// The peak after the warmup.
    ConstantWithWarmup,
}

/// Learning rates of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The course.
    pub scheduler: LrScheduler,
    /// The peak.
    pub learning_rate: f64,
    /// Steps in which it rises from 0 to the peak.
    pub warmup_steps: u64,
    /// Steps of the run, at which it ends.
    pub total_steps: u64,
}

impl Schedule {
    /// The learning rate of step `step`, counted from 0. With a warmup, that of step 0 is 0.
    pub fn at(&self, step: u64) -> f64 {
        self.learning_rate * self.factor(step)
    }

    fn factor(&self, step: u64) -> f64 {
        if self.scheduler == LrScheduler::Constant {
            return 1.0;
        }
        if step < self.warmup_steps {
            return step as f64 / self.warmup_steps.max(1) as f64;
        }
        let rest = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        match self.scheduler {
            LrScheduler::Linear => self.total_steps.saturating_sub(step) as f64 / rest,
            LrScheduler::Cosine => {
                let progress = (step - self.warmup_steps) as f64 / rest;
                // In the order in which Python multiplies: pi * num_cycles * 2 * progress.
                (0.5 * (1.0 + (PI * 0.5 * 2.0 * progress).cos())).max(0.0)
            }
            LrScheduler::Constant | LrScheduler::ConstantWithWarmup => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(scheduler: LrScheduler) -> Vec<f64> {
        let schedule = Schedule { scheduler, learning_rate: 1.0, warmup_steps: 2, total_steps: 6 };
        (0..=6).map(|step| schedule.at(step)).collect()
    }

    #[test]
    fn every_course_rises_in_the_warmup_and_ends_where_it_should() {
        assert_eq!(rates(LrScheduler::Linear), [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]);
        assert_eq!(rates(LrScheduler::Constant), [1.0; 7]);
        assert_eq!(rates(LrScheduler::ConstantWithWarmup), [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]);
        let cosine = rates(LrScheduler::Cosine);
        assert_eq!(cosine[..3], [0.0, 0.5, 1.0]);
        assert!((cosine[4] - 0.5).abs() < 1e-15 && cosine[6] == 0.0, "{cosine:?}");
    }

    #[test]
    fn a_step_after_the_end_has_no_negative_rate() {
        let schedule =
            Schedule { scheduler: LrScheduler::Linear, learning_rate: 1.0, warmup_steps: 0, total_steps: 5 };
        assert!(schedule.at(9).abs() < f64::MIN_POSITIVE);
    }
}
