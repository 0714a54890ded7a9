//! From TOML to entries: the top-level keys, and of each stage the keys that all stages have (`kind`, `from`, `max_rejects`).
//!
//! In: a parsed document and the variables. Out: a [`Document`] whose parameters are still TOML, without any `${…}`.

use super::from::{FromKey, read_from};
use super::nearest::did_you_mean;
use super::problem::{Problem, Problems};
use super::serde_text::typed;
use super::vars::Vars;
use crate::spec::graph::RejectBudget;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

const TOP_KEYS: [&str; 6] = ["name", "seed", "store", "vars", "stages", "max_rejects"];

/// Longest stage name: it becomes the name of a folder.
const MAX_NAME: usize = 100;

/// A manifest whose stages are not built yet.
pub(super) struct Document<'i> {
    pub(super) name: Option<String>,
    pub(super) seed: u64,
    pub(super) store: String,
    /// By name.
    pub(super) stages: Vec<Entry<'i>>,
}

/// One `[stages.NAME]`.
pub(super) struct Entry<'i> {
    pub(super) name: String,
    pub(super) name_span: Range<usize>,
    pub(super) kind: Option<Spanned<String>>,
    pub(super) from: Option<FromKey>,
    /// Whether there is a `from`, also one that could not be read.
    pub(super) has_from: bool,
    pub(super) budget: RejectBudget,
    /// The stage's own keys.
    pub(super) params: DeTable<'i>,
    /// Keys left out of `params` because they could not be expanded.
    pub(super) spoiled: BTreeSet<String>,
}

/// `max_rejects = 0.05` or `{ fraction = 0.05, consecutive = 100 }`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a fraction from 0 to 1, or a table { fraction, consecutive, files }")]
enum MaxRejects {
    Fraction(f64),
    Table(MaxRejectsTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MaxRejectsTable {
    fraction: Option<f64>,
    consecutive: Option<usize>,
    files: Option<u64>,
}

/// Reads everything that does not depend on the kind of a stage.
pub(super) fn read_document<'i>(
    mut table: DeTable<'i>,
    vars: &mut Vars<'i>,
    problems: &mut Problems,
) -> Document<'i> {
    let stages = table.remove("stages");
    for key in table.keys().filter(|key| !TOP_KEYS.contains(&key.get_ref().as_ref())) {
        problems.add(
            Problem::new(format!("unknown key `{}`", key.get_ref()))
                .at(key.span(), "unknown")
                .help(did_you_mean(key.get_ref(), "top-level keys", TOP_KEYS)),
        );
    }
    let name = top::<String>(&mut table, "name", vars, problems);
    let seed = top::<u64>(&mut table, "seed", vars, problems).unwrap_or(42);
    let store = top::<String>(&mut table, "store", vars, problems).unwrap_or_else(|| ".llavm".to_owned());
    let budget = read_budget(table.remove("max_rejects"), RejectBudget::default(), vars, problems);
    let stages = read_stages(stages, budget, vars, problems);
    Document { name, seed, store, stages }
}

fn top<'i, T: Deserialize<'i>>(
    table: &mut DeTable<'i>,
    key: &str,
    vars: &mut Vars<'i>,
    problems: &mut Problems,
) -> Option<T> {
    let mut value = table.remove(key)?;
    if vars.expand(&mut value, problems) { typed(value, key, problems) } else { None }
}

fn read_stages<'i>(
    stages: Option<Spanned<DeValue<'i>>>,
    budget: RejectBudget,
    vars: &mut Vars<'i>,
    problems: &mut Problems,
) -> Vec<Entry<'i>> {
    let span = stages.as_ref().map(Spanned::span);
    let table = match stages.map(Spanned::into_inner) {
        Some(DeValue::Table(table)) if !table.is_empty() => table,
        Some(DeValue::Table(_)) | None => {
            problems.add(
                Problem::new("the manifest has no stages")
                    .help("A stage is a table such as [stages.rows] with kind = \"read\"."),
            );
            return Vec::new();
        }
        Some(_) => {
            problems.add(Problem::new("`stages` is not a table").at(span.unwrap_or_default(), "not a table"));
            return Vec::new();
        }
    };
    let mut entries: Vec<Entry> = table
        .into_iter()
        .filter_map(|(key, value)| read_stage(&key, value, budget, vars, problems))
        .collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    report_same_but_case(&entries, problems);
    entries
}

/// A stage's name is that of a folder, and there are disks that take `Chat` and `chat` for one.
fn report_same_but_case(entries: &[Entry<'_>], problems: &mut Problems) {
    let mut seen = BTreeMap::new();
    for entry in entries {
        if let Some(other) = seen.insert(entry.name.to_ascii_lowercase(), entry) {
            problems.add(
                Problem::new(format!(
                    "`{}` and `{}` differ only in upper and lower case",
                    other.name, entry.name
                ))
                .at(entry.name_span.clone(), "")
                .at(other.name_span.clone(), "")
                .help("Some disks do not distinguish such folders. Give one of them another name."),
            );
        }
    }
}

fn read_stage<'i>(
    key: &Spanned<std::borrow::Cow<'i, str>>,
    value: Spanned<DeValue<'i>>,
    budget: RejectBudget,
    vars: &mut Vars<'i>,
    problems: &mut Problems,
) -> Option<Entry<'i>> {
    let name = key.get_ref().clone().into_owned();
    check_name(&name, key.span(), problems);
    let DeValue::Table(mut params) = value.into_inner() else {
        problems.add(
            Problem::new(format!("the stage `{name}` is not a table"))
                .at(key.span(), "not a table")
                .help(format!("Write [stages.{name}] and below it kind = \"…\".")),
        );
        return None;
    };
    let budget = read_budget(params.remove("max_rejects"), budget, vars, problems);
    let spoiled = expand_params(&mut params, vars, problems);
    let kind = read_kind(&mut params, &name, &key.span(), &spoiled, problems);
    let from = params.remove("from");
    let has_from = from.is_some() || spoiled.contains("from");
    let from = from.and_then(|value| read_from(&value, &name, problems));
    Some(Entry { name, name_span: key.span(), kind, from, has_from, budget, params, spoiled })
}

fn check_name(name: &str, span: Range<usize>, problems: &mut Problems) {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if !plain || name.is_empty() || name.len() > MAX_NAME {
        problems.add(
            Problem::new(format!("`{}` cannot name a stage", name.escape_debug())).at(span, "").help(format!(
                "A stage name has letters, digits, - and _, at most {MAX_NAME} of them; it names a folder of the store."
            )),
        );
    }
}

/// Expands all parameters and takes out those that cannot be; their names are returned.
fn expand_params<'i>(
    params: &mut DeTable<'i>,
    vars: &mut Vars<'i>,
    problems: &mut Problems,
) -> BTreeSet<String> {
    let mut spoiled = BTreeSet::new();
    for (key, value) in params.iter_mut() {
        if !vars.expand(value, problems) {
            spoiled.insert(key.get_ref().clone().into_owned());
        }
    }
    for name in &spoiled {
        params.remove(name.as_str());
    }
    spoiled
}

fn read_kind(
    params: &mut DeTable<'_>,
    stage: &str,
    name_span: &Range<usize>,
    spoiled: &BTreeSet<String>,
    problems: &mut Problems,
) -> Option<Spanned<String>> {
    let Some(value) = params.remove("kind") else {
        if !spoiled.contains("kind") {
            problems.add(
                Problem::new(format!("the stage `{stage}` has no `kind`"))
                    .at(name_span.clone(), "`kind` is missing")
                    .help("Say what it does: kind = \"read\". `llavm kinds` lists all kinds."),
            );
        }
        return None;
    };
    let span = value.span();
    typed::<String>(value, "kind", problems).map(|kind| Spanned::new(span, kind))
}

fn read_budget<'i>(
    value: Option<Spanned<DeValue<'i>>>,
    default: RejectBudget,
    vars: &mut Vars<'i>,
    problems: &mut Problems,
) -> RejectBudget {
    let Some(mut value) = value else { return default };
    let span = value.span();
    if !vars.expand(&mut value, problems) {
        return default;
    }
    let budget = match typed::<MaxRejects>(value, "max_rejects", problems) {
        None => return default,
        Some(MaxRejects::Fraction(fraction)) => RejectBudget { fraction, ..default },
        Some(MaxRejects::Table(table)) => RejectBudget {
            fraction: table.fraction.unwrap_or(default.fraction),
            consecutive: table.consecutive.unwrap_or(default.consecutive),
            files: table.files.unwrap_or(default.files),
        },
    };
    if (0.0..=1.0).contains(&budget.fraction) {
        return budget;
    }
    problems.add(
        Problem::new(format!("`max_rejects`: {} is no fraction from 0 to 1", budget.fraction))
            .at(span, "")
            .help("0.05 lets a stage reject one row in twenty; 1 lets it reject any number."),
    );
    default
}
