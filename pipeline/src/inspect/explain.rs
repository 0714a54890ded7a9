//! Why a stage would run.

use crate::StageError;
use crate::engine::Look;
use crate::graph::NodeIndex;
use crate::store::index::Index;
use crate::survey::{self, Found};
use crate::tasks::{Pass, TaskId};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
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
    /// An input has more or fewer partitions.
    Partitions { old: String, new: String },
    /// Other tables, weights or columns are read than before.
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
            Self::Partitions { old, new } => write!(f, "there were {old} partitions, now there are {new}"),
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

/// Why a stage would run.
pub(crate) fn explain(
    look: &Look<'_>,
    node: NodeIndex,
    force: &BTreeSet<NodeIndex>,
) -> Result<Explanation, StageError> {
    let Look { session, tasks, found, .. } = look;
    let index = session.store.read_index(&session.graph.name)?;
    let mut causes: Vec<Caused> = Vec::new();
    let ids = tasks.of(node, Pass::First).chain(tasks.of(node, Pass::Main));
    for id in ids {
        let task = &tasks.all[id];
        let label = session.label(node, task.index).to_owned();
        let found = match &found[id] {
            Found::There(_) => continue,
            _ if force.contains(&node) => vec![Cause::Forced],
            Found::Run(parts) => survey::causes(session, &index, task, parts)?,
            Found::Unknown => upstream(look, &index, id)?,
        };
        for cause in found {
            match causes.iter_mut().find(|caused| caused.cause == cause) {
                Some(caused) if caused.partitions.contains(&label) => {}
                Some(caused) => caused.partitions.push(label.clone()),
                None => causes.push(Caused { cause, partitions: vec![label.clone()] }),
            }
        }
    }
    let reused = tasks.of(node, Pass::Main).filter(|id| matches!(found[*id], Found::There(_))).count();
    Ok(Explanation {
        stage: session.name(node).to_owned(),
        kind: session.graph.nodes[node].stage.kind.to_owned(),
        partitions: session.labels(node).len(),
        reused,
        causes,
    })
}

/// What has to run before anything can be said of a task, and why that has to.
fn upstream(look: &Look<'_>, index: &Index, id: TaskId) -> Result<Vec<Cause>, StageError> {
    let mut reasons: BTreeMap<NodeIndex, Vec<Cause>> = BTreeMap::new();
    let (mut open, mut seen) = (vec![id], BTreeSet::new());
    while let Some(id) = open.pop() {
        for &need in look.tasks.all[id].needs.iter().filter(|need| seen.insert(**need)) {
            let task = &look.tasks.all[need];
            match &look.found[need] {
                Found::There(_) => {}
                Found::Unknown => open.push(need),
                Found::Run(parts) => {
                    let causes = reasons.entry(task.node).or_default();
                    for cause in survey::causes(look.session, index, task, parts)? {
                        if !causes.contains(&cause) {
                            causes.push(cause);
                        }
                    }
                }
            }
        }
    }
    let name = |node| look.session.name(node).to_owned();
    Ok(reasons.into_iter().map(|(node, causes)| Cause::Upstream { stage: name(node), causes }).collect())
}
