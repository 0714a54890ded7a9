//! The error a stage returns: what went wrong, what to do next, and why (its cause kept).

use std::error::Error;
use std::fmt;

/// A stage cannot go on at all. A single unusable row is no error: it is a [`crate::spec::rejects::Rejects`] entry.
///
/// The engine adds the stage's name, its kind and the partition when it reports the error.
#[derive(Debug)]
pub struct StageError(Box<Parts>);

/// Boxed, so that a `Result` stays small.
#[derive(Debug)]
struct Parts {
    message: String,
    help: Option<String>,
    cause: Option<Box<dyn Error + Send + Sync>>,
    origin: Option<Origin>,
}

/// Where an error began, when that is not where it was noticed: a partition of a source that others read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub stage: String,
    pub kind: &'static str,
    /// The label of the partition.
    pub partition: String,
}

impl StageError {
    /// What went wrong and where ("`chat.json`: byte 812: expected `,`").
    pub fn new(message: impl Into<String>) -> Self {
        Self(Box::new(Parts { message: message.into(), help: None, cause: None, origin: None }))
    }

    /// A file that could not be read or written.
    pub fn io(path: &std::path::Path, cause: std::io::Error) -> Self {
        Self::new(format!("{}: {cause}", path.display())).because(cause)
    }

    /// What the user can do next ("Raise `max_tokens` or set overlong = \"truncate\".").
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// The error underneath.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Names the place where it began; the first to say so is right.
    #[must_use]
    pub fn at(mut self, origin: Origin) -> Self {
        self.0.origin.get_or_insert(origin);
        self
    }

    /// The place given by [`StageError::at`].
    pub fn origin(&self) -> Option<&Origin> {
        self.0.origin.as_ref()
    }

    /// The advice given by [`StageError::help`].
    pub fn advice(&self) -> Option<&str> {
        self.0.help.as_deref()
    }
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl Error for StageError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

impl From<arrow::error::ArrowError> for StageError {
    fn from(cause: arrow::error::ArrowError) -> Self {
        Self::new(format!("Arrow: {cause}")).because(cause)
    }
}
