//! What happens inside, for `-v` and `LLAVM_LOG`: spans and events of `tracing` on standard error.

use super::output;
use super::visible;
use std::io;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::fmt::time::uptime;

/// Starts logging. `LLAVM_LOG` (for example `llavm_pipeline=trace`) wins over `verbose`.
pub fn to_stderr(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info,llavm=debug,llavm_pipeline=debug,llavm_stages=debug,llavm_model=debug",
        _ => "info,llavm=trace,llavm_pipeline=trace,llavm_stages=trace,llavm_model=trace",
    };
    let filter = EnvFilter::try_from_env("LLAVM_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Stderr)
        .with_ansi(false)
        .with_timer(uptime())
        // How long each span took.
        .with_span_events(FmtSpan::CLOSE)
        // Those would be written with a macro that panics when standard error is closed.
        .log_internal_errors(false)
        .init();
}

/// Standard error as [`output`] writes it; one call for each event.
struct Stderr;

impl io::Write for Stderr {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        output::note_styled(&visible(&String::from_utf8_lossy(event)));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A decoder that panics on some bytes costs a row, which is reported with the others; its stack trace is only for `-v`.
pub fn guard_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if llavm_model::untrusted::is_guarded() {
            tracing::debug!("{panic}");
        } else {
            usual(panic);
        }
    }));
}
