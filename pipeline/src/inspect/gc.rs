//! Drops what no manifest of the store refers to.

use serde::Serialize;
use std::path::PathBuf;

/// What was dropped, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Relative to the store, in the order of their paths.
    pub dropped: Vec<Dropped>,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Bytes of the tables and folders that stay.
    pub kept: u64,
}

/// A file or folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    pub path: PathBuf,
    pub bytes: u64,
}
