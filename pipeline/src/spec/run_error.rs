//! The error a command of the engine ends with: which stage, which partition, why, and what to do next.

use crate::spec::error::{Origin, StageError};
use crate::spec::summary::RejectExample;
use std::error::Error;
use std::fmt;
use std::io;

/// Why a plan, a run or a look at the store failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A stage could not go on.
    #[error("`{stage}` ({kind}){}: {cause}", place(partition.as_deref()))]
    Stage {
        stage: String,
        kind: &'static str,
        /// The label of the partition it worked on.
        partition: Option<String>,
        #[source]
        cause: StageError,
    },
    /// More rows were rejected than the manifest allows.
    #[error("{0}")]
    Budget(Box<OverBudget>),
    /// The store could not be read or written.
    #[error("the store: {0}")]
    Store(#[source] StageError),
    /// Ctrl-C.
    #[error("interrupted; {finished} partitions were finished and kept, {left} are left")]
    Interrupted { finished: usize, left: usize },
    /// An option or command names a stage that the manifest does not have.
    #[error("there is no stage `{name}`")]
    NoSuchStage { name: String, known: Vec<String> },
    /// Something is asked of a stage whose output is not there yet.
    #[error("`{stage}`{}: no output yet", place(partition.as_deref()))]
    NotBuilt { stage: String, partition: Option<String> },
}

/// A stage that rejected more rows than its budget allows.
#[derive(Debug)]
pub struct OverBudget {
    pub stage: String,
    pub kind: &'static str,
    /// What was exceeded: "214 of 2,048 rows (10.4%), more than `max_rejects` = 0.1".
    pub what: String,
    /// The first rejects.
    pub examples: Vec<RejectExample>,
}

impl fmt::Display for OverBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({}) rejected {}; the first ones:", self.stage, self.kind, self.what)?;
        self.examples.iter().try_for_each(|example| write!(f, "\n  {}: {}", example.id, example.reason))
    }
}

impl RunError {
    /// What to do next.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Stage { cause, .. } | Self::Store(cause) => advice(cause),
            Self::Budget(_) => Some(
                "Look at the rows named here. If such rows are expected, raise `max_rejects` of the stage (a share of its rows, or \
                 { fraction, consecutive, files }); rows that are fine are kept either way."
                    .to_owned(),
            ),
            Self::Interrupted { .. } => Some("Run the same command again to go on from here.".to_owned()),
            Self::NoSuchStage { known, .. } => Some(format!("The stages are {}.", known.join(", "))),
            Self::NotBuilt { .. } => Some("Run the manifest first: `llavm run MANIFEST`.".to_owned()),
        }
    }

    /// The stage that failed.
    pub fn stage(&self) -> Option<&str> {
        match self {
            Self::Stage { stage, .. } | Self::NotBuilt { stage, .. } => Some(stage),
            Self::Budget(over) => Some(&over.stage),
            _ => None,
        }
    }
}

/// An error of no task: of the store, or of the source in which it began.
impl From<StageError> for RunError {
    fn from(cause: StageError) -> Self {
        match cause.origin().cloned() {
            Some(Origin { stage, kind, partition }) => {
                Self::Stage { stage, kind, partition: Some(partition), cause }
            }
            None => Self::Store(cause),
        }
    }
}

impl miette::Diagnostic for RunError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.advice().map(|advice| Box::new(advice) as Box<dyn fmt::Display>)
    }
}

fn place(partition: Option<&str>) -> String {
    partition.map(|label| format!(", {label}")).unwrap_or_default()
}

/// The advice of the stage; a full disk gets its own.
fn advice(cause: &StageError) -> Option<String> {
    if cause.advice().is_none() && is_full_disk(cause) {
        let text = "Free some space (`llavm gc MANIFEST` drops outputs no manifest uses), then run the same command again: \
                    finished partitions are kept.";
        return Some(text.to_owned());
    }
    cause.advice().map(str::to_owned)
}

/// Whether `error` or what caused it is a full disk or an exhausted quota.
pub(crate) fn is_full_disk(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::path::Path;

    #[test]
    fn a_full_disk_is_reported_with_its_path_and_what_to_do() {
        let path = Path::new("/dev/full");
        let cause = std::fs::File::options().write(true).open(path).unwrap().write_all(b"x").unwrap_err();
        let error = RunError::Stage {
            stage: "pixels".to_owned(),
            kind: "decode-resize",
            partition: Some("a.parquet rows 0..4096".to_owned()),
            cause: StageError::io(path, cause),
        };
        insta::assert_snapshot!(error, @"`pixels` (decode-resize), a.parquet rows 0..4096: /dev/full: No space left on device (os error 28)");
        assert!(error.advice().unwrap().starts_with("Free some space"));
    }
}
