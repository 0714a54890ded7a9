//! A conversation whose cache outlives its turns.
//!
//! In: each turn, the whole conversation rendered anew as token ids. What it shares with the tokens already in the
//! cache is not computed again, so the cost of a turn is that of what is new.

use burn::tensor::Tensor;

use super::past::Past;
use super::{GenerateError, OnToken, Options, Prompt, Row, check_lengths, decode, last_logits};
use crate::attention::TokenMask;
use crate::cache::KvCache;
use crate::vlm::{Batch, Vlm};

/// The cached tokens of one conversation.
#[derive(Debug, Default)]
pub struct Session {
    cache: KvCache,
    /// What the cache holds; images by their number.
    seen: Past<u64>,
    /// Answers given; each draws from a generator of its own.
    answers: u64,
}

impl Session {
    /// A conversation that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tokens in the cache.
    pub fn tokens(&self) -> usize {
        self.seen.tokens()
    }

    /// The answer to `prompt`, the first drawn as [`super::generate`] draws its first. `images[n]` names the image behind the `n`-th row of the prompt's features: equal
    /// numbers must mean equal images.
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
        let tokens = Past::of_prompt(&prompt.ids, model.image_pad_id, images, per_image);
        let kept = self.seen.shared(&tokens);
        self.cache.truncate(kept);
        self.seen.truncate(kept);
        let new = prompt.ids.get(kept..).unwrap_or_default();
        let old_images = tokens.images_in(&(0..kept)).len();
        let batch = Batch {
            input_ids: new,
            mask: &TokenMask::full(1, new.len()),
            features: prompt.features.clone().and_then(|features| rest(features, old_images)),
        };
        let result = last_logits(model, &batch, &mut self.cache).and_then(|logits| {
            self.seen = tokens;
            let row = Row::new(&prompt.ids, options.sampling.rng(self.answers));
            self.answers += 1;
            decode(model, &mut self.cache, logits, vec![row], options, on_token)
        });
        match result {
            Ok(mut answers) => {
                let answer = answers.pop().unwrap_or_default();
                // The last token was chosen, but never fed back.
                let fed = self.cache.tokens().saturating_sub(self.seen.tokens());
                self.seen.extend(answer.iter().take(fed).copied());
                Ok(answer)
            }
            Err(error) => {
                *self = Self { answers: self.answers, ..Self::new() };
                Err(error)
            }
        }
    }
}

/// The features after the first `images` images; `None` when there are no more.
fn rest(features: Tensor<3>, images: usize) -> Option<Tensor<3>> {
    let all = features.dims()[0];
    (images < all).then(|| features.narrow(0, images, all - images))
}
