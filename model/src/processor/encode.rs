//! Segments to token ids.
//!
//! Segments are encoded together up to where training begins or ends, as the reference recipe encodes a prompt and an answer
//! apart. The tokens of an image are repetitions of one special token, so the text around them is encoded by itself with
//! the same result.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use super::segment::{ASSISTANT, IMAGE, Segment};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// What to do with a message in which a special token is typed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpecialInText {
    /// The message is refused.
    #[default]
    Reject,
    /// It becomes the token itself, as it does in Transformers.
    Allow,
}

/// Segments that have no token ids.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Typed text would become a control token.
    #[error("`{token}` is typed in the {role} text, where it would become a control token")]
    SpecialToken {
        /// Who typed it.
        role: String,
        /// The token.
        token: String,
    },
    /// Other image tokens than those of the images.
    #[error("{found} image tokens among the tokens, but the images have {expected}")]
    ImageTokens {
        /// Image tokens among the ids.
        found: usize,
        /// Those of the images.
        expected: usize,
    },
    /// What stands for an image is no repetition of one special token.
    #[error("the image tokens `{0:.40}…` are not repetitions of one special token of this tokenizer")]
    NoImageToken(String),
    /// The tokenizer refused.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// A tokenizer with the rules of training.
#[derive(Debug)]
pub struct Encoder {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// What becomes of special tokens in messages.
    pub special_in_text: SpecialInText,
    prompts: Prompts,
}

/// The tokens of text that is not trained on: prompts and what the template adds come again and again.
#[derive(Debug, Default)]
struct Prompts {
    known: RwLock<HashMap<String, Arc<[u32]>>>,
}

impl Prompts {
    /// Texts remembered at once; data sets ask a few questions, or as many as they have rows.
    const MOST: usize = 1024;

    fn get(&self, text: &str) -> Option<Arc<[u32]>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(text).cloned()
    }

    fn insert(&self, text: &str, ids: Arc<[u32]>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= Self::MOST {
            known.clear();
        }
        known.insert(text.to_owned(), ids);
    }
}

/// The tokens of a row, in memory that is used again for the next.
#[derive(Debug, Default)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// For each, whether it is trained on.
    pub train: Vec<bool>,
    /// Where the tokens of the last image end; 0 without.
    pub images_end: usize,
    /// Text not yet encoded.
    text: String,
    image: Option<ImageText>,
    n_image_tokens: usize,
}

/// The tokens of one image as text and as ids.
#[derive(Debug)]
struct ImageText {
    text: String,
    id: u32,
    count: usize,
}

impl Encoder {
    /// An encoder that has seen nothing yet.
    pub fn new(tokenizer: Tokenizer, special_in_text: SpecialInText) -> Self {
        Self { tokenizer, special_in_text, prompts: Prompts::default() }
    }

    /// Leaves the tokens of a row in `out`. `exempt`: a role whose text may hold anything.
    pub fn encode<'a>(
        &self,
        segments: impl Iterator<Item = Segment<'a>>,
        exempt: Option<&str>,
        out: &mut Encoded,
    ) -> Result<(), EncodeError> {
        out.begin();
        let mut train = false;
        for segment in segments {
            if segment.train != train {
                self.flush(out, train)?;
                train = segment.train;
            }
            if segment.role == IMAGE {
                self.flush(out, train)?;
                self.push_image(segment.text, out, train)?;
            } else {
                if exempt != Some(segment.role) {
                    self.check_special(segment)?;
                }
                out.text.push_str(segment.text);
            }
        }
        self.flush(out, train)?;
        out.check_images()
    }

    /// The tokens of a prompt. Answers of the model are text already, whatever they hold.
    pub fn prompt<'a>(&self, segments: impl Iterator<Item = Segment<'a>>) -> Result<Vec<u32>, EncodeError> {
        let mut encoded = Encoded::default();
        self.encode(segments, Some(ASSISTANT), &mut encoded)?;
        Ok(encoded.ids)
    }

    /// Encodes the text gathered so far.
    fn flush(&self, out: &mut Encoded, train: bool) -> Result<(), EncodeError> {
        if out.text.is_empty() {
            return Ok(());
        }
        if let Some(ids) = (!train).then(|| self.prompts.get(&out.text)).flatten() {
            out.ids.extend_from_slice(&ids);
        } else {
            let ids = self.tokenizer.encode(&out.text)?;
            out.ids.extend_from_slice(&ids);
            if !train {
                self.prompts.insert(&out.text, ids.into());
            }
        }
        out.train.resize(out.ids.len(), train);
        out.text.clear();
        Ok(())
    }

    fn push_image(&self, text: &str, out: &mut Encoded, train: bool) -> Result<(), EncodeError> {
        if out.image.as_ref().is_none_or(|image| image.text != text) {
            out.image = Some(self.image(text)?);
        }
        if let Some(image) = &out.image {
            out.ids.resize(out.ids.len() + image.count, image.id);
            out.train.resize(out.ids.len(), train);
            out.n_image_tokens += image.count;
            out.images_end = out.ids.len();
        }
        Ok(())
    }

    /// The tokens of an image must be repetitions of one special token that takes nothing from the text around it.
    fn image(&self, text: &str) -> Result<ImageText, EncodeError> {
        let special = self.tokenizer.special_in(text);
        let special = special.filter(|token| token.standalone && text.replace(&token.text, "").is_empty());
        let token = special.ok_or_else(|| EncodeError::NoImageToken(text.to_owned()))?;
        Ok(ImageText { text: text.to_owned(), id: token.id, count: text.len() / token.text.len() })
    }

    fn check_special(&self, segment: Segment<'_>) -> Result<(), EncodeError> {
        if !segment.is_data() || self.special_in_text == SpecialInText::Allow {
            return Ok(());
        }
        let Some(token) = self.tokenizer.special_in(segment.text) else { return Ok(()) };
        Err(EncodeError::SpecialToken { role: segment.role.to_owned(), token: token.text.clone() })
    }
}

impl Encoded {
    fn begin(&mut self) {
        self.text.clear();
        self.ids.clear();
        self.train.clear();
        (self.n_image_tokens, self.images_end) = (0, 0);
    }

    /// In a row with images, the image tokens among the ids are theirs, no more.
    fn check_images(&self) -> Result<(), EncodeError> {
        let Some(image) = self.image.as_ref().filter(|_| self.n_image_tokens > 0) else { return Ok(()) };
        let found = self.ids.iter().filter(|id| **id == image.id).count();
        if found == self.n_image_tokens {
            return Ok(());
        }
        Err(EncodeError::ImageTokens { found, expected: self.n_image_tokens })
    }
}
