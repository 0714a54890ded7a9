//! Rows that cannot be used: they keep their place, and carry a reason.

use serde::{Deserialize, Serialize};
use std::fmt::{self, Display};

/// The code of a reject that stands for all that is left of a file, however many rows that was. Files have a budget of their own.
pub const FILE_LOST: &str = "bad-file";

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

/// Why a row was rejected, as it stands in the column `reject`, in records and in reports: `kind/code: detail`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Reason {
    text: String,
    /// Where `kind/code` ends.
    code: usize,
}

impl Reason {
    /// Of what a stage of a kind says.
    pub fn new(kind: &str, Reject { code, detail }: &Reject) -> Self {
        Self { text: format!("{kind}/{code}: {detail}"), code: kind.len() + 1 + code.len() }
    }

    /// `kind/code`: what rejects are counted by.
    pub fn code(&self) -> &str {
        self.text.get(..self.code).unwrap_or(&self.text)
    }

    /// What is wrong with this very row.
    pub fn detail(&self) -> &str {
        self.text.get(self.code..).map_or("", |rest| rest.trim_start_matches(':').trim_start())
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the row stands for the rest of a file: see [`FILE_LOST`].
    pub fn is_lost_file(&self) -> bool {
        self.code().rsplit('/').next() == Some(FILE_LOST)
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), code: text.find(':').unwrap_or(text.len()) }
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self { code: text.find(':').unwrap_or(text.len()), text }
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.text
    }
}

impl Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_its_text_and_can_be_taken_apart() {
        let reject = Reject { code: "too-long", detail: "9 tokens: over 8".to_owned() };
        let reason = Reason::new("tokenize", &reject);
        assert_eq!(reason.to_string(), "tokenize/too-long: 9 tokens: over 8");
        assert_eq!((reason.code(), reason.detail()), ("tokenize/too-long", "9 tokens: over 8"));
        assert_eq!(Reason::from(reason.as_str()), reason);
        let bare = Reason::from("read/bad");
        assert_eq!((bare.code(), bare.detail()), ("read/bad", ""));
    }
}
