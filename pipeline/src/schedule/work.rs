//! Does single tasks that somebody else has planned: what `llavm work` does in a process of its own.
//!
//! What is there is asked of the store alone, so any number of such processes may work on one store. A task that is done
//! already is found and not done again.

use crate::exec::builder::{Builder, Host};
use crate::exec::executor::{Committed, Executor, TaskError, TaskSpec};
use crate::exec::local::spec as spec_of;
use crate::keys::builder::{Entries, Entry, KeyBuilder, Known};
use crate::keys::session::Session;
use crate::keys::tasks::{TaskId, Tasks, follows};
use crate::spec::error::StageError;
use crate::spec::event::{Event, Observer};
use crate::spec::graph::NodeIndex;
use crate::spec::panics::catch;
use crate::table::find::find;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a wait for another process lasts before the store is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// How a task ended.
#[derive(Debug)]
pub enum Ended {
    Done(Committed),
    /// Something it needs is not there, somebody else is at it, or the process was asked to stop: try again later.
    Again(&'static str),
    /// Trying again does not help.
    Failed(StageError),
}

/// How single tasks are done.
#[derive(Clone, Copy, Debug)]
pub struct WorkOptions {
    /// Threads that work on rows.
    pub jobs: usize,
    /// Whether a task is followed by those of map stages that it was all that was missing for: the next stages of the same partition, or
    /// the rest of a sequential pass.
    pub follow: bool,
}

/// Does tasks, those that need others of the list after these. `report` is called once for every task.
pub fn work(
    session: &Session<'_>,
    tasks: &Tasks,
    specs: &[TaskSpec],
    options: WorkOptions,
    observer: &dyn Observer,
    cancel: &AtomicBool,
    report: &(dyn Fn(&TaskSpec, &Ended) + Sync),
) {
    let host = StoreHost { session, tasks, known: Entries::new(tasks.all.len()), observer, cancel };
    let builder = Builder::new(session, tasks, &host, BTreeSet::new(), options.jobs);
    let follow = Follow::new(&builder, options.follow);
    let mut left: Vec<TaskSpec> = specs.to_vec();
    loop {
        let before = left.len();
        let queue = Mutex::new(left.into_iter().collect::<VecDeque<_>>());
        let again = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..options.jobs.max(1) {
                scope.spawn(|| {
                    while let Some(spec) = next(&queue) {
                        match execute(&builder, &spec, cancel) {
                            Ended::Again(why) => {
                                again.lock().unwrap_or_else(PoisonError::into_inner).push((spec, why));
                            }
                            ended => {
                                report(&spec, &ended);
                                follow.push(&spec, &ended, &queue);
                            }
                        }
                    }
                });
            }
        });
        let again = again.into_inner().unwrap_or_else(PoisonError::into_inner);
        if again.len() == before || cancel.load(Ordering::Relaxed) {
            again.into_iter().for_each(|(spec, why)| report(&spec, &Ended::Again(why)));
            return;
        }
        left = again.into_iter().map(|(spec, _)| spec).collect();
    }
}

/// What follows a task.
struct Follow<'a> {
    builder: &'a Builder<'a>,
    /// By task: what needs it; empty where nothing follows.
    dependents: Vec<Vec<TaskId>>,
    /// Tasks that were put into the queue.
    pushed: Mutex<BTreeSet<TaskId>>,
}

impl<'a> Follow<'a> {
    fn new(builder: &'a Builder<'a>, follow: bool) -> Self {
        let tasks = &builder.tasks.all;
        let mut dependents = vec![Vec::new(); if follow { tasks.len() } else { 0 }];
        for (id, task) in tasks.iter().enumerate().filter(|_| follow) {
            task.needs.iter().for_each(|need| dependents[*need].push(id));
        }
        Self { builder, dependents, pushed: Mutex::default() }
    }

    /// Puts what a task was the last thing missing for before what waits.
    fn push(&self, spec: &TaskSpec, ended: &Ended, queue: &Mutex<VecDeque<TaskSpec>>) {
        let (Ended::Done(_), Ok(done)) = (ended, self.builder.task(spec)) else { return };
        for &id in self.dependents.get(done).into_iter().flatten() {
            let task = &self.builder.tasks.all[id];
            if !follows(self.builder.session, &self.builder.tasks.all[done], task) {
                continue;
            }
            // Whoever planned the task finds what cannot be named now later on.
            let next = catch("while its key was made", || spec_of(&self.builder.keys(), task));
            if let Ok(Some(next)) = next
                && self.pushed.lock().unwrap_or_else(PoisonError::into_inner).insert(id)
            {
                queue.lock().unwrap_or_else(PoisonError::into_inner).push_front(next);
            }
        }
    }
}

fn next(queue: &Mutex<VecDeque<TaskSpec>>) -> Option<TaskSpec> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

fn execute(builder: &Builder<'_>, spec: &TaskSpec, cancel: &AtomicBool) -> Ended {
    if cancel.load(Ordering::Relaxed) {
        return Ended::Again("stopped");
    }
    let done = catch("while it was made", || Ok(builder.execute(spec)));
    match done.unwrap_or_else(|cause| Err(TaskError::Failed(cause))) {
        Ok(done) => Ended::Done(done),
        Err(TaskError::NotReady) => Ended::Again("something it needs is not there yet"),
        Err(TaskError::Busy) => Ended::Again("another process is at it"),
        Err(TaskError::Stopped) => Ended::Again("stopped"),
        Err(TaskError::Failed(cause)) => Ended::Failed(cause),
        Err(TaskError::OverBudget(over)) => {
            let text = format!("`{}` rejected {}", builder.session.name(over.node), over.what);
            Ended::Failed(StageError::new(text))
        }
    }
}

/// What is there, as the store says.
struct StoreHost<'a> {
    session: &'a Session<'a>,
    tasks: &'a Tasks,
    /// What was found so far.
    known: Entries,
    observer: &'a dyn Observer,
    cancel: &'a AtomicBool,
}

impl Known for StoreHost<'_> {
    fn entry(&self, id: TaskId) -> Option<Entry> {
        if let Some(entry) = self.known.entry(id) {
            return Some(entry);
        }
        let task = self.tasks.all.get(id)?;
        let keys = KeyBuilder { session: self.session, tasks: self.tasks, known: self };
        let key = keys.parts(task).ok()??.key();
        let (entry, _) = find(self.session, task, &key).ok()??;
        self.known.add(id, entry.clone());
        Some(entry)
    }
}

impl Host for StoreHost<'_> {
    fn event(&self, event: &Event<'_>) {
        self.observer.event(event);
    }

    fn active(&self, _node: NodeIndex, _change: i32) {}

    fn stopping(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    fn wait(&self) {
        std::thread::sleep(AGAIN);
    }

    /// Nobody here knows what others are doing.
    fn pending(&self, _task: TaskId) -> bool {
        false
    }
}
