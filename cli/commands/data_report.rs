//! `llavm data-report`: what the rows of a stage are like, as one HTML page.

use crate::commands::args::{ManifestArgs, stage};
use crate::ui::failure::{Failure, Outcome, colours};
use crate::ui::output::print;
use crate::ui::progress::rate;
use indicatif::{ProgressBar, ProgressStyle};
use llavm_pipeline::Engine;
use llavm_pipeline::units::{bytes, thousands};
use llavm_stages::data_report::{Options, render, report};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

/// Write a page about the rows of a stage: counts, lengths, image sizes, languages, repetitions, rejects, samples
///
/// The page is one file that needs nothing else. Give the stage that makes the shards to see the rejects of every stage before it.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  llavm data-report manifests/quickstart.toml shards -o report.html\n  llavm data-report manifests/cc3m-tokens.toml rows --rows 20000 -o rows.html"
)]
pub struct Args {
    #[command(flatten)]
    manifest: ManifestArgs,

    /// The stage: one that gives a table, or one that takes tables
    stage: String,

    /// The page
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,

    /// Read only the first N rows of each table [default: all]
    #[arg(long, value_name = "N")]
    rows: Option<u64>,

    /// Rows shown as samples
    #[arg(long, value_name = "N", default_value_t = 12)]
    samples: usize,
}

pub fn run(args: &Args) -> Outcome {
    let manifest = args.manifest.load()?;
    stage(&manifest.graph, &args.stage)?;
    let engine = Engine::open(manifest.graph, llavm_pipeline::Options::default())?;
    let options = Options { rows: args.rows, samples: args.samples };
    let bar = if colours(std::io::stderr().is_terminal()) { spinner() } else { ProgressBar::hidden() };
    let report = report(&engine, &args.stage, options, &|rows| bar.set_position(rows));
    bar.finish_and_clear();
    let (report, rows) = (report?, bar.position());
    let page = render(&report)?;
    std::fs::write(&args.output, &page)
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", args.output.display()), None))?;
    let (rows, size) = (thousands(rows), bytes(page.len() as u64));
    Ok(print(&format!("{rows} rows of {} in {}, {size}\n", args.stage, args.output.display()))?)
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} rows  {rate} rows/s") {
        bar.set_style(style.with_key("rate", rate));
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
