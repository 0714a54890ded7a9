//! `[vars]`, `${name}`, `${env:NAME}` and `--set`.
//!
//! In: the values of a parsed manifest and the `K=V` of the command line. Out: the same values without any `${…}`.
//!
//! A string that is nothing but one `${name}` becomes the variable's value with its type (`size = "${size}"` is a number when
//! the variable is one); inside a longer string the value is written out. `$${` stands for a plain `${`. A value given with
//! `--set` is taken as it is.

use super::nearest::did_you_mean;
use super::problem::{Problem, Problems, Source};
use super::references::{Piece, pieces};
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Longest string that references may grow to.
const MAX_EXPANDED: usize = 1 << 20;

/// Bytes that all references of a manifest may put in their places together, so that variables that double each other, as
/// strings or as lists, end in an error and not in a full memory.
const MAX_REFERENCED: usize = 16 << 20;

/// Longest chain of variables that need each other.
const MAX_DEPTH: usize = 64;

/// Looks up a variable of the environment.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The variables of one manifest.
pub(super) struct Vars<'i> {
    text: &'i str,
    environment: Environment<'i>,
    given: BTreeMap<String, Spanned<DeValue<'i>>>,
    /// `None` for a variable that cannot be expanded; the reason was reported.
    expanded: BTreeMap<String, Option<DeValue<'i>>>,
    /// The variables being expanded, for cycles.
    path: Vec<String>,
    /// Bytes that references have put in their places.
    referenced: usize,
}

impl<'i> Vars<'i> {
    /// `text` is the manifest, to mark a reference within a string.
    pub(super) fn new(
        text: &'i str,
        table: DeTable<'i>,
        environment: Environment<'i>,
        problems: &mut Problems,
    ) -> Self {
        let (mut given, mut expanded) = (BTreeMap::new(), BTreeMap::new());
        for (key, value) in table {
            if value.get_ref().is_table() {
                problems.add(
                    Problem::new(format!("the variable `{}` is a table", key.get_ref()))
                        .at(key.span(), "a table")
                        .help("A variable is a string, a number, true or false, or a list of them."),
                );
                expanded.insert(key.get_ref().clone().into_owned(), None);
            }
            given.insert(key.into_inner().into_owned(), value);
        }
        Self { text, environment, given, expanded, path: Vec::new(), referenced: 0 }
    }

    /// Takes the `K=V` of the command line.
    pub(super) fn set(&mut self, assignments: &'i [String], problems: &mut Problems) {
        for assignment in assignments {
            if let Err(problem) = self.set_one(assignment) {
                let source = Source::new("command line", format!("--set {assignment}"));
                problems.add(problem.in_text(source));
            }
        }
    }

    fn set_one(&mut self, assignment: &'i str) -> Result<(), Problem> {
        let start = "--set ".len();
        let Some((name, value)) = assignment.split_once('=') else {
            return Err(Problem::new("`--set` wants NAME=VALUE")
                .at(start..start + assignment.len(), "no `=` here")
                .help("For example: --set raw=/data/cc3m"));
        };
        let Some(old) = self.given.get(name) else {
            return Err(Problem::new(format!("`--set` names the unknown variable `{name}`"))
                .at(start..start + name.len(), "not in [vars]")
                .help(did_you_mean(name, "variables", self.given.keys().map(String::as_str))));
        };
        let value = typed(old.get_ref(), value).map_err(|wanted| {
            let from = start + name.len() + 1;
            Problem::new(format!("the variable `{name}` is {wanted}"))
                .at(from..from + value.len(), format!("not {wanted}"))
                .help(format!("[vars] has {name} = {}.", self.text.get(old.span()).unwrap_or_default()))
        })?;
        self.expanded.insert(name.to_owned(), Some(value));
        Ok(())
    }

    /// Expands every variable, also those nobody uses, so that a mistake in one is reported.
    pub(super) fn expand_all(&mut self, problems: &mut Problems) {
        let names: Vec<String> = self.given.keys().cloned().collect();
        for name in names {
            self.expand_variable(&name, problems);
        }
    }

    /// Replaces the references in all strings of `value`. False when one cannot be replaced; the reason was reported then.
    pub(super) fn expand(&mut self, value: &mut Spanned<DeValue<'i>>, problems: &mut Problems) -> bool {
        let span = value.span();
        // No shortcut at the first failure: all that is wrong is reported.
        match value.get_mut() {
            DeValue::Array(items) => {
                let failed =
                    items.iter_mut().filter_map(|item| (!self.expand(item, problems)).then_some(())).count();
                failed == 0
            }
            DeValue::Table(table) => {
                let failed = table
                    .iter_mut()
                    .filter_map(|(_, item)| (!self.expand(item, problems)).then_some(()))
                    .count();
                failed == 0
            }
            DeValue::String(string) if string.contains("${") => {
                let string = string.clone();
                match self.string(&string, &span, problems) {
                    Some(expanded) => *value.get_mut() = expanded,
                    None => return false,
                }
                true
            }
            _ => true,
        }
    }

    fn string(&mut self, string: &str, span: &Range<usize>, problems: &mut Problems) -> Option<DeValue<'i>> {
        let Some(pieces) = pieces(string) else {
            problems.add(
                Problem::new("a `${` without its `}`")
                    .at(span.clone(), "")
                    .help("Write `${name}`, or `$${` for a plain `${`."),
            );
            return None;
        };
        if let [Piece::Reference(name)] = pieces.as_slice() {
            return self.reference(name, span, problems);
        }
        let mut out = String::new();
        let mut fine = true;
        for piece in pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Reference(name) => match self.reference(name, span, problems) {
                    Some(value) => fine &= self.write(&mut out, name, &value, span, problems),
                    None => fine = false,
                },
            }
        }
        fine.then(|| DeValue::String(out.into()))
    }

    /// Writes `value` into a string; a list has no place there.
    fn write(
        &self,
        out: &mut String,
        name: &str,
        value: &DeValue<'i>,
        span: &Range<usize>,
        problems: &mut Problems,
    ) -> bool {
        match value {
            DeValue::String(text) => out.push_str(text),
            DeValue::Integer(number) => out.push_str(&number.to_string()),
            DeValue::Float(number) => out.push_str(number.as_str()),
            DeValue::Boolean(flag) => out.push_str(if *flag { "true" } else { "false" }),
            DeValue::Datetime(time) => out.push_str(&time.to_string()),
            DeValue::Array(_) | DeValue::Table(_) => {
                let problem = Problem::new(format!("`${{{name}}}` is a list and stands inside a string"))
                    .at(self.place(name, span), "a list")
                    .help("A list can only be a whole value: files = \"${files}\".");
                problems.add(problem);
                return false;
            }
        }
        if out.len() > MAX_EXPANDED {
            problems.add(
                Problem::new("the variables in this string expand to more than 1 MiB").at(span.clone(), ""),
            );
            return false;
        }
        true
    }

    fn reference(&mut self, name: &str, span: &Range<usize>, problems: &mut Problems) -> Option<DeValue<'i>> {
        if let Some(name) = name.strip_prefix("env:") {
            return self.environment_variable(name, span, problems);
        }
        if !self.given.contains_key(name) {
            problems.add(
                Problem::new(format!("unknown variable `{name}`"))
                    .at(self.place(name, span), "not in [vars]")
                    .help(did_you_mean(name, "variables", self.given.keys().map(String::as_str))),
            );
            return None;
        }
        self.expand_variable(name, problems);
        let value = self.expanded.get(name)?.as_ref()?;
        let before = self.referenced;
        self.referenced = before.saturating_add(size(value));
        if self.referenced <= MAX_REFERENCED {
            return Some(value.clone());
        }
        if before <= MAX_REFERENCED {
            problems.add(
                Problem::new("the variables of this manifest expand to more than 16 MiB")
                    .at(span.clone(), "from here on")
                    .help("Variables that hold others several times grow with every step."),
            );
        }
        None
    }

    fn environment_variable(
        &self,
        name: &str,
        span: &Range<usize>,
        problems: &mut Problems,
    ) -> Option<DeValue<'i>> {
        let value = (self.environment)(name);
        if value.is_none() {
            problems.add(
                Problem::new(format!("the environment has no variable `{name}`"))
                    .at(self.place(&format!("env:{name}"), span), "not set, or not UTF-8")
                    .help(format!("Set it: export {name}=…")),
            );
        }
        value.map(|value| DeValue::String(value.into()))
    }

    /// Sees to it that `expanded` has an entry for `name`, except on a cycle.
    fn expand_variable(&mut self, name: &str, problems: &mut Problems) {
        if self.expanded.contains_key(name) {
            return;
        }
        if let Some(first) = self.path.iter().position(|on_path| on_path == name) {
            return self.report_cycle(first, problems);
        }
        let Some(mut value) = self.given.get(name).cloned() else { return };
        let fine = if self.path.len() < MAX_DEPTH {
            self.path.push(name.to_owned());
            let fine = self.expand(&mut value, problems);
            self.path.pop();
            fine
        } else {
            problems.add(
                Problem::new(format!("more than {MAX_DEPTH} variables that need one another"))
                    .at(value.span(), format!("`{name}` is one too many"))
                    .help("Give one of them a value of its own."),
            );
            false
        };
        self.expanded.insert(name.to_owned(), fine.then(|| value.into_inner()));
    }

    fn report_cycle(&self, first: usize, problems: &mut Problems) {
        let cycle = &self.path[first..];
        let drawn: Vec<&str> = cycle.iter().chain(cycle.first()).map(String::as_str).collect();
        let mut problem = Problem::new(format!("variables that need each other: {}", drawn.join(" -> ")));
        for name in cycle {
            let span = self.given.get(name).map_or(0..0, Spanned::span);
            problem = problem.at(span, format!("`{name}`"));
        }
        problems.add(problem.help("Give one of them a value of its own."));
    }

    /// Where `${name}` stands in the string at `span`; the whole string when escapes hide it.
    fn place(&self, name: &str, span: &Range<usize>) -> Range<usize> {
        let reference = format!("${{{name}}}");
        let found = self.text.get(span.clone()).and_then(|string| string.find(&reference));
        found.map_or(span.clone(), |at| span.start + at..span.start + at + reference.len())
    }
}

/// About how much memory a value takes.
fn size(value: &DeValue<'_>) -> usize {
    let inside = match value {
        DeValue::String(text) => text.len(),
        DeValue::Array(items) => items.iter().map(|item| size(item.get_ref())).sum(),
        DeValue::Table(table) => {
            table.iter().map(|(key, item)| key.get_ref().len() + size(item.get_ref())).sum()
        }
        _ => 0,
    };
    size_of::<DeValue<'_>>() + inside
}

/// The text of a `--set` as a value of the variable's type; otherwise the type in words.
fn typed<'i>(old: &DeValue<'i>, text: &'i str) -> Result<DeValue<'i>, &'static str> {
    let wanted = match old {
        DeValue::String(_) => return Ok(DeValue::String(text.into())),
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    let value = DeValue::parse(text).map_err(|_| wanted)?.into_inner();
    let fits = value.same_type(old) || (old.is_float() && value.is_integer());
    if fits { Ok(value) } else { Err(wanted) }
}
