//! The `llavm` program: one file per command, each with its arguments and a function that runs it.

mod args;
mod bench;
mod chat;
mod compare;
mod completions;
mod data_report;
mod doctor;
mod explain;
mod failure;
mod fetch;
mod gc;
mod generate;
mod graph;
mod interrupt;
mod kinds;
mod model;
mod output;
mod peek;
mod progress;
mod report;
mod run;
mod status;
mod transfers;
mod validate;
mod verify;

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;
use std::process::ExitCode;

/// Batches of pixels are megabytes that come and go; this allocator hands the same pages out again.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// From an image-text data set to token shards, pixels and a trained vision-language model.
///
/// A manifest (a TOML file) names stages; `llavm run` brings all of them up to date and never does the same work twice.
#[derive(Parser)]
#[command(
    name = "llavm",
    version,
    arg_required_else_help = true,
    after_help = "Start with: llavm run manifests/quickstart.toml\n\nExit status: 0 done, 1 a run failed, 2 the command line or the manifest is wrong."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Say what happens inside, on standard error (-vv for more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    Validate(validate::Args),
    Status(status::Args),
    Explain(explain::Args),
    Graph(graph::Args),
    Peek(peek::Args),
    DataReport(data_report::Args),
    Verify(verify::Args),
    Gc(gc::Args),
    Kinds(kinds::Args),
    Fetch(fetch::Args),
    Doctor(doctor::Args),
    Generate(generate::Args),
    Chat(chat::Args),
    Report(compare::Args),
    Bench(bench::Args),
    Completions(completions::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(cli.verbose);
    log_guarded_panics();
    let outcome = match &cli.command {
        Command::Run(args) => run::run(args, cli.verbose > 0),
        Command::Validate(args) => validate::run(args),
        Command::Status(args) => status::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Graph(args) => graph::run(args),
        Command::Peek(args) => peek::run(args),
        Command::DataReport(args) => data_report::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Gc(args) => gc::run(args),
        Command::Kinds(args) => kinds::run(args),
        Command::Fetch(args) => fetch::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Generate(args) => generate::run(args),
        Command::Chat(args) => chat::run(args),
        Command::Report(args) => compare::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Completions(args) => completions::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

/// A decoder that gives up on some bytes costs a row, which is told with the others; its stack trace is only for `-v`.
fn log_guarded_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if llavm_stages::foreign::is_guarded() {
            tracing::debug!("{panic}");
        } else {
            usual(panic);
        }
    }));
}

/// `LLAVM_LOG` (for example `llavm_pipeline=trace`) wins over `--verbose`.
fn log_to_stderr(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let level = match verbose {
        0 => "warn",
        1 => "info,llavm=debug,llavm_pipeline=debug,llavm_stages=debug,llavm_model=debug",
        _ => "info,llavm=trace,llavm_pipeline=trace,llavm_stages=trace,llavm_model=trace",
    };
    let filter = EnvFilter::try_from_env("LLAVM_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(failure::colours(terminal))
        .without_time()
        .init();
}
