//! What the second pass compares rows by.
//!
//! In: rows. Out: `fingerprint` binary; for `exact` the blake3 of what is compared (32 bytes); for `perceptual` the 64-bit hash of
//! each image (8 bytes each), followed by the blake3 of the text when that is compared as well. Null where there is nothing to
//! compare: a rejected row, or a row whose images are compared and missing or undecodable.

use super::measure::{Turn, conversations, images};
use super::sameness::{By, Dedup};
use arrow::array::{ArrayRef, BinaryArray, RecordBatch};
use image::RgbImage;
use image_hasher::{HashAlg, Hasher, HasherConfig};
use llavm_model::processor::image::codecs::thumbnail;
use llavm_pipeline::{Rejects, StageError};
use std::sync::Arc;

/// The column that the first pass hands to the second.
pub const FINGERPRINT: &str = "fingerprint";

/// Bytes of the hash of one image: 8 × 8 bits.
pub const HASH_BYTES: usize = 8;

/// Side of the square that an image is made before its frequencies are taken.
const SIDE: u32 = 64;

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
            // A text-only row has a digest too: of no images.
            return images(rows, |images| Some(digests(images)));
        }
        let hasher = HasherConfig::new().hash_size(8, 8).hash_alg(HashAlg::Mean).preproc_dct().to_hasher();
        images(rows, |images| {
            let hashes: Option<Vec<_>> = images.iter().map(|image| perceptual(&hasher, image)).collect();
            hashes.filter(|hashes| !hashes.is_empty()).map(|hashes| hashes.concat())
        })
    }
}

/// One digest per image, so that where one ends cannot be mistaken.
fn digests(images: &[&[u8]]) -> Vec<u8> {
    images.iter().flat_map(|image| *blake3::hash(image).as_bytes()).collect()
}

fn text_digest(turns: &[Turn<'_>]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    for turn in turns {
        for text in turn.texts() {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
    }
    hasher.finalize().as_bytes().to_vec()
}

/// The 64-bit hash of an image: which of its 8 × 8 lowest frequencies are above their mean.
fn perceptual(hasher: &Hasher, encoded: &[u8]) -> Option<Vec<u8>> {
    let small = thumbnail(encoded, |_, _| (SIDE, SIDE))?;
    let image = RgbImage::from_raw(small.width, small.height, small.rgb)?;
    let hash = hasher.hash_image(&image).as_bytes().to_vec();
    (hash.len() == HASH_BYTES).then_some(hash)
}
