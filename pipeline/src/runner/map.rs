//! Makes one partition of a map stage.
//!
//! The lane reads, the pool computes, the lane writes. Results come back over a bounded channel in any order and are put
//! back in order before they are written.

use super::Runner;
use super::build::catch;
use super::lane::Halt;
use super::permits::Permit;
use crate::StageError;
use crate::key::KeyParts;
use crate::observer::Event;
use crate::parts::Entry;
use crate::stage::{Apply, BATCH_ROWS, MapStage};
use crate::table::assemble::{Assembler, Leaves};
use crate::table::rejects;
use crate::table::writer::{Output, TableWriter, stored_schema};
use crate::tally::{Exceeded, Tally, on_purpose};
use crate::tasks::{Pass, Task};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the workers need.
struct Work {
    kind: &'static str,
    assembler: Assembler,
    apply: Arc<dyn Apply>,
    schema: SchemaRef,
}

/// A batch that comes back from the pool.
struct Computed {
    place: usize,
    output: Result<Output, StageError>,
    permit: Permit,
}

impl Work {
    fn batch(&self, place: usize, leaves: Vec<RecordBatch>) -> Result<Output, StageError> {
        let first = place * BATCH_ROWS;
        let last = first + leaves.first().map_or(0, RecordBatch::num_rows);
        catch(&format!("on rows {first}..{last} of the partition"), || {
            let assembled = self.assembler.assemble(leaves)?;
            let mut seen = rejects::earlier(&assembled.rejects);
            let given = self.apply.apply(&assembled.rows, &mut seen)?;
            let new = rejects::new_rows(self.kind, &seen);
            let rows = assembled.rows.num_rows();
            let mut output = Output::new(&given, rows, &self.schema, &assembled.rejects, new)?;
            output.derived = assembled.derived;
            Ok(output)
        })
    }
}

impl Runner<'_> {
    pub(super) fn build_map(
        &self,
        task: &Task,
        stage: &dyn MapStage,
        parts: KeyParts,
    ) -> Result<(Entry, Tally), Halt> {
        let recipe = self.session.opened(task.node)?.recipes.first();
        let recipe = recipe.ok_or_else(|| StageError::new("a map stage without an input"))?;
        let columns = if task.pass == Pass::First { stage.swept() } else { stage.output() };
        let work = Work {
            kind: self.session.graph.nodes[task.node].stage.kind,
            assembler: self.session.assembler(recipe)?,
            apply: self.session.work(task.node)?,
            schema: stored_schema(&columns),
        };
        let leaves = self.reader().leaves(recipe, task.index)?;
        let mut writer = TableWriter::create(&self.session.scratch, &work.schema)?;
        self.pump(task, &work, leaves, &mut writer)?;
        self.commit_table(task, writer, parts)
    }

    /// Reads, computes and writes all batches of a partition.
    fn pump(
        &self,
        task: &Task,
        work: &Work,
        mut leaves: Leaves<'_>,
        writer: &mut TableWriter,
    ) -> Result<(), Halt> {
        let (send, receive) = bounded(self.permits.total());
        self.session.pool.in_place_scope(|scope| {
            let mut pump = Pump::default();
            loop {
                if self.board.stopping() {
                    return Err(Halt::Stopped);
                }
                while let Some(permit) = pump.permit(self) {
                    let Some(batches) = leaves.next() else {
                        pump.exhausted = true;
                        break;
                    };
                    let batches = batches?;
                    let (place, send) = (pump.spawned, send.clone());
                    pump.spawned += 1;
                    scope.spawn(move |_| give_back(work, place, batches, permit, &send));
                }
                if pump.exhausted && pump.written == pump.spawned {
                    return Ok(());
                }
                self.receive(task, &mut pump, &receive, writer)?;
            }
        })
    }

    /// Waits for a result, and writes all that are next in order.
    fn receive(
        &self,
        task: &Task,
        pump: &mut Pump,
        receive: &Receiver<Computed>,
        writer: &mut TableWriter,
    ) -> Result<(), Halt> {
        let computed = receive.recv().map_err(|_| StageError::new("a worker is gone"))?;
        pump.back.insert(computed.place, (computed.output, computed.permit));
        while let Some((output, _permit)) = pump.back.remove(&pump.written) {
            let output = output?;
            let rows = output.rows.num_rows() as u64;
            writer.write(output)?;
            pump.written += 1;
            self.log.event(&Event::Rows { stage: task.node, rows });
            self.check_run(task, writer)?;
        }
        Ok(())
    }

    /// Stops early when too many rows in a row were rejected.
    pub(super) fn check_run(&self, task: &Task, writer: &TableWriter) -> Result<(), Halt> {
        let most = self.session.graph.nodes[task.node].budget.consecutive as u64;
        let run = writer.longest_run();
        if run <= most || on_purpose(self.session.graph, task.node) {
            return Ok(());
        }
        let examples =
            writer.rejects().iter().map(|reject| (task.index, reject.row, rejects::reason(reject)));
        let what = format!("{run} rows one after the other, more than {most}");
        Err(Halt::OverBudget(Exceeded {
            node: task.node,
            what,
            examples: examples.take(crate::tally::EXAMPLES).collect(),
        }))
    }
}

fn give_back(work: &Work, place: usize, batches: Vec<RecordBatch>, permit: Permit, send: &Sender<Computed>) {
    let output = work.batch(place, batches);
    // When the lane has given up, nobody wants the result.
    let _ = send.send(Computed { place, output, permit });
}

/// How far a partition is.
#[derive(Default)]
struct Pump {
    spawned: usize,
    written: usize,
    exhausted: bool,
    /// Results that came back before their turn.
    back: BTreeMap<usize, (Result<Output, StageError>, Permit)>,
}

impl Pump {
    /// A permit for another batch; waits for one only when no batch of this partition holds any.
    fn permit(&self, runner: &Runner<'_>) -> Option<Permit> {
        if self.exhausted {
            return None;
        }
        runner.permits.try_take().or_else(|| (self.spawned == self.written).then(|| runner.permits.take()))
    }
}
