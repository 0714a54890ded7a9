//! `llavm work`: single tasks of a manifest, planned by somebody else.

use crate::commands::args::ManifestArgs;
use crate::ui::failure::{Failure, Outcome};
use crate::ui::interrupt;
use crate::ui::output::print_json;
use llavm_pipeline::{Ended, Engine, Options, Shard, Silent, TaskSpec};
use serde_json::json;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Do single tasks of a manifest in this process
///
/// A task is a line of JSON, as --list prints them. A task that is done already is not done again, so the same file may be
/// given to any number of processes, and given again after a crash. Prints a line of JSON for every task.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  llavm work manifests/quickstart.toml --list > tasks.jsonl\n  llavm work manifests/quickstart.toml --tasks tasks.jsonl\n\nExit status: 0 all are done, 75 some have to be tried again later, 1 some failed for good."
)]
pub struct Args {
    #[command(flatten)]
    manifest: ManifestArgs,

    /// The tasks, a file with a line of JSON for each; `-` for standard input
    #[arg(long, value_name = "FILE", required_unless_present_any = ["list", "read_ahead"])]
    tasks: Option<PathBuf>,

    /// After each task, do those of map stages that it was all that was missing for
    #[arg(long, requires = "tasks")]
    follow: bool,

    /// Print the tasks that can be done now, and do nothing
    #[arg(long, conflicts_with = "tasks")]
    list: bool,

    /// Only read share I of N of the raw files, so that what is to be known of their content is remembered
    #[arg(long, value_name = "I/N", conflicts_with_all = ["tasks", "list"])]
    read_ahead: Option<Shard>,

    /// Threads that work on rows; default: one per core
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
}

pub fn run(args: &Args) -> Outcome {
    let jobs = args.jobs.unwrap_or_else(|| Options::default().jobs);
    let engine = Engine::open(args.manifest.load()?.graph, Options { jobs, ..Options::default() })?;
    if args.list {
        return list(&engine);
    }
    engine.check_shareable()?;
    let cancel = Arc::new(AtomicBool::new(false));
    interrupt::listen(&cancel)?;
    match (&args.tasks, args.read_ahead) {
        (Some(file), _) => work(&engine, &read(file)?, args.follow, &cancel),
        (None, Some(shard)) => Ok(engine.read_ahead(shard, &Silent, &cancel)?),
        (None, None) => Ok(()),
    }
}

fn list(engine: &Engine) -> Outcome {
    for task in engine.ready()? {
        let line = serde_json::to_string(&task);
        print_json(&line.map_err(|error| Failure::failed(format!("a task: {error}"), None))?)?;
    }
    Ok(())
}

/// The tasks in a file.
fn read(file: &Path) -> Result<Vec<TaskSpec>, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(file).map(|read| text = read)
    };
    let help = "Print tasks with `llavm work MANIFEST --list`.";
    read.map_err(|error| Failure::wrong(format!("{}: {error}", file.display()), help))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(n, line): (usize, &str)| {
        let wrong = |error| Failure::wrong(format!("{}, line {}: {error}", file.display(), n + 1), help);
        serde_json::from_str(line).map_err(wrong)
    };
    lines.map(parse).collect()
}

/// How many tasks ended in which way.
#[derive(Default)]
struct Counts {
    all: usize,
    again: usize,
    failed: usize,
}

fn work(engine: &Engine, tasks: &[TaskSpec], follow: bool, cancel: &AtomicBool) -> Outcome {
    let counts = Mutex::new(Counts::default());
    engine.work(tasks, follow, &Silent, cancel, &|task, ended| {
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all += 1;
        match ended {
            Ended::Done(_) => {}
            Ended::Again(_) => counts.again += 1,
            Ended::Failed(_) => counts.failed += 1,
        }
        // Whoever reads the lines may be gone; the exit status says the same.
        let _ = print_json(&line(task, ended).to_string());
    })?;
    let counts = counts.into_inner().unwrap_or_else(PoisonError::into_inner);
    let of = counts.all;
    match counts {
        Counts { failed: 0, again: 0, .. } => Ok(()),
        Counts { failed: 0, again, .. } => {
            let stopped = cancel.load(Ordering::Relaxed);
            let help = if stopped {
                ""
            } else {
                "Something they need is not there yet, or another process is at them."
            };
            Err(Failure::again(format!("{again} of {of} tasks have to be tried again"), help))
        }
        Counts { failed, .. } => Err(Failure::failed(format!("{failed} of {of} tasks failed"), None)),
    }
}

fn line(task: &TaskSpec, ended: &Ended) -> serde_json::Value {
    let mut line = json!({"stage": task.stage, "pass": task.pass, "index": task.index, "key": task.key});
    match ended {
        Ended::Done(done) => {
            line["result"] = "done".into();
            line["digest"] = done.entry.digest.as_str().into();
            line["rows"] = done.entry.rows.into();
            line["reused"] = done.reused.into();
            line["committed"] = json!(done);
        }
        Ended::Again(why) => {
            line["result"] = "again".into();
            line["why"] = (*why).into();
        }
        Ended::Failed(cause) => {
            line["result"] = "failed".into();
            line["why"] = cause.to_string().into();
            line["help"] = cause.advice().into();
        }
    }
    line
}
