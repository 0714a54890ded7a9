//! Permits for batches: how many, and how many bytes, may be in memory at once in the whole run.
//!
//! How large a batch is shows once it is read, so a permit begins with the size of the batch before it and is then set to the
//! real one, to what was computed from it at the end. A batch larger than all that is allowed is worked on alone.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What may be in memory.
pub struct Permits {
    batches: usize,
    bytes: u64,
    used: Mutex<Used>,
    freed: Condvar,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    batches: usize,
    bytes: u64,
}

/// One batch may be in memory as long as this lives.
pub struct Permit<'a> {
    permits: &'a Permits,
    bytes: u64,
}

impl Permits {
    pub fn new(batches: usize, bytes: u64) -> Self {
        Self { batches: batches.max(1), bytes, used: Mutex::default(), freed: Condvar::new() }
    }

    /// The most batches there can be at once.
    pub fn batches(&self) -> usize {
        self.batches
    }

    /// Waits for a permit for a batch of about so many bytes. Only for threads that hold none: two that hold some could wait for
    /// each other.
    pub fn take(&self, bytes: u64) -> Permit<'_> {
        let mut used = self.lock();
        while !self.fits(*used, bytes) {
            used = self.freed.wait(used).unwrap_or_else(PoisonError::into_inner);
        }
        self.permit(used, bytes)
    }

    pub fn try_take(&self, bytes: u64) -> Option<Permit<'_>> {
        let used = self.lock();
        self.fits(*used, bytes).then(|| self.permit(used, bytes))
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fits(&self, used: Used, bytes: u64) -> bool {
        used.batches == 0 || (used.batches < self.batches && used.bytes.saturating_add(bytes) <= self.bytes)
    }

    fn permit(&self, mut used: MutexGuard<'_, Used>, bytes: u64) -> Permit<'_> {
        used.batches += 1;
        used.bytes = used.bytes.saturating_add(bytes);
        Permit { permits: self, bytes }
    }
}

impl Permit<'_> {
    /// The batch has so many bytes now.
    pub fn set(&mut self, bytes: u64) {
        let mut used = self.permits.lock();
        used.bytes = used.bytes.saturating_sub(self.bytes).saturating_add(bytes);
        self.bytes = bytes;
        drop(used);
        self.permits.freed.notify_all();
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut used = self.permits.lock();
        used.batches -= 1;
        used.bytes = used.bytes.saturating_sub(self.bytes);
        drop(used);
        self.permits.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_as_well_as_batches() {
        let permits = Permits::new(3, 100);
        let mut first = permits.take(60);
        assert!(permits.try_take(41).is_none(), "41 more bytes would be too many");
        let second = permits.try_take(40);
        assert!(second.is_some());
        first.set(10);
        let third = permits.try_take(50);
        assert!(third.is_some() && permits.try_take(0).is_none(), "three batches are all");
        drop((first, second, third));
        assert_eq!(*permits.lock(), Used::default());
    }

    #[test]
    fn a_batch_larger_than_everything_is_worked_on_alone() {
        let permits = Permits::new(4, 100);
        let mut large = permits.take(1);
        large.set(1 << 30);
        assert!(permits.try_take(1).is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(permits.take(1 << 30)));
            drop(large);
            waiting.join().unwrap();
        });
        assert!(permits.try_take(1 << 30).is_some());
    }
}
