//! How a command ends: well, or with a [`Failure`] that knows its exit status and is drawn on standard error.

use llavm_pipeline::{ManifestError, RunError, StageError};
use miette::{Diagnostic, MietteDiagnostic, MietteHandler, MietteHandlerOpts, ReportHandler};
use std::fmt;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

/// Exit status of a run that failed.
const FAILED: u8 = 1;
/// Exit status of a wrong command line or manifest: nothing was run.
const WRONG: u8 = 2;

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

    fn one(status: u8, message: String, help: Option<String>) -> Self {
        let mut diagnostic = MietteDiagnostic::new(message);
        diagnostic.help = help;
        Self { status, diagnostics: vec![Box::new(diagnostic)], end: None }
    }

    /// Draws the failure on standard error; the exit status it stands for.
    pub fn tell(&self) -> ExitCode {
        let handler = handler();
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            eprint!("{gap}{}", Drawn(&handler, diagnostic.as_ref()));
        }
        if let Some(end) = &self.end {
            eprintln!("\n{end}");
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
        let wrong = errors.iter().all(|error| matches!(error, RunError::NoSuchStage { .. }));
        let diagnostics = errors.into_iter().map(|error| Box::new(error) as _).collect();
        Self { status: if wrong { WRONG } else { FAILED }, diagnostics, end: None }
    }
}

impl From<StageError> for Failure {
    fn from(error: StageError) -> Self {
        Self::failed(error.to_string(), error.advice().map(str::to_owned))
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

struct Drawn<'a>(&'a MietteHandler, &'a dyn Diagnostic);

impl fmt::Display for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug(self.1, f)
    }
}
