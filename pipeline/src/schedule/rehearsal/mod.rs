//! A run rehearsed: its tasks as the scheduler hands them out, in a time of its own, and none of them done.
//!
//! Tasks, their order, what is asked for together and what a process does behind it are those of a run: the same [`Scheduler`],
//! [`Tasks`] and [`follows`]. How long anything takes is made up by a [`Cluster`]. [`keys_only`] is a store for it.

pub mod keys_only;

use super::scheduler::{Scheduler, Status};
use crate::keys::builder::Entry;
use crate::keys::session::Session;
use crate::keys::tasks::{Pass, TaskId, Tasks, follows, is_sequential};
use crate::spec::graph::NodeIndex;
use crate::spec::registry::Role;
use crate::spec::stage::Units;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::atomic::AtomicBool;

/// Says how long things take, in seconds.
pub trait Cluster {
    /// How many asks may be under way.
    fn slots(&self) -> usize;
    /// How many tasks of a stage are asked for at once, when so many are ready (of any stage).
    fn batch(&self, stage: &str, ready: usize) -> usize;
    /// When the planner is ready to ask; `ready` tasks can be done at once.
    fn open(&mut self, tasks: usize, ready: usize) -> f64;
    /// When an ask that begins at `now` is answered, and the planner knows what came of it.
    fn ask(&mut self, now: f64, ask: &Ask<'_>) -> f64;
}

/// What is asked for at once: tasks of one pass of a stage.
#[derive(Debug)]
pub struct Ask<'a> {
    /// Tasks whose outputs were made along with others: they are only looked up.
    pub known: usize,
    /// Tasks that are handed on.
    pub asked: usize,
    /// What a process does for them, what follows included. None where all is known.
    pub work: Vec<Work<'a>>,
}

/// Tasks that one process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work<'a> {
    pub stage: &'a str,
    pub tasks: usize,
    pub how: How,
}

/// How tasks are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Partitions, each by itself.
    Apart,
    /// Partitions, one after the other.
    InOrder,
    /// A whole table of so many partitions at once.
    Whole(usize),
}

/// What a rehearsal shows.
#[derive(Debug, Default)]
pub struct Rehearsed {
    /// When the last task was done.
    pub seconds: f64,
    /// By stage and pass, in the order of the graph.
    pub waves: Vec<Wave>,
}

/// One pass of a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Wave {
    pub stage: String,
    pub pass: Pass,
    pub tasks: usize,
    /// How often the cluster was asked for some of them.
    pub asks: usize,
    /// From the first ask until the last was answered.
    pub from: f64,
    pub until: f64,
}

/// An ask under way; the one that is answered first is the greatest.
struct Running {
    until: f64,
    /// Of two that end at once, the one that began first ends first.
    number: usize,
    ids: Vec<TaskId>,
}

impl Ord for Running {
    fn cmp(&self, other: &Self) -> Ordering {
        other.until.total_cmp(&self.until).then(other.number.cmp(&self.number))
    }
}

impl PartialOrd for Running {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Running {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Running {}

/// Goes through all tasks but jobs.
pub fn rehearse(session: &Session<'_>, tasks: &Tasks, cluster: &mut dyn Cluster) -> Rehearsed {
    let is_job: Vec<bool> =
        tasks.all.iter().map(|task| session.graph.nodes[task.node].stage.role.is_job()).collect();
    let never = AtomicBool::new(false);
    let mut dependents = vec![Vec::new(); tasks.all.len()];
    for (id, task) in tasks.all.iter().enumerate() {
        task.needs.iter().for_each(|need| dependents[*need].push(id));
    }
    let play = Play {
        session,
        tasks,
        scheduler: Scheduler::new(tasks, is_job, &never),
        dependents,
        made: vec![false; tasks.all.len()],
        early: Vec::new(),
        waves: BTreeMap::new(),
    };
    play.run(cluster)
}

struct Play<'a> {
    session: &'a Session<'a>,
    tasks: &'a Tasks,
    scheduler: Scheduler<'a>,
    /// By task: what needs it.
    dependents: Vec<Vec<TaskId>>,
    /// By task: whether a process has made its output, known to the planner or not.
    made: Vec<bool>,
    /// Sequential passes that wait until all before them is there.
    early: Vec<TaskId>,
    waves: BTreeMap<(NodeIndex, Pass), Wave>,
}

impl Play<'_> {
    fn run(mut self, cluster: &mut dyn Cluster) -> Rehearsed {
        let ready = self.tasks.all.iter().filter(|task| task.needs.is_empty() && task.behind.is_empty());
        let mut now = cluster.open(self.tasks.all.len(), ready.count());
        let mut running = BinaryHeap::new();
        for number in 0.. {
            while running.len() < cluster.slots()
                && let Some(ids) = self.next(cluster)
            {
                let until = self.ask(now, &ids, cluster);
                running.push(Running { until, number, ids });
            }
            let Some(Running { until, ids, .. }) = running.pop() else { break };
            now = until;
            ids.into_iter().for_each(|id| self.done(id));
        }
        Rehearsed { seconds: now, waves: self.waves.into_values().collect() }
    }

    /// What is asked for next. Nobody begins a sequential pass before all of its table is there.
    fn next(&mut self, cluster: &dyn Cluster) -> Option<Vec<TaskId>> {
        let due = self.early.iter().position(|id| !self.is_early(*id));
        if let Some(due) = due {
            return Some(vec![self.early.swap_remove(due)]);
        }
        loop {
            let batch = |id: TaskId, ready| cluster.batch(self.session.name(self.tasks.all[id].node), ready);
            let ids = self.scheduler.take_now(batch)?;
            let (early, ids): (Vec<TaskId>, Vec<TaskId>) = ids.into_iter().partition(|id| self.is_early(*id));
            self.early.extend(early);
            if !ids.is_empty() {
                return Some(ids);
            }
        }
    }

    fn is_early(&self, id: TaskId) -> bool {
        let task = &self.tasks.all[id];
        let is_there = |id: TaskId| matches!(self.scheduler.status(id), Status::Done { .. });
        self.is_pass(id) && !self.tasks.of(task.node, Pass::Intermediate).all(is_there)
    }

    fn is_pass(&self, id: TaskId) -> bool {
        let task = &self.tasks.all[id];
        task.pass == Pass::Main && is_sequential(self.session, task.node)
    }

    fn done(&self, id: TaskId) {
        self.scheduler.done(id, Entry { key: String::new(), digest: String::new(), rows: 0 }, false);
    }

    /// When an ask is answered.
    fn ask(&mut self, now: f64, ids: &[TaskId], cluster: &mut dyn Cluster) -> f64 {
        let (known, asked): (Vec<TaskId>, Vec<TaskId>) = ids.iter().copied().partition(|id| self.made[*id]);
        let done = self.do_all(&asked);
        let work = done.into_iter().map(|((node, _), ids)| self.work(node, &ids)).collect();
        let until = cluster.ask(now, &Ask { known: known.len(), asked: asked.len(), work });
        let task = &self.tasks.all[ids[0]];
        let new = || Wave {
            stage: self.session.name(task.node).to_owned(),
            pass: task.pass,
            tasks: 0,
            asks: 0,
            from: now,
            until,
        };
        let wave = self.waves.entry((task.node, task.pass)).or_insert_with(new);
        (wave.tasks, wave.asks, wave.until) = (wave.tasks + ids.len(), wave.asks + 1, until.max(wave.until));
        until
    }

    /// What one process does when it is asked for tasks, by pass: those, and what follows.
    fn do_all(&mut self, asked: &[TaskId]) -> BTreeMap<(NodeIndex, Pass), Vec<TaskId>> {
        let (mut all, mut left) = (BTreeMap::<_, Vec<TaskId>>::new(), asked.to_vec());
        asked.iter().for_each(|id| self.made[*id] = true);
        while let Some(id) = left.pop() {
            let task = &self.tasks.all[id];
            all.entry((task.node, task.pass)).or_default().push(id);
            for &next in &self.dependents[id] {
                let behind = &self.tasks.all[next];
                let is_ready = behind.needs.iter().all(|need| self.made[*need]);
                if is_ready && !self.made[next] && follows(self.session, task, behind) {
                    self.made[next] = true;
                    left.push(next);
                }
            }
        }
        all
    }

    fn work(&self, node: NodeIndex, ids: &[TaskId]) -> Work<'_> {
        let how = match &self.session.graph.nodes[node].stage.role {
            Role::Gather(stage) if stage.units() == Units::Whole => {
                How::Whole(self.session.units(node).count())
            }
            _ if ids.first().is_some_and(|id| self.is_pass(*id)) => How::InOrder,
            _ => How::Apart,
        };
        Work { stage: self.session.name(node), tasks: ids.len(), how }
    }
}
