//! How far every stage of a manifest is.

use crate::StageError;
use crate::engine::Look;
use crate::graph::NodeIndex;
use crate::parts::Known;
use crate::registry::Role;
use crate::store::Store;
use crate::store::files::files_below;
use crate::survey::Found;
use crate::tasks::Pass;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The content of `llavm status --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// In the order of the graph.
    pub stages: Vec<StageStatus>,
}

/// How far one stage is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageStatus {
    pub name: String,
    pub kind: String,
    pub state: State,
    /// Partitions of the table, units of a gather stage, 1 for a job.
    pub partitions: usize,
    /// How many of them are there.
    pub ready: usize,
    /// Rows of the partitions that are there.
    pub rows: u64,
    /// New rejects of this stage among them, by `kind/code`.
    pub rejected: BTreeMap<String, u64>,
    /// The stored files that are there, Arrow or job outputs.
    pub files: Vec<PathBuf>,
}

/// The state of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Every partition is there.
    Ready,
    /// Some partitions are there.
    Partial,
    /// Nothing is there.
    Missing,
    /// Computed whenever it is read; never stored.
    Derived,
}

/// Looks at every stage.
pub(crate) fn status(look: &Look<'_>) -> Result<Status, StageError> {
    let nodes = (0..look.session.graph.nodes.len()).filter(|node| look.session.node(*node).is_some());
    nodes.map(|node| stage(look, node)).collect::<Result<_, _>>().map(|stages| Status { stages })
}

fn stage(look: &Look<'_>, node: NodeIndex) -> Result<StageStatus, StageError> {
    let Look { session, tasks, found, .. } = look;
    let stage = &session.graph.nodes[node];
    let there = tasks.of(node, Pass::Main).filter_map(|id| match &found[id] {
        Found::There(tally) => Some(tally),
        _ => None,
    });
    let (mut ready, mut rows, mut rejected) = (0, 0, BTreeMap::new());
    for tally in there {
        ready += 1;
        rows += tally.rows;
        tally.rejected.iter().for_each(|(code, n)| *rejected.entry(code.clone()).or_insert(0) += n);
    }
    let partitions = session.labels(node).len();
    let is_table = matches!(stage.stage.role, Role::Source(_) | Role::Map(_));
    let state = match ready {
        _ if is_table && !session.is_stored(node) => State::Derived,
        n if n == partitions => State::Ready,
        0 => State::Missing,
        _ => State::Partial,
    };
    let files = if is_table { look.tables(node) } else { look.folder_files(node)? };
    let files = files.into_iter().map(|file| session.store.root().join(file)).collect();
    let (name, kind) = (stage.name.clone(), stage.stage.kind.to_owned());
    Ok(StageStatus { name, kind, state, partitions, ready, rows, rejected, files })
}

impl Look<'_> {
    /// The stored files of a table, relative to the store.
    fn tables(&self, node: NodeIndex) -> Vec<PathBuf> {
        let entries = self.tasks.of(node, Pass::Main).filter_map(|id| self.board.entry(id));
        entries.map(|entry| Store::table_file(self.session.name(node), &entry.digest)).collect()
    }

    /// The finished folders of a gather or job stage, relative to the store.
    pub(crate) fn folders(&self, node: NodeIndex) -> Vec<PathBuf> {
        let entries = self.tasks.of(node, Pass::Main).filter_map(|id| self.board.entry(id));
        entries.map(|entry| Store::job_folder(self.session.name(node), &entry.key)).collect()
    }

    fn folder_files(&self, node: NodeIndex) -> Result<Vec<PathBuf>, StageError> {
        let mut all = Vec::new();
        for folder in self.folders(node) {
            let files = files_below(&self.session.store.root().join(&folder))?;
            all.extend(files.into_iter().map(|file| folder.join(file)));
        }
        Ok(all)
    }
}
