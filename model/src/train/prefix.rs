//! The tokens that all rows of a micro-batch begin with: system prompt and the template's first words.
//!
//! Nothing before an image depends on what the projector learns. With a frozen language model the keys and values of
//! these tokens are therefore computed once, for one row, and neither they nor their gradients ever again.

use std::collections::BTreeMap;

use super::batch::MicroBatch;
use crate::attention::TokenMask;
use crate::cache::KvCache;
use crate::vlm::{Batch, BatchError, Vlm};

/// Shorter beginnings cost more than they save.
const SHORTEST: usize = 8;
/// Bytes of keys and values remembered; data sets have few beginnings, of two to four megabytes each at 0.6B.
const REMEMBERED: usize = 256 << 20;

/// Keys and values by the tokens they are of. They depend on nothing else, so that a continued training sees the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefixes {
    known: BTreeMap<Vec<u32>, KvCache>,
}

impl Prefixes {
    /// Takes the shared beginning off `batch`; answers with its keys and values, unless there is none worth it.
    pub fn split(&mut self, model: &Vlm, batch: &mut MicroBatch) -> Result<Option<KvCache>, BatchError> {
        let length = shared(batch, model.image_pad_id);
        if length < SHORTEST {
            return Ok(None);
        }
        let prefix = batch.input_ids[..length].to_vec();
        cut(batch, length);
        if let Some(known) = self.known.get(&prefix) {
            return Ok(Some(known.clone()));
        }
        let mut cache = KvCache::new();
        let mask = TokenMask::full(1, length);
        let row = Batch { input_ids: &prefix, mask: &mask, features: None };
        model.for_inference().hidden_cached(&row, &mut cache)?;
        let cache = cache.fitted();
        if self.known.values().map(KvCache::bytes).sum::<usize>() + cache.bytes() > REMEMBERED {
            self.known.clear();
        }
        self.known.insert(prefix, cache.clone());
        Ok(Some(cache))
    }
}

/// How many tokens all rows begin with that are the same, hold no image, carry no loss and leave every row a token. None of a
/// row by itself: its beginning holds its question, and would be remembered in vain.
fn shared(batch: &MicroBatch, image_pad_id: u32) -> usize {
    let tokens = batch.mask.tokens();
    if batch.mask.batch() < 2 || tokens == 0 || batch.input_ids.len() != batch.labels.len() {
        return 0;
    }
    let Some(first) = batch.input_ids.get(..tokens) else { return 0 };
    let rows =
        batch.input_ids.chunks(tokens).zip(batch.labels.chunks(tokens)).zip(batch.mask.real().chunks(tokens));
    let same = rows.map(|((ids, labels), real)| {
        let all = ids.iter().zip(labels).zip(real).zip(first);
        let count = all.take_while(|(((id, label), real), first)| {
            id == first && **label < 0 && **real && **id != image_pad_id
        });
        count.count().min(tokens - 1)
    });
    same.min().unwrap_or(0)
}

/// Takes the first `length` tokens off every row.
fn cut(batch: &mut MicroBatch, length: usize) {
    let tokens = batch.mask.tokens();
    batch.input_ids = batch.input_ids.chunks(tokens).flat_map(|row| row[length..].to_vec()).collect();
    batch.labels = batch.labels.chunks(tokens).flat_map(|row| row[length..].to_vec()).collect();
    batch.mask = batch.mask.without(length);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Images;

    fn batch(rows: &[&[u32]], loss_from: usize) -> MicroBatch {
        let tokens = rows.iter().map(|row| row.len()).max().unwrap();
        let padded =
            |row: &&[u32]| row.iter().copied().chain(std::iter::repeat(0)).take(tokens).collect::<Vec<_>>();
        let labels =
            |_: &&[u32]| (0..tokens).map(|at| if at < loss_from { -100 } else { 1 }).collect::<Vec<_>>();
        let lengths: Vec<usize> = rows.iter().map(|row| row.len()).collect();
        MicroBatch {
            input_ids: rows.iter().flat_map(padded).collect(),
            labels: rows.iter().flat_map(labels).collect(),
            mask: TokenMask::right_padded(&lengths, tokens),
            images: Images::None,
        }
    }

    #[test]
    fn a_beginning_ends_at_the_first_difference_image_answer_or_end() {
        let pad = 99;
        assert_eq!(shared(&batch(&[&[1, 2, 3, 4], &[1, 2, 5, 4]], 9), pad), 2);
        assert_eq!(shared(&batch(&[&[1, 2, 99, 4], &[1, 2, 99, 4]], 9), pad), 2);
        assert_eq!(shared(&batch(&[&[1, 2, 3, 4], &[1, 2, 3, 4]], 1), pad), 1);
        assert_eq!(shared(&batch(&[&[1, 2, 3, 4], &[1, 2]], 9), pad), 2);
        assert_eq!(shared(&batch(&[&[1, 2, 3]], 9), pad), 0, "a row by itself");
    }

    #[test]
    fn what_is_left_keeps_its_padding() {
        let mut batch = batch(&[&[1, 2, 3, 4], &[1, 2, 5]], 3);
        cut(&mut batch, 2);
        assert_eq!(batch.input_ids, [3, 4, 5, 0]);
        assert_eq!(batch.labels, [-100, 1, -100, 1]);
        assert_eq!(batch.mask.real(), [true, true, true, false]);
    }
}
