//! The images of questions: their pixels, and the features of those asked about last.

use burn::tensor::Tensor;
use llavm_model::generate::assistant::Assistant;
use llavm_pipeline::StageError;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Images that go through the vision tower together.
const AT_ONCE: usize = 32;

/// Bytes of features that are kept; those of an image of ViT-L/336 take 2.4 MB in f32.
const KEPT: usize = 256 << 20;

/// Images by number; the same images have one number.
#[derive(Debug, Default)]
pub struct Seen {
    digests: Vec<String>,
    numbers: BTreeMap<String, usize>,
    /// `[3, size, size]` bytes of each image of a number.
    pixels: Vec<Vec<u8>>,
    features: RefCell<Features>,
}

/// Patch states `[images, patches, vision hidden]` by number, with when they were last asked for.
#[derive(Debug, Default)]
struct Features {
    known: BTreeMap<usize, (u64, Tensor<3>)>,
    clock: u64,
}

impl Features {
    fn get(&mut self, number: usize) -> Option<Tensor<3>> {
        self.clock += 1;
        let (used, features) = self.known.get_mut(&number)?;
        *used = self.clock;
        Some(features.clone())
    }

    fn put(&mut self, number: usize, features: Tensor<3>) {
        self.clock += 1;
        self.known.insert(number, (self.clock, features));
    }

    /// Forgets those that were not asked for longest until at most `bytes` are kept.
    fn shrink(&mut self, bytes: usize) {
        let size = |features: &Tensor<3>| features.dims().iter().product::<usize>() * features.dtype().size();
        let mut total: usize = self.known.values().map(|(_, features)| size(features)).sum();
        while total > bytes {
            let oldest = self.known.iter().min_by_key(|(_, (used, _))| *used).map(|(number, _)| *number);
            let Some((_, features)) = oldest.and_then(|number| self.known.remove(&number)) else { return };
            total -= size(&features);
        }
    }
}

impl Seen {
    /// The number of images that `digest` stands for; their pixels are taken when they are new.
    pub fn add(&mut self, digest: &str, pixels: &[u8]) -> usize {
        if let Some(known) = self.numbers.get(digest) {
            return *known;
        }
        let number = self.digests.len();
        self.digests.push(digest.to_owned());
        self.numbers.insert(digest.to_owned(), number);
        self.pixels.push(pixels.to_owned());
        number
    }

    /// The number of the images that `digest` stands for.
    pub fn number(&self, digest: &str) -> Option<usize> {
        self.numbers.get(digest).copied()
    }

    /// What stands for the images of a number.
    pub fn digest(&self, number: usize) -> &str {
        self.digests.get(number).map_or("", String::as_str)
    }

    /// The patch states of each number, `[images, patches, vision hidden]`.
    pub fn features(&self, assistant: &Assistant, numbers: &[usize]) -> Result<Vec<Tensor<3>>, StageError> {
        let mut features = self.features.borrow_mut();
        let mut open: Vec<usize> =
            numbers.iter().copied().filter(|number| !features.known.contains_key(number)).collect();
        open.sort_unstable();
        open.dedup();
        for numbers in open.chunks(AT_ONCE) {
            for (number, of_number) in numbers.iter().zip(self.compute(assistant, numbers)?) {
                features.put(*number, of_number);
            }
        }
        let found = numbers.iter().map(|number| features.get(*number).ok_or_else(no_tower)).collect();
        features.shrink(KEPT);
        found
    }

    fn compute(&self, assistant: &Assistant, numbers: &[usize]) -> Result<Vec<Tensor<3>>, StageError> {
        let size = assistant.processor.image.n_bytes().max(1);
        let pixels: Vec<&[u8]> =
            numbers.iter().filter_map(|number| self.pixels.get(*number).map(Vec::as_slice)).collect();
        let all = assistant.features(pixels.concat()).ok_or_else(no_tower)?;
        let mut first = 0;
        let part = |own: &&[u8]| {
            let count = own.len() / size;
            first += count;
            all.clone().narrow(0, first - count, count)
        };
        Ok(pixels.iter().map(part).collect())
    }
}

fn no_tower() -> StageError {
    StageError::new("a question shows an image, but the model has no vision tower")
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn features_that_were_not_asked_for_longest_are_forgotten_first() {
        let mut features = Features::default();
        for number in 0..4 {
            features.put(number, Tensor::zeros([1, 2, 8], &Device::flex()));
        }
        assert!(features.get(0).is_some());
        features.shrink(2 * 64);
        assert_eq!(features.known.keys().copied().collect::<Vec<_>>(), [0, 3]);
    }
}
