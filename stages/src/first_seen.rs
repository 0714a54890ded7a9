//! Where each digest was seen first: a hash table with open addressing, cut into parts that grow one after the other. A row number
//! beside each digest takes at most 24 bytes.
//!
//! A `HashMap` doubles when it is full, which is up to 39 bytes a row number, and for a moment the old table beside the new one. Here a
//! part grows by a quarter, and only its own copy is beside it meanwhile. Twelve bytes of a digest are kept: of a billion
//! differing ones two meet with a chance of 10^-11.

/// Bytes of a digest that are kept.
pub const DIGEST: usize = 12;

/// Parts by the first byte of the digest.
const PARTS: usize = 256;

/// A place: row, or row and item.
pub trait Place: Copy {
    /// What no place is.
    const NONE: Self;

    fn is_none(self) -> bool;
}

impl Place for u32 {
    const NONE: Self = Self::MAX;

    fn is_none(self) -> bool {
        self == Self::MAX
    }
}

impl Place for (u32, u32) {
    const NONE: Self = (u32::MAX, 0);

    fn is_none(self) -> bool {
        self.0.is_none()
    }
}

#[derive(Clone, Copy)]
struct Slot<P> {
    digest: [u8; DIGEST],
    /// None where the slot is free.
    place: P,
}

/// Digests and the first place of each.
pub struct FirstSeen<P>(Vec<Part<P>>);

#[derive(Clone)]
struct Part<P> {
    slots: Vec<Slot<P>>,
    used: usize,
}

impl<P: Place> Default for FirstSeen<P> {
    fn default() -> Self {
        Self(vec![Part { slots: Vec::new(), used: 0 }; PARTS])
    }
}

impl<P: Place> FirstSeen<P> {
    /// Where the digest was seen before; if it was not, it is from now on seen at `place`.
    pub fn before(&mut self, digest: [u8; DIGEST], place: P) -> Option<P> {
        let [part, ..] = digest;
        self.0.get_mut(usize::from(part)).and_then(|part| part.before(digest, place))
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.0.iter().map(|part| part.slots.capacity() * size_of::<Slot<P>>()).sum()
    }
}

impl<P: Place> Part<P> {
    fn before(&mut self, digest: [u8; DIGEST], place: P) -> Option<P> {
        // At nine tenths a look-up passes a few slots, all in one or two lines of the cache.
        if (self.used + 1) * 10 > self.slots.len() * 9 {
            self.grow();
        }
        let slot = find(&mut self.slots, digest);
        if !slot.place.is_none() {
            return Some(slot.place);
        }
        *slot = Slot { digest, place };
        self.used += usize::from(!place.is_none());
        None
    }

    fn grow(&mut self) {
        let free = Slot { digest: [0; DIGEST], place: P::NONE };
        let mut slots = vec![free; (self.slots.len() + self.slots.len() / 4).max(8)];
        for slot in self.slots.iter().filter(|slot| !slot.place.is_none()) {
            *find(&mut slots, slot.digest) = *slot;
        }
        self.slots = slots;
    }
}

/// The slot of a digest, or a free one for it. There must be a free one.
fn find<P: Place>(slots: &mut [Slot<P>], digest: [u8; DIGEST]) -> &mut Slot<P> {
    let [_, a, b, c, d, e, f, g, h, ..] = digest;
    let hash = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    // The digest is random already; the high bits of a product are evenly spread over any length.
    let mut at = ((u128::from(hash) * slots.len() as u128) >> 64) as usize;
    while !slots[at].place.is_none() && slots[at].digest != digest {
        at = (at + 1) % slots.len();
    }
    &mut slots[at]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn digest(n: u32) -> [u8; DIGEST] {
        *blake3::hash(&n.to_le_bytes()).as_bytes().first_chunk().unwrap()
    }

    #[test]
    fn the_first_place_of_a_digest_is_found_again_as_in_a_hash_map() {
        let (mut seen, mut map) = (FirstSeen::default(), HashMap::new());
        for row in 0..50_000 {
            let digest = digest(row % 7_001);
            assert_eq!(seen.before(digest, (row, 3)), map.get(&digest).copied());
            map.entry(digest).or_insert((row, 3));
        }
    }

    /// The most bytes for each of many digests at any time.
    fn most<P: Place>(place: impl Fn(u32) -> P) -> f64 {
        let (mut seen, mut most) = (FirstSeen::default(), 0.0);
        for row in 0..1_000_000_u32 {
            seen.before(digest(row), place(row));
            if row > 50_000 && row % 9_973 == 0 {
                most = f64::max(most, seen.bytes() as f64 / f64::from(row + 1));
            }
        }
        most
    }

    #[test]
    fn a_row_takes_at_most_24_bytes_however_many_there_are() {
        let rows = most(|row| row);
        assert!(rows <= 24.0, "{rows} bytes a row");
        let items = most(|row| (row, 0));
        assert!(items <= 30.0, "{items} bytes an image");
    }
}
