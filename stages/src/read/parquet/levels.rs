//! Pages of nested columns whose repetition levels end early.
//!
//! Repetition levels say where a row begins. When a page has fewer of them than values, the parquet crate (60.1,
//! `GenericColumnReader::skip_records`) looks for the end of a row forever. Their run-length code is counted before a page is
//! handed to it: a number and a length for each run, no value is decoded.

use parquet::basic::Encoding;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};

/// The pages of a chunk; Err in the place of one that has too few levels.
pub struct WholeLevels<R> {
    inner: R,
    max_level: i16,
}

impl<R: PageReader> WholeLevels<R> {
    /// `max_level` is the column's highest repetition level, above 0.
    pub fn of(inner: R, max_level: i16) -> Self {
        Self { inner, max_level }
    }
}

impl<R: PageReader> Iterator for WholeLevels<R> {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl<R: PageReader> PageReader for WholeLevels<R> {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.inner.get_next_page()?;
        match page.as_ref().and_then(levels) {
            Some((levels, values)) if count(levels, self.max_level, values) < values => {
                Err(ParquetError::General(format!("a page of {values} values has too few repetition levels")))
            }
            _ => Ok(page),
        }
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.inner.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.inner.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.inner.at_record_boundary()
    }
}

/// The repetition levels of a data page and how many there should be; `None` where they are not run-length coded.
fn levels(page: &Page) -> Option<(&[u8], u64)> {
    match page {
        Page::DataPage { buf, num_values, rep_level_encoding: Encoding::RLE, .. } => {
            let (length, rest) = buf.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
            let length = (u32::from_le_bytes(*length) as usize).min(rest.len());
            Some((&rest[..length], u64::from(*num_values)))
        }
        Page::DataPageV2 { buf, num_values, rep_levels_byte_len, .. } => {
            let length = (*rep_levels_byte_len as usize).min(buf.len());
            Some((&buf[..length], u64::from(*num_values)))
        }
        _ => None,
    }
}

/// How many rows begin in a data page; `None` where its first value continues the row of the page before, or its levels cannot be read.
pub fn rows_of(page: &Page, max_level: i16) -> Option<usize> {
    let (mut bytes, values) = levels(page)?;
    let bits = (i16::BITS - max_level.leading_zeros()) as usize;
    let (mut rows, mut seen) = (0, 0);
    while seen < values {
        let header = varint(&mut bytes)?;
        let left = values - seen;
        let (count, begins, starts) = if header & 1 == 0 {
            let (level, rest) = bytes.split_at_checked(bits.div_ceil(8))?;
            bytes = rest;
            let count = (header >> 1).min(left);
            let starts = level.iter().all(|byte| *byte == 0);
            (count, if starts { count } else { 0 }, starts)
        } else {
            let count = (header >> 1).checked_mul(8)?.min(left);
            let size = usize::try_from(header >> 1).ok()?.checked_mul(bits)?.min(bytes.len());
            let (packed, rest) = bytes.split_at(size);
            bytes = rest;
            let (begins, starts) = packed_starts(packed, bits, usize::try_from(count).ok()?)?;
            (count, begins, starts)
        };
        if seen == 0 && count > 0 && !starts {
            return None;
        }
        (rows, seen) = (rows + begins, seen + count);
    }
    usize::try_from(rows).ok()
}

/// How many of `count` bit-packed levels are 0, and whether the first is; `None` where bytes are missing.
fn packed_starts(packed: &[u8], bits: usize, count: usize) -> Option<(u64, bool)> {
    let bit = |at: usize| packed.get(at / 8).map(|byte| byte >> (at % 8) & 1 == 1);
    let (mut starts, mut first) = (0, false);
    for n in 0..count {
        let mut is_zero = true;
        for at in n * bits..(n + 1) * bits {
            is_zero &= !bit(at)?;
        }
        starts += u64::from(is_zero);
        first |= n == 0 && is_zero;
    }
    Some((starts, first))
}

/// Counts run-length coded levels up to `enough` (Parquet's hybrid of runs and bit-packed groups of eight).
fn count(mut bytes: &[u8], max_level: i16, enough: u64) -> u64 {
    let bits = u64::from(i16::BITS - max_level.leading_zeros());
    let mut levels = 0_u64;
    while levels < enough {
        let Some(header) = varint(&mut bytes) else { return levels };
        let packed = header & 1 == 1;
        let size = if packed { (header >> 1).saturating_mul(bits) } else { bits.div_ceil(8) };
        let there = size.min(bytes.len() as u64);
        if there < size && !packed {
            return levels;
        }
        levels = levels.saturating_add(if packed { there * 8 / bits } else { header >> 1 });
        bytes = &bytes[there as usize..];
    }
    levels
}

/// ULEB128.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_groups_are_counted_as_far_as_their_bytes_go() {
        // A run of five zeros, then one group of eight levels of one bit.
        let both = [5 << 1, 0, (1 << 1) | 1, 0b1010_1010];
        assert_eq!(count(&both, 1, 13), 13);
        assert_eq!(count(&both, 1, 6), 13, "a group has eight");
        assert_eq!(count(&both[..3], 1, 13), 5, "a group without its bytes");
        assert_eq!(count(&both[..1], 1, 13), 0, "a run without its value");
        assert_eq!(count(&[0x80, 0x01, 0], 1, 99), 64, "a number of two bytes");
        assert_eq!(count(&[0xFF; 12], 1, 9), 0, "a number without an end");
        assert_eq!(count(&[(1 << 1) | 1, 0, 0], 3, 8), 8, "two bits a level");
    }

    fn page(levels: &[u8], values: u32) -> Page {
        let buf = [&(levels.len() as u32).to_le_bytes()[..], levels].concat().into();
        let (encoding, def_level_encoding, rep_level_encoding) =
            (Encoding::PLAIN, Encoding::RLE, Encoding::RLE);
        Page::DataPage {
            buf,
            num_values: values,
            encoding,
            def_level_encoding,
            rep_level_encoding,
            statistics: None,
        }
    }

    #[test]
    fn rows_are_counted_where_levels_are_zero() {
        // Three rows of one value, then eight levels, the lowest bit first: 0 1 0 1 0 1 0 1.
        let both = [3 << 1, 0, (1 << 1) | 1, 0b1010_1010];
        assert_eq!(rows_of(&page(&both, 11), 1), Some(7));
        assert_eq!(rows_of(&page(&both, 4), 1), Some(4));
        assert_eq!(rows_of(&page(&both[..3], 11), 1), None, "a group without its bytes");
        assert_eq!(rows_of(&page(&[2 << 1, 1, 2 << 1, 0], 4), 1), None, "begins within a row");
        assert_eq!(rows_of(&page(&[(1 << 1) | 1, 0b1110_0100, 0], 8), 3), Some(5), "two bits a level");
    }
}
