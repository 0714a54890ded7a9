//! What a run did, stage by stage: the content of `summary.json`.

use super::rejects::Reason;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The summary of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// `name` of the manifest.
    pub manifest: String,
    pub status: RunStatus,
    /// Wall time of the whole run.
    pub seconds: f64,
    /// Largest resident set of this process so far, in MiB.
    pub peak_rss_mib: f64,
    /// In the order of the graph.
    pub stages: Vec<StageSummary>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// Everything asked for is there.
    Ok,
    /// Something failed; what could be finished is kept.
    Failed,
    /// Ctrl-C; what was finished is kept.
    Interrupted,
}

/// What one stage did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageSummary {
    pub name: String,
    pub kind: String,
    /// Partitions of the table, units of a gather stage, 1 for a job.
    pub partitions: usize,
    /// How many of them were made by this run.
    pub ran: usize,
    /// How many were found in the store.
    pub reused: usize,
    /// Rows of the partitions that are there.
    pub rows: u64,
    /// New rejects of this stage among them by `kind/code`.
    pub rejected: BTreeMap<String, u64>,
    /// The first rejects of each reason; `rejects.jsonl` of the run lists them all.
    pub reject_examples: Vec<RejectExample>,
    /// What a person should know of the rows that a source reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Wall time during which at least one of its partitions was being made.
    pub seconds: f64,
}

/// A rejected row, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectExample {
    /// The `id` column of the source.
    pub id: String,
    /// `kind/code: detail`.
    pub reason: Reason,
}
