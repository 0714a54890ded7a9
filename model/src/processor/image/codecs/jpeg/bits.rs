//! Bits of sequential Huffman-coded scan data, and the blocks of coefficients they stand for (ITU T.81, F.2.2).
//!
//! Reads what a whole file holds and nothing else: `None` where anything is damaged or unusual, for a decoder that knows what
//! becomes of it.

use libjpeg_turbo_rs::common::huffman_table::HuffmanTable;
use libjpeg_turbo_rs::common::quant_table::ZIGZAG_ORDER;

/// The coefficients of a block, row by row.
pub type Block = [i16; 64];

/// Scan data, read from its start.
pub struct Bits<'a> {
    data: &'a [u8],
    /// The next byte that is not in `buffer`.
    at: usize,
    /// The next bits, the first of them the highest.
    buffer: u64,
    /// How many of them count.
    count: u32,
    /// Zeros among them that were put behind the data, which ends at a marker.
    padding: u32,
}

impl<'a> Bits<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, buffer: 0, count: 0, padding: 0 }
    }

    /// Whether more was read than there is.
    pub fn is_short(&self) -> bool {
        self.count < self.padding
    }

    /// Passes over a restart marker, at which the data must stand.
    pub fn restart(&mut self) -> Option<()> {
        self.refill();
        let is_marker = matches!(self.data.get(self.at..self.at + 2), Some([0xFF, 0xD0..=0xD7]));
        let left = self.count.checked_sub(self.padding)?;
        *self = Self { at: self.at + 2, buffer: 0, count: 0, padding: 0, ..*self };
        (is_marker && left < 8).then_some(())
    }

    /// Reads a block; `previous` is the first coefficient of the one before it of the same colour.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "compiled once more with the caller's AVX2 and BMI2")]
    pub fn block(
        &mut self,
        (dc, ac): (&HuffmanTable, &HuffmanTable),
        previous: &mut i16,
        block: &mut Block,
    ) -> Option<()> {
        *block = [0; 64];
        self.refill();
        let size = self.symbol(dc)?;
        *previous = previous.wrapping_add(self.value(size)?);
        block[0] = *previous;
        let mut n = 1;
        while n < 64 {
            // A code and what follows it have 31 bits at most.
            if self.count < 32 {
                self.refill();
            }
            let (at_once, _, _) = ac.lookup_combined(self.sixteen());
            if at_once != 0 {
                // A code with its value: the value, how many zeros stand before it, how many bits all have.
                n += usize::from((at_once as u16 >> 4) & 15);
                self.skip(u32::from(at_once as u16 & 15));
                *block.get_mut(*ZIGZAG_ORDER.get(n)?)? = at_once >> 8;
                n += 1;
                continue;
            }
            let symbol = self.symbol(ac)?;
            let (zeros, size) = (usize::from(symbol >> 4), symbol & 15);
            match (zeros, size) {
                (0, 0) => break,
                (15, 0) => n += 16,
                (_, 0) => return None,
                _ => {
                    n += zeros;
                    *block.get_mut(*ZIGZAG_ORDER.get(n)?)? = self.value(size)?;
                    n += 1;
                }
            }
        }
        Some(())
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "compiled once more with the caller's AVX2 and BMI2")]
    fn symbol(&mut self, table: &HuffmanTable) -> Option<u8> {
        let (symbol, length) = match table.lookup_fast(self.sixteen()) {
            (_, 0) => table.lookup(self.sixteen()).ok()?,
            found => found,
        };
        self.skip(u32::from(length));
        Some(symbol)
    }

    /// A number of `size` bits and its sign.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "compiled once more with the caller's AVX2 and BMI2")]
    fn value(&mut self, size: u8) -> Option<i16> {
        if size == 0 || size > 15 {
            return (size == 0).then_some(0);
        }
        let size = u32::from(size);
        let bits = (self.buffer >> (64 - size)) as i32;
        self.skip(size);
        let is_negative = bits >> (size - 1) == 0;
        Some((bits - if is_negative { (1 << size) - 1 } else { 0 }) as i16)
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "compiled once more with the caller's AVX2 and BMI2")]
    fn sixteen(&self) -> u16 {
        (self.buffer >> 48) as u16
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "compiled once more with the caller's AVX2 and BMI2")]
    fn skip(&mut self, count: u32) {
        self.buffer <<= count;
        self.count -= count;
    }

    /// Fills up to at least 56 bits.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "compiled once more with the caller's AVX2 and BMI2")]
    fn refill(&mut self) {
        if self.count >= 56 {
            return;
        }
        let next = self.data.get(self.at..).and_then(|rest| rest.first_chunk::<8>());
        let Some(word) = next.map(|bytes| u64::from_be_bytes(*bytes)).filter(|word| !has_ff(*word)) else {
            return self.refill_slowly();
        };
        // Bits beyond `count` are those that the next refill puts there again.
        self.buffer |= word >> self.count;
        self.at += ((63 - self.count) >> 3) as usize;
        self.count |= 0x38;
    }

    /// Byte by byte, with an eye on markers.
    #[cold]
    fn refill_slowly(&mut self) {
        while self.count <= 56 {
            let (byte, length) = match (self.data.get(self.at), self.data.get(self.at + 1)) {
                (Some(0xFF), Some(0)) => (0xFF, 2),
                (None | Some(0xFF), _) => (0, 0),
                (Some(byte), _) => (*byte, 1),
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.at += length;
            self.count += 8;
            self.padding += if length == 0 { 8 } else { 0 };
        }
    }
}

/// Whether any of the bytes is 0xFF.
fn has_ff(word: u64) -> bool {
    const ONES: u64 = u64::MAX / 255;
    (!word).wrapping_sub(ONES) & word & (ONES << 7) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_ones_are_seen_wherever_they_are() {
        for place in 0..8 {
            assert!(has_ff(0x0102_03FE_7F80_0001 | 0xFF << (8 * place)), "{place}");
        }
        assert!(!has_ff(0xFE7F_8001_00FE_7EFE));
    }

    #[test]
    fn data_ends_at_a_marker_and_goes_on_behind_a_restart() {
        let mut bits = Bits::new(&[0xFF, 0, 0x80, 0xFF, 0xD3, 0x40]);
        bits.refill();
        assert_eq!((bits.sixteen(), bits.count - bits.padding), (0xFF80, 16));
        bits.skip(9);
        assert!(!bits.is_short());
        bits.restart().unwrap();
        bits.refill();
        assert_eq!((bits.sixteen(), bits.count - bits.padding), (0x4000, 8));
        bits.skip(9);
        assert!(bits.is_short());
        assert_eq!(Bits::new(&[1, 2, 3]).restart(), None);
    }
}
