//! Token ids to text while they arrive.
//!
//! A Chinese character or an emoji is often split over several tokens, each of which alone is no valid UTF-8.
//! [`TextStream`] holds such bytes back until the character is whole, so that the pieces joined are exactly the
//! text of all ids. The method is that of `tokenizers::DecodeStream` and text-generation-inference: decode from
//! the last safe place and give out what is new.

use crate::tokenizer::{Tokenizer, TokenizerError};

/// What the decoder puts where bytes are no (or not yet a) character.
const REPLACEMENT: char = '\u{FFFD}';

/// Decodes one answer token by token; special tokens are left out.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// Ids since the last safe place but one, which give the decoder its context.
    ids: Vec<u32>,
    /// How many of `ids` were given out.
    given: usize,
}

impl<'a> TextStream<'a> {
    /// A stream that has seen nothing.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, ids: Vec::new(), given: 0 }
    }

    /// The text that became complete with `id`; often a word, sometimes nothing.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        self.ids.push(id);
        let text = self.decode()?;
        if text.ends_with(REPLACEMENT) {
            return Ok(String::new());
        }
        if !text.is_empty() {
            self.ids.drain(..self.given);
            self.given = self.ids.len();
        }
        Ok(text)
    }

    /// What was still held back, with U+FFFD for bytes that are no character.
    pub fn finish(self) -> Result<String, TokenizerError> {
        self.decode()
    }

    /// The text of the ids that were not given out.
    fn decode(&self) -> Result<String, TokenizerError> {
        let (given, _) = self.ids.split_at(self.given);
        let given = self.tokenizer.decode(given, true)?;
        let mut all = self.tokenizer.decode(&self.ids, true)?;
        let start = all.char_indices().map(|(at, _)| at).find(|at| *at >= given.len()).unwrap_or(all.len());
        Ok(all.split_off(start))
    }
}
