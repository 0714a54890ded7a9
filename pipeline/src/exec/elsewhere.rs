//! Tasks done by an executor that the caller brings: other processes, other machines.
//!
//! What it says is not believed: an output counts once the store has its record and its files.

use super::builder::{Active, Builder, gives_folder};
use super::executor::{Committed, Executor, TaskError, TaskSpec};
use crate::keys::tasks::{Pass, Task, TaskId, is_sequential};
use crate::spec::error::StageError;
use crate::spec::event::Event;
use crate::store::Address;
use crate::table::find::find;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Outputs that one thread of the planner asks the store for at once: an answer of a bucket takes a while.
pub const LOOKUPS: usize = 16;

/// How often what is not seen yet is looked for.
const AGAIN: Duration = Duration::from_millis(500);

/// Hands tasks on, and looks up what came of them.
pub struct Elsewhere<'a> {
    executor: &'a dyn Executor,
    builder: &'a Builder<'a>,
    /// Tasks that were handed on before.
    asked: Mutex<BTreeSet<TaskId>>,
}

impl<'a> Elsewhere<'a> {
    pub fn new(executor: &'a dyn Executor, builder: &'a Builder<'a>) -> Self {
        Self { executor, builder, asked: Mutex::default() }
    }

    /// Before a task is handed on for the first time. Whoever does it knows nothing of `--force`: it finds no record.
    fn begin(&self, id: TaskId, task: &Task, key: &str) -> Result<(), StageError> {
        if !self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            return Ok(());
        }
        let Builder { session, host, force, .. } = self.builder;
        let label = session.label(task.node, task.index);
        host.event(&Event::Started { stage: task.node, label, rows: None });
        if !force.contains(&task.node) {
            return Ok(());
        }
        let is_folder = gives_folder(&session.graph.nodes[task.node].stage.role);
        let address = if is_folder { Address::folder } else { Address::table };
        session.store.forget(&address(session.name(task.node), key))
    }
}

/// What has to be done for a task.
enum Turn {
    /// Nothing: it ended like this.
    Over(Result<Committed, TaskError>),
    /// It is handed on; its output will have this key.
    HandOn(TaskId, String),
}

impl Elsewhere<'_> {
    fn turn(&self, spec: &TaskSpec) -> Result<Turn, StageError> {
        let id = self.builder.task(spec)?;
        let task = &self.builder.tasks.all[id];
        // A job may begin before its inputs are there only where it can wait for them: in this process.
        let parts = self.builder.keys().parts(task)?.filter(|_| !self.is_early(task));
        let Some(key) = parts.map(|parts| parts.key()) else {
            return Ok(Turn::Over(Err(TaskError::NotReady)));
        };
        if self.executor.has_made(&key)
            && let Some((entry, counts)) = find(self.builder.session, task, &key)?
        {
            return Ok(Turn::Over(Ok(Committed { entry, counts, reused: false })));
        }
        self.begin(id, task, &key)?;
        Ok(Turn::HandOn(id, key))
    }

    /// Whether a sequential pass would be begun before all of its table is there: whoever does it goes through the whole table, and
    /// would have to begin anew.
    fn is_early(&self, task: &Task) -> bool {
        let Builder { session, tasks, host, .. } = self.builder;
        let is_pass = task.pass == Pass::Main && is_sequential(session, task.node);
        let comes = |id: TaskId| host.entry(id).is_none() && host.pending(id);
        is_pass && tasks.of(task.node, Pass::Intermediate).any(comes)
    }

    /// What the store says of a task that the executor says is done.
    fn committed(&self, id: TaskId, key: &str, reused: bool) -> Result<Committed, TaskError> {
        let (start, patience) = (Instant::now(), self.executor.patience());
        loop {
            if let Some((entry, counts)) = find(self.builder.session, &self.builder.tasks.all[id], key)? {
                return Ok(Committed { entry, counts, reused });
            }
            if self.builder.host.stopping() {
                return Err(TaskError::Stopped);
            }
            if start.elapsed() >= patience {
                let text = format!("the executor says that it is done, but the store has no record of {key}");
                return Err(StageError::new(text).help("It has to work on the same store.").into());
            }
            std::thread::sleep(AGAIN);
        }
    }
}

impl Executor for Elsewhere<'_> {
    fn execute(&self, spec: &TaskSpec) -> Result<Committed, TaskError> {
        let (id, key) = match self.turn(spec)? {
            Turn::Over(ended) => return ended,
            Turn::HandOn(id, key) => (id, key),
        };
        let _active = Active::new(self.builder.host, self.builder.tasks.all[id].node);
        let reused = self.executor.execute(spec)?.reused;
        self.committed(id, &key, reused)
    }

    fn execute_all(&self, specs: &[TaskSpec]) -> Vec<Result<Committed, TaskError>> {
        let turn = |spec: &TaskSpec| self.turn(spec).unwrap_or_else(|cause| Turn::Over(Err(cause.into())));
        let turns: Vec<Turn> = apart(specs.iter().collect(), turn);
        let is_handed_on = |turn: &Turn| matches!(turn, Turn::HandOn(..));
        let handed_on = specs.iter().zip(&turns).filter(|(_, turn)| is_handed_on(turn));
        let handed_on: Vec<TaskSpec> = handed_on.map(|(spec, _)| spec.clone()).collect();
        let node = |spec: &TaskSpec| self.builder.task(spec).ok().map(|id| self.builder.tasks.all[id].node);
        let _active = handed_on.first().and_then(node).map(|node| Active::new(self.builder.host, node));
        let mut ended = match handed_on.as_slice() {
            [] => Vec::new(),
            all => self.executor.execute_all(all),
        }
        .into_iter();
        let lost = || Err(StageError::new("the executor did not say how it ended").into());
        let with_end = |turn: Turn| {
            let end = is_handed_on(&turn).then(|| ended.next().unwrap_or_else(lost));
            (turn, end)
        };
        let ends: Vec<_> = turns.into_iter().map(with_end).collect();
        apart(ends, |end| match end {
            (Turn::Over(ended), _) => ended,
            (Turn::HandOn(id, key), Some(done)) => {
                done.and_then(|done| self.committed(id, &key, done.reused))
            }
            (Turn::HandOn(..), None) => lost(),
        })
    }

    fn batch(&self, stage: &str, ready: usize) -> usize {
        self.executor.batch(stage, ready)
    }

    fn slots(&self) -> Option<usize> {
        self.executor.slots()
    }
}

/// Does something for each item, several at once; what came of it, in order.
fn apart<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    if items.len() < 2 {
        return items.into_iter().map(work).collect();
    }
    let left = Mutex::new(items.into_iter().enumerate());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let some = || std::iter::from_fn(next).map(|(n, item)| (n, work(item))).collect::<Vec<_>>();
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..LOOKUPS).map(|_| scope.spawn(some)).collect();
        // A panic goes on here: whoever asked says what it was.
        let joined = |thread: std::thread::ScopedJoinHandle<'_, Vec<(usize, R)>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().flat_map(joined).collect()
    });
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, done)| done).collect()
}
