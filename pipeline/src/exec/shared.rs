//! State that the builds of one process share.

use crate::spec::stage::SequentialPass;

/// What of an output was compared with its record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checked {
    #[default]
    Nothing,
    /// The column `reject`.
    Rejects,
    /// Every byte.
    Whole,
}

/// A sequential pass and how far it is.
pub struct Progress {
    /// The next partition it has not seen.
    pub next: usize,
    pub pass: Box<dyn SequentialPass>,
}
