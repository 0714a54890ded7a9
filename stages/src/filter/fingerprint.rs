//! What the second pass compares rows by.
//!
//! In: rows. Out: `fingerprint` binary; for `exact` the blake3 of what is compared (32 bytes); for `perceptual` the 64-bit hash of
//! each picture (8 bytes each), followed by the blake3 of the text when that is compared as well. Null where there is nothing to
//! compare: a rejected row, or a row whose pictures are compared and missing or undecodable.

use super::measure::{Turn, conversations, pictures};
use super::{By, Dedup};
use crate::decode_resize::decode::{Buffers, decode};
use arrow::array::{ArrayRef, BinaryArray, RecordBatch};
use image::RgbImage;
use image_hasher::{HashAlg, Hasher, HasherConfig};
use llavm_pipeline::{Rejects, StageError};
use std::sync::Arc;

/// Bytes of the hash of one picture: 8 × 8 bits.
pub const HASH_BYTES: usize = 8;

/// Pictures above this are not hashed; `decode-resize` judges them by its own `max_pixels`.
const MAX_PIXELS: u64 = 100_000_000;

/// Computes fingerprints.
pub struct Fingerprints {
    pub dedup: Dedup,
    pub by: By,
}

impl Fingerprints {
    /// The column `fingerprint` of a batch.
    pub fn column(&self, rows: &RecordBatch, rejects: &Rejects) -> Result<ArrayRef, StageError> {
        let texts = if self.by.text() { Some(conversations(rows, text_digest)?) } else { None };
        let images = if self.by.images() { Some(self.images(rows)?) } else { None };
        let part = |parts: &Option<Vec<Option<Vec<u8>>>>, row: usize| match parts {
            None => Some(Vec::new()),
            Some(parts) => parts[row].clone(),
        };
        let fingerprint = |row: usize| {
            let joined = [part(&images, row)?, part(&texts, row)?].concat();
            let live = !rejects.is_rejected(row);
            live.then(|| {
                if self.dedup == Dedup::Exact { blake3::hash(&joined).as_bytes().to_vec() } else { joined }
            })
        };
        Ok(Arc::new(BinaryArray::from_iter((0..rows.num_rows()).map(fingerprint))))
    }

    fn images(&self, rows: &RecordBatch) -> Result<Vec<Option<Vec<u8>>>, StageError> {
        if self.dedup == Dedup::Exact {
            // A text-only row has a digest too: of no pictures.
            return pictures(rows, |pictures| Some(digests(pictures)));
        }
        let hasher = HasherConfig::new().hash_size(8, 8).hash_alg(HashAlg::Mean).preproc_dct().to_hasher();
        pictures(rows, |pictures| {
            let hashes: Option<Vec<_>> =
                pictures.iter().map(|picture| perceptual(&hasher, picture)).collect();
            hashes.filter(|hashes| !hashes.is_empty()).map(|hashes| hashes.concat())
        })
    }
}

/// One digest per picture, so that where one ends cannot be mistaken.
fn digests(pictures: &[&[u8]]) -> Vec<u8> {
    pictures.iter().flat_map(|picture| *blake3::hash(picture).as_bytes()).collect()
}

fn text_digest(turns: &[Turn<'_>]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    for turn in turns {
        for text in [turn.role, turn.content] {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
    }
    hasher.finalize().as_bytes().to_vec()
}

/// The 64-bit hash of a picture: which of its 8 × 8 lowest frequencies are above their mean.
fn perceptual(hasher: &Hasher, encoded: &[u8]) -> Option<Vec<u8>> {
    let mut buffers = Buffers::default();
    let picture = decode(encoded, MAX_PIXELS, &mut buffers).ok()?;
    let picture = RgbImage::from_raw(picture.width, picture.height, picture.pixels.to_vec())?;
    let hash = hasher.hash_image(&picture).as_bytes().to_vec();
    (hash.len() == HASH_BYTES).then_some(hash)
}
