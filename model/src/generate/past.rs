//! What a cache holds: token after token, and which image stands behind the image pads among them.
//!
//! Equal pads stand for different images, so two pasts are alike only as far as tokens and images are. An image counts as a
//! whole: its tokens are computed together.

use std::ops::Range;

/// Tokens in the order in which a model read them. `I` names images: equal names must mean equal images.
#[derive(Clone, Debug)]
pub(crate) struct Past<I> {
    ids: Vec<u32>,
    /// Where each image begins, and its name.
    images: Vec<(usize, I)>,
    per_image: usize,
}

impl<I> Default for Past<I> {
    fn default() -> Self {
        Self { ids: Vec::new(), images: Vec::new(), per_image: 1 }
    }
}

impl<I: Clone + PartialEq> Past<I> {
    /// A prompt in which every `per_image` pads stand for one of `names`, in their order.
    pub fn of_prompt(ids: &[u32], pad: u32, names: &[I], per_image: usize) -> Self {
        let per_image = per_image.max(1);
        let pads = ids.iter().enumerate().filter(|(_, id)| **id == pad).map(|(at, _)| at);
        let images = pads.step_by(per_image).zip(names.iter().cloned()).collect();
        Self { ids: ids.to_vec(), images, per_image }
    }

    /// Tokens in all.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Adds words, whatever their ids are.
    pub fn extend(&mut self, words: impl IntoIterator<Item = u32>) {
        self.ids.extend(words);
    }

    /// Forgets all but the first `tokens` tokens.
    pub fn truncate(&mut self, tokens: usize) {
        self.ids.truncate(tokens);
        self.images.retain(|(start, _)| start + self.per_image <= tokens);
    }

    /// How many tokens of `next` need not be computed again when these have been: the beginning that both share, but never
    /// all of `next` (the logits behind its last token are wanted) and no part of an image.
    pub fn shared(&self, next: &Self) -> usize {
        let same = self.ids.iter().zip(&next.ids).take_while(|(old, new)| old == new).count();
        let same = same.min(next.tokens().saturating_sub(1));
        next.first_lone_image(self, self.first_lone_image(next, same))
    }

    /// Where the first image begins that is not wholly and equally in the first `tokens` tokens of both; otherwise `tokens`.
    fn first_lone_image(&self, other: &Self, tokens: usize) -> usize {
        let before = self.images.iter().take_while(|(start, _)| *start < tokens);
        let mut lone =
            before.filter(|image| image.0 + self.per_image > tokens || !other.images.contains(image));
        lone.next().map_or(tokens, |(start, _)| *start)
    }

    /// Where a chunk of at most `most` tokens from `start` on ends; beyond that only where a single image is larger.
    pub fn chunk_end(&self, start: usize, most: usize) -> usize {
        let end = (start + most.max(1)).min(self.tokens());
        let cut = self.images.iter().find(|(first, _)| *first < end && end < first + self.per_image);
        match cut {
            Some((first, _)) if *first > start => *first,
            Some((first, _)) => first + self.per_image,
            None => end,
        }
    }

    /// Which images lie in a stretch that cuts none, by their number.
    pub fn images_in(&self, tokens: &Range<usize>) -> Range<usize> {
        let before = |at: usize| self.images.iter().take_while(|(start, _)| *start < at).count();
        before(tokens.start)..before(tokens.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAD: u32 = 9;

    fn past(ids: &[u32], names: &[u64]) -> Past<u64> {
        Past::of_prompt(ids, PAD, names, 2)
    }

    #[test]
    fn the_shared_beginning_leaves_a_token_to_compute() {
        let one = past(&[1, 2, 3, 4], &[]);
        assert_eq!(one.shared(&past(&[1, 2, 3, 4], &[])), 3);
        assert_eq!(one.shared(&past(&[1, 2, 3, 4, 5], &[])), 4);
        assert_eq!(one.shared(&past(&[1, 2, 7], &[])), 2);
        assert_eq!(Past::default().shared(&one), 0);
    }

    #[test]
    fn an_image_is_shared_whole_or_not_at_all() {
        let one = past(&[1, PAD, PAD, PAD, PAD, 2], &[10, 11]);
        assert_eq!(one.shared(&past(&[1, PAD, PAD, PAD, PAD, 3], &[10, 11])), 5);
        assert_eq!(one.shared(&past(&[1, PAD, PAD, PAD, PAD, 3], &[10, 12])), 3, "another second image");
        assert_eq!(one.shared(&past(&[1, PAD, PAD, PAD, PAD, 3], &[12, 11])), 1, "another first image");
        let mut cut = one.clone();
        cut.truncate(4);
        assert_eq!(cut.shared(&one), 3, "half of the second image is no image");
    }

    #[test]
    fn a_pad_that_the_model_wrote_is_no_image() {
        let mut written = past(&[1], &[]);
        written.extend([PAD, PAD, 2]);
        assert_eq!(written.shared(&past(&[1, PAD, PAD, 2, 3], &[10])), 1);
    }

    #[test]
    fn pieces_cut_no_image_and_hold_those_they_say() {
        let prompt = past(&[1, 2, PAD, PAD, PAD, PAD, 3, 4], &[10, 11]);
        let mut start = 0;
        let mut pieces = Vec::new();
        while start < prompt.tokens() {
            let end = prompt.chunk_end(start, 3);
            pieces.push((start..end, prompt.images_in(&(start..end))));
            start = end;
        }
        assert_eq!(pieces, [(0..2, 0..0), (2..4, 0..1), (4..7, 1..2), (7..8, 2..2)]);
        assert_eq!(prompt.chunk_end(2, 1), 4, "an image is taken whole");
    }
}
