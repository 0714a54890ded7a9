//! A fixed number of permits: how many batches may be in memory at once, in the whole run.

use crossbeam_channel::{Receiver, Sender, bounded};

/// The permits that are free.
pub struct Permits {
    free: Receiver<()>,
    back: Sender<()>,
    total: usize,
}

/// One batch may be in memory as long as this lives.
pub struct Permit {
    back: Sender<()>,
}

impl Permits {
    pub fn new(total: usize) -> Self {
        let (back, free) = bounded(total);
        for _ in 0..total {
            // There is room for all of them.
            let _ = back.try_send(());
        }
        Self { free, back, total }
    }

    pub fn total(&self) -> usize {
        self.total
    }

    /// Waits for a permit. Only for threads that hold none: two that hold some could wait for each other.
    pub fn take(&self) -> Permit {
        // The sender lives in `self`, so the channel cannot be closed.
        let _ = self.free.recv();
        self.permit()
    }

    pub fn try_take(&self) -> Option<Permit> {
        self.free.try_recv().ok().map(|()| self.permit())
    }

    fn permit(&self) -> Permit {
        Permit { back: self.back.clone() }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // There is room for all of them.
        let _ = self.back.try_send(());
    }
}
