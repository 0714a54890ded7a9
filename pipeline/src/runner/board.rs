//! Which work is waiting, ready, running or done. The only thing the threads of a run share besides the store.

use crate::parts::{Entry, Known};
use crate::tasks::{TaskId, Tasks};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a thread that waits looks whether the run was cancelled, or whether another process is done.
const LOOK: Duration = Duration::from_millis(50);

/// How far a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Something it needs is not there yet.
    Waiting,
    /// Can be worked on, or is.
    Open,
    /// Its output is there.
    Done {
        entry: Entry,
        reused: bool,
    },
    Failed,
    /// Something it needs failed.
    Skipped,
}

/// All tasks of a run.
pub struct Board<'a> {
    tasks: &'a Tasks,
    /// By task: what waits for it.
    dependents: Vec<Vec<TaskId>>,
    is_job: Vec<bool>,
    cancel: &'a AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    status: Vec<Status>,
    /// By task: how many of its needs are not there yet.
    missing: Vec<usize>,
    /// (partition, task): the first partition of every stage goes before the second of any.
    ready: BTreeSet<(usize, TaskId)>,
    /// Claimed by another process; looked at again after a while.
    deferred: Vec<(Instant, TaskId)>,
    /// Tasks without jobs that are neither done nor failed.
    open: usize,
    stopped: bool,
}

impl<'a> Board<'a> {
    pub fn new(tasks: &'a Tasks, is_job: Vec<bool>, cancel: &'a AtomicBool) -> Self {
        let mut dependents = vec![Vec::new(); tasks.all.len()];
        for (id, task) in tasks.all.iter().enumerate() {
            task.needs.iter().for_each(|need| dependents[*need].push(id));
        }
        let state = State {
            status: vec![Status::Waiting; tasks.all.len()],
            missing: tasks.all.iter().map(|task| task.needs.len()).collect(),
            ready: BTreeSet::new(),
            deferred: Vec::new(),
            open: is_job.iter().filter(|job| !**job).count(),
            stopped: false,
        };
        let board =
            Self { tasks, dependents, is_job, cancel, state: Mutex::new(state), changed: Condvar::new() };
        let mut state = board.lock();
        for id in 0..tasks.all.len() {
            board.open_if_ready(&mut state, id);
        }
        drop(state);
        board
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_if_ready(&self, state: &mut State, id: TaskId) {
        if state.missing[id] == 0 && state.status[id] == Status::Waiting {
            state.status[id] = Status::Open;
            if !self.is_job[id] {
                state.ready.insert((self.tasks.all[id].index, id));
            }
        }
    }

    /// The next task; waits for one. `None` when there is nothing left to do.
    pub fn take(&self) -> Option<TaskId> {
        let mut state = self.lock();
        loop {
            if state.open == 0 || self.is_stopped(&state) {
                return None;
            }
            if let Some((_, id)) = state.ready.pop_first() {
                return Some(id);
            }
            let now = Instant::now();
            if let Some(due) = state.deferred.iter().position(|(when, _)| *when <= now) {
                return Some(state.deferred.swap_remove(due).1);
            }
            state = self.wait_on(state);
        }
    }

    fn wait_on<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits until something changed, or a moment.
    pub fn wait(&self) {
        drop(self.wait_on(self.lock()));
    }

    fn is_stopped(&self, state: &State) -> bool {
        state.stopped || self.cancel.load(Ordering::Relaxed)
    }

    /// Whether everybody should finish or discard what is in flight.
    pub fn stopping(&self) -> bool {
        self.is_stopped(&self.lock())
    }

    /// Looks at the task again in a while.
    pub fn defer(&self, id: TaskId) {
        self.lock().deferred.push((Instant::now() + LOOK, id));
        self.changed.notify_all();
    }

    /// The output is there.
    pub fn done(&self, id: TaskId, entry: Entry, reused: bool) {
        let mut state = self.lock();
        self.close(&mut state, id, Status::Done { entry, reused });
        for &dependent in &self.dependents[id] {
            state.missing[dependent] = state.missing[dependent].saturating_sub(1);
            self.open_if_ready(&mut state, dependent);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The output cannot be had; nor that of anything that needs it. With `stop` nothing else is begun.
    pub fn failed(&self, id: TaskId, stop: bool) {
        let mut state = self.lock();
        state.stopped |= stop;
        self.close(&mut state, id, Status::Failed);
        let mut lost = self.dependents[id].clone();
        while let Some(next) = lost.pop() {
            if matches!(state.status[next], Status::Waiting | Status::Open) {
                state.ready.remove(&(self.tasks.all[next].index, next));
                self.close(&mut state, next, Status::Skipped);
                lost.extend(&self.dependents[next]);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    fn close(&self, state: &mut State, id: TaskId, status: Status) {
        if matches!(state.status[id], Status::Waiting | Status::Open) {
            state.ready.remove(&(self.tasks.all[id].index, id));
            state.open -= usize::from(!self.is_job[id]);
        }
        state.status[id] = status;
    }

    pub fn status(&self, id: TaskId) -> Status {
        self.lock().status[id].clone()
    }
}

impl Known for Board<'_> {
    fn entry(&self, task: TaskId) -> Option<Entry> {
        match self.lock().status.get(task) {
            Some(Status::Done { entry, .. }) => Some(entry.clone()),
            _ => None,
        }
    }
}
