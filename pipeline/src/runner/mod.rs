//! Runs what is not there: lanes that read and write, a pool of workers that compute, threads for jobs.
//!
//! A lane takes one task at a time. For a partition of a map stage it reads batches in order, hands each to the pool, and
//! writes what comes back in order. A batch in flight holds one of a fixed number of permits, and so memory does not grow
//! with the number of rows, of partitions or of stages. Tasks are taken first partition first, so that whatever consumes
//! partition by partition can begin early. What is made does not depend on any of this: a batch is computed by a pure
//! function of its rows, and written at its place.

pub mod board;
mod build;
mod commit;
mod context;
mod events;
mod folder;
mod guard;
mod ids;
mod job;
mod lane;
mod map;
mod permits;
pub mod report;
mod room;
mod sweep;

use crate::engine::{Finished, Options};
use crate::graph::NodeIndex;
use crate::observer::{Event, Observer};
use crate::parts::Parts;
use crate::registry::Role;
use crate::run_error::RunError;
use crate::session::Session;
use crate::summary::{RunStatus, Summary};
use crate::survey::{Found, survey};
use crate::table::read::Reader;
use crate::tally::{Ledger, Tally};
use crate::tasks::{Pass, TaskId, Tasks};
use board::{Board, Status};
use events::Log;
use guard::Checked;
use permits::Permits;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use sweep::Sweeping;

/// A run in progress.
pub struct Runner<'a> {
    session: &'a Session<'a>,
    tasks: &'a Tasks,
    board: Board<'a>,
    log: Log<'a>,
    ledger: Ledger,
    permits: Permits,
    keep_going: bool,
    /// Nodes whose outputs are made again even if they are there.
    force: BTreeSet<NodeIndex>,
    checked: Mutex<BTreeMap<TaskId, Arc<Mutex<Checked>>>>,
    sweeping: Mutex<BTreeMap<NodeIndex, Arc<Mutex<Option<Sweeping>>>>>,
    tallies: Mutex<BTreeMap<TaskId, Tally>>,
    errors: Mutex<Vec<RunError>>,
    indexed: Mutex<Instant>,
}

/// Which nodes may run; the others must be there.
pub struct Scope {
    pub may_run: BTreeSet<NodeIndex>,
    pub force: BTreeSet<NodeIndex>,
}

/// Makes everything that is not there.
pub fn run(
    session: &Session<'_>,
    tasks: &Tasks,
    scope: Scope,
    options: &Options,
    observer: &dyn Observer,
    cancel: &AtomicBool,
) -> Result<Finished, RunError> {
    let started = Instant::now();
    let is_job = tasks.all.iter().map(|task| session.graph.nodes[task.node].stage.role.is_job()).collect();
    let runner = Runner {
        session,
        tasks,
        board: Board::new(tasks, is_job, cancel),
        log: Log::create(session, observer).map_err(RunError::Store)?,
        ledger: Ledger::new(session.graph),
        permits: Permits::new(2 * options.jobs.max(1) + 2),
        keep_going: options.keep_going,
        force: scope.force,
        checked: Mutex::default(),
        sweeping: Mutex::default(),
        tallies: Mutex::default(),
        errors: Mutex::default(),
        indexed: Mutex::new(started),
    };
    let found = survey(session, tasks, &runner.board, &runner.force)?;
    runner.refuse_outside(&scope.may_run, &found)?;
    runner.begin(found);
    runner.work(options.jobs.max(1) + 1);
    Ok(runner.end(cancel, started))
}

impl Runner<'_> {
    fn parts(&self) -> Parts<'_> {
        Parts { session: self.session, tasks: self.tasks, known: &self.board }
    }

    fn reader(&self) -> Reader<'_> {
        Reader { session: self.session, tasks: self.tasks, guard: self }
    }

    /// With `--from`, everything before the stage must be there.
    fn refuse_outside(&self, may_run: &BTreeSet<NodeIndex>, found: &[Found]) -> Result<(), RunError> {
        let missing = self
            .tasks
            .all
            .iter()
            .zip(found)
            .find(|(task, found)| !may_run.contains(&task.node) && !matches!(found, Found::There(_)));
        missing.map_or(Ok(()), |(task, _)| {
            Err(RunError::NotBuilt {
                stage: self.session.name(task.node).to_owned(),
                partition: Some(self.session.label(task.node, task.index).to_owned()),
            })
        })
    }

    /// Tells what is there already.
    fn begin(&self, found: Vec<Found>) {
        for node in 0..self.session.graph.nodes.len() {
            let range = self.tasks.of(node, Pass::Main);
            let reused = range.clone().filter(|id| matches!(found[*id], Found::There(_))).count();
            if !range.is_empty() {
                self.log.event(&Event::Planned { stage: node, partitions: range.len(), reused });
            }
        }
        for (id, found) in found.into_iter().enumerate() {
            if let Found::There(tally) = found {
                self.count(id, tally);
            }
        }
    }

    /// Counts an output that is there; fails the task when a budget is exceeded.
    fn count(&self, id: TaskId, tally: Tally) -> bool {
        let exceeded = self.ledger.add(self.session, &self.tasks.all[id], &tally);
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner).insert(id, tally);
        match exceeded {
            None => true,
            Some(exceeded) => {
                let error = self.over_budget(exceeded);
                self.fail(id, error);
                false
            }
        }
    }

    fn fail(&self, id: TaskId, error: RunError) {
        let task = &self.tasks.all[id];
        let label = self.session.label(task.node, task.index);
        self.log.event(&Event::Failed { stage: task.node, label, error: &error.to_string() });
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).push(error);
        self.board.failed(id, !self.keep_going);
    }

    /// Runs lanes and jobs until nothing is left to do.
    fn work(&self, lanes: usize) {
        std::thread::scope(|scope| {
            for (id, task) in self.tasks.all.iter().enumerate() {
                if self.session.graph.nodes[task.node].stage.role.is_job() && self.is_open(id) {
                    scope.spawn(move || self.job(id));
                }
            }
            for _ in 0..lanes {
                scope.spawn(|| self.lane());
            }
        });
    }

    fn is_open(&self, id: TaskId) -> bool {
        matches!(self.board.status(id), Status::Waiting | Status::Open)
    }

    /// Writes down what was done.
    fn end(self, cancel: &AtomicBool, started: Instant) -> Finished {
        let mut errors = std::mem::take(&mut *self.errors.lock().unwrap_or_else(PoisonError::into_inner));
        let left = (0..self.tasks.all.len()).filter(|id| self.is_open(*id)).count();
        let interrupted = cancel.load(Ordering::Relaxed) && left > 0;
        if interrupted {
            errors.push(RunError::Interrupted { finished: self.log.finished(), left });
        }
        errors.extend(self.write_index().err().map(RunError::Store));
        let stages = self.stage_summaries().unwrap_or_else(|cause| {
            errors.push(RunError::Store(cause));
            Vec::new()
        });
        let summary = Summary {
            manifest: self.session.graph.name.clone(),
            status: match (interrupted, errors.is_empty()) {
                (true, _) => RunStatus::Interrupted,
                (false, true) => RunStatus::Ok,
                (false, false) => RunStatus::Failed,
            },
            seconds: started.elapsed().as_secs_f64(),
            peak_rss_mib: report::peak_rss_mib(),
            stages,
        };
        errors.extend(self.log.finish(self.session, &summary).err().map(RunError::Store));
        Finished { summary, folder: self.log.folder().to_owned(), errors }
    }
}

/// Whether a node's outputs are folders.
fn gives_folder(role: &Role) -> bool {
    matches!(role, Role::Gather(_) | Role::Job(_))
}
