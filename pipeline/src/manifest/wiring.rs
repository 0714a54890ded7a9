//! Whether the stages fit together: what each kind may read, that tables line up, and that the columns are there.
//!
//! In: entries, their kinds and built stages, in topological order. Out: the nodes of the graph.

use super::document::Entry;
use super::from::{FromGroup, FromKey};
use super::nearest::did_you_mean;
use super::problem::{Problem, Problems};
use crate::columns::{Column, Columns, fits, type_name};
use crate::graph::{InputGroup, Node, NodeIndex, Offered, group_columns, offered_by, source_of};
use crate::registry::{Kind, Role, RoleKind, Stage};
use std::collections::{BTreeMap, BTreeSet};
use toml::Spanned;

/// An entry with what is known of its kind.
pub(super) struct Part<'a, 'i> {
    pub(super) entry: &'a Entry<'i>,
    /// `None` when the kind is unknown.
    pub(super) kind: Option<&'a Kind>,
    /// `None` when the parameters are wrong.
    pub(super) stage: Option<Stage>,
}

/// The nodes built so far, and what is known of the others.
pub(super) struct Wiring<'a, 'i> {
    parts: &'a [Part<'a, 'i>],
    index: BTreeMap<&'a str, usize>,
    nodes: Vec<Node>,
    offered: Vec<Vec<Offered>>,
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
    /// Unknown stages and stages named twice in `from`.
    fn check_names(&self, part: &Part<'_, '_>, problems: &mut Problems) {
        let mut seen: BTreeMap<&str, &Spanned<String>> = BTreeMap::new();
        for name in part.entry.from.iter().flat_map(FromKey::names) {
            if !self.index.contains_key(name.get_ref().as_str()) {
                let others = self.index.keys().copied().filter(|other| *other != part.entry.name);
                problems.add(
                    Problem::new(format!(
                        "`{}` reads the unknown stage `{}`",
                        part.entry.name,
                        name.get_ref()
                    ))
                    .at(name.span(), "no such stage")
                    .help(did_you_mean(name.get_ref(), "stages", others)),
                );
            }
            if let Some(first) = seen.insert(name.get_ref(), name) {
                problems.add(
                    Problem::new(format!("`{}` reads `{}` twice", part.entry.name, name.get_ref()))
                        .at(name.span(), "again here")
                        .at(first.span(), "first here")
                        .help("Name each table once."),
                );
            }
        }
    }

    /// Whether the kinds of stage and inputs go together. False when not, or when that cannot be known.
    fn check_roles(&self, part: &Part<'_, '_>, problems: &mut Problems) -> bool {
        let Some(kind) = part.kind else { return false };
        let Some(from) = &part.entry.from else {
            return kind.role == RoleKind::Source && !part.entry.has_from;
        };
        if kind.role == RoleKind::Source {
            problems.add(
                Problem::new(format!("`{}` ({}) is a source and reads no stage", part.entry.name, kind.name))
                    .at(from.span.clone(), "not wanted")
                    .help("Leave `from` out; a source takes its rows from files or makes them up."),
            );
            return false;
        }
        if from.mixes && kind.role != RoleKind::Gather && from.groups.len() > 1 {
            problems.add(
                Problem::new(format!("`{}` ({}) cannot mix groups of tables", part.entry.name, kind.name))
                    .at(from.span.clone(), "several groups")
                    .help("Only a gather stage such as `shard` mixes; tables that line up are from = [\"a\", \"b\"]."),
            );
            return false;
        }
        let wrong: Vec<Problem> =
            from.names().filter_map(|name| self.wrong_input(part.entry, kind, name)).collect();
        let fine = wrong.is_empty();
        wrong.into_iter().for_each(|problem| problems.add(problem));
        fine
    }

    /// A table where a folder is needed, or the other way round.
    fn wrong_input(&self, entry: &Entry<'_>, kind: &Kind, name: &Spanned<String>) -> Option<Problem> {
        let input = &self.parts[*self.index.get(name.get_ref().as_str())?];
        let input_kind = input.kind?;
        let wants_table = kind.role != RoleKind::Job;
        if input_kind.role.gives_table() == wants_table {
            return None;
        }
        let thing = |table: bool| if table { "a table" } else { "a folder" };
        let (wants, gives) = (thing(wants_table), thing(!wants_table));
        let fitting: Vec<&str> = self
            .parts
            .iter()
            .filter(|part| part.entry.name != entry.name)
            .filter(|part| part.kind.is_some_and(|kind| kind.role.gives_table() == wants_table))
            .map(|part| part.entry.name.as_str())
            .collect();
        let help = if fitting.is_empty() {
            format!("No stage of this manifest gives {wants}.")
        } else {
            format!("Stages that give {wants}: {}.", fitting.join(", "))
        };
        let makes = input.entry.kind.as_ref().map_or_else(|| input.entry.name_span.clone(), Spanned::span);
        let message = format!(
            "`{}` ({}) reads {wants}, but `{}` gives {gives}",
            entry.name, kind.name, input.entry.name
        );
        Some(
            Problem::new(message)
                .at(name.span(), format!("{wants} is needed here"))
                .at(makes, format!("`{}` gives {gives}", input_kind.name))
                .help(help),
        )
    }

    /// Makes the node of a part whose inputs all have one, if its tables line up and have the columns it needs.
    fn add(&mut self, part: &Part<'_, '_>, problems: &mut Problems) {
        let Some(stage) = part.stage.clone() else { return };
        let Some(inputs) = self.inputs(part.entry, &stage.role) else { return };
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
            wrong.extend(
                needed.iter().filter_map(|column| self.lacking(part.entry, &stage, from, column, &columns)),
            );
        }
        let fine = wrong.is_empty();
        wrong.into_iter().for_each(|problem| problems.add(problem));
        if fine {
            let node = Node { name: part.entry.name.clone(), stage, inputs, budget: part.entry.budget };
            self.offered.push(offered_by(self.nodes.len(), &node, &self.offered));
            self.nodes.push(node);
        }
    }

    /// The input groups as node indices; `None` when an input has no node.
    fn inputs(&self, entry: &Entry<'_>, role: &Role) -> Option<Vec<InputGroup>> {
        let groups = entry.from.iter().flat_map(|from| &from.groups);
        let groups: Vec<InputGroup> = groups
            .map(|group| {
                let tables: Option<Vec<NodeIndex>> =
                    group.tables.iter().map(|name| self.node(name.get_ref())).collect();
                tables.map(|tables| InputGroup { tables, weight: group.weight })
            })
            .collect::<Option<_>>()?;
        if !role.is_job() {
            return Some(groups);
        }
        let one = |table| InputGroup { tables: vec![table], weight: 1.0 };
        Some(groups.into_iter().flat_map(|group| group.tables).map(one).collect())
    }

    fn node(&self, name: &str) -> Option<NodeIndex> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// Tables of one group that come from different sources.
    fn apart(&self, entry: &Entry<'_>, group: &InputGroup, from: &FromGroup) -> Option<Problem> {
        let source = |table: &NodeIndex| source_of(&self.nodes, *table);
        let first = group.tables.first()?;
        let other = group.tables.iter().position(|table| source(table) != source(first))?;
        let name = |table: NodeIndex| self.nodes.get(table).map_or("", |node| node.name.as_str());
        let (a, b) = (from.tables.first()?, from.tables.get(other)?);
        let (of_a, of_b) = (name(source(first)?), name(source(group.tables.get(other)?)?));
        Some(
            Problem::new(format!("`{}` reads tables that do not line up", entry.name))
                .at(b.span(), format!("has the rows of `{of_b}`"))
                .at(a.span(), format!("has the rows of `{of_a}`"))
                .help(
                    "Tables read together must come from one source. To mix data sets, write groups: \
                       from = [{ table = \"a\" }, { table = \"b\" }].",
                ),
        )
    }

    /// A column that no table of the group has, has with another type, or that two of them have.
    fn lacking(
        &self,
        entry: &Entry<'_>,
        stage: &Stage,
        from: &FromGroup,
        needed: &Column,
        columns: &[Offered],
    ) -> Option<Problem> {
        let reader = format!("`{}` ({})", entry.name, stage.kind);
        let wanted = format!("`{}` ({})", needed.name, type_name(&needed.data_type));
        let tables: Vec<String> = from.tables.iter().map(|table| format!("`{}`", table.get_ref())).collect();
        let tables = tables.join(" and ");
        let span = from
            .tables
            .first()
            .map_or(0..0, |first| first.span().start..from.tables[from.tables.len() - 1].span().end);
        let found: Vec<&Offered> =
            columns.iter().filter(|offered| offered.column.name == needed.name).collect();
        match found.as_slice() {
            [] => {
                let problem =
                    Problem::new(format!("{reader} needs the column {wanted}, which {tables} does not have"));
                Some(
                    self.at_makers(problem.at(span, "has: ".to_owned() + &list(columns)), from)
                        .help(self.where_is(entry, needed)),
                )
            }
            [one] if fits(&needed.data_type, &one.column.data_type) => None,
            [one] => {
                let gives = type_name(&one.column.data_type);
                let problem = Problem::new(format!(
                    "{reader} needs the column {wanted}, which {tables} has as {gives}"
                ));
                Some(self.at_makers(problem.at(span, format!("has: {}", list(columns))), from))
            }
            [one, two, ..] => {
                let name = |offered: &Offered| self.nodes[offered.made_by].name.clone();
                Some(
                    Problem::new(format!(
                        "{reader} needs the column {wanted}, which both `{}` and `{}` make",
                        name(one),
                        name(two)
                    ))
                    .at(span, format!("`{}` is here twice", needed.name))
                    .help(format!(
                        "Read only one of `{}` and `{}`.",
                        name(one),
                        name(two)
                    )),
                )
            }
        }
    }

    /// Marks the stages that make the tables.
    fn at_makers(&self, problem: Problem, from: &FromGroup) -> Problem {
        from.tables.iter().fold(problem, |problem, table| match self.index.get(table.get_ref().as_str()) {
            Some(&maker) => {
                let entry = self.parts[maker].entry;
                problem.at(entry.name_span.clone(), format!("`{}` is made here", entry.name))
            }
            None => problem,
        })
    }

    /// Which stages have the column that was looked for.
    fn where_is(&self, entry: &Entry<'_>, needed: &Column) -> String {
        let has = |columns: &&Vec<Offered>| {
            columns.iter().any(|offered| {
                offered.column.name == needed.name && fits(&needed.data_type, &offered.column.data_type)
            })
        };
        let tables = self.nodes.iter().zip(&self.offered).filter(|(_, columns)| has(columns));
        let names: Vec<&str> =
            tables.map(|(node, _)| node.name.as_str()).filter(|name| *name != entry.name).collect();
        if names.is_empty() {
            format!("No stage of this manifest has `{}` of that type.", needed.name)
        } else {
            format!("Tables with `{}`: {}. Name one in `from`.", needed.name, names.join(", "))
        }
    }

    /// A stage that needs `from` and has none. The advice names the tables it could read.
    fn no_from(&self, part: &Part<'_, '_>) -> Problem {
        let entry = part.entry;
        let kind = part.kind.map_or("", |kind| kind.name);
        let problem = Problem::new(format!("`{}` ({kind}) does not say what it reads", entry.name))
            .at(entry.name_span.clone(), "`from` is missing");
        let needed = match part.stage.as_ref().map(|stage| &stage.role) {
            Some(Role::Map(map)) => map.input(),
            Some(Role::Gather(gather)) => gather.input(),
            _ => Columns::new(),
        };
        let wants_table = part.kind.is_none_or(|kind| kind.role != RoleKind::Job);
        let has_all = |columns: &[Offered]| {
            needed.iter().all(|column| columns.iter().any(|offered| offered.column.name == column.name))
        };
        let fitting: Vec<&str> = self
            .nodes
            .iter()
            .zip(&self.offered)
            .filter(|(node, columns)| node.output().is_some() == wants_table && has_all(columns))
            .map(|(node, _)| node.name.as_str())
            .collect();
        match fitting.first() {
            Some(first) => {
                problem.help(format!("Add from = \"{first}\". It could read: {}.", fitting.join(", ")))
            }
            None => problem.help("Add from = \"STAGE\" with the stage it reads."),
        }
    }
}

fn list(columns: &[Offered]) -> String {
    let all: Vec<String> = columns
        .iter()
        .map(|offered| format!("{} {}", offered.column.name, type_name(&offered.column.data_type)))
        .collect();
    if all.is_empty() { "no columns".to_owned() } else { all.join(", ") }
}
