//! How far every stage of a manifest is.

use super::lookup::{Cached, Snapshot};
use crate::keys::builder::{Entry, Known};
use crate::keys::tasks::Pass;
use crate::spec::error::StageError;
use crate::spec::graph::NodeIndex;
use crate::spec::registry::Role;
use crate::store::Address;
use crate::store::record::{FolderRecord, read_record};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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
pub fn status(snapshot: &Snapshot<'_>) -> Result<Status, StageError> {
    let nodes = (0..snapshot.session.graph.nodes.len()).filter(|node| snapshot.session.node(*node).is_some());
    nodes.map(|node| stage(snapshot, node)).collect::<Result<_, _>>().map(|stages| Status { stages })
}

fn stage(snapshot: &Snapshot<'_>, node: NodeIndex) -> Result<StageStatus, StageError> {
    let Snapshot { session, tasks, found } = snapshot;
    let stage = &session.graph.nodes[node];
    let there = tasks.of(node, Pass::Main).filter_map(|id| match &found.cached[id] {
        Cached::There(counts) => Some(counts),
        _ => None,
    });
    let (mut ready, mut rows, mut rejected) = (0, 0, BTreeMap::new());
    for counts in there {
        ready += 1;
        rows += counts.rows;
        counts.rejected.iter().for_each(|(code, n)| *rejected.entry(code.clone()).or_insert(0) += n);
    }
    let partitions = session.labels(node).len();
    let is_table = matches!(stage.stage.role, Role::Source(_) | Role::Map(_));
    let state = match ready {
        _ if is_table && !session.is_stored(node) => State::Derived,
        n if n == partitions => State::Ready,
        0 => State::Missing,
        _ => State::Partial,
    };
    let files = match &stage.stage.role {
        Role::Source(_) | Role::Map(_) => snapshot.tables(node),
        Role::Gather(_) => snapshot.unit_files(node)?,
        Role::Job(_) => snapshot.job_files(node)?,
    };
    let (name, kind) = (stage.name.clone(), stage.stage.kind.to_owned());
    Ok(StageStatus { name, kind, state, partitions, ready, rows, rejected, files })
}

impl Snapshot<'_> {
    fn contents(&self, node: NodeIndex) -> impl Iterator<Item = Entry> + '_ {
        self.tasks.of(node, Pass::Main).filter_map(|id| self.found.entries.entry(id))
    }

    /// What people call content: in a folder that is its path.
    fn place(&self, content: &Address) -> PathBuf {
        Path::new(&self.session.store.name()).join(content.content_name())
    }

    /// The stored files of a table.
    fn tables(&self, node: NodeIndex) -> Vec<PathBuf> {
        let name = self.session.name(node);
        self.contents(node).map(|entry| self.place(&Address::table(name, &entry.digest))).collect()
    }

    /// The files of a gather stage, as its records list them.
    fn unit_files(&self, node: NodeIndex) -> Result<Vec<PathBuf>, StageError> {
        let (name, store) = (self.session.name(node), self.session.store.as_ref());
        let units: Vec<Address> =
            self.contents(node).map(|entry| Address::folder(name, &entry.key)).collect();
        let files = |unit: &Address| -> Result<Vec<PathBuf>, StageError> {
            let record = read_record::<FolderRecord>(store, unit)?;
            let folder = self.place(unit);
            Ok(record
                .into_iter()
                .flat_map(|record| record.files.into_keys())
                .map(|file| folder.join(file))
                .collect())
        };
        let found = self.session.pool.install(|| units.par_iter().map(files).collect::<Result<Vec<_>, _>>());
        Ok(found?.into_iter().flatten().collect())
    }

    /// The finished folders of a gather or job stage, in order.
    pub fn folders(&self, node: NodeIndex) -> Result<Vec<PathBuf>, StageError> {
        let name = self.session.name(node);
        let found =
            self.contents(node).map(|entry| self.session.store.content(&Address::folder(name, &entry.key)));
        Ok(found.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// The files of a job, those that may change among them.
    fn job_files(&self, node: NodeIndex) -> Result<Vec<PathBuf>, StageError> {
        let mut all = Vec::new();
        for entry in self.contents(node) {
            let content = Address::folder(self.session.name(node), &entry.key);
            let folder = self.place(&content);
            let sizes = self.session.store.sizes(&content)?.unwrap_or_default();
            all.extend(sizes.into_keys().map(|file| folder.join(file)));
        }
        Ok(all)
    }
}
