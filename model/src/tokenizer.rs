//! A Hugging Face tokenizer: text to ids and back, with its special tokens by name.
//!
//! In: the folder of a `tokenizer.json` (and, for `eos_token` and `pad_token`, its `tokenizer_config.json`).
//! Out: the ids `tokenizer(text, add_special_tokens=False)` gives. No offsets are computed, no threads are started.

use crate::chat_template::{TemplateError, special_token, tokenizer_config};
use crate::magic::culprit;
use std::path::{Path, PathBuf};

/// Why a tokenizer cannot be had, or a text not encoded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error("{}: {}", path.display(), culprit(path, cause))]
    Load { path: PathBuf, cause: tokenizers::Error },
    #[error(transparent)]
    Config(#[from] TemplateError),
    #[error("the text cannot be encoded: {0}")]
    Encode(tokenizers::Error),
    #[error("the ids cannot be decoded: {0}")]
    Decode(tokenizers::Error),
}

/// A token that stands for itself wherever its text appears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecialToken {
    pub id: u32,
    pub text: String,
    /// Whether it can be encoded apart from the text around it with the same result: it strips no neighbouring
    /// whitespace and needs no word border.
    pub standalone: bool,
}

/// A tokenizer ready to encode from many threads.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: Vec<SpecialToken>,
    eos: Option<SpecialToken>,
    pad: Option<SpecialToken>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and, if there is one, `tokenizer_config.json`.
    pub fn from_folder(folder: &Path) -> Result<Self, TokenizerError> {
        // The engine owns the threads.
        tokenizers::parallelism::set_parallelism(false);
        let path = folder.join("tokenizer.json");
        let mut inner =
            tokenizers::Tokenizer::from_file(&path).map_err(|cause| TokenizerError::Load { path, cause })?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(TokenizerError::Encode)?;
        let special = special_tokens(&inner);
        let config = tokenizer_config(folder)?;
        let named = |name: &str| {
            let text = special_token(&config, name)?;
            special.iter().find(|token| token.text == text).cloned()
        };
        let (eos, pad) = (named("eos_token"), named("pad_token"));
        Ok(Self { inner, special, eos, pad })
    }

    /// The ids of `text`; special tokens written in it become their ids, none is added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.inner.encode_fast(text, false).map_err(TokenizerError::Encode)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, TokenizerError> {
        self.inner.decode(ids, skip_special_tokens).map_err(TokenizerError::Decode)
    }

    /// All tokens flagged `special`, by id.
    pub fn special_tokens(&self) -> &[SpecialToken] {
        &self.special
    }

    /// The first special token (by id) whose text occurs in `text`: typed there, it would become a real one.
    pub fn special_in(&self, text: &str) -> Option<&SpecialToken> {
        self.special.iter().find(|token| text.contains(&token.text))
    }

    /// The id of a token (special or not) by its text.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    /// `eos_token` of `tokenizer_config.json`: what ends an answer.
    pub fn eos(&self) -> Option<&SpecialToken> {
        self.eos.as_ref()
    }

    /// `pad_token` of `tokenizer_config.json`.
    pub fn pad(&self) -> Option<&SpecialToken> {
        self.pad.as_ref()
    }

    /// Ids run from 0 to this, less one.
    pub fn len(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Whether the vocabulary is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The library's own object, for decoding a stream of ids.
    pub fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }
}

fn special_tokens(inner: &tokenizers::Tokenizer) -> Vec<SpecialToken> {
    let mut tokens: Vec<_> = inner
        .get_added_tokens_decoder()
        .into_iter()
        .filter(|(_, token)| token.special && !token.content.is_empty())
        .map(|(id, token)| SpecialToken {
            id,
            standalone: !(token.lstrip || token.rstrip || token.single_word || token.normalized),
            text: token.content,
        })
        .collect();
    tokens.sort_by_key(|token| token.id);
    tokens
}
