//! Whether the stages fit together; the single questions are asked in `roles.rs` and `needs.rs`.
//!
//! In: entries, their kinds and built stages, in topological order. Out: the nodes of the graph.

use super::document::Entry;
use super::from::FromKey;
use super::problem::Problems;
use crate::spec::columns::Columns;
use crate::spec::graph::{InputGroup, Node, NodeIndex, Offered, group_columns, offered_by};
use crate::spec::registry::{Kind, Role, RoleKind, Stage};
use crate::spec::stage::Beside;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use toml::Spanned;

/// An entry with what is known of its kind.
pub(super) struct Part<'a, 'i> {
    pub(super) entry: &'a Entry<'i>,
    /// `None` when the kind is unknown.
    pub(super) kind: Option<&'a Kind>,
    /// `None` when the parameters are wrong.
    pub(super) stage: Option<Stage>,
    /// The stages its parameters name.
    pub(super) links: Vec<Spanned<String>>,
}

impl<'a, 'i> Part<'a, 'i> {
    /// A stage of whose kind nothing is known.
    pub(super) fn unknown(entry: &'a Entry<'i>) -> Self {
        Self { entry, kind: None, stage: None, links: Vec::new() }
    }

    /// All stages it reads: those of `from`, then those its parameters name.
    pub(super) fn names(&self) -> impl Iterator<Item = &Spanned<String>> {
        self.entry.from.iter().flat_map(FromKey::names).chain(&self.links)
    }
}

/// The nodes built so far, and what is known of the others.
pub(super) struct Wiring<'a, 'i> {
    pub(super) parts: &'a [Part<'a, 'i>],
    /// The place of each name in `parts`.
    pub(super) index: BTreeMap<&'a str, usize>,
    /// In topological order.
    pub(super) nodes: Vec<Node>,
    /// The columns each of `nodes` offers.
    pub(super) offered: Vec<Vec<Offered>>,
}

/// Checks each part, and makes the nodes of those that are fine. `order` is topological.
pub(super) fn wire<'a>(parts: &'a [Part<'a, '_>], order: &[usize], problems: &mut Problems) -> Vec<Node> {
    let index = parts.iter().enumerate().map(|(index, part)| (part.entry.name.as_str(), index)).collect();
    let mut wiring = Wiring { parts, index, nodes: Vec::new(), offered: Vec::new() };
    let mut without_from = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        wiring.check_names(part, problems);
        if !part.entry.has_from && part.kind.is_some_and(|kind| kind.role != RoleKind::Source) {
            without_from.push(at);
        }
    }
    let fine: BTreeSet<usize> =
        (0..parts.len()).filter(|&at| wiring.check_roles(&parts[at], problems)).collect();
    for &at in order.iter().filter(|at| fine.contains(at)) {
        wiring.add(&parts[at], problems);
    }
    for at in without_from {
        problems.add(wiring.no_from(&parts[at]));
    }
    wiring.nodes
}

impl Wiring<'_, '_> {
    /// Makes the node of a part whose inputs all have one, if its tables line up and have the columns it needs.
    fn add(&mut self, part: &Part<'_, '_>, problems: &mut Problems) {
        let Some(stage) = part.stage.clone() else { return };
        let Some(mut inputs) = self.inputs(part, &stage.role) else { return };
        let beside = match &stage.role {
            Role::Map(map) => map.beside(),
            Role::Source(_) | Role::Gather(_) | Role::Job(_) => None,
        };
        let given = beside.as_ref().map_or_else(Columns::new, |beside| beside.stage.output());
        let needed = match &stage.role {
            Role::Map(map) => map.input(),
            Role::Gather(gather) => gather.input(),
            Role::Source(_) | Role::Job(_) => Columns::new(),
        };
        let mut wrong = Vec::new();
        for (group, from) in inputs.iter().zip(part.entry.from.iter().flat_map(|from| &from.groups)) {
            if stage.role.is_job() {
                break;
            }
            wrong.extend(self.apart(part.entry, group, from));
            let columns = group_columns(group, &self.offered);
            let needed = needed.iter().filter(|column| given.get(&column.name).is_none());
            wrong
                .extend(needed.filter_map(|column| self.lacking(part.entry, &stage, from, column, &columns)));
        }
        wrong.extend(self.not_to_keep(part.entry, &stage, &inputs));
        let fine = wrong.is_empty();
        problems.extend(wrong);
        if fine {
            if let Some(beside) = beside {
                self.put_beside(part.entry, beside, &mut inputs);
            }
            self.push(Node { name: part.entry.name.clone(), stage, inputs, budget: part.entry.budget });
        }
    }

    /// Adds the stage that goes before a map stage, and its table to what that stage reads.
    fn put_beside(&mut self, entry: &Entry<'_>, beside: Beside, inputs: &mut [InputGroup]) {
        let Beside { suffix, kind, version, stage } = beside;
        let stage = Stage { kind, version, params: Value::Null, role: Role::Map(stage) };
        let name = format!("{}.{suffix}", entry.name);
        self.push(Node { name, stage, inputs: inputs.to_vec(), budget: entry.budget });
        let table = self.nodes.len() - 1;
        inputs.iter_mut().for_each(|group| group.tables.push(table));
    }

    fn push(&mut self, node: Node) {
        self.offered.push(offered_by(self.nodes.len(), &node, &self.offered));
        self.nodes.push(node);
    }

    /// The input groups as node indices; `None` when an input has no node.
    fn inputs(&self, part: &Part<'_, '_>, role: &Role) -> Option<Vec<InputGroup>> {
        if role.is_job() {
            let one = |name: &Spanned<String>| {
                self.node(name.get_ref()).map(|table| InputGroup { tables: vec![table], weight: 1.0 })
            };
            return part.names().map(one).collect();
        }
        let groups = part.entry.from.iter().flat_map(|from| &from.groups);
        groups
            .map(|group| {
                let tables: Option<Vec<NodeIndex>> =
                    group.tables.iter().map(|name| self.node(name.get_ref())).collect();
                tables.map(|tables| InputGroup { tables, weight: group.weight })
            })
            .collect()
    }

    fn node(&self, name: &str) -> Option<NodeIndex> {
        self.nodes.iter().position(|node| node.name == name)
    }
}
