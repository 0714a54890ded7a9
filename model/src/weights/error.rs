//! What can be wrong with weights, reported once and completely.

use crate::magic::culprit;
use std::fmt;
use std::path::{Path, PathBuf};

/// Weights that cannot be used. Every text names the file or folder.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The operating system refused.
    #[error("{}: cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bytes are not what the file name promises.
    #[error("{}: {why}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found, and what to do about it.
        why: String,
    },
    /// A folder without any weights file.
    #[error("{} holds no weights: looked for {looked_for}.", folder.display())]
    NoWeights {
        /// The folder.
        folder: PathBuf,
        /// The names of the files that would do.
        looked_for: String,
    },
    /// A tensor that cannot become a floating-point parameter.
    #[error("{}: `{key}` {why}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// The tensors are not those that the configuration asks for.
    #[error(transparent)]
    Mismatch(Box<Mismatch>),
}

impl WeightsError {
    /// A [`WeightsError::Corrupt`] of `path`.
    pub(crate) fn corrupt(path: &Path, why: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), why: culprit(path, why.into()) }
    }
}

/// Every difference between the tensors that are there and those that a configuration asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// The folder or file that holds the weights.
    pub place: PathBuf,
    /// Asked for, not there: key and shape.
    pub missing: Vec<(String, Vec<usize>)>,
    /// There in another shape: key, shape in the file, shape asked for.
    pub misshaped: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// There, not asked for: key and shape.
    pub extra: Vec<(String, Vec<usize>)>,
    /// There in the right shape, but not readable: the reason, with file and key.
    pub unusable: Vec<String>,
}

impl Mismatch {
    /// Whether the tensors fit after all.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty()
            && self.misshaped.is_empty()
            && self.extra.is_empty()
            && self.unusable.is_empty()
    }
}

impl std::error::Error for Mismatch {}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: the weights do not fit the configuration.", self.place.display())?;
        for (key, shape) in &self.missing {
            writeln!(f, "  missing      {key} {shape:?}")?;
        }
        for (key, found, wanted) in &self.misshaped {
            writeln!(f, "  wrong shape  {key} is {found:?}, the configuration asks for {wanted:?}")?;
        }
        for (key, shape) in &self.extra {
            writeln!(f, "  unknown      {key} {shape:?}")?;
        }
        for why in &self.unusable {
            writeln!(f, "  unusable     {why}")?;
        }
        let counts = [self.missing.len(), self.misshaped.len(), self.extra.len(), self.unusable.len()];
        let [missing, misshaped, extra, unusable] = counts;
        write!(f, "{missing} missing, {misshaped} misshaped, {extra} unknown, {unusable} unusable. ")?;
        write!(f, "Do the configuration and the weights belong to the same model?")
    }
}
