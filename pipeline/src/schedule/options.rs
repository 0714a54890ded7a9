//! How a run is asked for, and how it ended.

use crate::spec::run_error::RunError;
use crate::spec::shard::Shard;
use crate::spec::summary::Summary;
use std::path::PathBuf;

/// How a run is done; nothing here changes what it makes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads that work on rows.
    pub jobs: usize,
    /// Only this stage and what it needs.
    pub until: Option<String>,
    /// Only this stage and what needs it; everything before it must be there.
    pub from: Option<String>,
    /// Stages that are made again though they are there.
    pub force: Vec<String>,
    /// Only this share of the partitions of map stages; gather stages and jobs are left to a run without it.
    pub shard: Option<Shard>,
    /// After a failure, go on with everything that does not need what failed.
    pub keep_going: bool,
}

impl Default for Options {
    fn default() -> Self {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        Self { jobs, until: None, from: None, force: Vec::new(), shard: None, keep_going: false }
    }
}

/// How a run ended: what it did, and what went wrong.
#[derive(Debug)]
pub struct Finished {
    pub summary: Summary,
    /// The folder of the run: `summary.json`, `events.jsonl`, `rejects.jsonl`.
    pub folder: PathBuf,
    /// The folders of the jobs that are done, by stage, in the order of the graph.
    pub results: Vec<(String, PathBuf)>,
    /// Partitions of its shard that need what other shards have not made yet.
    pub left: usize,
    /// Empty when everything asked for is there. With `keep_going` there may be several.
    pub errors: Vec<RunError>,
}
