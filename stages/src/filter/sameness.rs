//! When two rows count as the same.

use serde::{Deserialize, Serialize};

/// When two rows count as the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dedup {
    /// The same bytes.
    Exact,
    /// Images that look the same: their DCT hashes differ in few bits.
    Perceptual,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    Image,
    Text,
    Both,
}

impl By {
    pub(super) fn images(self) -> bool {
        self != Self::Text
    }

    pub(super) fn text(self) -> bool {
        self != Self::Image
    }
}
