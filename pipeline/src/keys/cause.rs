//! Why something has to be made: what changed between two keys.

use crate::store::key::KeyParts;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;

/// Names in a key's context what a job reads of how its inputs were made.
pub const SETTINGS: &str = "settings";

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
    /// An input has more or fewer partitions.
    Partitions { old: String, new: String },
    /// A job reads how its inputs were made, and that is another way now.
    Settings { what: String },
    /// Other tables, weights or columns are read than before.
    Wiring,
    /// The rows moved: earlier partitions have other rows than before.
    #[serde(rename = "place")]
    Moved,
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
            Self::Partitions { old, new } => write!(f, "there were {old} partitions, now there are {new}"),
            Self::Settings { what } => write!(f, "the settings for {what}, which it reads, changed"),
            Self::Wiring => f.write_str("it reads other tables or columns than before"),
            Self::Moved => f.write_str("earlier partitions have other rows than before"),
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

/// What is different from `old`; empty when the keys are equal.
pub fn changes(old: &KeyParts, new: &KeyParts) -> Vec<Cause> {
    if new.kind != old.kind {
        return vec![Cause::Kind { old: old.kind.clone(), new: new.kind.clone() }];
    }
    let mut causes = Vec::new();
    if new.version != old.version {
        causes.push(Cause::Version { old: old.version, new: new.version });
    }
    causes.extend(changed_params(&old.params, &new.params));
    let names: BTreeSet<&String> = old.resources.keys().chain(new.resources.keys()).collect();
    let changed = names.into_iter().filter(|name| old.resources.get(*name) != new.resources.get(*name));
    causes.extend(changed.map(|name| Cause::Resource { name: name.clone() }));
    causes.extend(changed_inputs(old, new));
    if new.context != old.context {
        causes.push(moved(old, new));
    }
    causes
}

fn changed_inputs(old: &KeyParts, new: &KeyParts) -> Vec<Cause> {
    let columns = |parts: &KeyParts| -> BTreeSet<Vec<String>> {
        parts.inputs.iter().map(|input| input.columns.clone()).collect()
    };
    // Another number of partitions is reported by `moved`.
    let grew = new.inputs.len() != old.inputs.len() && new.context == old.context;
    if grew || columns(new) != columns(old) {
        return vec![Cause::Wiring];
    }
    let mut causes = Vec::new();
    let pairs = new.inputs.iter().zip(&old.inputs);
    for (input, _) in pairs.filter(|(new, old)| new.digest != old.digest) {
        let cause = Cause::Input { stage: input.stage.clone(), columns: input.columns.clone() };
        if !causes.contains(&cause) {
            causes.push(cause);
        }
    }
    causes
}

fn moved(old: &KeyParts, new: &KeyParts) -> Cause {
    let changed = |start: &str| {
        let of = |parts: &KeyParts| -> Vec<String> {
            let found = parts.context.iter().filter(|(name, _)| name.starts_with(start));
            found.map(|(_, value)| value.clone()).collect()
        };
        let (old, new) = (of(old), of(new));
        (old != new).then(|| (old.join(" and "), new.join(" and ")))
    };
    if let Some((old, new)) = changed("seed") {
        return Cause::Parameter { name: "seed".to_owned(), old: Some(old.into()), new: Some(new.into()) };
    }
    if let Some((old, new)) = changed("partitions of").or_else(|| changed("units of")) {
        return Cause::Partitions { old, new };
    }
    if let Some(what) = changed_settings(old, new) {
        return Cause::Settings { what };
    }
    if changed("tables of").or_else(|| changed("weight of")).is_some() { Cause::Wiring } else { Cause::Moved }
}

/// The first settings that differ.
fn changed_settings(old: &KeyParts, new: &KeyParts) -> Option<String> {
    let names: BTreeSet<&String> = old.context.keys().chain(new.context.keys()).collect();
    let mut names = names.into_iter().filter(|name| name.starts_with(SETTINGS));
    let changed = names.find(|name| old.context.get(*name) != new.context.get(*name))?;
    changed.rsplit(' ').next().map(str::to_owned)
}

fn changed_params(old: &Value, new: &Value) -> Vec<Cause> {
    let empty = serde_json::Map::new();
    let (Some(a), Some(b)) = (old.as_object().or(Some(&empty)), new.as_object().or(Some(&empty))) else {
        return Vec::new();
    };
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let changed = names.into_iter().filter(|name| a.get(*name) != b.get(*name));
    changed
        .map(|name| Cause::Parameter {
            name: name.clone(),
            old: a.get(name).cloned(),
            new: b.get(name).cloned(),
        })
        .collect()
}
