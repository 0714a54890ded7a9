//! Checks every stored file against its record.

use serde::Serialize;
use std::path::PathBuf;

/// What a look at every file of the store found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Files whose content was compared with its record.
    pub files: usize,
    pub bytes: u64,
    /// In the order of their paths.
    pub problems: Vec<Finding>,
    /// Folders of jobs that were interrupted and can go on; no problem.
    pub unfinished: Vec<PathBuf>,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// Relative to the store.
    pub path: PathBuf,
    pub problem: Problem,
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// The content is not what was written: a flipped bit, a cut-off file.
    Damaged,
    /// A record names a file that is not there.
    Missing,
    /// No record names the file.
    Stray,
    /// An unfinished file of a run that was killed.
    Leftover,
}
