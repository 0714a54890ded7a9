//! Byte ranges: where the partitions of a text file (or tar) begin, found by one pass and remembered by the file's content.
//!
//! In: a file and a reader of its records. Out: one [`ByteRange`] per `partition_rows` records, each with the digest of its
//! bytes, so that appending to a file leaves the earlier partitions as they were.

use super::input::Input;
use super::raw::Split;
use super::section::Section;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{Digest, OpenContext};
use std::io;
use std::ops::Range;

/// Raised when the same file is cut differently.
const INDEX_VERSION: u32 = 2;

/// Bytes of a file that hold `rows` whole records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByteRange {
    pub offset: u64,
    pub length: u64,
    pub first_row: u64,
    pub rows: u64,
    /// Line of its first record, counted from 1; 0 for formats without lines.
    pub first_line: u64,
    pub digest: Digest,
}

impl ByteRange {
    /// What the source knows of it.
    pub fn split(&self) -> Split {
        Split { rows: self.first_row..self.first_row + self.rows, digest: self.digest }
    }
}

/// Where a record begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub offset: u64,
    pub line: u64,
}

/// Gives the position of each record in turn.
pub type NextRecord<'a> = dyn FnMut() -> io::Result<Option<Position>> + 'a;

/// The byte ranges of a file, cut every `every` records; `format` names the reader in the memo's key. The inner error says why its
/// bytes cannot be had.
pub fn byte_ranges(
    input: &Input,
    format: &str,
    every: u64,
    context: &dyn OpenContext,
    scan: &(dyn Fn(&Section) -> io::Result<Vec<ByteRange>> + Sync),
) -> Result<Result<Vec<ByteRange>, String>, StageError> {
    let what = format!("regions/{INDEX_VERSION}/{format}/{every}");
    let found = input.remembered_of_all(&what, context, &|file| Ok(encode(&scan(file)?)))?;
    match found.map(|found| decode(&found)) {
        Ok(Some(byte_ranges)) => Ok(Ok(byte_ranges)),
        Ok(None) => Err(StageError::new(format!("{}: no row index", input.path().display()))),
        Err(cause) => Ok(Err(cause)),
    }
}

/// Cuts a file behind every `every` records. The bytes of a range are hashed as soon as its end is known, while the system still holds
/// them: a file larger than memory is read once for both.
pub fn cut(every: u64, file: &Section, next: &mut NextRecord<'_>) -> io::Result<Vec<ByteRange>> {
    let mut byte_ranges = Vec::new();
    let mut open: Option<(Position, u64)> = None;
    let mut row = 0;
    while let Some(at) = next()? {
        if row % every.max(1) == 0
            && let Some((from, first_row)) = open.replace((at, row))
        {
            byte_ranges.push(range(file, from, at.offset, first_row..row)?);
        }
        row += 1;
    }
    if let Some((from, first_row)) = open {
        byte_ranges.push(range(file, from, file.len(), first_row..row)?);
    }
    Ok(byte_ranges)
}

fn range(file: &Section, from: Position, end: u64, rows: Range<u64>) -> io::Result<ByteRange> {
    let (offset, length) = (from.offset, end.saturating_sub(from.offset));
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file.part(offset, length))?;
    let digest = hasher.finalize();
    Ok(ByteRange {
        offset,
        length,
        first_row: rows.start,
        rows: rows.end - rows.start,
        first_line: from.line,
        digest,
    })
}

const NUMBERS: usize = 5;
const ENCODED: usize = NUMBERS * 8 + blake3::OUT_LEN;

fn encode(byte_ranges: &[ByteRange]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(byte_ranges.len() * ENCODED);
    for range in byte_ranges {
        for number in [range.offset, range.length, range.first_row, range.rows, range.first_line] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(range.digest.as_bytes());
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Vec<ByteRange>> {
    let (chunks, rest) = bytes.as_chunks::<ENCODED>();
    if !rest.is_empty() {
        return None;
    }
    chunks.iter().map(decode_one).collect()
}

fn decode_one(bytes: &[u8; ENCODED]) -> Option<ByteRange> {
    let number = |index: usize| {
        let bytes = bytes.get(index * 8..index * 8 + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    Some(ByteRange {
        offset: number(0)?,
        length: number(1)?,
        first_row: number(2)?,
        rows: number(3)?,
        first_line: number(4)?,
        digest: Digest::from_slice(bytes.get(NUMBERS * 8..)?).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_survives_being_stored() {
        let range = ByteRange {
            offset: 3,
            length: 1 << 40,
            first_row: 8192,
            rows: 4096,
            first_line: 8200,
            digest: blake3::hash(b"bytes"),
        };
        let byte_ranges = vec![range.clone(), range];
        assert_eq!(decode(&encode(&byte_ranges)), Some(byte_ranges));
        assert_eq!(decode(&[0; ENCODED - 1]), None);
        assert_eq!(decode(&[]), Some(vec![]));
    }
}
