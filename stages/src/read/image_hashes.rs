//! The digests of images that stand inside a raw file: found once and remembered, so that whoever compares images, or keeps rows of one
//! image together, reads none of them again.
//!
//! In: the rows of a split. Out: for each row the digests of its images; `None` for a row that cannot be read or names a file.

use super::raw::{RawFile, Request};
use super::value::Value;
use blake3::{Hash, OUT_LEN};
use llavm_pipeline::StageError;
use llavm_pipeline::stage::Memory;
use std::ops::Range;

/// Raised when the same row gets other digests.
const VERSION: u32 = 1;

/// How many images a row has of which nothing is known.
const UNKNOWN: u8 = u8::MAX;

/// The digests of a row's images, if all of them stand in the row.
pub type OfRow<'a> = &'a dyn Fn(&Value<'_>) -> Option<Vec<Hash>>;

/// The digests of the images of a split.
pub struct Hashes {
    rows: Vec<Option<Range<usize>>>,
    hashes: Vec<Hash>,
}

impl Hashes {
    /// Of the rows that `request` asks for, whose columns must be those of the images; `identity` names what `of_row` depends on
    /// besides a row. `None` where a file does not say what decides them.
    pub fn of(
        (identity, of_row): (&str, OfRow<'_>),
        file: &dyn RawFile,
        (split, rows): (usize, usize),
        request: &Request,
        memory: &dyn Memory,
    ) -> Result<Option<Self>, StageError> {
        let Some(raw) = file.digest(split, request) else { return Ok(None) };
        let key = format!("read/image-hashes/{VERSION}/{}/{rows}/{}", raw.to_hex(), identity);
        let mut find = || encoded(of_row, file, (split, rows), request);
        let remembered = memory.remembered(&key, &mut find)?;
        Ok(match Self::decode(&remembered, rows) {
            None => Self::decode(&find()?, rows),
            decoded => decoded,
        })
    }

    /// One byte for each row, how many images it has, then all digests.
    fn decode(bytes: &[u8], rows: usize) -> Option<Self> {
        let (counts, hashes) = bytes.split_at_checked(rows)?;
        let mut end = 0;
        let ranges = counts.iter().map(|count| {
            let start = end;
            end += if *count == UNKNOWN { 0 } else { usize::from(*count) };
            (*count != UNKNOWN).then_some(start..end)
        });
        let rows = ranges.collect();
        let (hashes, rest) = hashes.as_chunks::<OUT_LEN>();
        let is_whole = rest.is_empty() && hashes.len() == end;
        is_whole.then(|| Self { rows, hashes: hashes.iter().copied().map(Hash::from_bytes).collect() })
    }

    /// Those of the images of row `row` of the split, if they are known.
    pub fn row(&self, row: usize) -> Option<&[Hash]> {
        self.hashes.get(self.rows.get(row)?.clone()?)
    }

    /// Whether they are known of every row.
    pub fn is_complete(&self) -> bool {
        self.rows.iter().all(Option::is_some)
    }
}

fn encoded(
    of_row: OfRow<'_>,
    file: &dyn RawFile,
    (split, rows): (usize, usize),
    request: &Request,
) -> Result<Vec<u8>, StageError> {
    let (mut counts, mut hashes) = (vec![UNKNOWN; rows], Vec::with_capacity(rows * OUT_LEN));
    for chunk in file.read(split, request.clone())? {
        let chunk = chunk?;
        for (index, row) in chunk.rows().iter().enumerate() {
            let found = chunk.value(index).ok().and_then(|row| of_row(&row));
            if let Some((found, count)) = found.zip(counts.get_mut(*row))
                && found.len() < usize::from(UNKNOWN)
            {
                *count = found.len() as u8;
                hashes.extend(found.iter().flat_map(|hash| *hash.as_bytes()));
            }
        }
    }
    counts.append(&mut hashes);
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_first_and_rows_without_them_are_unknown() {
        let digests = [blake3::hash(b"a"), blake3::hash(b"b"), blake3::hash(b"c")];
        let mut bytes = vec![1, UNKNOWN, 0, 2];
        bytes.extend(digests.iter().flat_map(|hash| *hash.as_bytes()));
        let hashes = Hashes::decode(&bytes, 4).unwrap();
        let rows: Vec<_> = (0..5).map(|row| hashes.row(row)).collect();
        assert_eq!(rows, [Some(&digests[..1]), None, Some(&[][..]), Some(&digests[1..]), None]);
        assert!(!hashes.is_complete());
        assert!(Hashes::decode(&bytes, 3).is_none() && Hashes::decode(&bytes[..90], 4).is_none());
    }
}
