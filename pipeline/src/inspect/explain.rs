//! Why a stage would run.

use serde::Serialize;
use serde_json::Value;
use std::fmt;

/// What a run would do with one stage, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    pub stage: String,
    pub kind: String,
    pub partitions: usize,
    /// How many of them are there.
    pub reused: usize,
    /// Why the others would run; equal causes are one entry.
    pub causes: Vec<Caused>,
}

/// A cause and the partitions it concerns.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Caused {
    pub cause: Cause,
    /// Labels of the partitions.
    pub partitions: Vec<String>,
}

/// Why a partition has to be made.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "because")]
pub enum Cause {
    /// `--force` names the stage.
    Forced,
    /// It was never made.
    New,
    /// It was made, but its file or record is missing or damaged.
    Missing,
    /// The stage of this name was another kind before.
    Kind { old: String, new: String },
    /// The kind has a new version: the same input gives other bytes.
    Version { old: u32, new: u32 },
    /// A parameter has another value; `None` where it was absent.
    Parameter { name: String, old: Option<Value>, new: Option<Value> },
    /// The content of a resource file changed.
    Resource { name: String },
    /// The content of an input changed.
    Input { stage: String, columns: Vec<String> },
    /// Other tables or columns are read than before.
    Wiring,
    /// The rows moved: earlier partitions have other rows than before.
    Place,
    /// An input will be made again, for these reasons; when it turns out the same, nothing runs here.
    Upstream { stage: String, causes: Vec<Cause> },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forced => f.write_str("forced on the command line"),
            Self::New => f.write_str("never made before"),
            Self::Missing => f.write_str("its file is missing or damaged"),
            Self::Kind { old, new } => write!(f, "kind changed from {old} to {new}"),
            Self::Version { old, new } => write!(f, "version of the kind changed from {old} to {new}"),
            Self::Parameter { name, old, new } => {
                write!(f, "parameter {name} changed from {} to {}", value(old.as_ref()), value(new.as_ref()))
            }
            Self::Resource { name } => write!(f, "the content of {name} changed"),
            Self::Input { stage, columns } if columns.is_empty() => {
                write!(f, "the content of input {stage} changed")
            }
            Self::Input { stage, columns } => {
                write!(f, "the content of input {stage} ({}) changed", columns.join(", "))
            }
            Self::Wiring => f.write_str("it reads other tables or columns than before"),
            Self::Place => f.write_str("earlier partitions have other rows than before"),
            Self::Upstream { stage, causes } => {
                let causes: Vec<String> = causes.iter().map(ToString::to_string).collect();
                write!(f, "input {stage} will run ({})", causes.join("; "))
            }
        }
    }
}

/// A parameter's value; long ones are cut.
fn value(value: Option<&Value>) -> String {
    const LONGEST: usize = 60;
    let text = value.map_or_else(|| "nothing".to_owned(), ToString::to_string);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, kind, partitions, reused, causes } = self;
        write!(f, "{stage} ({kind}): {reused} of {partitions} partitions are there")?;
        for Caused { cause, partitions } in causes {
            write!(f, "\n  {}: {cause}", some_of(partitions))?;
        }
        Ok(())
    }
}

/// The first labels and how many more.
fn some_of(labels: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = labels.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match labels.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
