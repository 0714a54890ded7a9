//! `llavm bench plan`: what the planner of `--on` keeps in memory and asks of the store, over rows of nothing but keys.

use super::keys;
use crate::ui::failure::{Failure, Outcome};
use crate::ui::output::print;
use crate::ui::table::{Align, Table};
use llavm_pipeline::rehearsal::KeysOnly;
use llavm_pipeline::units::{mebibytes, thousands};
use llavm_pipeline::{Committed, Counts, Engine, Entry, Executor, Silent, TaskError, TaskSpec, peak_rss_mib};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// The kinds of requests, in the order of the table.
const REQUESTS: [&str; 5] = ["GET", "HEAD", "LIST", "PUT", "DELETE"];

/// Time the planner of a run on a cluster: its memory, and what it asks of the store
///
/// Rows hold nothing but keys, and go through four tables, one of them with a pass in row order, to shards, as CC3M's do. Workers
/// answer at once and make nothing: all that is measured is the planner. Requests are those that a store in a bucket would get.
#[derive(clap::Args)]
pub struct Args {
    /// Rows
    #[arg(long, default_value = "1000000", value_name = "N")]
    rows: NonZeroUsize,

    /// Rows of a partition
    #[arg(long, default_value = "4096", value_name = "N")]
    partition_rows: NonZeroUsize,
}

/// What a run of the planner took.
pub struct Planned {
    pub partitions: usize,
    /// Outputs of all stages and passes.
    pub outputs: usize,
    pub seconds: f64,
    /// By kind.
    pub requests: BTreeMap<&'static str, u64>,
}

pub fn run(args: &Args) -> Outcome {
    let before = peak_rss_mib();
    let folder = tempfile::tempdir()?;
    let (engine, store) = keys::engine(args.rows.get(), args.partition_rows.get(), folder.path())?;
    let workers = Arc::new(Workers(Arc::clone(&store)));
    let engine = engine.with_executor(workers);
    let first = plan(&engine, &store)?;
    let again = plan(&engine, &store)?;
    let mut columns = vec![("", Align::Left), ("time", Align::Right)];
    columns.extend(REQUESTS.map(|kind| (kind, Align::Right)));
    let mut table = Table::new(&columns);
    for (name, planned) in [("all is made", &first), ("nothing to do", &again)] {
        let count = |kind| thousands(planned.requests.get(kind).copied().unwrap_or_default());
        let mut cells = vec![name.to_owned(), format!("{:.2} s", planned.seconds)];
        cells.extend(REQUESTS.map(count));
        table.row(cells);
    }
    let line = format!(
        "{} rows, {} partitions, {} outputs; peak memory {}, before any planning {}\n",
        thousands(args.rows.get() as u64),
        thousands(first.partitions as u64),
        thousands(first.outputs as u64),
        mebibytes(peak_rss_mib()),
        mebibytes(before),
    );
    Ok(print(&(line + &table.draw()))?)
}

/// Plans, and counts what was asked meanwhile.
pub fn plan(engine: &Engine, store: &KeysOnly) -> Result<Planned, Failure> {
    store.take_requests();
    let start = Instant::now();
    let finished = engine.run(&Silent, &AtomicBool::new(false))?;
    let seconds = start.elapsed().as_secs_f64();
    if !finished.errors.is_empty() {
        return Err(Failure::from(finished.errors));
    }
    let stages = &finished.summary.stages;
    Ok(Planned {
        partitions: stages.first().map_or(0, |stage| stage.partitions),
        outputs: store.made(),
        seconds,
        requests: store.take_requests(),
    })
}

/// Workers that have done everything at once.
pub struct Workers(pub Arc<KeysOnly>);

impl Executor for Workers {
    fn execute(&self, task: &TaskSpec) -> Result<Committed, TaskError> {
        self.0.make(&task.stage, &task.key);
        let entry = Entry { key: task.key.clone(), digest: task.key.clone(), rows: 0 };
        Ok(Committed { entry, counts: Counts::default(), reused: false })
    }

    fn batch(&self, _stage: &str, _ready: usize) -> usize {
        64
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "the numbers are exact")]

    use super::*;

    /// `docs/clusters.md` states them.
    #[test]
    fn the_planner_asks_as_often_as_the_docs_say() {
        let requests = |partitions: usize| {
            let folder = tempfile::tempdir().unwrap();
            let (engine, store) = keys::engine(partitions * 10, 10, folder.path()).ok().unwrap();
            let engine = engine.with_executor(Arc::new(Workers(Arc::clone(&store))));
            let requests = |planned: Result<Planned, Failure>| planned.ok().map(|planned| planned.requests);
            [plan(&engine, &store), plan(&engine, &store)].map(|planned| requests(planned).unwrap())
        };
        let (few, many) = (requests(4), requests(14));
        let each = |n: usize, kind| (many[n][kind] - few[n][kind]) as f64 / 10.0;
        assert_eq!([each(0, "GET"), each(0, "HEAD"), each(1, "GET"), each(1, "HEAD")], [6.0, 4.0, 4.0, 4.0]);
    }
}
