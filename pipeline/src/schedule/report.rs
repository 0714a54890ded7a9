//! What a run reports at its end: the summary of every stage, and `rejects.jsonl` with every rejected row, those of reused
//! partitions too.

use super::ids::ids;
use super::run::Run;
use super::scheduler::Status;
use crate::keys::builder::{Entry, Known as _};
use crate::keys::tasks::{Pass, TaskId};
use crate::spec::error::StageError;
use crate::spec::graph::NodeIndex;
use crate::spec::rejects::Reason;
use crate::spec::summary::{RejectExample, StageSummary};
use crate::store::digests;
use crate::store::files::{self, at};
use crate::store::record::{TableRecord, find_table};
use crate::table::counts::Counts;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::PoisonError;

/// Rejects of one reason that a summary shows.
const EXAMPLES: u64 = 3;

impl Run<'_> {
    /// Sums every stage up, and puts `rejects.jsonl` into the folder of the run. The file is kept by what it lists: a run that
    /// ends with the same rejects as an earlier one reads no row again and writes none.
    pub(super) fn stage_summaries(&self) -> Result<Vec<StageSummary>, StageError> {
        let kept = self.session.store.workdir().digests().join(self.rejects_name()?);
        if !digests::is_sealed(&kept)? {
            self.write_rejects(&kept)?;
        }
        files::link(&kept, &self.host.log.folder().join("rejects.jsonl"))?;
        let mut listed = listed(&kept)?;
        let nodes = (0..self.session.graph.nodes.len()).filter(|node| self.session.node(*node).is_some());
        let of = |node| self.stage_summary(node, listed.remove(self.session.name(node)).unwrap_or_default());
        Ok(nodes.map(of).collect())
    }

    /// Follows from the records that list rejects, and from what names their rows.
    fn rejects_name(&self) -> Result<String, StageError> {
        let mut hasher = blake3::Hasher::new();
        for (id, task) in self.tasks.all.iter().enumerate() {
            let lists = |counts: &Counts| !counts.rejected.is_empty() || !counts.derived.is_empty();
            if task.pass != Pass::Main || !self.counts_say(id, lists) {
                continue;
            }
            let Some(Entry { key, digest, .. }) = self.host.scheduler.entry(id) else { continue };
            let (stage, label) = (self.session.name(task.node), self.session.label(task.node, task.index));
            let ids = match self.session.graph.source_of(task.node) {
                Some(source) => self.session.source_digest(source, task.index, &["id".to_owned()])?,
                None => blake3::hash(b""),
            };
            let line = json!([stage, label, key, digest, ids.to_hex().as_str()]);
            hasher.update(line.to_string().as_bytes());
        }
        Ok(format!("rejects-{}.jsonl", hasher.finalize().to_hex()))
    }

    fn write_rejects(&self, target: &Path) -> Result<(), StageError> {
        let unfinished = self.session.scratch.unfinished("rejects.jsonl");
        let path = unfinished.path();
        let mut file = BufWriter::new(at(path, File::create_new(path))?);
        for node in (0..self.session.graph.nodes.len()).filter(|node| self.session.node(*node).is_some()) {
            for partition in 0..self.session.labels(node).len() {
                self.write_rejects_of(node, partition, &mut |line| at(path, writeln!(file, "{line}")))?;
            }
        }
        let written = file.into_inner().map_err(std::io::IntoInnerError::into_error);
        at(path, written.and_then(|file| file.sync_all()))?;
        digests::publish_sealed(&self.session.scratch, path, target)
    }

    fn write_rejects_of(
        &self,
        node: NodeIndex,
        partition: usize,
        write: &mut dyn FnMut(&str) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        let found = self.rejects_of(node, partition)?;
        if found.is_empty() {
            return Ok(());
        }
        let places: Vec<u64> = found.iter().map(|(row, _)| *row).collect();
        let (stage, label) = (self.session.name(node), self.session.label(node, partition));
        for ((row, reason), id) in found.into_iter().zip(ids(self.session, node, partition, &places)) {
            let line = json!({"stage": stage, "partition": label, "row": row, "id": id, "reason": reason});
            write(&line.to_string())?;
        }
        Ok(())
    }

    fn stage_summary(&self, node: NodeIndex, listed: StageRejects) -> StageSummary {
        let done = |reused| self.count_done(node, reused);
        let partitions = self.session.labels(node).len();
        StageSummary {
            name: self.session.name(node).to_owned(),
            kind: self.session.graph.nodes[node].stage.kind.to_owned(),
            partitions,
            ran: done(false),
            reused: done(true),
            rows: (0..partitions).map(|partition| self.rows_of(node, partition)).sum(),
            rejected: listed.counts,
            reject_examples: listed.examples,
            notes: self.session.notes(node).to_vec(),
            seconds: self.host.log.seconds(node),
        }
    }

    fn count_done(&self, node: NodeIndex, wanted: bool) -> usize {
        let is = |id: &TaskId| matches!(self.host.scheduler.status(*id), Status::Done { reused, .. } if reused == wanted);
        self.tasks.of(node, Pass::Main).filter(is).count()
    }

    /// Rows of a partition that is there; of a derived table, those a reader has seen.
    fn rows_of(&self, node: NodeIndex, partition: usize) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = |id: TaskId| counts.get(&id).map_or(0, |counts| counts.rows);
        match self.tasks.id(node, Pass::Main, partition) {
            Some(id) => rows(id),
            None => self.readers(node, partition).into_iter().map(|(id, _)| rows(id)).max().unwrap_or(0),
        }
    }

    /// The stored partitions for which rows of a derived table were computed, and its place among the derived ones.
    fn readers(&self, node: NodeIndex, partition: usize) -> Vec<(TaskId, usize)> {
        let graph = self.session.graph;
        let stored = (0..graph.nodes.len()).filter(|reader| self.session.is_stored(*reader));
        stored
            .filter_map(|reader| {
                let recipe = self.session.node(reader)?.recipes.first()?;
                let maker = recipe.derived(graph).iter().position(|derived| *derived == node)?;
                Some((self.tasks.id(reader, Pass::Main, partition)?, maker))
            })
            .collect()
    }

    /// Row and reason of what a stage itself rejected in a partition.
    fn rejects_of(&self, node: NodeIndex, partition: usize) -> Result<Vec<(u64, Reason)>, StageError> {
        if let Some(id) = self.tasks.id(node, Pass::Main, partition) {
            let any = self.counts_say(id, |counts| !counts.rejected.is_empty());
            let record = if any { self.record(id)? } else { None };
            let found = record.map(|record| record.rejects).unwrap_or_default();
            return Ok(found.iter().map(|reject| (reject.row, reject.reason.clone())).collect());
        }
        let mut found = BTreeMap::new();
        for (id, maker) in self.readers(node, partition) {
            if self.counts_say(id, |counts| counts.derived.contains_key(&maker))
                && let Some(record) = self.record(id)?
            {
                let own = record.derived.into_iter().filter(|reject| reject.maker == maker);
                own.for_each(|reject| {
                    found.entry(reject.row).or_insert(reject.reason);
                });
            }
        }
        Ok(found.into_iter().collect())
    }

    fn counts_say(&self, id: TaskId, test: impl FnOnce(&Counts) -> bool) -> bool {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).get(&id).is_some_and(test)
    }

    pub(super) fn record(&self, id: TaskId) -> Result<Option<TableRecord>, StageError> {
        let task = &self.tasks.all[id];
        let Some(parts) = self.builder.keys().parts(task)? else { return Ok(None) };
        find_table(self.session.store.as_ref(), self.session.name(task.node), &parts.key())
    }
}

/// What `rejects.jsonl` lists of one stage.
#[derive(Default)]
struct StageRejects {
    /// By `kind/code`.
    counts: BTreeMap<String, u64>,
    examples: Vec<RejectExample>,
}

/// A line of `rejects.jsonl`.
#[derive(Deserialize)]
struct Line {
    stage: String,
    id: String,
    reason: Reason,
}

/// Counts the lines of `rejects.jsonl`, by stage.
fn listed(path: &Path) -> Result<BTreeMap<String, StageRejects>, StageError> {
    let mut stages = BTreeMap::<String, StageRejects>::new();
    for line in BufReader::new(at(path, File::open(path))?).lines() {
        let broken = |cause| StageError::new(format!("{}: {cause}", path.display()));
        let Line { stage, id, reason } = serde_json::from_str(&at(path, line)?).map_err(broken)?;
        let StageRejects { counts, examples } = stages.entry(stage).or_default();
        let of_this_reason = counts.entry(reason.code().to_owned()).or_insert(0);
        *of_this_reason += 1;
        if *of_this_reason <= EXAMPLES {
            examples.push(RejectExample { id, reason });
        }
    }
    Ok(stages)
}
