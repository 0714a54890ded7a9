//! Pixel buffers: the images of a batch, in memory that is used again when the batch is gone.
//!
//! A batch is 18 MiB. Fresh memory is cleared twice, here and by the system, which took a twentieth of a run's time.

use arrow::buffer::Buffer;
use bytes::Bytes;
use std::sync::Mutex;

/// Memory that no batch needs now.
static POOL: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
/// Most bytes in [`POOL`].
const KEPT: usize = 64 << 20;

/// Memory that goes back to [`POOL`] when it is dropped.
#[derive(Default)]
struct Pooled(Vec<u8>);

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let Ok(mut pool) = POOL.lock() else { return };
        if pool.iter().map(Vec::capacity).sum::<usize>() + self.0.capacity() <= KEPT {
            pool.push(std::mem::take(&mut self.0));
        }
    }
}

/// Images one after the other, all of `n_bytes`.
pub struct PixelBuffer {
    memory: Pooled,
    n_bytes: usize,
    len: usize,
}

impl PixelBuffer {
    /// Room for `capacity` images.
    pub fn with_capacity(n_bytes: usize, capacity: usize) -> Self {
        let pooled = POOL.lock().ok().and_then(|mut pool| pool.pop());
        let mut memory = Pooled(pooled.unwrap_or_default());
        if memory.0.len() < capacity * n_bytes {
            memory.0.resize(capacity * n_bytes, 0);
        }
        Self { memory, n_bytes, len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// One more, to be written whole: what stands in it is of no use.
    pub fn push(&mut self) -> &mut [u8] {
        let start = self.len * self.n_bytes;
        let end = start + self.n_bytes;
        if self.memory.0.len() < end {
            self.memory.0.resize(end, 0);
        }
        self.len += 1;
        &mut self.memory.0[start..end]
    }

    /// Image number `place`.
    pub fn get(&self, place: usize) -> &[u8] {
        let start = place * self.n_bytes;
        &self.memory.0[start..start + self.n_bytes]
    }

    /// Takes back all but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The bytes of all images.
    pub fn finish(self) -> Buffer {
        let used = self.len * self.n_bytes;
        Buffer::from(Bytes::from_owner(self.memory).slice(..used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_follow_each_other_whatever_stood_in_their_memory() {
        for round in 0..3_u8 {
            let mut images = PixelBuffer::with_capacity(3, 1);
            for n in 0..4 {
                images.push().fill(10 * round + n);
            }
            images.truncate(2);
            images.push().fill(99);
            let first = 10 * round;
            assert_eq!(
                images.finish().as_slice(),
                [first, first, first, first + 1, first + 1, first + 1, 99, 99, 99]
            );
        }
    }
}
