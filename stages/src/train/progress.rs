//! How fast a training is and how far, for the person who waits.

use super::record::Entry;
use llavm_pipeline::stage::JobContext;
use llavm_pipeline::units::duration;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Shortest time between two lines.
const PAUSE: Duration = Duration::from_millis(100);

/// Times of one run of a training; a resumed one begins anew.
pub struct Clock {
    /// When the first batch was there.
    started: Instant,
    shown: Option<Instant>,
    /// Time in steps and waiting for batches; measurements and checkpoints are left out.
    training: Duration,
    waited: Duration,
    steps: u64,
    tokens: u64,
    samples: u64,
}

/// `timing.json`.
#[derive(Serialize)]
pub struct Timing {
    /// Of this run's steps, measurements and checkpoints.
    pub seconds: f64,
    /// Steps of this run; those before an interruption are not its own.
    pub steps: u64,
    /// Share of the training's time in which the trainer waited for a batch.
    pub wait_share: f64,
    pub tokens_per_second: f64,
    pub samples_per_second: f64,
    pub peak_rss_mib: f64,
}

impl Clock {
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            shown: None,
            training: Duration::ZERO,
            waited: Duration::ZERO,
            steps: 0,
            tokens: 0,
            samples: 0,
        }
    }

    /// Counts a step that took `time`, of which the trainer waited `waited`. Waiting for the very first batch is not the
    /// feed's fault: there is nothing before it during which it could have been made.
    pub fn count(&mut self, entry: &Entry, time: Duration, waited: Duration) {
        let startup = if self.steps == 0 { waited } else { Duration::ZERO };
        self.training += time.saturating_sub(startup);
        self.waited += waited.saturating_sub(startup);
        self.steps += 1;
        self.tokens += entry.tokens;
        self.samples += entry.samples;
    }

    pub fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.seconds()
    }

    fn seconds(&self) -> f64 {
        self.training.as_secs_f64().max(1e-9)
    }

    fn wait_share(&self) -> f64 {
        self.waited.as_secs_f64() / self.seconds()
    }

    pub fn timing(&self) -> Timing {
        Timing {
            seconds: self.started.elapsed().as_secs_f64(),
            steps: self.steps,
            wait_share: self.wait_share(),
            tokens_per_second: self.tokens_per_second(),
            samples_per_second: self.samples as f64 / self.seconds(),
            peak_rss_mib: llavm_pipeline::peak_rss_mib(),
        }
    }

    /// Shows where the training is, unless it just did.
    pub fn report(&mut self, context: &dyn JobContext, entry: &Entry, total: u64) {
        let last = entry.step == total;
        if !last && self.shown.is_some_and(|shown| shown.elapsed() < PAUSE) {
            return;
        }
        self.shown = Some(Instant::now());
        context.progress(entry.step as f64 / total.max(1) as f64, &self.line(entry, total));
    }

    fn line(&self, entry: &Entry, total: u64) -> String {
        let seconds = self.seconds();
        let left = seconds / self.steps.max(1) as f64 * total.saturating_sub(entry.step) as f64;
        let eval = entry.eval.map_or_else(String::new, |(loss, _)| format!(", validation loss {loss:.4}"));
        let asked = entry.benchmarks.iter().map(|(name, score)| format!(", {name} {score:.4}"));
        let eval = asked.fold(eval, |line, asked| line + &asked);
        format!(
            "step {}/{total}, loss {:.4}{eval}, lr {:.2e}, {:.0} tokens/s, {:.1} samples/s, {} left, {:.1}% waiting",
            entry.step,
            entry.loss,
            entry.lr,
            self.tokens_per_second(),
            self.samples as f64 / seconds,
            duration(left),
            100.0 * self.wait_share(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_a_person_wants_to_know() {
        let entry = Entry {
            step: 10,
            loss: 3.25,
            lr: 1e-4,
            tokens: 800,
            samples: 8,
            eval: Some((3.5, 0.25)),
            ..Entry::default()
        };
        let mut clock = Clock::start();
        clock.count(&entry, Duration::from_secs(1), Duration::ZERO);
        clock.count(&entry, Duration::from_secs(3), Duration::from_millis(20));
        insta::assert_snapshot!(
            clock.line(&entry, 100),
            @"step 10/100, loss 3.2500, validation loss 3.5000, lr 1.00e-4, 400 tokens/s, 4.0 samples/s, 3 min 00 s left, 0.5% waiting"
        );
    }
}
