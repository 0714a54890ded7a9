//! A conversation whose cache outlives its turns.
//!
//! In: each turn, the whole conversation rendered anew as token ids. What it shares with the tokens already in the
//! cache is not computed again, so the cost of a turn is that of what is new.

use burn::tensor::Tensor;

use super::{GenerateError, OnToken, Options, Prompt, Row, check_lengths, decode, last_logits};
use crate::attention::TokenMask;
use crate::cache::KvCache;
use crate::vlm::{Batch, Vlm};

/// The cached tokens of one conversation.
#[derive(Debug, Default)]
pub struct Session {
    cache: KvCache,
    /// What the cache holds: the token, and for an image pad the number of its picture.
    seen: Vec<(u32, Option<u64>)>,
}

impl Session {
    /// A conversation that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tokens in the cache.
    pub fn tokens(&self) -> usize {
        self.seen.len()
    }

    /// The answer to `prompt`. `images[n]` names the picture behind the `n`-th row of the prompt's features: equal
    /// numbers must mean equal pictures.
    pub fn answer(
        &mut self,
        model: &Vlm,
        prompt: &Prompt,
        images: &[u64],
        options: &Options,
        on_token: OnToken<'_>,
    ) -> Result<Vec<u32>, GenerateError> {
        options.sampling.validate()?;
        check_lengths(model, std::slice::from_ref(prompt))?;
        let per_image = prompt.features.as_ref().map_or(1, |features| features.dims()[1]);
        let tokens = named_tokens(&prompt.ids, model.image_pad_id, images, per_image);
        let kept = self.shared(&tokens);
        self.cache.truncate(kept);
        self.seen.truncate(kept);
        let pads = |ids: &[u32]| ids.iter().filter(|id| **id == model.image_pad_id).count();
        let (old, new) = prompt.ids.split_at(kept);
        let batch = Batch {
            input_ids: new,
            mask: &TokenMask::full(1, new.len()),
            features: prompt.features.clone().and_then(|features| rest(features, pads(old) / per_image)),
        };
        let result = last_logits(model, &batch, &mut self.cache).and_then(|logits| {
            self.seen = tokens;
            let row = Row::new(&prompt.ids, options.sampling.rng(0));
            decode(model, &mut self.cache, logits, vec![row], options, on_token)
        });
        match result {
            Ok(mut answers) => {
                let answer = answers.pop().unwrap_or_default();
                // The last token was chosen, but never fed back.
                let fed = self.cache.tokens().saturating_sub(self.seen.len());
                self.seen.extend(answer.iter().take(fed).map(|id| (*id, None)));
                Ok(answer)
            }
            Err(error) => {
                *self = Self::new();
                Err(error)
            }
        }
    }

    /// How many tokens of the cache stand: the shared beginning, but not all of `tokens` (the last one's logits are
    /// needed) and no part of a picture.
    fn shared(&self, tokens: &[(u32, Option<u64>)]) -> usize {
        let same = self.seen.iter().zip(tokens).take_while(|(old, new)| old == new).count();
        let mut kept = same.min(tokens.len().saturating_sub(1));
        let inside = |at: usize| {
            at > 0
                && tokens.get(at).zip(tokens.get(at - 1)).is_some_and(|(a, b)| a.1.is_some() && b.1.is_some())
        };
        while inside(kept) {
            kept -= 1;
        }
        kept
    }
}

/// Each token with the picture that an image pad belongs to.
fn named_tokens(ids: &[u32], pad: u32, images: &[u64], per_image: usize) -> Vec<(u32, Option<u64>)> {
    let mut pads = 0;
    let name = |id: &u32| {
        let image = (*id == pad).then(|| {
            pads += 1;
            images.get((pads - 1) / per_image.max(1)).copied().unwrap_or_default()
        });
        (*id, image)
    };
    ids.iter().map(name).collect()
}

/// The features after the first `images` pictures; `None` when there are no more.
fn rest(features: Tensor<3>, images: usize) -> Option<Tensor<3>> {
    let all = features.dims()[0];
    (images < all).then(|| features.narrow(0, images, all - images))
}
