//! What a run reports at its end: the summary of every stage, and `rejects.jsonl` with every rejected row, those of reused
//! partitions too.

use super::Runner;
use super::board::Status;
use super::ids::ids;
use crate::StageError;
use crate::graph::NodeIndex;
use crate::store::files::{self, at};
use crate::summary::{RejectExample, StageSummary};
use crate::table::rejects;
use crate::tasks::{Pass, TaskId};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::sync::PoisonError;

/// Rejects of one reason that a summary shows.
const EXAMPLES: u64 = 3;

/// The largest resident set of this process so far, in MiB (`VmHWM` of Linux; 0 elsewhere).
pub fn peak_rss_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib =
        line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

impl Runner<'_> {
    /// Sums every stage up and writes `rejects.jsonl` on the way.
    pub(super) fn stage_summaries(&self) -> Result<Vec<StageSummary>, StageError> {
        let unfinished = self.session.scratch.unfinished("rejects.jsonl");
        let path = unfinished.path();
        let mut file = BufWriter::new(at(path, File::create_new(path))?);
        let mut summaries = Vec::new();
        for node in (0..self.session.graph.nodes.len()).filter(|node| self.session.node(*node).is_some()) {
            summaries.push(self.stage_summary(node, &mut |line| at(path, writeln!(file, "{line}")))?);
        }
        let written = file.into_inner().map_err(std::io::IntoInnerError::into_error);
        at(path, written.and_then(|file| file.sync_all()))?;
        files::publish(path, &self.log.folder().join("rejects.jsonl"))?;
        Ok(summaries)
    }

    fn stage_summary(
        &self,
        node: NodeIndex,
        write: &mut dyn FnMut(&str) -> Result<(), StageError>,
    ) -> Result<StageSummary, StageError> {
        let (mut rejected, mut examples, mut rows) = (BTreeMap::new(), Vec::new(), 0);
        for partition in 0..self.session.labels(node).len() {
            rows += self.rows_of(node, partition);
            let found = self.rejects_of(node, partition)?;
            if found.is_empty() {
                continue;
            }
            let places: Vec<u64> = found.iter().map(|(row, _)| *row).collect();
            let label = self.session.label(node, partition);
            for ((row, reason), id) in found.into_iter().zip(ids(self.session, node, partition, &places)) {
                let of_this_reason = rejected.entry(rejects::code(&reason).to_owned()).or_insert(0);
                *of_this_reason += 1;
                let stage = self.session.name(node);
                let line =
                    json!({"stage": stage, "partition": label, "row": row, "id": id, "reason": reason});
                write(&line.to_string())?;
                if *of_this_reason <= EXAMPLES {
                    examples.push(RejectExample { id, reason });
                }
            }
        }
        let done = |reused| self.count_done(node, reused);
        Ok(StageSummary {
            name: self.session.name(node).to_owned(),
            kind: self.session.graph.nodes[node].stage.kind.to_owned(),
            partitions: self.session.labels(node).len(),
            ran: done(false),
            reused: done(true),
            rows,
            rejected,
            reject_examples: examples,
            seconds: self.log.seconds(node),
        })
    }

    fn count_done(&self, node: NodeIndex, wanted: bool) -> usize {
        let is =
            |id: &TaskId| matches!(self.board.status(*id), Status::Done { reused, .. } if reused == wanted);
        self.tasks.of(node, Pass::Main).filter(is).count()
    }

    /// Rows of a partition that is there; of a derived table, those a reader has seen.
    fn rows_of(&self, node: NodeIndex, partition: usize) -> u64 {
        let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = |id: TaskId| tallies.get(&id).map_or(0, |tally| tally.rows);
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
    fn rejects_of(&self, node: NodeIndex, partition: usize) -> Result<Vec<(u64, String)>, StageError> {
        if let Some(id) = self.tasks.id(node, Pass::Main, partition) {
            let any = self.tally_says(id, |tally| !tally.rejected.is_empty());
            let record = if any { self.record(id)? } else { None };
            let found = record.map(|record| record.rejects).unwrap_or_default();
            return Ok(found.iter().map(|reject| (reject.row, rejects::reason(reject))).collect());
        }
        let mut found = BTreeMap::new();
        for (id, maker) in self.readers(node, partition) {
            if self.tally_says(id, |tally| tally.derived.contains_key(&maker))
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

    fn tally_says(&self, id: TaskId, test: impl FnOnce(&crate::tally::Tally) -> bool) -> bool {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner).get(&id).is_some_and(test)
    }

    pub(super) fn record(&self, id: TaskId) -> Result<Option<crate::store::record::TableRecord>, StageError> {
        let task = &self.tasks.all[id];
        let Some(parts) = self.parts().of(task)? else { return Ok(None) };
        self.session.store.find_table(self.session.name(task.node), &parts.key())
    }
}
