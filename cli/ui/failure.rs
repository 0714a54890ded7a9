//! How a command ends: well, or with a [`Failure`] that knows its exit status and is drawn on standard error.

use super::output::{note, note_styled};
use super::visible;
use super::visible::visible_in_place;
use llavm_model::folder::FolderError;
use llavm_pipeline::{ManifestError, RunError, StageError};
use miette::{
    Diagnostic, LabeledSpan, MietteDiagnostic, MietteHandler, MietteHandlerOpts, NamedSource, ReportHandler,
    SourceCode,
};
use std::fmt;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

/// Exit status of a run that failed.
const FAILED: u8 = 1;
/// Exit status of a wrong command line or manifest: nothing was run.
const WRONG: u8 = 2;
/// Exit status of tasks that have to be tried again later (`EX_TEMPFAIL` of sysexits).
const AGAIN: u8 = 75;
/// Exit status of a run that Ctrl-C ended: 128 + SIGINT, as shells have it.
pub const INTERRUPTED: u8 = 130;

/// Width of messages that do not go to a terminal.
const WIDTH: usize = 100;

/// What a command returns.
pub type Outcome = Result<(), Failure>;

/// Why a command did not do what it was asked.
pub struct Failure {
    status: u8,
    /// Drawn one after the other.
    diagnostics: Vec<Box<dyn Diagnostic + Send + Sync>>,
    /// The last line.
    end: Option<String>,
}

impl Failure {
    /// The command line asks for something that is not there. Nothing was run.
    pub fn wrong(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::one(WRONG, message.into(), Some(help.into()))
    }

    /// The work could not be done.
    pub fn failed(message: impl Into<String>, help: Option<String>) -> Self {
        Self::one(FAILED, message.into(), help)
    }

    /// The work could not be done now; trying again later may help.
    pub fn again(message: impl Into<String>, help: &str) -> Self {
        Self::one(AGAIN, message.into(), (!help.is_empty()).then(|| help.to_owned()))
    }

    /// Ctrl-C before anything was begun.
    pub fn interrupted() -> Self {
        Self::one(INTERRUPTED, "interrupted".to_owned(), None)
    }

    fn one(status: u8, message: String, help: Option<String>) -> Self {
        let mut diagnostic = MietteDiagnostic::new(message);
        diagnostic.help = help;
        Self { status, diagnostics: vec![Box::new(diagnostic)], end: None }
    }

    /// Draws the failure on standard error; the exit status it stands for.
    pub fn report(&self) -> ExitCode {
        let handler = handler();
        let drawn = |diagnostic: &(dyn Diagnostic + Send + Sync)| {
            Drawn(&handler, &Visible::new(diagnostic)).to_string()
        };
        let drawn = self.diagnostics.iter().map(|diagnostic| drawn(diagnostic.as_ref()));
        note_styled(&drawn.collect::<Vec<_>>().join("\n"));
        if let Some(end) = &self.end {
            note(&format!("\n{end}"));
        }
        ExitCode::from(self.status)
    }
}

impl From<ManifestError> for Failure {
    fn from(error: ManifestError) -> Self {
        let end = Some(format!("{error}; nothing was run"));
        let diagnostics = error.problems().iter().map(|problem| Box::new(problem.clone()) as _).collect();
        Self { status: WRONG, diagnostics, end }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        Self::from(vec![error])
    }
}

impl From<Vec<RunError>> for Failure {
    fn from(errors: Vec<RunError>) -> Self {
        let all = |is: fn(&RunError) -> bool| errors.iter().all(is);
        let status = if all(|error| matches!(error, RunError::NoSuchStage { .. })) {
            WRONG
        } else if all(|error| matches!(error, RunError::Interrupted { .. })) {
            INTERRUPTED
        } else {
            FAILED
        };
        Self {
            status,
            diagnostics: errors.into_iter().map(|error| Box::new(error) as _).collect(),
            end: None,
        }
    }
}

impl From<StageError> for Failure {
    fn from(error: StageError) -> Self {
        Self::failed(error.to_string(), error.advice().map(str::to_owned))
    }
}

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Self {
        Self::failed(error.to_string(), None)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::failed(error.to_string(), None)
    }
}

/// Whether colours are wanted on a stream that is a terminal or not.
pub fn colours(terminal: bool) -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    terminal && !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn handler() -> MietteHandler {
    let terminal = io::stderr().is_terminal();
    // Lines break at spaces only, so that a path can be copied.
    let options = MietteHandlerOpts::new()
        .force_graphical(true)
        .color(colours(terminal))
        // Messages of the engine hold those of their causes.
        .without_cause_chain()
        .break_words(false)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    if terminal { options.build() } else { options.unicode(true).width(WIDTH).build() }
}

/// A diagnostic whose texts are fit for a terminal.
#[derive(Debug)]
struct Visible<'a> {
    inner: &'a dyn Diagnostic,
    message: String,
    source: Option<NamedSource<String>>,
}

impl<'a> Visible<'a> {
    fn new(inner: &'a dyn Diagnostic) -> Self {
        let whole =
            inner.source_code().and_then(|source| source.read_span(&(0, 0).into(), 0, usize::MAX).ok());
        let source = whole.map(|whole| {
            let text = visible_in_place(&String::from_utf8_lossy(whole.data()));
            NamedSource::new(visible(whole.name().unwrap_or_default()), text)
        });
        Self { inner, message: visible(&inner.to_string()).into_owned(), source }
    }
}

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Visible<'_> {}

impl Diagnostic for Visible<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.inner.help().map(|help| Box::new(visible(&help.to_string()).into_owned()) as _)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as _)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let shown = |mut label: LabeledSpan| {
            label.set_label(label.label().map(|text| visible(text).into_owned()));
            label
        };
        self.inner.labels().map(|labels| Box::new(labels.map(shown)) as _)
    }
}

struct Drawn<'a>(&'a MietteHandler, &'a dyn Diagnostic);

impl fmt::Display for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug(self.1, f)
    }
}
