//! Makes one partition of a map stage.
//!
//! The worker reads, the pool computes, the worker writes. Results come back over a bounded channel in any order and are put
//! back in order before they are written.

use super::builder::{Builder, entry_of};
use super::executor::TaskError;
use super::permits::Permit;
use crate::keys::builder::Entry;
use crate::keys::tasks::{Pass, Task};
use crate::spec::error::StageError;
use crate::spec::event::Event;
use crate::spec::panics::catch;
use crate::spec::stage::{Apply, MapStage};
use crate::store::key::KeyParts;
use crate::store::record::commit_table;
use crate::table::assemble::{Assembler, Leaves};
use crate::table::counts::{Counts, EXAMPLES, Exceeded, on_purpose};
use crate::table::rejects;
use crate::table::writer::{Output, TableWriter, stored_schema};
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the pool needs.
struct Work {
    kind: &'static str,
    assembler: Assembler,
    apply: Arc<dyn Apply>,
    schema: SchemaRef,
}

/// A batch that comes back from the pool.
struct Computed<'a> {
    place: usize,
    output: Result<Output, StageError>,
    permit: Permit<'a>,
}

impl Work {
    /// `first` is the first row's place in the partition.
    fn batch(&self, first: usize, leaves: Vec<RecordBatch>) -> Result<Output, StageError> {
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

impl Builder<'_> {
    pub(super) fn build_map(
        &self,
        task: &Task,
        stage: &dyn MapStage,
        parts: KeyParts,
    ) -> Result<(Entry, Counts), TaskError> {
        let recipe = self.session.opened(task.node)?.recipes.first();
        let recipe = recipe.ok_or_else(|| StageError::new("a map stage without an input"))?;
        let columns = if task.pass == Pass::Intermediate { stage.intermediate() } else { stage.output() };
        let work = Work {
            kind: self.session.graph.nodes[task.node].stage.kind,
            assembler: Assembler::open(self.session, recipe)?,
            apply: self.session.work(task.node)?,
            schema: stored_schema(&columns),
        };
        let leaves = self.reader().leaves(recipe, task.index)?;
        let mut writer = TableWriter::create(&self.session.scratch, &work.schema)?;
        self.pump(task, &work, leaves, &mut writer)?;
        self.commit_table(task, writer, parts)
    }

    pub(super) fn commit_table(
        &self,
        task: &Task,
        writer: TableWriter,
        parts: KeyParts,
    ) -> Result<(Entry, Counts), TaskError> {
        let (file, record) = writer.finish(parts)?;
        let (name, force) = (self.session.name(task.node), self.force.contains(&task.node));
        let record = commit_table(self.session.store.as_ref(), name, file.path(), record, force)?;
        Ok(entry_of(&record))
    }

    /// Reads, computes and writes all batches of a partition.
    fn pump(
        &self,
        task: &Task,
        work: &Work,
        mut leaves: Leaves<'_>,
        writer: &mut TableWriter,
    ) -> Result<(), TaskError> {
        let (send, receive) = bounded(self.permits.batches());
        self.session.pool.in_place_scope(|scope| {
            let mut pump = Pump::default();
            loop {
                if self.host.stopping() {
                    return Err(TaskError::Stopped);
                }
                while let Some(mut permit) = pump.permit(self) {
                    let Some(batches) = leaves.next() else {
                        pump.exhausted = true;
                        break;
                    };
                    let batches = batches?;
                    pump.last = batches.iter().map(memory).sum();
                    permit.set(pump.last);
                    let (place, first, send) = (pump.spawned, pump.rows, send.clone());
                    pump.spawned += 1;
                    pump.rows += batches.first().map_or(0, RecordBatch::num_rows);
                    scope.spawn(move |_| give_back(work, (place, first), batches, permit, &send));
                }
                if pump.exhausted && pump.written == pump.spawned {
                    return Ok(());
                }
                self.receive(task, &mut pump, &receive, writer)?;
            }
        })
    }

    /// Waits for a result, and writes all that are next in order.
    fn receive<'a>(
        &self,
        task: &Task,
        pump: &mut Pump<'a>,
        receive: &Receiver<Computed<'a>>,
        writer: &mut TableWriter,
    ) -> Result<(), TaskError> {
        let computed = receive.recv().map_err(|_| StageError::new("a worker is gone"))?;
        pump.back.insert(computed.place, (computed.output, computed.permit));
        while let Some((output, _permit)) = pump.back.remove(&pump.written) {
            let output = output?;
            let rows = output.rows.num_rows() as u64;
            writer.write(output)?;
            pump.written += 1;
            self.host.event(&Event::Rows { stage: task.node, rows });
            self.check_run(task, writer)?;
        }
        Ok(())
    }

    /// Stops early when too many rows in a row were rejected.
    pub(super) fn check_run(&self, task: &Task, writer: &TableWriter) -> Result<(), TaskError> {
        let most = self.session.graph.nodes[task.node].budget.consecutive as u64;
        let run = writer.longest_run();
        if run <= most || on_purpose(self.session.graph, task.node) {
            return Ok(());
        }
        let examples = writer.rejects().iter().map(|reject| (task.index, reject.row, reject.reason.clone()));
        let what = format!("{run} rows one after the other, more than {most}");
        Err(TaskError::OverBudget(Exceeded {
            node: task.node,
            what,
            examples: examples.take(EXAMPLES).collect(),
        }))
    }
}

fn give_back<'a>(
    work: &Work,
    (place, first): (usize, usize),
    batches: Vec<RecordBatch>,
    mut permit: Permit<'a>,
    send: &Sender<Computed<'a>>,
) {
    let output = catch("while computing", || work.batch(first, batches));
    permit.set(output.as_ref().map_or(0, |output| memory(&output.rows)));
    // When the worker has given up, nobody wants the result.
    let _ = send.send(Computed { place, output, permit });
}

/// Bytes of the rows of a batch, which may share their buffers with others.
fn memory(rows: &RecordBatch) -> u64 {
    let size = |column: &ArrayRef| column.to_data().get_slice_memory_size();
    rows.columns()
        .iter()
        .map(|column| size(column).unwrap_or_else(|_| column.get_array_memory_size()) as u64)
        .sum()
}

/// How far a partition is.
#[derive(Default)]
struct Pump<'a> {
    spawned: usize,
    /// Rows of the batches spawned.
    rows: usize,
    written: usize,
    exhausted: bool,
    /// Bytes of the last batch: about those of the next.
    last: u64,
    /// Results that came back before their turn.
    back: BTreeMap<usize, (Result<Output, StageError>, Permit<'a>)>,
}

impl<'a> Pump<'a> {
    /// A permit for another batch; waits for one only when no batch of this partition holds any.
    fn permit(&self, builder: &'a Builder<'_>) -> Option<Permit<'a>> {
        if self.exhausted {
            return None;
        }
        let permits = &builder.permits;
        permits
            .try_take(self.last)
            .or_else(|| (self.spawned == self.written).then(|| permits.take(self.last)))
    }
}
