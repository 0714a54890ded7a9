//! Whether the tables a stage reads line up and have the columns it needs.

use super::document::Entry;
use super::from::FromGroup;
use super::problem::Problem;
use super::wiring::{Part, Wiring};
use crate::spec::columns::{Column, Columns, fits, type_name};
use crate::spec::graph::{InputGroup, NodeIndex, Offered, source_of};
use crate::spec::registry::{Role, RoleKind, Stage};

impl Wiring<'_, '_> {
    /// Tables of one group that come from different sources.
    pub(super) fn apart(&self, entry: &Entry<'_>, group: &InputGroup, from: &FromGroup) -> Option<Problem> {
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
    pub(super) fn lacking(
        &self,
        entry: &Entry<'_>,
        stage: &Stage,
        from: &FromGroup,
        needed: &Column,
        columns: &[Offered],
    ) -> Option<Problem> {
        let (first, last) = (from.tables.first()?, from.tables.last()?);
        let span = first.span().start..last.span().end;
        let needs = format!(
            "`{}` ({}) needs the column `{}` ({})",
            entry.name,
            stage.kind,
            needed.name,
            type_name(&needed.data_type)
        );
        let found: Vec<&Offered> =
            columns.iter().filter(|offered| offered.column.name == needed.name).collect();
        let maker = |offered: &Offered| self.nodes[offered.made_by].name.as_str();
        match found.as_slice() {
            [] => {
                let tables: Vec<String> =
                    from.tables.iter().map(|table| format!("`{}`", table.get_ref())).collect();
                let have = if tables.len() == 1 { "does not have" } else { "do not have" };
                let problem = Problem::new(format!("{needs}, which {} {have}", tables.join(" and ")))
                    .at(span, format!("has: {}", list(columns)));
                let makers = from.tables.iter().map(|table| table.get_ref().as_str());
                Some(self.at_makers(problem, makers).help(self.where_is(entry, needed)))
            }
            [one] if fits(&needed.data_type, &one.column.data_type) => None,
            [one] => {
                let gives = type_name(&one.column.data_type);
                let problem = Problem::new(format!("{needs}, which `{}` makes as {gives}", maker(one)))
                    .at(span, format!("has: {}", list(columns)));
                Some(self.at_makers(problem, [maker(one)]).help(self.where_is(entry, needed)))
            }
            [one, two, ..] => {
                let (one, two) = (maker(one), maker(two));
                let problem = Problem::new(format!("{needs}, which both `{one}` and `{two}` make"))
                    .at(span, format!("`{}` is here twice", needed.name));
                Some(
                    self.at_makers(problem, [one, two])
                        .help(format!("Read only one of `{one}` and `{two}`.")),
                )
            }
        }
    }

    /// Marks the stages that make the columns.
    fn at_makers<'n>(&self, problem: Problem, makers: impl IntoIterator<Item = &'n str>) -> Problem {
        makers.into_iter().fold(problem, |problem, name| match self.index.get(name) {
            Some(&maker) => {
                problem.at(self.parts[maker].entry.name_span.clone(), format!("`{name}` is made here"))
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
    pub(super) fn no_from(&self, part: &Part<'_, '_>) -> Problem {
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
