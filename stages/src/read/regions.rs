//! Where the partitions of a text file (or tar) begin, found by one pass and remembered by the file's content.
//!
//! In: a file and a reader of its records. Out: one [`Region`] per `partition_rows` records, each with the digest of its
//! bytes, so that appending to a file leaves the earlier partitions as they were.

use super::raw::Piece;
use super::section::Section;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{Digest, OpenContext};
use rayon::prelude::*;
use std::io;
use std::path::Path;

/// Raised when the same file is cut differently.
const INDEX_VERSION: u32 = 1;

/// Bytes of a file that hold `rows` whole records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    pub offset: u64,
    pub length: u64,
    pub first_row: u64,
    pub rows: u64,
    /// Line of its first record, counted from 1; 0 for formats without lines.
    pub first_line: u64,
    pub digest: Digest,
}

impl Region {
    /// What the source knows of it.
    pub fn piece(&self) -> Piece {
        Piece { rows: self.first_row..self.first_row + self.rows, digest: self.digest }
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

/// The regions of `path`, cut every `every` records; `format` names the reader in the memo's key.
pub fn regions(
    path: &Path,
    format: &str,
    every: u64,
    context: &dyn OpenContext,
    scan: &dyn Fn(Section) -> io::Result<Vec<Border>>,
) -> Result<Vec<Region>, StageError> {
    let digest = context.file_digest(path)?;
    let key = format!("read/regions/{INDEX_VERSION}/{format}/{every}/{}", digest.to_hex());
    let mut compute = || {
        let file = Section::open(path).map_err(|cause| StageError::io(path, cause))?;
        let borders = scan(file.clone()).map_err(|cause| StageError::io(path, cause))?;
        let regions = digested(&file, &borders).map_err(|cause| StageError::io(path, cause))?;
        Ok(encode(&regions))
    };
    let remembered = context.remembered(&key, &mut compute)?;
    match decode(&remembered) {
        Some(regions) => Ok(regions),
        None => {
            decode(&compute()?).ok_or_else(|| StageError::new(format!("{}: no row index", path.display())))
        }
    }
}

/// The start of a region and the records before it; the last border is the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Border {
    pub at: Position,
    pub row: u64,
}

/// Borders after every `every` records. `length` is the file's.
pub fn borders(every: u64, length: u64, next: &mut NextRecord<'_>) -> io::Result<Vec<Border>> {
    let mut borders = Vec::new();
    let mut row = 0;
    while let Some(at) = next()? {
        if row % every.max(1) == 0 {
            borders.push(Border { at, row });
        }
        row += 1;
    }
    borders.push(Border { at: Position { offset: length, line: 0 }, row });
    Ok(borders)
}

fn digested(file: &Section, borders: &[Border]) -> io::Result<Vec<Region>> {
    let pairs: Vec<_> = borders.windows(2).collect();
    let region = |pair: &&[Border]| {
        let [from, to] = [pair[0], pair[1]];
        let (offset, length) = (from.at.offset, to.at.offset.saturating_sub(from.at.offset));
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file.part(offset, length))?;
        let (first_row, rows) = (from.row, to.row - from.row);
        Ok(Region { offset, length, first_row, rows, first_line: from.at.line, digest: hasher.finalize() })
    };
    pairs.par_iter().map(region).collect()
}

const NUMBERS: usize = 5;
const ENCODED: usize = NUMBERS * 8 + blake3::OUT_LEN;

fn encode(regions: &[Region]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(regions.len() * ENCODED);
    for region in regions {
        for number in [region.offset, region.length, region.first_row, region.rows, region.first_line] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(region.digest.as_bytes());
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Vec<Region>> {
    let (chunks, rest) = bytes.as_chunks::<ENCODED>();
    if !rest.is_empty() {
        return None;
    }
    chunks.iter().map(decode_one).collect()
}

fn decode_one(bytes: &[u8; ENCODED]) -> Option<Region> {
    let number = |index: usize| {
        let bytes = bytes.get(index * 8..index * 8 + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    Some(Region {
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
        let region = Region {
            offset: 3,
            length: 1 << 40,
            first_row: 8192,
            rows: 4096,
            first_line: 8200,
            digest: blake3::hash(b"bytes"),
        };
        let regions = vec![region.clone(), region];
        assert_eq!(decode(&encode(&regions)), Some(regions));
        assert_eq!(decode(&[0; ENCODED - 1]), None);
        assert_eq!(decode(&[]), Some(vec![]));
    }
}
