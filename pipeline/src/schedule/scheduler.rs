//! The scheduler: which work is waiting, ready, running or done, and what is next. Knows nothing of how work is done.

use crate::keys::builder::{Entry, Known};
use crate::keys::tasks::{TaskId, Tasks};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a thread that waits looks whether the run was cancelled, or whether another process is done.
const POLL: Duration = Duration::from_millis(50);

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
    /// Something it needs failed, or is left to others, or it is itself.
    Skipped,
}

/// The tasks of a run and how far each is.
pub struct Scheduler<'a> {
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
    /// By task: how many of its needs are not there yet; one more while not everything is there that it comes behind.
    missing: Vec<usize>,
    /// By the first task of a table: who comes behind how much of it.
    queues: BTreeMap<TaskId, Queue>,
    /// (partition, task): the first partition of every stage goes before the second of any.
    ready: BTreeSet<(usize, TaskId)>,
    /// Being made by another process; looked at again after a while.
    deferred: Vec<(Instant, TaskId)>,
    /// Tasks without jobs that are neither done nor failed.
    open: usize,
    stopped: bool,
}

/// The tasks that come behind the first tasks of a table.
#[derive(Default)]
struct Queue {
    /// Everything before this task is there.
    there: TaskId,
    /// By the end of what they come behind.
    waiting: BTreeMap<TaskId, Vec<TaskId>>,
}

impl<'a> Scheduler<'a> {
    pub fn new(tasks: &'a Tasks, is_job: Vec<bool>, cancel: &'a AtomicBool) -> Self {
        let mut dependents = vec![Vec::new(); tasks.all.len()];
        let mut queues = BTreeMap::<TaskId, Queue>::new();
        for (id, task) in tasks.all.iter().enumerate() {
            task.needs.iter().for_each(|need| dependents[*need].push(id));
            if !task.behind.is_empty() {
                let start = task.behind.start;
                let new = || Queue { there: start, waiting: BTreeMap::new() };
                queues.entry(start).or_insert_with(new).waiting.entry(task.behind.end).or_default().push(id);
            }
        }
        let state = State {
            status: vec![Status::Waiting; tasks.all.len()],
            missing: tasks
                .all
                .iter()
                .map(|task| task.needs.len() + usize::from(!task.behind.is_empty()))
                .collect(),
            queues,
            ready: BTreeSet::new(),
            deferred: Vec::new(),
            open: is_job.iter().filter(|job| !**job).count(),
            stopped: false,
        };
        let scheduler =
            Self { tasks, dependents, is_job, cancel, state: Mutex::new(state), changed: Condvar::new() };
        let mut state = scheduler.lock();
        for id in 0..tasks.all.len() {
            scheduler.open_if_ready(&mut state, id);
        }
        drop(state);
        scheduler
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

    /// The next task, and of the ready ones of the same pass of its stage as many as `batch` wants beside it, which is told that
    /// task and how many are ready; waits for one. Nothing when there is nothing left to do.
    pub fn take(&self, batch: impl Fn(TaskId, usize) -> usize) -> Vec<TaskId> {
        let mut state = self.lock();
        loop {
            if state.open == 0 || self.is_stopped(&state) {
                return Vec::new();
            }
            if let Some(ids) = self.take_ready(&mut state, &batch) {
                return ids;
            }
            let now = Instant::now();
            if let Some(due) = state.deferred.iter().position(|(when, _)| *when <= now) {
                return vec![state.deferred.swap_remove(due).1];
            }
            state = self.wait_on(state);
        }
    }

    /// As [`Scheduler::take`], for who must not wait: nothing when nothing is ready now.
    pub fn take_now(&self, batch: impl Fn(TaskId, usize) -> usize) -> Option<Vec<TaskId>> {
        self.take_ready(&mut self.lock(), &batch)
    }

    fn take_ready(&self, state: &mut State, batch: &impl Fn(TaskId, usize) -> usize) -> Option<Vec<TaskId>> {
        let ready = state.ready.len();
        let (_, id) = state.ready.pop_first()?;
        let more = batch(id, ready).saturating_sub(1);
        Some(self.with_more(state, id, more))
    }

    fn with_more(&self, state: &mut State, id: TaskId, more: usize) -> Vec<TaskId> {
        let kind = |id: TaskId| (self.tasks.all[id].node, self.tasks.all[id].pass);
        let like = state.ready.iter().copied().filter(|(_, other)| kind(*other) == kind(id)).take(more);
        let like: Vec<(usize, TaskId)> = like.collect();
        like.iter().for_each(|one| {
            state.ready.remove(one);
        });
        std::iter::once(id).chain(like.into_iter().map(|(_, id)| id)).collect()
    }

    fn wait_on<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait_timeout(state, POLL).unwrap_or_else(PoisonError::into_inner).0
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

    /// Looks at the task again after `pause`.
    pub fn defer(&self, id: TaskId, pause: Duration) {
        self.lock().deferred.push((Instant::now() + pause, id));
        self.changed.notify_all();
    }

    /// The output is there.
    pub fn done(&self, id: TaskId, entry: Entry, reused: bool) {
        let mut state = self.lock();
        self.close(&mut state, id, Status::Done { entry, reused });
        let behind = state.no_longer_behind(id);
        for &dependent in self.dependents[id].iter().chain(&behind) {
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
        self.skip(&mut state, id);
        drop(state);
        self.changed.notify_all();
    }

    /// Somebody else makes the output, at another time; what needs it is not made here either.
    pub fn leave(&self, id: TaskId) {
        let mut state = self.lock();
        self.close(&mut state, id, Status::Skipped);
        self.skip(&mut state, id);
        drop(state);
        self.changed.notify_all();
    }

    /// What is left of several tasks, and all that needs any of them, cannot be had.
    pub fn failed_all(&self, ids: Range<TaskId>, stop: bool) {
        let mut state = self.lock();
        state.stopped |= stop;
        for id in ids {
            if matches!(state.status[id], Status::Waiting | Status::Open) {
                self.close(&mut state, id, Status::Failed);
            }
            self.skip(&mut state, id);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Skips all that needs a task.
    fn skip(&self, state: &mut State, id: TaskId) {
        let mut lost = self.dependents[id].clone();
        lost.extend(state.behind_for_ever(id));
        while let Some(next) = lost.pop() {
            if matches!(state.status[next], Status::Waiting | Status::Open) {
                self.close(state, next, Status::Skipped);
                lost.extend(&self.dependents[next]);
                lost.extend(state.behind_for_ever(next));
            }
        }
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

impl State {
    /// The tasks that come behind nothing that is missing, now that `id` is there.
    fn no_longer_behind(&mut self, id: TaskId) -> Vec<TaskId> {
        let Some((_, queue)) = self.queues.range_mut(..=id).next_back() else { return Vec::new() };
        if queue.there != id {
            return Vec::new();
        }
        while matches!(self.status.get(queue.there), Some(Status::Done { .. })) {
            queue.there += 1;
        }
        let later = queue.waiting.split_off(&(queue.there + 1));
        std::mem::replace(&mut queue.waiting, later).into_values().flatten().collect()
    }

    /// The tasks that come behind `id`, which will never be there.
    fn behind_for_ever(&mut self, id: TaskId) -> Vec<TaskId> {
        let Some((_, queue)) = self.queues.range_mut(..=id).next_back() else { return Vec::new() };
        queue.waiting.split_off(&(id + 1)).into_values().flatten().collect()
    }
}

impl Known for Scheduler<'_> {
    fn entry(&self, task: TaskId) -> Option<Entry> {
        match self.lock().status.get(task) {
            Some(Status::Done { entry, .. }) => Some(entry.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::tasks::{Pass, Task};

    /// Four partitions of a table, and a unit of a gather stage for each, which comes behind those before it.
    fn tasks() -> Tasks {
        let task = |node, index, needs, behind| Task { node, pass: Pass::Main, index, needs, behind };
        let mut tasks = Tasks::default();
        tasks.all.extend((0..4).map(|index| task(0, index, Vec::new(), 0..0)));
        tasks.all.extend((0..4).map(|index| task(1, index, vec![index], 0..index)));
        tasks
    }

    fn done(scheduler: &Scheduler<'_>, id: TaskId) {
        scheduler.done(id, Entry { key: String::new(), digest: String::new(), rows: 1 }, false);
    }

    fn units(scheduler: &Scheduler<'_>) -> Vec<&'static str> {
        let name = |id| match scheduler.status(id) {
            Status::Waiting => "waiting",
            Status::Open => "open",
            Status::Done { .. } => "done",
            Status::Failed => "failed",
            Status::Skipped => "skipped",
        };
        (4..8).map(name).collect()
    }

    #[test]
    fn a_unit_opens_when_its_partition_and_all_before_it_are_there() {
        let (tasks, cancel) = (tasks(), AtomicBool::new(false));
        let scheduler = Scheduler::new(&tasks, vec![false; 8], &cancel);
        done(&scheduler, 2);
        assert_eq!(units(&scheduler), ["waiting"; 4]);
        done(&scheduler, 0);
        assert_eq!(units(&scheduler), ["open", "waiting", "waiting", "waiting"]);
        done(&scheduler, 1);
        assert_eq!(units(&scheduler), ["open", "open", "open", "waiting"]);
        done(&scheduler, 3);
        assert_eq!(units(&scheduler), ["open"; 4]);
    }

    #[test]
    fn units_behind_a_partition_that_failed_are_skipped() {
        let (tasks, cancel) = (tasks(), AtomicBool::new(false));
        let scheduler = Scheduler::new(&tasks, vec![false; 8], &cancel);
        scheduler.failed(1, false);
        done(&scheduler, 0);
        done(&scheduler, 2);
        assert_eq!(units(&scheduler), ["open", "skipped", "skipped", "skipped"]);
        assert_eq!([scheduler.take(|_, _| 1), scheduler.take(|_, _| 1)], [[4], [3]]);
    }

    #[test]
    fn a_batch_has_tasks_of_one_stage_in_order() {
        let (tasks, cancel) = (tasks(), AtomicBool::new(false));
        let scheduler = Scheduler::new(&tasks, vec![false; 8], &cancel);
        assert_eq!(scheduler.take(|id, ready| if (id, ready) == (0, 4) { 2 } else { 0 }), [0, 1]);
        done(&scheduler, 0);
        assert_eq!(scheduler.take(|_, _| 9), [4], "the unit of partition 0 comes before partition 2");
        assert_eq!(scheduler.take(|_, _| 9), [2, 3]);
    }

    #[test]
    fn what_is_left_to_others_and_what_needs_it_is_not_taken() {
        let (tasks, cancel) = (tasks(), AtomicBool::new(false));
        let scheduler = Scheduler::new(&tasks, vec![false; 8], &cancel);
        scheduler.leave(1);
        assert_eq!(units(&scheduler), ["waiting", "skipped", "skipped", "skipped"]);
        assert_eq!(scheduler.take(|_, _| 9), [0, 2, 3]);
    }
}
