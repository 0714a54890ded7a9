//! The `llavm` program: `commands/` has one file per command, `ui/` what all of them show, `ray/` the executor on a Ray
//! cluster.

mod commands;
mod memory;
mod ray;
mod ui;

use mimalloc::MiMalloc;
use std::process::ExitCode;

/// Batches of pixels are megabytes that come and go; this allocator hands the same pages out again.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = commands::Cli::read();
    ui::log::to_stderr(cli.verbose);
    ui::log::guard_panics();
    if cli.computes() {
        memory::keep_freed_pages();
    }
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
