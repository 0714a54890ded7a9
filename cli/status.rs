//! `llavm status`: how far every stage is, and where its files are.

use crate::args::ManifestArgs;
use crate::failure::Outcome;
use crate::output::{Align, Table, print, thousands};
use llavm_pipeline::inspect::status::{StageStatus, State, Status};
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
    let text = if args.json {
        serde_json::to_string_pretty(&status).map_err(std::io::Error::from)? + "\n"
    } else {
        table(&status) + &results(&status, engine.graph())
    };
    print(&text)?;
    Ok(())
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

/// Where the results of the jobs are: the page to open, or the folder. Empty when no job is done.
pub fn results(status: &Status, graph: &Graph) -> String {
    let is_job = |name: &str| graph.nodes.iter().any(|node| node.name == name && node.stage.role.is_job());
    let jobs = status.stages.iter().filter(|stage| is_job(&stage.name));
    let places: Vec<_> = jobs.filter_map(|stage| Some((&stage.name, result(&stage.files)?))).collect();
    let width = places.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let lines = places.iter().map(|(name, place)| format!("\n{name:width$}  {}", place.display()));
    let lines: String = lines.collect();
    if lines.is_empty() { lines } else { lines + "\n" }
}

/// A page if there is one, else the folder in which all of them lie.
fn result(files: &[PathBuf]) -> Option<&Path> {
    let page = files.iter().find(|file| file.extension().is_some_and(|ending| ending == "html"));
    let folders =
        || files.iter().filter_map(|file| file.parent()).min_by_key(|folder| folder.components().count());
    page.map(PathBuf::as_path).or_else(folders)
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
