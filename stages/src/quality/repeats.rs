//! How often the same answers came before.
//!
//! In, first pass: conversations; out: `answers` binary, a digest of all that the assistant says, null in rejected rows. In, second
//! pass: the digests in row order; out: rejects.

use crate::arrays::{batch_of, column};
use crate::filter::measure::conversations;
use arrow::array::{ArrayRef, BinaryArray, RecordBatch};
use llavm_pipeline::stage::SequentialPass;
use llavm_pipeline::{Rejects, StageError};
use std::collections::HashMap;
use std::sync::Arc;

/// The column that the first pass hands to the second.
pub const ANSWERS: &str = "answers";

/// Bytes of a digest: two of a hundred million differing answers meet with a chance of 10^-22.
const DIGEST: usize = 16;

/// The column `answers`.
pub fn answers(rows: &RecordBatch, rejects: &Rejects) -> Result<ArrayRef, StageError> {
    let digests = conversations(rows, |turns| {
        let mut hasher = blake3::Hasher::new();
        for turn in turns.iter().filter(|turn| turn.role == "assistant") {
            let text = turn.content.trim();
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        let mut digest = [0; DIGEST];
        hasher.finalize_xof().fill(&mut digest);
        digest
    })?;
    let kept =
        digests.into_iter().enumerate().map(|(row, digest)| digest.filter(|_| !rejects.is_rejected(row)));
    Ok(Arc::new(BinaryArray::from_iter(kept)))
}

/// The counts so far.
pub struct Repeats {
    most: u32,
    seen: HashMap<[u8; DIGEST], u32>,
}

impl Repeats {
    pub fn new(most: u32) -> Self {
        Self { most, seen: HashMap::new() }
    }
}

impl SequentialPass for Repeats {
    fn next(&mut self, rows: &RecordBatch, rejects: &mut Rejects) -> Result<RecordBatch, StageError> {
        let digests: &BinaryArray = column(rows, ANSWERS)?;
        for (row, digest) in digests.iter().enumerate() {
            let digest = digest.filter(|_| !rejects.is_rejected(row));
            let Some(digest) = digest.and_then(|digest| digest.first_chunk::<DIGEST>()) else { continue };
            let times = self.seen.entry(*digest).or_default();
            if *times >= self.most {
                let detail =
                    format!("the same answer stands in {times} earlier rows, as many as max_repeats allows");
                rejects.reject(row, "repeated-answer", detail);
            } else {
                *times += 1;
            }
        }
        batch_of(None, rows.num_rows())
    }
}
