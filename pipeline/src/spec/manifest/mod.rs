//! The manifest: a TOML file becomes a checked [`Graph`], or a list of everything that is wrong with it.
//!
//! | step | file |
//! |---|---|
//! | `[vars]`, `${…}`, `--set` | `vars.rs`, `references.rs` |
//! | the keys all stages share | `document.rs`, `from.rs` |
//! | the parameters of a stage | `params.rs`, `serde_text.rs` |
//! | order and cycles | `order.rs` |
//! | what reads what | `wiring.rs`, `roles.rs`, `needs.rs`, `kept.rs` |
//! | what stages must agree on | `facts.rs` |
//! | how a mistake is reported | `problem.rs`, `nearest.rs` |
//!
//! Relative paths in a manifest are relative to the current directory. Neither the order of sections and keys nor the name of
//! the file reaches the graph's stages.

mod document;
mod facts;
mod from;
mod kept;
mod nearest;
mod needs;
mod order;
mod params;
mod problem;
mod references;
mod roles;
mod serde_text;
#[cfg(test)]
mod tests;
mod vars;
mod wiring;

pub use nearest::{did_you_mean, nearest};
pub use params::{Parameter, describe};
pub use problem::{ManifestError, Problem};

use crate::spec::graph::{Graph, Node, NodeIndex};
use crate::spec::registry::{Registry, Stage};
use crate::spec::stage::Missing;
use document::{Document, Entry, read_document};
use problem::{Problems, Source};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use toml::de::{DeTable, DeValue};
use vars::{Environment, Vars};
use wiring::{Part, wire};

/// A manifest without mistakes.
pub struct Manifest {
    pub graph: Graph,
    source: Source,
    places: BTreeMap<String, Places>,
}

/// Where a stage and its parameters stand in the file.
#[derive(Clone)]
struct Places {
    name: Range<usize>,
    params: BTreeMap<String, Range<usize>>,
}

impl Manifest {
    /// Reads the file; `set` holds the `K=V` of the command line.
    pub fn load(path: &Path, set: &[String], registry: &Registry) -> Result<Self, ManifestError> {
        match std::fs::read(path) {
            Ok(bytes) => Self::read(&bytes, path, set, registry),
            Err(cause) => {
                let problem = Problem::new(format!("cannot read the manifest {}: {cause}", path.display()))
                    .help("Give the path of a TOML file, for example manifests/quickstart.toml.");
                Err(ManifestError::only(&source(path, ""), problem))
            }
        }
    }

    /// The manifest in `bytes`, as if it stood in the file `path`.
    pub fn read(
        bytes: &[u8],
        path: &Path,
        set: &[String],
        registry: &Registry,
    ) -> Result<Self, ManifestError> {
        read_with(bytes, path, set, registry, &|name| std::env::var(name).ok())
    }

    /// An error when a file that one of `nodes` needs is not there.
    pub fn check_files(&self, nodes: &[NodeIndex]) -> Result<(), ManifestError> {
        let mut problems = Problems::new(self.source.clone());
        for node in nodes.iter().filter_map(|&node| self.graph.nodes.get(node)) {
            if let Some(places) = self.places.get(&node.name) {
                report_missing(&node.name, &node.stage, places, &mut problems);
            }
        }
        problems.finish()
    }

    /// What a look at the raw files of these nodes shows, by stage.
    pub fn preview(&self, nodes: &[NodeIndex]) -> Result<Vec<(String, String)>, ManifestError> {
        let mut problems = Problems::new(self.source.clone());
        let mut notes = Vec::new();
        for node in nodes.iter().filter_map(|&node| self.graph.nodes.get(node)) {
            match node.stage.role.parameters().preview() {
                Ok(found) => notes.extend(found.into_iter().map(|note| (node.name.clone(), note))),
                Err(error) => {
                    let mut problem = Problem::new(format!("`{}` ({}): {error}", node.name, node.stage.kind));
                    if let Some(places) = self.places.get(&node.name) {
                        problem = problem.at(places.name.clone(), "");
                    }
                    problems.add(match error.advice() {
                        Some(advice) => problem.help(advice.to_owned()),
                        None => problem,
                    });
                }
            }
        }
        problems.finish()?;
        Ok(notes)
    }
}

fn read_with(
    bytes: &[u8],
    path: &Path,
    set: &[String],
    registry: &Registry,
    environment: Environment<'_>,
) -> Result<Manifest, ManifestError> {
    let text = std::str::from_utf8(bytes).map_err(|cause| {
        let problem = Problem::new(format!("the manifest is not UTF-8 text: byte {}", cause.valid_up_to()));
        ManifestError::only(&source(path, ""), problem.help("Save it as UTF-8."))
    })?;
    let source = source(path, text);
    let table = DeTable::parse(text).map_err(|error| ManifestError::only(&source, syntax(&error)))?;
    let mut problems = Problems::new(source.clone());
    let document = expand(text, table.into_inner(), set, environment, &mut problems);
    let (nodes, places) = build(&document, registry, &mut problems);
    problems.finish()?;
    let Document { name, seed, store, .. } = document;
    let name =
        name.or_else(|| path.file_stem().map(|stem| stem.to_string_lossy().into_owned())).unwrap_or_default();
    let (manifest, text, settings) = (path.to_owned(), text.to_owned(), set.to_vec());
    let graph = Graph { name, manifest, text, settings, seed, store: store.into(), nodes };
    Ok(Manifest { graph, source, places })
}

fn source(path: &Path, text: &str) -> Source {
    Source::new(path.display().to_string(), text)
}

fn syntax(error: &toml::de::Error) -> Problem {
    let problem = Problem::new(format!("not TOML: {}", error.message().trim_end()));
    match error.span() {
        Some(span) => problem.at(span, ""),
        None => problem,
    }
}

/// Takes `[vars]` out, and replaces what refers to them.
fn expand<'i>(
    text: &'i str,
    mut table: DeTable<'i>,
    set: &'i [String],
    environment: Environment<'i>,
    problems: &mut Problems,
) -> Document<'i> {
    let given = match table.remove("vars") {
        None => DeTable::new(),
        Some(value) => {
            let span = value.span();
            if let DeValue::Table(given) = value.into_inner() {
                given
            } else {
                problems.add(Problem::new("`vars` is not a table").at(span, "not a table"));
                DeTable::new()
            }
        }
    };
    let mut vars = Vars::new(text, given, environment, problems);
    vars.set(set, problems);
    vars.expand_all(problems);
    read_document(table, &mut vars, problems)
}

/// Builds every stage and wires them. Nodes are complete only when no problem was added.
fn build(
    document: &Document<'_>,
    registry: &Registry,
    problems: &mut Problems,
) -> (Vec<Node>, BTreeMap<String, Places>) {
    let parts: Vec<Part<'_, '_>> =
        document.stages.iter().map(|entry| part(entry, registry, problems)).collect();
    let order = order::order(&parts, problems);
    let nodes = wire(&parts, &order, problems);
    let places: BTreeMap<String, Places> =
        document.stages.iter().map(|entry| (entry.name.clone(), places(entry))).collect();
    if problems.is_empty() {
        problems.extend(facts::conflicts(&nodes, &places));
    } else {
        // Reported with the others, so that nobody corrects a manifest twice; a correct one is checked by `check_files`.
        for part in &parts {
            if let (Some(stage), Some(places)) = (&part.stage, places.get(&part.entry.name)) {
                report_missing(&part.entry.name, stage, places, problems);
            }
        }
    }
    (nodes, places)
}

fn part<'a, 'i>(entry: &'a Entry<'i>, registry: &'a Registry, problems: &mut Problems) -> Part<'a, 'i> {
    let Some(name) = &entry.kind else { return Part::unknown(entry) };
    let kind = registry.get(name.get_ref());
    if kind.is_none() {
        problems.add(
            Problem::new(format!("`{}` is of the unknown kind `{}`", entry.name, name.get_ref()))
                .at(name.span(), "no such kind")
                .help(did_you_mean(name.get_ref(), "kinds", registry.kinds().iter().map(|kind| kind.name))),
        );
    }
    let links = kind.map_or_else(Vec::new, |kind| from::links(&entry.params, kind.links));
    Part { entry, kind, stage: kind.and_then(|kind| params::build_stage(entry, kind, problems)), links }
}

fn places(entry: &Entry<'_>) -> Places {
    let params = entry.params.iter().map(|(key, value)| (key.get_ref().clone().into_owned(), value.span()));
    Places { name: entry.name_span.clone(), params: params.collect() }
}

fn report_missing(name: &str, stage: &Stage, places: &Places, problems: &mut Problems) {
    for Missing { param, text, help } in stage.role.parameters().missing() {
        let place = places.params.get(param).unwrap_or(&places.name).clone();
        problems.add(
            Problem::new(format!("`{name}` ({}): {text}", stage.kind)).at(place, "not there").help(help),
        );
    }
}
