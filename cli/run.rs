//! `llavm run`: bring every stage of a manifest up to date.

use crate::args::{ManifestArgs, selected, stage};
use crate::failure::{Failure, Outcome, colours};
use crate::output::{Align, Table, bytes, print, thousands};
use crate::progress::Progress;
use crate::{interrupt, report, status};
use llavm_pipeline::inspect::estimate::StageEstimate;
use llavm_pipeline::stage::Estimate;
use llavm_pipeline::{Engine, Finished, Graph, Options, Summary};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Bring every stage up to date; what is there already is not made again
///
/// Results are kept in the manifest's store under a key made from contents. Interrupt it whenever you like: what is finished is
/// kept, and the next run goes on from there.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  llavm run manifests/quickstart.toml\n  llavm run manifests/cc3m-tokens.toml --set raw=/data/cc3m --until tokens\n\nExit status: 0 done, 1 the run failed, 2 the command line or the manifest is wrong."
)]
pub struct Args {
    #[command(flatten)]
    manifest: ManifestArgs,

    /// Only this stage and what it needs
    #[arg(long, value_name = "STAGE")]
    until: Option<String>,

    /// Only this stage and what needs it; everything before it must be there
    #[arg(long, value_name = "STAGE")]
    from: Option<String>,

    /// Make this stage again though it is there; may be repeated
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,

    /// Say what would run and why, and what it takes (disk, memory, steps); run nothing
    #[arg(long)]
    dry_run: bool,

    /// Threads that work on rows [default: one for each core]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,

    /// After a failure, go on with everything that does not need what failed
    #[arg(long)]
    keep_going: bool,

    /// Write what was done, in numbers, to this JSON file
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
}

pub fn run(args: &Args, verbose: bool) -> Outcome {
    let manifest = args.manifest.load()?;
    let options = args.options(&manifest.graph)?;
    let nodes = selected(&manifest.graph, options.until.as_deref(), options.from.as_deref())?;
    manifest.check_files(&nodes)?;
    let engine = Engine::open(manifest.graph, options)?;
    if args.dry_run { dry_run(&engine) } else { args.run(&engine, verbose) }
}

fn dry_run(engine: &Engine) -> Outcome {
    let plan = engine.plan()?;
    let end = if plan.is_empty() { "\nnothing to do\n" } else { "\nnothing was run (--dry-run)\n" };
    print(&format!("{plan}{}{end}", estimates(&engine.estimate()?)))?;
    Ok(())
}

/// What all of it takes, whatever is there already; nothing when no stage says.
fn estimates(stages: &[StageEstimate]) -> String {
    let columns = [
        ("about", Align::Left),
        ("rows", Align::Right),
        ("disk", Align::Right),
        ("memory", Align::Right),
        ("steps", Align::Right),
    ];
    let mut table = Table::new(&columns);
    let mut total = 0;
    for StageEstimate { name, rows, estimate, .. } in stages {
        let Some(Estimate { disk, memory, steps, .. }) = estimate else { continue };
        total += disk;
        table.row(vec![
            name.clone(),
            thousands(*rows),
            if *disk > 0 { bytes(*disk) } else { String::new() },
            memory.map(bytes).unwrap_or_default(),
            steps.map(thousands).unwrap_or_default(),
        ]);
    }
    if stages.iter().all(|stage| stage.estimate.is_none()) {
        return String::new();
    }
    table.row(vec!["in all".to_owned(), String::new(), bytes(total)]);
    format!("\n{}", table.draw())
}

impl Args {
    fn options(&self, graph: &Graph) -> Result<Options, Failure> {
        for name in self.until.iter().chain(&self.from).chain(&self.force) {
            stage(graph, name)?;
        }
        let defaults = Options::default();
        Ok(Options {
            jobs: self.jobs.map_or(defaults.jobs, usize::from),
            until: self.until.clone(),
            from: self.from.clone(),
            force: self.force.clone(),
            keep_going: self.keep_going,
        })
    }

    fn run(&self, engine: &Engine, verbose: bool) -> Outcome {
        let cancel = Arc::new(AtomicBool::new(false));
        interrupt::listen(&cancel)?;
        // Bars and log lines on one terminal overwrite each other.
        let progress = Progress::new(engine.graph(), colours(std::io::stderr().is_terminal()) && !verbose);
        let finished = engine.run(&progress, &cancel);
        progress.end();
        let Finished { summary, folder, errors } = finished?;
        if let Some(file) = &self.summary {
            write_summary(&summary, file)?;
        }
        let idle = errors.is_empty() && summary.stages.iter().all(|stage| stage.ran == 0);
        let end = if idle { report::nothing_to_do(&summary) } else { report::render(&summary, &folder) };
        if !errors.is_empty() {
            print(&end)?;
            return Err(Failure::from(errors));
        }
        Ok(print(&(end + &status::results(&engine.status()?, engine.graph())))?)
    }
}

fn write_summary(summary: &Summary, file: &Path) -> Outcome {
    let text = serde_json::to_string_pretty(summary).map_err(std::io::Error::from)? + "\n";
    std::fs::write(file, text).map_err(|error| {
        Failure::failed(format!("cannot write the summary to {}: {error}", file.display()), None)
    })
}
