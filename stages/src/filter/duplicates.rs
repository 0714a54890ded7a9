//! The second pass: which rows repeat an earlier one.
//!
//! In: fingerprints in row order. Out: rejects that name the row repeated; of rows that are alike the first stays.
//!
//! Hashes within d bits of each other agree in at least one of d + 1 parts of their 64 bits, so only rows that share a part are
//! compared (multi-index hashing, Norouzi et al. 2012): a look-up costs the same however many rows came before, up to chance
//! collisions.

use super::fingerprint::HASH_BYTES;
use super::{By, Dedup, FINGERPRINT, batch_of};
use crate::arrays::column;
use arrow::array::{BinaryArray, RecordBatch};
use llavm_pipeline::stage::Sweep;
use llavm_pipeline::{Rejects, StageError};
use std::collections::HashMap;

/// What was seen so far.
pub struct Duplicates {
    dedup: Dedup,
    by: By,
    distance: u32,
    /// Rows of the table that went by.
    row: u64,
    exact: HashMap<Vec<u8>, u64>,
    kept: Vec<Kept>,
    /// For each part of the first picture's hash, the rows of `kept` that have it.
    parts: HashMap<(u32, u64), Vec<usize>>,
}

/// A row that stays, for `perceptual`.
struct Kept {
    row: u64,
    fingerprint: Vec<u8>,
}

impl Duplicates {
    pub fn new(dedup: Dedup, by: By, distance: u32) -> Self {
        Self { dedup, by, distance, row: 0, exact: HashMap::new(), kept: Vec::new(), parts: HashMap::new() }
    }

    /// The earlier row that this one repeats; otherwise the row is remembered.
    fn earlier(&mut self, fingerprint: &[u8]) -> Option<u64> {
        if self.dedup == Dedup::Perceptual {
            return self.earlier_alike(fingerprint);
        }
        if let Some(row) = self.exact.get(fingerprint) {
            Some(*row)
        } else {
            self.exact.insert(fingerprint.to_vec(), self.row);
            None
        }
    }

    fn earlier_alike(&mut self, fingerprint: &[u8]) -> Option<u64> {
        let first = u64::from_le_bytes(*fingerprint.first_chunk::<HASH_BYTES>()?);
        let parts: Vec<(u32, u64)> = self.parts_of(first).collect();
        let candidates = parts.iter().filter_map(|part| self.parts.get(part)).flatten();
        let alike = candidates.filter(|index| self.alike(&self.kept[**index].fingerprint, fingerprint));
        if let Some(index) = alike.min() {
            return Some(self.kept[*index].row);
        }
        for part in parts {
            self.parts.entry(part).or_default().push(self.kept.len());
        }
        self.kept.push(Kept { row: self.row, fingerprint: fingerprint.to_vec() });
        None
    }

    /// `distance` + 1 parts of near-equal width that cover the 64 bits.
    fn parts_of(&self, hash: u64) -> impl Iterator<Item = (u32, u64)> {
        let count = self.distance + 1;
        (0..count).map(move |part| {
            let (from, to) = (64 * part / count, 64 * (part + 1) / count);
            let bits = hash >> from;
            (part, if to - from == 64 { bits } else { bits & ((1 << (to - from)) - 1) })
        })
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
            (Dedup::Exact, By::Image) => "the same pictures as",
            (Dedup::Exact, By::Text) => "the same text as",
            (Dedup::Exact, By::Both) => "the same pictures and text as",
            (Dedup::Perceptual, By::Both) => "the same text and pictures that look like those of",
            (Dedup::Perceptual, _) => "pictures that look like those of",
        }
    }
}

impl Sweep for Duplicates {
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
