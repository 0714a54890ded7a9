//! The key `from`: which stages a stage reads.
//!
//! | form | meaning |
//! |---|---|
//! | `from = "rows"` | one table |
//! | `from = ["labels", "pixels"]` | tables that line up row by row |
//! | `from = [{ tables = ["a", "b"], weight = 2 }, { table = "c" }]` | groups of tables, to be mixed |
//!
//! The parameters of a job can name further stages ([`crate::spec::stage::StageKind::LINKS`]).

use super::problem::{Problem, Problems};
use super::serde_text::typed;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

const FORMS: &str = "Write from = \"rows\", or from = [\"labels\", \"pixels\"] for tables that line up, or \
                     from = [{ tables = [\"labels\", \"pixels\"], weight = 2 }, { table = \"c\" }] to mix.";

/// The key `from` of one stage.
pub(super) struct FromKey {
    pub(super) span: Range<usize>,
    pub(super) groups: Vec<FromGroup>,
    /// Whether it is written as a list of tables `{ table = … }`.
    pub(super) mixes: bool,
}

/// Tables that line up.
pub(super) struct FromGroup {
    pub(super) tables: Vec<Spanned<String>>,
    pub(super) weight: f64,
}

impl FromKey {
    /// All names, group after group.
    pub(super) fn names(&self) -> impl Iterator<Item = &Spanned<String>> {
        self.groups.iter().flat_map(|group| &group.tables)
    }
}

/// Reads one of the three forms; `None`, and a problem reported, when it is none of them.
pub(super) fn read_from(
    value: &Spanned<DeValue<'_>>,
    stage: &str,
    problems: &mut Problems,
) -> Option<FromKey> {
    let mixes = matches!(value.get_ref(), DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()));
    let groups = match value.get_ref() {
        DeValue::String(_) => name(value).map(|table| vec![FromGroup { tables: vec![table], weight: 1.0 }]),
        DeValue::Array(items) if items.is_empty() => None,
        DeValue::Array(items) if mixes => items.iter().map(|item| group(item, problems)).collect(),
        DeValue::Array(_) => names(value).map(|tables| vec![FromGroup { tables, weight: 1.0 }]),
        _ => None,
    };
    if groups.is_none() {
        problems.add(
            Problem::new(format!("the `from` of `{stage}` names no stages"))
                .at(value.span(), "neither a stage, a list of stages nor a list of groups")
                .help(FORMS),
        );
    }
    Some(FromKey { span: value.span(), groups: groups?, mixes })
}

/// The stages that the parameters `links` name, each a name or a list of names. A text with a slash or a colon is a path or an
/// address, and no stage's name. Other values are reported by whoever reads the parameter.
pub(super) fn links(params: &DeTable<'_>, links: &[&str]) -> Vec<Spanned<String>> {
    let values = links.iter().filter_map(|link| params.get(*link));
    values
        .flat_map(|value| name(value).map(|name| vec![name]).or_else(|| names(value)).unwrap_or_default())
        .filter(|name| !name.get_ref().contains(['/', ':']))
        .collect()
}

fn name(value: &Spanned<DeValue<'_>>) -> Option<Spanned<String>> {
    value.get_ref().as_str().map(|text| Spanned::new(value.span(), text.to_owned()))
}

fn names(value: &Spanned<DeValue<'_>>) -> Option<Vec<Spanned<String>>> {
    let items = value.get_ref().as_array()?;
    (!items.is_empty()).then(|| items.iter().map(name).collect())?
}

/// `{ table = "a" }` or `{ tables = ["a", "b"] }`, each with `weight` (1).
fn group(value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<FromGroup> {
    let table = value.get_ref().as_table()?;
    let known = table.keys().all(|key| matches!(key.get_ref().as_ref(), "table" | "tables" | "weight"));
    let tables = match (table.get("table"), table.get("tables")) {
        (Some(one), None) => vec![name(one)?],
        (None, Some(many)) => names(many)?,
        _ => return None,
    };
    known.then(|| FromGroup { tables, weight: weight(table, problems) })
}

fn weight(table: &DeTable<'_>, problems: &mut Problems) -> f64 {
    let Some(value) = table.get("weight") else { return 1.0 };
    let Some(weight) = typed::<f64>(value.clone(), "weight", problems) else { return 1.0 };
    if weight.is_finite() && weight > 0.0 {
        return weight;
    }
    problems.add(
        Problem::new(format!("`weight`: {weight} is not above 0"))
            .at(value.span(), "")
            .help("Weights are relative: 2 takes rows of this group twice as often as 1."),
    );
    1.0
}
