//! `llavm run`: bring every stage of a manifest up to date.

use super::{locate, status};
use crate::commands::args::{ManifestArgs, selected, stage};
use crate::ray::{On, Ray};
use crate::ui::failure::{Failure, Outcome, colours};
use crate::ui::output::{note, print};
use crate::ui::progress::Progress;
use crate::ui::table::{Align, Table};
use crate::ui::{interrupt, summary};
use llavm_pipeline::estimate::StageEstimate;
use llavm_pipeline::graph::NodeIndex;
use llavm_pipeline::stage::Estimate;
use llavm_pipeline::units::{bytes, counted, thousands};
use llavm_pipeline::{Engine, Finished, Graph, Options, Shard, Summary};
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
    after_help = "Examples:\n  llavm run manifests/quickstart.toml\n  llavm run manifests/cc3m-tokens.toml --set raw=/data/cc3m --until tokens\n\nExit status: 0 done, 1 the run failed, 2 the command line or the manifest is wrong, 130 stopped by Ctrl-C, 75 a shard\nhas to be called again once others are done. A terminal that is closed\nor full stops no run and changes no status."
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

    /// Let a Ray cluster do the work: ray, or ray:ADDRESS
    ///
    /// Every node has to see the same folder, manifest, raw files and store. --jobs is then the threads of one task. The Python that
    /// has the cluster's ray is python3, or another one: docs/clusters.md says how to name it, and more.
    #[arg(long, value_name = "WHERE", conflicts_with_all = ["shard", "dry_run"])]
    on: Option<On>,

    /// Only share I of N of the partitions, from 0/N on, for N processes on one store; a last run without it does the rest
    ///
    /// Shards do not wait for each other. Where partitions need what other shards make (stages that look for repeated rows or images),
    /// a shard ends with 75 and has to be called once more when the others are done. docs/clusters.md has examples.
    #[arg(long, value_name = "I/N", conflicts_with_all = ["force", "dry_run"])]
    shard: Option<Shard>,

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
    args.forces_only(&manifest.graph, &nodes)?;
    manifest.check_files(&nodes)?;
    let engine = Engine::open(manifest.graph, options)?;
    if args.dry_run {
        return dry_run(&engine);
    }
    let cancel = Arc::new(AtomicBool::new(false));
    interrupt::listen(&cancel)?;
    args.run(&args.on(engine, &cancel)?, &cancel, verbose)
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
            shard: self.shard,
            keep_going: self.keep_going,
        })
    }

    /// A stage that is left out cannot be made again.
    fn forces_only(&self, graph: &Graph, chosen: &[NodeIndex]) -> Outcome {
        let is_chosen = |name: &str| chosen.iter().any(|&node| graph.nodes[node].name == name);
        let Some(left_out) = self.force.iter().find(|name| !is_chosen(name)) else { return Ok(()) };
        let option =
            |name: &str, stage: &Option<String>| stage.as_ref().map(|stage| format!("--{name} {stage}"));
        let options: Vec<String> =
            [option("from", &self.from), option("until", &self.until)].into_iter().flatten().collect();
        Err(Failure::wrong(
            format!("`--force {left_out}` names a stage that `{}` leaves out", options.join(" ")),
            format!("Leave out one of the options, or choose stages that include `{left_out}`."),
        ))
    }

    /// The engine, whose tasks the cluster of `--on` does.
    fn on(&self, engine: Engine, cancel: &Arc<AtomicBool>) -> Result<Engine, Failure> {
        let Some(on) = &self.on else { return Ok(engine) };
        engine.check_shareable()?;
        let cpus = self.jobs.map(usize::from);
        let ray = Ray::start(on, engine.graph(), &self.manifest.set, cpus, cancel)?;
        ray.read_ahead(&engine)?;
        Ok(engine.with_executor(Arc::new(ray)))
    }

    fn run(&self, engine: &Engine, cancel: &AtomicBool, verbose: bool) -> Outcome {
        // Bars and log lines on one terminal overwrite each other.
        let progress = Progress::new(engine.graph(), colours(std::io::stderr().is_terminal()) && !verbose);
        let finished = engine.run(&progress, cancel);
        progress.end();
        let Finished { summary, folder, results, left, errors } = finished?;
        if let Some(file) = &self.summary {
            write_summary(&summary, file)?;
        }
        let idle =
            self.shard.is_none() && errors.is_empty() && summary.stages.iter().all(|stage| stage.ran == 0);
        let end = if idle { summary::nothing_to_do(&summary) } else { summary::render(&summary, &folder) };
        if !errors.is_empty() {
            report(&end);
            return Err(Failure::from(errors));
        }
        if let Some(shard) = self.shard {
            report(&end);
            return shard_end(shard, left);
        }
        remember(&results, engine.graph());
        report(&(end + &status::results(&results) + &self.try_it(&results, engine.graph())));
        Ok(())
    }

    /// The command that tries the last model that is there; nothing when none is.
    fn try_it(&self, results: &[(String, PathBuf)], graph: &Graph) -> String {
        let is_model =
            |name: &str| graph.nodes.iter().any(|node| node.name == name && node.stage.kind == "train");
        let Some((name, folder)) = results.iter().rfind(|(name, _)| is_model(name)) else {
            return String::new();
        };
        let manifest = graph.manifest.display();
        let place = match locate::model(&manifest.to_string()) {
            _ if !self.manifest.set.is_empty() => folder.display().to_string(),
            Ok(_) => manifest.to_string(),
            Err(_) => format!("{manifest}:{name}"),
        };
        format!("\nTalk with it: llavm chat {place} --image FILE\n")
    }
}

/// A shard that is not done because of others has to be called again.
fn shard_end(shard: Shard, left: usize) -> Outcome {
    if left == 0 {
        return Ok(());
    }
    let left = counted(left as u64, "partition");
    let text = format!("{left} of shard {shard} cannot be made yet: they need what other shards make");
    Err(Failure::again(text, "Call all shards once more, or go on without --shard."))
}

/// Leaves links to what the jobs made, by the names of manifest and stage.
fn remember(results: &[(String, PathBuf)], graph: &Graph) {
    for (name, folder) in results {
        if let Err(error) = locate::remember(graph, name, folder) {
            note(&format!("`{name}` cannot be found by name: {error}"));
        }
    }
}

/// What was done is done, whether or not anybody can read about it: the exit status of a run says nothing about its terminal.
fn report(text: &str) {
    if let Err(error) = print(text) {
        note(&format!("{error}; this changes nothing of the run"));
    }
}

fn write_summary(summary: &Summary, file: &Path) -> Outcome {
    let text = serde_json::to_string_pretty(summary).map_err(std::io::Error::from)? + "\n";
    std::fs::write(file, text).map_err(|error| {
        Failure::failed(format!("cannot write the summary to {}: {error}", file.display()), None)
    })
}
