//! What is known of images that several rows show: which can be decoded, and pixels that somebody will want.
//!
//! A row whose image stands elsewhere has to know whether it can be decoded. Where the row in which it stands comes later, since partitions
//! are made side by side, the image is decoded for the verdict, and its pixels wait for that row. Only saves work: whatever is not
//! known is found out. One digest of 16 bytes for each distinct image, and at most [`WAITING`] bytes of pixels.

use crate::image_lists::ImageDigest;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most bytes of pixels that wait: those of 445 images of 224 × 224.
const WAITING: usize = 64 << 20;

/// The images of a stage at work.
#[derive(Default)]
pub struct Verdicts(Mutex<Known>);

#[derive(Default)]
struct Known {
    decodable: HashSet<ImageDigest>,
    waiting: HashMap<ImageDigest, Vec<u8>>,
    /// Those of `waiting`, the oldest first; some have been taken.
    order: VecDeque<ImageDigest>,
    bytes: usize,
}

impl Verdicts {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an image can be decoded, if that is known.
    pub fn has(&self, digest: ImageDigest) -> bool {
        self.lock().decodable.contains(&digest)
    }

    /// The image can be decoded.
    pub fn add(&self, digest: ImageDigest) {
        self.lock().decodable.insert(digest);
    }

    /// The image can be decoded, to these pixels, which the row in which it stands may want.
    pub fn keep(&self, digest: ImageDigest, pixels: &[u8]) {
        let mut known = self.lock();
        if known.decodable.insert(digest) && pixels.len() <= WAITING {
            known.bytes += pixels.len();
            known.waiting.insert(digest, pixels.to_vec());
            known.order.push_back(digest);
        }
        while known.bytes > WAITING
            && let Some(oldest) = known.order.pop_front()
        {
            known.bytes -= known.waiting.remove(&oldest).map_or(0, |pixels| pixels.len());
        }
    }

    /// Pixels that wait for whoever asks.
    pub fn take(&self, digest: ImageDigest) -> Option<Vec<u8>> {
        let mut known = self.lock();
        let pixels = known.waiting.remove(&digest)?;
        known.bytes -= pixels.len();
        Some(pixels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_wait_for_one_row_and_no_longer_than_there_is_room() {
        let known = Verdicts::default();
        known.keep([1; 16], &[7; 30]);
        assert!(known.has([1; 16]) && !known.has([2; 16]));
        assert_eq!((known.take([1; 16]), known.take([1; 16])), (Some(vec![7; 30]), None));
        known.keep([1; 16], &[7; 30]);
        assert_eq!(known.take([1; 16]), None, "its row has them already");
        for n in 2..6 {
            known.keep([n; 16], &vec![n; WAITING / 3]);
        }
        let waits = |n: u8| known.take([n; 16]).is_some();
        assert_eq!((2..6).map(waits).collect::<Vec<_>>(), [false, true, true, true]);
        assert!(known.has([2; 16]), "its verdict is still known");
        assert_eq!(known.lock().bytes, 0);
    }
}
