//! `llavm status`: how far every stage is, and where its files are.

use crate::commands::args::ManifestArgs;
use crate::ui::failure::Outcome;
use crate::ui::output::{print, print_json};
use crate::ui::table::{Align, Table};
use llavm_pipeline::status::{StageStatus, State, Status};
use llavm_pipeline::units::thousands;
use llavm_pipeline::{Engine, Graph, Options};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Show which stages are done, with rows and rejects
///
/// With --json also the stored files of every stage (Arrow IPC, which pyarrow and polars read).
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  llavm status manifests/quickstart.toml\n  llavm status manifests/quickstart.toml --json"
)]
pub struct Args {
    #[command(flatten)]
    manifest: ManifestArgs,

    /// As JSON: {"stages": [{"name", "kind", "state", "partitions", "ready", "rows", "rejected", "files"}]}
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Outcome {
    let engine = Engine::open(args.manifest.load()?.graph, Options::default())?;
    let status = engine.status()?;
    if args.json {
        return Ok(print_json(&serde_json::to_string_pretty(&status).map_err(std::io::Error::from)?)?);
    }
    Ok(print(&(table(&status) + &results(&done(&status, engine.graph()))))?)
}

fn table(status: &Status) -> String {
    let left = ["stage", "kind", "state"].map(|name| (name, Align::Left));
    let right = ["partitions", "rows", "rejected"].map(|name| (name, Align::Right));
    let mut table = Table::new(&[left, right].concat());
    for stage in &status.stages {
        let partitions = match stage.state {
            State::Partial => format!("{} of {}", stage.ready, stage.partitions),
            _ => thousands(stage.partitions as u64),
        };
        table.row(vec![
            stage.name.clone(),
            stage.kind.clone(),
            state(stage.state).to_owned(),
            partitions,
            counted(stage, stage.rows),
            counted(stage, stage.rejected.values().sum()),
        ]);
    }
    let mut out = table.draw();
    for stage in &status.stages {
        for (reason, count) in &stage.rejected {
            let _ = write!(out, "\n{}: {} rejected, {reason}", stage.name, thousands(*count));
        }
    }
    if out.ends_with('\n') { out } else { out + "\n" }
}

/// Where the results of the jobs are, by stage: the page to open, or the folder. Empty when no job is done.
pub fn results(done: &[(String, PathBuf)]) -> String {
    let width = done.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let lines = done.iter().map(|(name, folder)| {
        let place = page(folder).unwrap_or_else(|| folder.clone());
        format!("\n{name:width$}  {}", place.display())
    });
    let lines: String = lines.collect();
    if lines.is_empty() { lines } else { lines + "\n" }
}

/// The page of a folder, if it has one.
fn page(folder: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    files.filter(|file| file.extension().is_some_and(|ending| ending == "html")).min()
}

/// The folders of the jobs that are done.
fn done(status: &Status, graph: &Graph) -> Vec<(String, PathBuf)> {
    let is_job = |name: &str| graph.nodes.iter().any(|node| node.name == name && node.stage.role.is_job());
    let jobs = status.stages.iter().filter(|stage| is_job(&stage.name));
    jobs.filter_map(|stage| Some((stage.name.clone(), folder(&stage.files)?.to_owned()))).collect()
}

/// The folder in which all of the files lie.
fn folder(files: &[PathBuf]) -> Option<&Path> {
    files.iter().filter_map(|file| file.parent()).min_by_key(|folder| folder.components().count())
}

/// Rows of a derived table that nobody has read are not known.
fn counted(stage: &StageStatus, count: u64) -> String {
    if stage.state == State::Derived && stage.rows == 0 { "-".to_owned() } else { thousands(count) }
}

fn state(state: State) -> &'static str {
    match state {
        State::Ready => "ready",
        State::Partial => "partial",
        State::Missing => "missing",
        State::Derived => "derived (never stored)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;

    #[test]
    fn a_table_of_stages() {
        let stage = |name: &str, state, ready| StageStatus {
            name: name.to_owned(),
            kind: "tokenize".to_owned(),
            state,
            partitions: 146,
            ready,
            rows: 595_375,
            rejected: if ready == 3 { [("tokenize/too-long".to_owned(), 12)].into() } else { [].into() },
            files: Vec::new(),
        };
        let status = Status {
            stages: vec![
                stage("rows", State::Derived, 146),
                stage("tokens", State::Partial, 3),
                stage("shards", State::Missing, 0),
            ],
        };
        assert_snapshot!(table(&status), @r"
        stage   kind      state                   partitions     rows  rejected
        rows    tokenize  derived (never stored)         146  595,375         0
        tokens  tokenize  partial                   3 of 146  595,375        12
        shards  tokenize  missing                        146  595,375         0

        tokens: 12 rejected, tokenize/too-long
        ");
    }
}
