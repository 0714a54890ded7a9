//! Rows that cannot be used: they keep their place, and carry a reason.

use std::fmt::Display;

/// Why a row cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// A short fixed word to count by, such as `undecodable` or `too-long`.
    pub code: &'static str,
    /// What is wrong with this very row, and what to do.
    pub detail: String,
}

/// The rejects of one batch, seen by the stage that works on it.
///
/// The engine fills in the rows that an earlier stage rejected, and writes the column `reject` afterwards
/// as `<kind>/<code>: <detail>` (null where the row is fine). A stage gives null outputs for rejected rows.
#[derive(Debug)]
pub struct Rejects {
    earlier: Vec<bool>,
    new: Vec<Option<Reject>>,
}

impl Rejects {
    /// For a batch of `rows` rows none of which was rejected before.
    pub fn none(rows: usize) -> Self {
        Self::after(vec![false; rows])
    }

    /// For a batch whose rows were rejected by an earlier stage where `earlier` is true.
    pub fn after(earlier: Vec<bool>) -> Self {
        let new = earlier.iter().map(|_| None).collect();
        Self { earlier, new }
    }

    /// Rejects `row` for the reason `code`. The first reason given stays.
    pub fn reject(&mut self, row: usize, code: &'static str, detail: impl Display) {
        if !self.is_rejected(row) && row < self.new.len() {
            self.new[row] = Some(Reject { code, detail: detail.to_string() });
        }
    }

    /// Whether `row` was rejected, now or by an earlier stage. Such a row's inputs may be null.
    pub fn is_rejected(&self, row: usize) -> bool {
        self.earlier.get(row).copied().unwrap_or(false) || self.new.get(row).is_some_and(Option::is_some)
    }

    /// The rejects this stage added, by row of the batch.
    pub fn new_rejects(&self) -> impl Iterator<Item = (usize, &Reject)> {
        self.new.iter().enumerate().filter_map(|(row, reject)| reject.as_ref().map(|reject| (row, reject)))
    }
}
