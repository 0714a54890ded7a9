//! The second pass: which rows repeat an earlier one.
//!
//! In: fingerprints in row order. Out: rejects that name the row repeated; of rows that are alike the first stays.
//!
//! Exact repeats are found by their digests ([`FirstSeen`]). Images that look alike are found by [`Hashes`], in a time that grows far more slowly than the number of rows.

use super::fingerprint::{FINGERPRINT, HASH_BYTES};
use super::hashes::Hashes;
use super::sameness::{By, Dedup};
use crate::arrays::{batch_of, column};
use crate::first_seen::{DIGEST, FirstSeen};
use arrow::array::{BinaryArray, RecordBatch};
use llavm_pipeline::stage::SequentialPass;
use llavm_pipeline::{Rejects, StageError};

/// What was seen so far.
pub struct Duplicates {
    dedup: Dedup,
    by: By,
    distance: u32,
    /// Rows of the table that went by.
    row: u64,
    exact: FirstSeen<u32>,
    /// Rows that stay, for `perceptual`: the hash of the first image finds them.
    kept: Vec<Kept>,
    hashes: Hashes,
}

/// A row that stays.
struct Kept {
    row: u64,
    fingerprint: Box<[u8]>,
}

impl Duplicates {
    pub fn new(dedup: Dedup, by: By, distance: u32) -> Self {
        let hashes = Hashes::new(distance);
        Self { dedup, by, distance, row: 0, exact: FirstSeen::default(), kept: Vec::new(), hashes }
    }

    /// The earlier row that this one repeats; otherwise the row is remembered.
    fn earlier(&mut self, fingerprint: &[u8]) -> Option<u64> {
        if self.dedup == Dedup::Perceptual {
            return self.earlier_alike(fingerprint);
        }
        let digest = *fingerprint.first_chunk::<DIGEST>()?;
        // The last number is that of no row.
        let row = u32::try_from(self.row).unwrap_or(u32::MAX - 1).min(u32::MAX - 1);
        self.exact.before(digest, row).map(u64::from)
    }

    fn earlier_alike(&mut self, fingerprint: &[u8]) -> Option<u64> {
        let first = u64::from_le_bytes(*fingerprint.first_chunk::<HASH_BYTES>()?);
        let near = self.hashes.near(first);
        let alike = near.filter(|index| self.alike(&self.kept[*index as usize].fingerprint, fingerprint));
        if let Some(index) = alike.min() {
            return Some(self.kept[index as usize].row);
        }
        self.hashes.push(first);
        self.kept.push(Kept { row: self.row, fingerprint: fingerprint.into() });
        None
    }

    fn alike(&self, one: &[u8], other: &[u8]) -> bool {
        let text = if self.by.text() { blake3::OUT_LEN } else { 0 };
        if one.len() != other.len() || one.len() < text {
            return false;
        }
        let images = one.len() - text;
        let (one_hashes, other_hashes) =
            (one[..images].as_chunks::<HASH_BYTES>().0, other[..images].as_chunks::<HASH_BYTES>().0);
        let near = |(a, b): (&[u8; HASH_BYTES], &[u8; HASH_BYTES])| {
            (u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b)).count_ones() <= self.distance
        };
        one[images..] == other[images..] && one_hashes.iter().zip(other_hashes).all(near)
    }

    fn what(&self) -> &'static str {
        match (self.dedup, self.by) {
            (Dedup::Exact, By::Image) => "the same images as",
            (Dedup::Exact, By::Text) => "the same text as",
            (Dedup::Exact, By::Both) => "the same images and text as",
            (Dedup::Perceptual, By::Both) => "the same text and images that look like those of",
            (Dedup::Perceptual, _) => "images that look like those of",
        }
    }
}

impl SequentialPass for Duplicates {
    fn next(&mut self, rows: &RecordBatch, rejects: &mut Rejects) -> Result<RecordBatch, StageError> {
        let fingerprints: &BinaryArray = column(rows, FINGERPRINT)?;
        for (row, fingerprint) in fingerprints.iter().enumerate() {
            if let Some(fingerprint) = fingerprint.filter(|_| !rejects.is_rejected(row))
                && let Some(earlier) = self.earlier(fingerprint)
            {
                rejects.reject(
                    row,
                    "duplicate",
                    format!("{} row {earlier} of the table, counted from 0", self.what()),
                );
            }
            self.row += 1;
        }
        batch_of(None, rows.num_rows())
    }
}
