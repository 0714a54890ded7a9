//! Waits for a job's turn on a thread of its own, so that it can begin while what it reads is still being made.

use super::run::Run;
use crate::exec::executor::TaskError;
use crate::keys::tasks::TaskId;
use std::time::{Duration, Instant};

/// Whether a job can begin follows from everything it reads: this many times as long as it took to find out, it is not asked
/// again.
const ASK_PAUSE: u32 = 20;

/// But no longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Run<'_> {
    /// Waits for the job's turn, and runs it.
    pub(super) fn job(&self, id: TaskId) {
        while !self.host.scheduler.stopping() && self.is_open(id) {
            let asked = Instant::now();
            match self.execute(id) {
                Ok(done) => return self.complete(id, done),
                Err(TaskError::NotReady) => self.wait(asked.elapsed() * ASK_PAUSE),
                Err(TaskError::Busy) => {
                    self.report_waiting(id);
                    self.wait(asked.elapsed() * ASK_PAUSE);
                }
                Err(error) => return self.ended(id, error),
            }
        }
    }

    /// Waits until something changed, and for at least so long.
    fn wait(&self, pause: Duration) {
        let (start, pause) = (Instant::now(), pause.min(LONGEST_PAUSE));
        self.host.scheduler.wait();
        while start.elapsed() < pause && !self.host.scheduler.stopping() {
            self.host.scheduler.wait();
        }
    }
}
