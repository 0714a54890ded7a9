//! The only code that writes to the terminal.
//!
//! Standard output is what a command was asked for, and a command fails when it cannot be written; a reader that has gone away
//! (`llavm … | head`) has what it wanted. Standard error is talk beside the work: where it is closed or full, the work goes on.

use super::visible::{visible, visible_json};
use std::io::{self, ErrorKind, IsTerminal, Write};

/// Text for people. Control characters in it are made visible.
pub fn print(text: &str) -> io::Result<()> {
    write_out(&visible(text))
}

/// Text with colours of its own: whoever calls this has made the data in it visible.
pub fn print_styled(text: &str) -> io::Result<()> {
    write_out(text)
}

/// Text for programs and files, as it is; a terminal gets it as [`print`] writes it.
pub fn print_data(text: &str) -> io::Result<()> {
    if io::stdout().is_terminal() { print(text) } else { write_out(text) }
}

/// JSON, and a line break.
pub fn print_json(json: &str) -> io::Result<()> {
    write_out(&format!("{}\n", visible_json(json)))
}

/// A line on standard error.
pub fn note(line: &str) {
    write_err(&format!("{}\n", visible(line)));
}

/// Text with colours of its own on standard error, as [`print_styled`].
pub fn note_styled(text: &str) {
    write_err(text);
}

fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), format!("cannot write to standard output: {error}"))),
        Ok(()) => Ok(()),
    }
}

fn write_err(text: &str) {
    // Whoever closed standard error, or let it run full, does not want to know.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
