//! The parameters of one stage, from TOML to its struct, with every mistake reported and not only the first.
//!
//! Serde stops at its first error. So a value it does not take is reported and taken out, a key it misses is reported and given a
//! stand-in, and it is asked again, until it is content. Nothing built that way is used.

use super::document::Entry;
use super::nearest::{did_you_mean, nearest};
use super::problem::{Problem, Problems};
use super::serde_text::{Explained, translate};
use crate::spec::registry::{Kind, Stage};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

/// Values tried for a missing key, until one is of its type.
const STAND_INS: [&str; 7] = ["\"\"", "1", "1.5", "true", "[\"\"]", "[]", "{}"];

/// Builds the stage of `entry`, or reports all that is wrong with its parameters. A stage is also built when its only mistake
/// are unknown keys, so that what depends on it can be checked.
pub(super) fn build_stage(entry: &Entry<'_>, kind: &Kind, problems: &mut Problems) -> Option<Stage> {
    let mut repair = Repair::new(entry.params.clone(), entry.name_span.clone());
    let unknown = take_unknown(&mut repair.table, entry, kind, problems);
    let fine = entry.spoiled.is_empty();
    repair.reported.extend(entry.spoiled.iter().cloned());
    repair.reported.extend(unknown);
    loop {
        let error = match kind.build(repair.deserializer()) {
            Ok(_) if repair.touched => return None,
            Ok(stage) => return check(entry, stage, problems).filter(|_| fine),
            Err(error) => error,
        };
        match repair.step(&error) {
            Step::Again => {}
            Step::Report(span, explained) => report(entry, span, explained, problems),
            Step::Stop(reported) => {
                if let Some((span, explained)) = reported {
                    report(entry, span, explained, problems);
                }
                return None;
            }
        }
    }
}

/// Takes out keys the kind does not know, and reports them. Returns the names they were probably meant to be.
fn take_unknown(
    table: &mut DeTable<'_>,
    entry: &Entry<'_>,
    kind: &Kind,
    problems: &mut Problems,
) -> BTreeSet<String> {
    let mut meant = BTreeSet::new();
    for key in entry.params.keys().filter(|key| !kind.params.contains(&key.get_ref().as_ref())) {
        let name = key.get_ref().as_ref();
        let what = format!("parameters of `{}`", kind.name);
        problems.add(
            Problem::new(format!("`{}` ({}) has no parameter `{name}`", entry.name, kind.name))
                .at(key.span(), "unknown")
                .help(did_you_mean(name, &what, kind.params.iter().copied())),
        );
        meant.insert(nearest(name, kind.params.iter().copied()).unwrap_or(name).to_owned());
        table.remove(name);
    }
    meant
}

fn report(entry: &Entry<'_>, span: Range<usize>, explained: Explained, problems: &mut Problems) {
    let kind = entry.kind.as_ref().map_or("", |kind| kind.get_ref());
    let (text, label) = match &explained.missing {
        Some(_) => (format!("`{}` ({kind}): {}", entry.name, explained.message), explained.message.clone()),
        None => (
            format!("`{}` ({kind}): {}", entry.name, at_key(entry, &span, &explained.message)),
            String::new(),
        ),
    };
    problems.add(Problem::new(text).at(span, label).help(explained.help.unwrap_or_default()));
}

/// The message with the parameter it is about in front, when the span is that of a parameter's value.
fn at_key(entry: &Entry<'_>, span: &Range<usize>, message: &str) -> String {
    let holds =
        |value: &Spanned<DeValue<'_>>| value.span().start <= span.start && span.end <= value.span().end;
    match entry.params.iter().find(|(_, value)| holds(value)) {
        Some((key, _)) => format!("`{}`: {message}", key.get_ref()),
        None => message.to_owned(),
    }
}

/// Asks the stage itself about values that have the right type.
fn check(entry: &Entry<'_>, stage: Stage, problems: &mut Problems) -> Option<Stage> {
    let wrong = stage.role.parameters().check();
    for (param, text) in &wrong {
        let text =
            if text.contains(&format!("`{param}`")) { text.clone() } else { format!("`{param}`: {text}") };
        problems.add(
            Problem::new(format!("`{}` ({}): {text}", entry.name, stage.kind))
                .at(param_span(&entry.params, &entry.name_span, param), ""),
        );
    }
    wrong.is_empty().then_some(stage)
}

/// The place of a parameter's value, or of the stage's name when the manifest leaves it out.
pub(super) fn param_span(params: &DeTable<'_>, name_span: &Range<usize>, param: &str) -> Range<usize> {
    params.get(param).map_or_else(|| name_span.clone(), Spanned::span)
}

/// A table of parameters on its way to being accepted.
struct Repair<'i> {
    table: DeTable<'i>,
    /// Stands for the whole table in serde's errors.
    root: Range<usize>,
    /// Whether a value was taken out or made up.
    touched: bool,
    /// Keys whose absence is no news.
    reported: BTreeSet<String>,
    /// The stand-in each made-up key has now.
    made_up: BTreeMap<String, usize>,
}

/// What to do after an error of serde's.
enum Step {
    Again,
    Report(Range<usize>, Explained),
    /// Nothing more can be found out.
    Stop(Option<(Range<usize>, Explained)>),
}

impl<'i> Repair<'i> {
    fn new(table: DeTable<'i>, root: Range<usize>) -> Self {
        Self { table, root, touched: false, reported: BTreeSet::new(), made_up: BTreeMap::new() }
    }

    fn deserializer(&self) -> ValueDeserializer<'i> {
        Spanned::new(self.root.clone(), DeValue::Table(self.table.clone())).into()
    }

    fn step(&mut self, error: &toml::de::Error) -> Step {
        let explained = translate(error.message());
        let span = error.span().unwrap_or_else(|| self.root.clone());
        self.touched = true;
        if let Some(name) = self.made_up_at(&span) {
            return self.make_up(&name);
        }
        if span == self.root {
            let Some(name) = explained.missing.clone() else { return Step::Stop(Some((span, explained))) };
            let known = !self.reported.insert(name.clone());
            return match self.make_up(&name) {
                Step::Stop(_) => Step::Stop((!known).then_some((span, explained))),
                _ if known => Step::Again,
                _ => Step::Report(span, explained),
            };
        }
        match take_out(&mut self.table, &span) {
            Some(name) => {
                self.reported.insert(name);
                Step::Report(span, explained)
            }
            None => Step::Stop(Some((span, explained))),
        }
    }

    fn made_up_at(&self, span: &Range<usize>) -> Option<String> {
        let first = usize::MAX - self.made_up.len();
        (span.start >= first).then(|| self.made_up.keys().nth(usize::MAX - 1 - span.start).cloned())?
    }

    /// Gives the key `name` its next stand-in.
    fn make_up(&mut self, name: &str) -> Step {
        let next = self.made_up.get(name).map_or(0, |tried| tried + 1);
        self.made_up.insert(name.to_owned(), next);
        self.table.remove(name);
        for (index, (key, stand_in)) in self.made_up.iter().enumerate() {
            // A place that no manifest has, to know the made-up value by in an error.
            let place = usize::MAX - 1 - index..usize::MAX - 1 - index;
            let Some(value) = STAND_INS.get(*stand_in).and_then(|text| DeValue::parse(text).ok()) else {
                return Step::Stop(None);
            };
            self.table.insert(
                Spanned::new(place.clone(), key.clone().into()),
                Spanned::new(place, value.into_inner()),
            );
        }
        Step::Again
    }
}

/// Takes out the entry, however deep, whose key or value has this place. Returns the top-level key it was found under.
fn take_out(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<String> {
    let is_it = |place: Range<usize>| place == *span;
    let found = table.iter().find(|(key, value)| is_it(key.span()) || is_it(value.span()));
    if let Some(name) = found.map(|(key, _)| key.get_ref().clone().into_owned()) {
        table.remove(name.as_str());
        return Some(name);
    }
    table.iter_mut().find_map(|(key, value)| {
        take_out_within(value.get_mut(), span).then(|| key.get_ref().clone().into_owned())
    })
}

fn take_out_within(value: &mut DeValue<'_>, span: &Range<usize>) -> bool {
    match value {
        DeValue::Table(table) => take_out(table, span).is_some(),
        DeValue::Array(items) => {
            let kept: Vec<Spanned<DeValue<'_>>> =
                items.iter().filter(|item| item.span() != *span).cloned().collect();
            if kept.len() < items.len() {
                *items = kept.into_iter().collect();
                return true;
            }
            items.iter_mut().any(|item| take_out_within(item.get_mut(), span))
        }
        _ => false,
    }
}

/// A parameter as `llavm kinds` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    pub name: &'static str,
    /// The value when the manifest leaves it out, null for no value. `None` for a parameter that must be given, and for one
    /// that is no part of the key, whose default cannot be seen from here.
    pub default: Option<Value>,
    pub required: bool,
}

/// What can be known of a kind's parameters without a manifest: which must be given, and the defaults of the others.
pub fn describe(kind: &Kind) -> Vec<Parameter> {
    let mut repair = Repair::new(DeTable::new(), 0..0);
    let mut required = BTreeSet::new();
    let built = loop {
        match kind.build(repair.deserializer()) {
            Ok(stage) => break Some(stage),
            Err(error) => match repair.step(&error) {
                Step::Again => {}
                Step::Report(_, explained) => required.extend(explained.missing),
                Step::Stop(reported) => {
                    required.extend(reported.and_then(|(_, explained)| explained.missing));
                    break None;
                }
            },
        }
    };
    let default = |name: &str| built.as_ref().and_then(|stage| stage.params.get(name));
    kind.params
        .iter()
        .map(|&name| {
            let required = required.contains(name);
            Parameter { name, required, default: default(name).filter(|_| !required).cloned() }
        })
        .collect()
}
