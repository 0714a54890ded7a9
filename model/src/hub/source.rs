//! Where repositories come from: the Hugging Face hub, or ModelScope, which is faster to reach from China.
//!
//! A locator's prefix names the source. Both keep a local copy where their own Python clients find it.
//!
//! Snapshots of ModelScope are those of a branch and are found by their folder: files that are there are read through before they
//! are trusted, and a note says while a snapshot lacks some.

use std::fmt;

/// Prefix of a locator that names a repository of the Hugging Face hub.
pub const HUB: &str = "hub:";
/// Prefix of a locator that names a repository of ModelScope.
pub const MODELSCOPE: &str = "ms:";

/// A site that gives models and data sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// huggingface.co, or a mirror of it.
    HuggingFace,
    /// modelscope.cn, or a mirror of it.
    ModelScope,
}

/// The environment variables of a source, named in errors.
#[derive(Clone, Copy, Debug)]
pub struct Variables {
    /// The site's address.
    pub endpoint: &'static str,
    /// The access token.
    pub token: &'static str,
    /// The folder of the cache.
    pub cache: &'static str,
}

impl Source {
    /// Both, in the order in which prefixes are tried.
    pub const ALL: [Self; 2] = [Self::HuggingFace, Self::ModelScope];

    /// The source that a locator names, and the rest of the locator; `None` for a plain folder.
    pub fn of(locator: &str) -> Option<(Self, &str)> {
        Self::ALL.into_iter().find_map(|source| Some((source, locator.strip_prefix(source.prefix())?)))
    }

    /// What its locators begin with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::HuggingFace => HUB,
            Self::ModelScope => MODELSCOPE,
        }
    }

    /// The branch that is meant where none is named.
    pub fn default_revision(self) -> &'static str {
        match self {
            Self::HuggingFace => "main",
            Self::ModelScope => "master",
        }
    }

    /// Its environment variables.
    pub fn variables(self) -> Variables {
        match self {
            Self::HuggingFace => Variables { endpoint: "HF_ENDPOINT", token: "HF_TOKEN", cache: "HF_HOME" },
            Self::ModelScope => Variables {
                endpoint: "MODELSCOPE_ENDPOINT",
                token: "MODELSCOPE_API_TOKEN",
                cache: "MODELSCOPE_CACHE",
            },
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HuggingFace => "Hugging Face",
            Self::ModelScope => "ModelScope",
        })
    }
}

/// Whether a locator names a repository rather than a folder.
pub fn is_repository(locator: &str) -> bool {
    Source::of(locator).is_some()
}
