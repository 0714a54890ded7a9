//! Whether the columns that a gather stage copies are made by something its rows went through.

use super::document::Entry;
use super::nearest::did_you_mean;
use super::params::param_span;
use super::problem::Problem;
use super::wiring::Wiring;
use crate::spec::columns::{Column, fits, type_name};
use crate::spec::graph::{InputGroup, upstream_columns};
use crate::spec::registry::{Role, Stage};
use crate::spec::stage::Kept;

impl Wiring<'_, '_> {
    /// Columns to copy that no group has, or that groups have with different types.
    pub(super) fn not_to_keep(
        &self,
        entry: &Entry<'_>,
        stage: &Stage,
        groups: &[InputGroup],
    ) -> Vec<Problem> {
        let Role::Gather(gather) = &stage.role else { return Vec::new() };
        let groups: Vec<Vec<Column>> = groups
            .iter()
            .map(|group| {
                let offered = upstream_columns(&self.nodes, &group.tables);
                offered.into_iter().map(|offered| offered.column).collect()
            })
            .collect();
        let problem = |kept: Kept| {
            let (text, help) = wrong(&kept, &groups)?;
            let problem = Problem::new(format!("`{}` ({}) keeps {text}", entry.name, stage.kind));
            Some(problem.at(param_span(&entry.params, &entry.name_span, kept.param), "").help(help))
        };
        gather.keeps().into_iter().filter_map(problem).collect()
    }
}

/// What is wrong with a column to copy, and what to do.
fn wrong(kept: &Kept, groups: &[Vec<Column>]) -> Option<(String, String)> {
    let name = kept.name.as_str();
    let found: Vec<&Column> =
        groups.iter().filter_map(|columns| columns.iter().find(|column| column.name == name)).collect();
    let Some(first) = found.first() else {
        let text = format!("the column `{name}`, which no stage makes that its rows went through");
        return (!kept.optional).then(|| (text, there_is(name, groups)));
    };
    let other = found.iter().find(|other| !fits(&first.data_type, &other.data_type))?;
    let (a, b) = (type_name(&first.data_type), type_name(&other.data_type));
    let text = format!("the column `{name}`, which is {a} in one group and {b} in another");
    Some((text, "Leave it out, or give both groups the same type.".to_owned()))
}

/// The columns that could be kept.
fn there_is(name: &str, groups: &[Vec<Column>]) -> String {
    let mut names: Vec<&str> = groups.iter().flatten().map(|column| column.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    did_you_mean(name, "columns", names.iter().copied())
}
