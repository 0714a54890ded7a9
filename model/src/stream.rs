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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn tokenizer() -> Tokenizer {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/qwen3-tokenizer");
        Tokenizer::from_folder(&folder).unwrap()
    }

    fn pieces(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
        let mut stream = TextStream::new(tokenizer);
        let mut pieces: Vec<String> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
        pieces.push(stream.finish().unwrap());
        pieces
    }

    #[test]
    fn pieces_joined_equal_the_text_decoded_at_once() {
        let tokenizer = tokenizer();
        for text in [
            "A cat, on a mat.",
            "图片里有一只猫，坐在垫子上。",
            "emoji 👩‍👩‍👧 and 🂡𪚥 split over tokens",
            " leading space\n\nlines\ttabs  ",
            "a replacement \u{FFFD} that was really written, and at the end \u{FFFD}",
            "",
        ] {
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(pieces(&tokenizer, &ids).concat(), text);
        }
    }

    #[test]
    fn a_character_split_over_tokens_is_given_out_whole() {
        let tokenizer = tokenizer();
        let ids = tokenizer.encode("𪚥🂡").unwrap();
        assert!(ids.len() > 2, "the tokenizer splits them: {ids:?}");
        let pieces = pieces(&tokenizer, &ids);
        let given: Vec<&str> = pieces.iter().map(String::as_str).filter(|piece| !piece.is_empty()).collect();
        assert_eq!(given, ["𪚥", "🂡"]);
    }

    #[test]
    fn an_answer_cut_inside_a_character_ends_with_the_replacement() {
        let tokenizer = tokenizer();
        let ids = tokenizer.encode("好𪚥").unwrap();
        let pieces = pieces(&tokenizer, &ids[..ids.len() - 1]);
        assert_eq!(pieces.first().map(String::as_str), Some("好"));
        assert!(pieces.last().unwrap().ends_with(REPLACEMENT), "{pieces:?}");
    }

    #[test]
    fn special_tokens_are_left_out() {
        let tokenizer = tokenizer();
        let mut ids = tokenizer.encode("yes").unwrap();
        ids.push(tokenizer.eos().unwrap().id);
        assert_eq!(pieces(&tokenizer, &ids).concat(), "yes");
    }
}
