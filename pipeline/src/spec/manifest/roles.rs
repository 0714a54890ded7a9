//! Whether `from` names stages that are there and that go with the kind: tables for map and gather, folders for jobs.

use super::document::Entry;
use super::nearest::did_you_mean;
use super::problem::{Problem, Problems};
use super::wiring::{Part, Wiring};
use crate::spec::registry::{Kind, RoleKind};
use std::collections::BTreeMap;
use toml::Spanned;

impl Wiring<'_, '_> {
    /// Unknown stages and stages named twice.
    pub(super) fn check_names(&self, part: &Part<'_, '_>, problems: &mut Problems) {
        let mut seen: BTreeMap<&str, &Spanned<String>> = BTreeMap::new();
        for name in part.names() {
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
    pub(super) fn check_roles(&self, part: &Part<'_, '_>, problems: &mut Problems) -> bool {
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
            part.names().filter_map(|name| self.wrong_input(part.entry, kind, name)).collect();
        let fine = wrong.is_empty();
        problems.extend(wrong);
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
}
