//! `llavm bench engine`: many small partitions through five stages, so that what is timed is the engine.
//!
//! Every measurement is a process of its own: its peak memory is its own, and nothing is warm that would not be.

use super::Tokenizer;
use crate::commands::model::failed;
use crate::ui::failure::{Failure, Outcome};
use crate::ui::output::{note, print};
use crate::ui::table::{Align, Table};
use llavm_pipeline::units::{duration, mebibytes, thousands};
use serde_json::Value;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Partitions of the small run that the large one is compared with.
const FEW: usize = 1000;

/// Partitions in one raw file.
const FILE_PARTITIONS: usize = 1000;

/// Time the engine on many small partitions of text: a run, a run with nothing to do, status and explain
///
/// Rows are made up, and go through read, chat-template, tokenize, shift-labels and shard, once for each way to shuffle. Works in
/// a temporary folder, which needs about 60 KB a partition of 100 rows.
#[derive(clap::Args)]
pub struct Args {
    /// Partitions
    #[arg(long, default_value = "24000", value_name = "N")]
    partitions: NonZeroUsize,

    /// Rows of a partition
    #[arg(long, default_value = "100", value_name = "N")]
    rows: NonZeroUsize,

    /// Only this way to shuffle: global or partition [default: both]
    #[arg(long, value_name = "SHUFFLE", value_parser = ["global", "partition"])]
    shuffle: Option<String>,

    /// Threads that work on rows [default: one for each core]
    #[arg(long, short, value_name = "N")]
    jobs: Option<NonZeroUsize>,

    #[command(flatten)]
    tokenizer: Tokenizer,
}

/// What one size and one way to shuffle took.
struct Measured {
    partitions: usize,
    run: Run,
    again: Run,
    status: f64,
    explain: f64,
}

/// Seconds and peak memory in MiB of one run.
struct Run {
    seconds: f64,
    peak: f64,
}

pub fn run(args: &Args) -> Outcome {
    let columns = [
        ("shuffle", Align::Left),
        ("partitions", Align::Right),
        ("run", Align::Right),
        ("a partition", Align::Right),
        ("memory", Align::Right),
        ("nothing to do", Align::Right),
        ("memory", Align::Right),
        ("status", Align::Right),
        ("explain", Align::Right),
    ];
    let mut table = Table::new(&columns);
    let mut ratios = String::new();
    let large = args.partitions.get();
    for shuffle in ["global", "partition"] {
        if args.shuffle.as_ref().is_some_and(|only| only != shuffle) {
            continue;
        }
        let few = (large > FEW).then(|| args.measure(shuffle, FEW)).transpose()?;
        let many = args.measure(shuffle, large)?;
        few.iter().chain([&many]).for_each(|measured| table.row(measured.cells(shuffle)));
        if let Some(few) = few {
            let ratio = many.each() / few.each();
            let (many, few) = (thousands(large as u64), thousands(FEW as u64));
            let line =
                format!("{shuffle}: a partition of {many} takes {ratio:.2} times as long as one of {few}\n");
            ratios.push_str(&line);
        }
    }
    Ok(print(&format!("{}{ratios}", table.draw()))?)
}

impl Args {
    fn measure(&self, shuffle: &str, partitions: usize) -> Result<Measured, Failure> {
        note(&format!("{shuffle}, {} partitions", thousands(partitions as u64)));
        let folder = tempfile::tempdir()?;
        let manifest = folder.path().join("engine.toml");
        fs::write(&manifest, self.manifest(folder.path(), shuffle)?)?;
        write_rows(folder.path(), partitions, self.rows.get()).map_err(failed)?;
        let run = self.time_run(&manifest)?;
        let again = self.time_run(&manifest)?;
        let status = time(&["status".into(), manifest.clone().into()])?;
        let explain = time(&["explain".into(), manifest.clone().into(), "shards".into()])?;
        Ok(Measured { partitions, run, again, status, explain })
    }

    fn manifest(&self, folder: &Path, shuffle: &str) -> Result<String, Failure> {
        let tokenizer = self.tokenizer.name()?;
        let rows = self.rows;
        let folder = folder.display().to_string();
        Ok(format!(
            "store = {store:?}\n
             [stages.rows]\nkind = \"read\"\nfiles = {files:?}\npartition_rows = {rows}
             columns = {{ id = \"id\", prompt = \"prompt\", answer = \"answer\" }}\n
             [stages.chat]\nkind = \"chat-template\"\nfrom = \"rows\"\ntokenizer = {tokenizer:?}\n
             [stages.tokens]\nkind = \"tokenize\"\nfrom = \"chat\"\ntokenizer = {tokenizer:?}\n
             [stages.labels]\nkind = \"shift-labels\"\nfrom = \"tokens\"\n
             [stages.shards]\nkind = \"shard\"\nfrom = \"labels\"\nshuffle = {shuffle:?}\nvalidation = 0.01\n",
            store = format!("{folder}/store"),
            files = format!("{folder}/*.jsonl"),
        ))
    }

    fn time_run(&self, manifest: &Path) -> Result<Run, Failure> {
        let summary = manifest.with_extension("json");
        let mut args: Vec<OsString> =
            vec!["run".into(), manifest.into(), "--summary".into(), summary.clone().into()];
        if let Some(jobs) = self.jobs {
            args.extend(["--jobs".into(), jobs.to_string().into()]);
        }
        let seconds = time(&args)?;
        let summary: Value = serde_json::from_slice(&fs::read(&summary)?).map_err(failed)?;
        Ok(Run { seconds, peak: summary["peak_rss_mib"].as_f64().unwrap_or_default() })
    }
}

impl Measured {
    /// Seconds of a partition.
    fn each(&self) -> f64 {
        self.run.seconds / self.partitions as f64
    }

    fn cells(&self, shuffle: &str) -> Vec<String> {
        let memory = |run: &Run| mebibytes(run.peak);
        vec![
            shuffle.to_owned(),
            thousands(self.partitions as u64),
            duration(self.run.seconds),
            format!("{:.2} ms", self.each() * 1e3),
            memory(&self.run),
            format!("{:.2} s", self.again.seconds),
            memory(&self.again),
            format!("{:.2} s", self.status),
            format!("{:.2} s", self.explain),
        ]
    }
}

/// Seconds that this program takes with `args`.
fn time(args: &[OsString]) -> Result<f64, Failure> {
    let start = Instant::now();
    let program: PathBuf = std::env::current_exe()?;
    let output = Command::new(program).args(args).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(start.elapsed().as_secs_f64());
    }
    let command = args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ");
    Err(Failure::failed(format!("llavm {command}:\n{}", String::from_utf8_lossy(&output.stderr)), None))
}

/// Writes the raw files: rows of text, all different.
fn write_rows(folder: &Path, partitions: usize, rows: usize) -> std::io::Result<()> {
    for first in (0..partitions).step_by(FILE_PARTITIONS) {
        let mut file = BufWriter::new(File::create_new(folder.join(format!("{first:06}.jsonl")))?);
        let last = partitions.min(first + FILE_PARTITIONS);
        for row in first * rows..last * rows {
            writeln!(
                file,
                "{{\"id\": \"row-{row}\", \"prompt\": \"What is number {row}?\", \"answer\": \"It comes after {}.\"}}",
                row.saturating_sub(1)
            )?;
        }
        file.flush()?;
    }
    Ok(())
}
