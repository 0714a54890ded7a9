//! A run in progress: what every part of it shares, its beginning and its end.

use super::budgets::Ledger;
use super::events::Log;
use super::host::RunHost;
use super::memory::peak_rss_mib;
use super::options::{Finished, Options};
use super::scheduler::{Scheduler, Status};
use super::written::Written;
use crate::exec::builder::Builder;
use crate::exec::elsewhere::Elsewhere;
use crate::exec::executor::Executor;
use crate::keys::builder::Known as _;
use crate::keys::session::Session;
use crate::keys::tasks::{Pass, Task, TaskId, Tasks, is_sequential};
use crate::spec::error::StageError;
use crate::spec::event::{Event, Watch};
use crate::spec::graph::NodeIndex;
use crate::spec::registry::Role;
use crate::spec::run_error::RunError;
use crate::spec::shard::Shard;
use crate::spec::summary::{RunStatus, Summary};
use crate::state::lookup::{Cached, Lookup, lookup};
use crate::store::Address;
use crate::table::counts::{Counts, Exceeded};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A run in progress.
pub struct Run<'a> {
    pub(super) session: &'a Session<'a>,
    pub(super) tasks: &'a Tasks,
    pub(super) host: &'a RunHost<'a>,
    pub(super) builder: &'a Builder<'a>,
    /// Does the tasks: this process by its builder, or others.
    pub(super) executor: &'a dyn Executor,
    ledger: Ledger,
    keep_going: bool,
    shard: Option<Shard>,
    pub(super) counts: Mutex<BTreeMap<TaskId, Counts>>,
    /// By node: its tasks that are not done yet.
    left: Vec<AtomicUsize>,
    errors: Mutex<Vec<RunError>>,
    /// Nodes that were reported as over their budget.
    over_budget: Mutex<BTreeSet<NodeIndex>>,
    /// Tasks that were reported as waiting for another process.
    pub(super) waiting: Mutex<BTreeSet<TaskId>>,
    /// When the root was last written.
    pub(super) root_written: Mutex<Written>,
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
    executor: Option<&dyn Executor>,
    watch: Watch<'_>,
) -> Result<Finished, RunError> {
    let started = Instant::now();
    let Watch { observer, cancel } = watch;
    let is_job = tasks.all.iter().map(|task| session.graph.nodes[task.node].stage.role.is_job()).collect();
    let host = RunHost {
        scheduler: Scheduler::new(tasks, is_job, cancel),
        log: Log::create(session, observer).map_err(RunError::from)?,
    };
    let found = lookup(session, tasks, &scope.force)?;
    let builder = Builder::new(session, tasks, &host, scope.force, options.jobs);
    let elsewhere = executor.map(|executor| Elsewhere::new(executor, &builder));
    let run = Run {
        session,
        tasks,
        host: &host,
        builder: &builder,
        executor: elsewhere.as_ref().map_or(&builder as &dyn Executor, |elsewhere| elsewhere),
        ledger: Ledger::new(session.graph),
        keep_going: options.keep_going,
        shard: options.shard,
        counts: Mutex::default(),
        left: left(session, tasks, &found),
        errors: Mutex::default(),
        over_budget: Mutex::default(),
        waiting: Mutex::default(),
        root_written: Mutex::new(Written { at: started, took: Duration::ZERO }),
    };
    run.refuse_outside(&scope.may_run, &found.cached)?;
    run.begin(found);
    if let Some(shard) = options.shard {
        run.leave_to_others(shard);
    }
    run.all(run.executor.slots().unwrap_or(options.jobs.max(1) + 1));
    Ok(run.end(cancel, started))
}

/// By node: how many of its tasks have to be done.
fn left(session: &Session<'_>, tasks: &Tasks, found: &Lookup) -> Vec<AtomicUsize> {
    let left: Vec<AtomicUsize> = session.graph.nodes.iter().map(|_| AtomicUsize::new(0)).collect();
    for (task, cached) in tasks.all.iter().zip(&found.cached) {
        left[task.node].fetch_add(usize::from(!matches!(cached, Cached::There(_))), Ordering::Relaxed);
    }
    left
}

impl Run<'_> {
    /// A task is done. Behind the last one of a stage nobody needs what it was opened with.
    pub(super) fn one_less(&self, node: NodeIndex) {
        if self.left[node].fetch_sub(1, Ordering::AcqRel) == 1 {
            self.session.close(node);
        }
    }

    /// With `--from`, everything before the stage must be there.
    fn refuse_outside(&self, may_run: &BTreeSet<NodeIndex>, found: &[Cached]) -> Result<(), RunError> {
        let missing = self
            .tasks
            .all
            .iter()
            .zip(found)
            .find(|(task, found)| !may_run.contains(&task.node) && !matches!(found, Cached::There(_)));
        missing.map_or(Ok(()), |(task, _)| {
            Err(RunError::NotBuilt {
                stage: self.session.name(task.node).to_owned(),
                partition: Some(self.session.label(task.node, task.index).to_owned()),
            })
        })
    }

    /// Reports what is there already.
    fn begin(&self, found: Lookup) {
        for node in 0..self.session.graph.nodes.len() {
            let range = self.tasks.of(node, Pass::Main);
            let reused = range.clone().filter(|id| matches!(found.cached[*id], Cached::There(_))).count();
            if !range.is_empty() {
                self.host.log.event(&Event::Planned { stage: node, partitions: range.len(), reused });
            }
        }
        for (id, cached) in found.cached.into_iter().enumerate() {
            if let (Cached::There(counts), Some(entry)) = (cached, found.entries.entry(id)) {
                self.host.scheduler.done(id, entry, true);
                self.count(id, counts);
            }
        }
    }

    /// What is no part of a shard is not made. The pass of a sequential stage is cheap and needs all rows before, so each shard makes
    /// what it needs of it, if others have not.
    fn leave_to_others(&self, shard: Shard) {
        for (id, task) in self.tasks.all.iter().enumerate() {
            let range = self.shard_range(task, shard);
            let is_pass = task.pass == Pass::Main && is_sequential(self.session, task.node);
            let is_own = range.contains(&task.index) || (is_pass && task.index < range.start);
            if !is_own && self.is_open(id) {
                self.host.scheduler.leave(id);
            }
        }
    }

    /// The partitions of a task's table that are a shard's; none of a gather stage or a job.
    fn shard_range(&self, task: &Task, shard: Shard) -> Range<usize> {
        match &self.session.graph.nodes[task.node].stage.role {
            Role::Map(_) => shard.range(self.session.labels(task.node).len()),
            _ => 0..0,
        }
    }

    /// Partitions of the shard that could not be made, because they need others that are not there yet.
    fn left(&self, shard: Shard) -> usize {
        let is_left = |(id, task): &(TaskId, &Task)| {
            self.shard_range(task, shard).contains(&task.index)
                && self.host.scheduler.status(*id) == Status::Skipped
        };
        self.tasks.all.iter().enumerate().filter(is_left).count()
    }

    /// Counts an output that is there. A stage over its budget fails as a whole; false when the task's does.
    pub(super) fn count(&self, id: TaskId, counts: Counts) -> bool {
        let node = self.tasks.all[id].node;
        let exceeded = self.ledger.add(self.session, &self.tasks.all[id], &counts);
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).insert(id, counts);
        let is_fine = exceeded.is_empty();
        for exceeded in exceeded {
            self.fail_stage(node, exceeded);
        }
        is_fine
    }

    /// Fails what is left of a node, because it, or what it reads, is over its budget: one error, however many partitions are.
    pub(super) fn fail_stage(&self, node: NodeIndex, exceeded: Exceeded) {
        let over = exceeded.node;
        if self.over_budget.lock().unwrap_or_else(PoisonError::into_inner).insert(over) {
            let (error, label) = (self.budget_error(exceeded), self.session.name(over));
            self.host.log.event(&Event::Failed { stage: over, label, error: &error.to_string() });
            self.errors.lock().unwrap_or_else(PoisonError::into_inner).push(error);
        }
        self.host.scheduler.failed_all(self.tasks.of(node, Pass::Main), !self.keep_going);
    }

    pub(super) fn fail(&self, id: TaskId, error: RunError) {
        let task = &self.tasks.all[id];
        let label = self.session.label(task.node, task.index);
        self.host.log.event(&Event::Failed { stage: task.node, label, error: &error.to_string() });
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).push(error);
        self.host.scheduler.failed(id, !self.keep_going);
    }

    /// Runs workers and jobs until nothing is left to do.
    fn all(&self, workers: usize) {
        std::thread::scope(|scope| {
            for (id, task) in self.tasks.all.iter().enumerate() {
                if self.session.graph.nodes[task.node].stage.role.is_job() && self.is_open(id) {
                    scope.spawn(move || self.caught(&[id], || self.job(id)));
                }
            }
            for _ in 0..workers.max(1) {
                scope.spawn(|| self.work());
            }
        });
    }

    pub(super) fn is_open(&self, id: TaskId) -> bool {
        matches!(self.host.scheduler.status(id), Status::Waiting | Status::Open)
    }

    /// Writes down what was done.
    fn end(self, cancel: &AtomicBool, started: Instant) -> Finished {
        let mut errors = std::mem::take(&mut *self.errors.lock().unwrap_or_else(PoisonError::into_inner));
        let left = (0..self.tasks.all.len()).filter(|id| self.is_open(*id)).count();
        let interrupted = cancel.load(Ordering::Relaxed) && left > 0;
        if interrupted {
            errors.push(RunError::Interrupted { finished: self.host.log.finished(), left });
        }
        errors.extend(self.write_root().err().map(RunError::from));
        let stages = self.stage_summaries().unwrap_or_else(|cause| {
            errors.push(cause.into());
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
            peak_rss_mib: peak_rss_mib(),
            stages,
        };
        errors.extend(self.host.log.finish(self.session, &summary).err().map(RunError::from));
        let results = self.results().unwrap_or_else(|cause| {
            errors.push(cause.into());
            Vec::new()
        });
        let left = self.shard.map_or(0, |shard| self.left(shard));
        Finished { summary, folder: self.host.log.folder().to_owned(), results, left, errors }
    }

    /// Where the jobs that are done have left their folders.
    fn results(&self) -> Result<Vec<(String, PathBuf)>, StageError> {
        let mut found = Vec::new();
        for (id, task) in self.tasks.all.iter().enumerate() {
            if self.session.graph.nodes[task.node].stage.role.is_job()
                && let Some(entry) = self.host.scheduler.entry(id)
            {
                let name = self.session.name(task.node);
                let folder = self.session.store.content(&Address::folder(name, &entry.key))?;
                found.extend(folder.map(|folder| (name.to_owned(), folder)));
            }
        }
        Ok(found)
    }
}
