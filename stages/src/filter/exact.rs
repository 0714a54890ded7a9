//! Which digests were seen, at most 24 bytes a row: a hash table with open addressing, cut into parts that grow one after the other.
//!
//! A `HashMap` doubles when it is full, which is up to 39 bytes a row, and for a moment the old table beside the new one. Here a part
//! grows by a quarter, and only its own copy is beside it meanwhile.

/// Bytes of a digest that are kept.
pub const DIGEST: usize = 12;

/// Parts by the first byte of the digest.
const PARTS: usize = 256;

/// A row and the digest of it.
#[derive(Clone, Copy)]
struct Slot {
    digest: [u8; DIGEST],
    /// [`NONE`] where the slot is free.
    row: u32,
}

const NONE: u32 = u32::MAX;
const FREE: Slot = Slot { digest: [0; DIGEST], row: NONE };

/// Digests and the first row of each.
pub struct FirstRows(Vec<Part>);

#[derive(Clone, Default)]
struct Part {
    slots: Vec<Slot>,
    used: usize,
}

impl Default for FirstRows {
    fn default() -> Self {
        Self(vec![Part::default(); PARTS])
    }
}

impl FirstRows {
    /// The row that was the first with this digest: `row`, if none was before.
    pub fn first(&mut self, digest: [u8; DIGEST], row: u32) -> u32 {
        let [part, ..] = digest;
        self.0.get_mut(usize::from(part)).map_or(row, |part| part.first(digest, row))
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.0.iter().map(|part| part.slots.capacity() * size_of::<Slot>()).sum()
    }
}

impl Part {
    fn first(&mut self, digest: [u8; DIGEST], row: u32) -> u32 {
        // At nine tenths a look-up passes a few slots, all in one or two lines of the cache.
        if (self.used + 1) * 10 > self.slots.len() * 9 {
            self.grow();
        }
        let slot = find(&mut self.slots, digest);
        if slot.row == NONE {
            *slot = Slot { digest, row };
            self.used += 1;
        }
        slot.row
    }

    fn grow(&mut self) {
        let mut slots = vec![FREE; (self.slots.len() + self.slots.len() / 4).max(8)];
        for slot in self.slots.iter().filter(|slot| slot.row != NONE) {
            *find(&mut slots, slot.digest) = *slot;
        }
        self.slots = slots;
    }
}

/// The slot of a digest, or a free one for it. There must be a free one.
fn find(slots: &mut [Slot], digest: [u8; DIGEST]) -> &mut Slot {
    let [_, a, b, c, d, e, f, g, h, ..] = digest;
    let hash = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    // The digest is random already; the high bits of a product are evenly spread over any length.
    let mut at = ((u128::from(hash) * slots.len() as u128) >> 64) as usize;
    while slots[at].row != NONE && slots[at].digest != digest {
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
    fn the_first_row_of_a_digest_is_found_again_as_in_a_hash_map() {
        let (mut rows, mut map) = (FirstRows::default(), HashMap::new());
        for row in 0..50_000 {
            let digest = digest(row % 7_001);
            assert_eq!(rows.first(digest, row), *map.entry(digest).or_insert(row));
        }
    }

    #[test]
    fn a_row_takes_at_most_24_bytes_however_many_there_are() {
        let mut rows = FirstRows::default();
        for row in 0..1_000_000_u32 {
            rows.first(digest(row), row);
            if row > 50_000 && row % 9_973 == 0 {
                let each = rows.bytes() as f64 / f64::from(row + 1);
                assert!(each <= 24.0, "{each} bytes a row at {row} rows");
            }
        }
    }
}
