//! What is wrong with a manifest: one [`Problem`] per mistake, all of them together in a [`ManifestError`].

use miette::{
    Diagnostic, LabeledSpan, MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents,
};
use std::ops::Range;
use std::sync::Arc;
use thiserror::Error;

/// The text a problem points into: the manifest, or an argument of the command line.
#[derive(Clone, Debug)]
pub(super) struct Source {
    name: String,
    text: Arc<str>,
}

impl Source {
    pub(super) fn new(name: impl Into<String>, text: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), text: text.into() }
    }
}

impl SourceCode for Source {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let contents = self.text.read_span(span, before, after)?;
        // miette 7.6 counts the lines from the start of the text here, and so takes any two places for neighbours and draws
        // everything between them.
        let lines = contents.data().split(|&byte| byte == b'\n').count() - 1;
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            contents.data(),
            *contents.span(),
            contents.line(),
            contents.column(),
            lines,
        )))
    }
}

/// One mistake: what, where in the file, and what to do.
#[derive(Clone, Debug, Error, Diagnostic)]
#[error("{message}")]
pub struct Problem {
    message: String,
    #[source_code]
    source_code: Option<Source>,
    #[label(collection)]
    labels: Vec<LabeledSpan>,
    #[help]
    help: Option<String>,
}

impl Problem {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source_code: None, labels: Vec::new(), help: None }
    }

    /// Marks a place; the first one marked is where the problem is said to be.
    pub(super) fn at(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        let label = Some(label.into()).filter(|text| !text.is_empty());
        self.labels.push(if self.labels.is_empty() {
            LabeledSpan::new_primary_with_span(label, span)
        } else {
            LabeledSpan::new_with_span(label, span)
        });
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into()).filter(|text| !text.is_empty());
        self
    }

    /// Points into another text than the manifest.
    pub(super) fn in_text(mut self, source: Source) -> Self {
        self.source_code = Some(source);
        self
    }

    /// What is wrong, in one line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do.
    pub fn advice(&self) -> Option<&str> {
        self.help.as_deref()
    }

    fn offset(&self) -> usize {
        self.labels.first().map_or(0, LabeledSpan::offset)
    }
}

/// Every problem of a manifest, in the order of the file.
#[derive(Debug, Error, Diagnostic)]
#[error("{path}: {}", count(problems.len()))]
pub struct ManifestError {
    path: String,
    #[related]
    problems: Vec<Problem>,
}

impl ManifestError {
    /// The error of a manifest that cannot even be read.
    pub(super) fn only(source: &Source, problem: Problem) -> Self {
        Self::sorted(source, vec![problem])
    }

    /// In the order of the file, those of the command line first.
    fn sorted(source: &Source, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.source_code.is_none(), problem.offset()));
        for problem in &mut problems {
            if problem.source_code.is_none() && !problem.labels.is_empty() {
                problem.source_code = Some(source.clone());
            }
        }
        Self { path: source.name.clone(), problems }
    }

    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

fn count(problems: usize) -> String {
    if problems == 1 { "1 problem".to_owned() } else { format!("{problems} problems") }
}

/// Collects problems, so that all are reported at once.
pub(super) struct Problems {
    source: Source,
    list: Vec<Problem>,
}

impl Problems {
    pub(super) fn new(source: Source) -> Self {
        Self { source, list: Vec::new() }
    }

    pub(super) fn add(&mut self, problem: Problem) {
        self.list.push(problem);
    }

    pub(super) fn extend(&mut self, problems: Vec<Problem>) {
        self.list.extend(problems);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// An error if there is any problem.
    pub(super) fn finish(self) -> Result<(), ManifestError> {
        if self.list.is_empty() { Ok(()) } else { Err(ManifestError::sorted(&self.source, self.list)) }
    }
}
