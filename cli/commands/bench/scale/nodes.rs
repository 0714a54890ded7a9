//! Nodes that a run is rehearsed on: how long each thing takes, and what everybody was busy with.
//!
//! - The planner works out keys one after the other; each of its threads waits for what it asked for, and then looks up its outputs,
//!   a GET and a HEAD each, 16 outputs at once.
//! - A node does one task at a time with all its CPUs. A task begins with the start of a process. Requests of partitions that are
//!   made apart wait beside each other, as many as there are CPUs; transfers go on beside computing.
//! - A pass in row order, and a gather stage, does one thing after the other: its requests, its bytes and its computing add up.

use crate::ray::pace::Pace;
use llavm_pipeline::rehearsal::{Ask, Cluster, How, LOOKUPS, Work};
use std::collections::BTreeMap;

/// Requests of a partition that is made (`docs/object-store.md`): GET and HEAD, PUT and DELETE.
const READS: f64 = 4.0;
const WRITES: f64 = 4.0;

/// Requests of the planner, or of a process, that learns of an output: its record, and that its content is there.
const LOOKUP: f64 = 2.0;

/// How the name of a stage goes on where its pass in row order is meant.
pub const IN_ORDER: &str = " in order";

/// What a row of a stage takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Seconds of one CPU.
    pub seconds: f64,
    /// Bytes fetched and put.
    pub read: f64,
    pub written: f64,
}

/// Sizes and times, in seconds and bytes.
#[derive(Clone, Debug)]
pub struct Parameters {
    pub nodes: usize,
    pub cpus: usize,
    pub partition_rows: usize,
    /// An answer to GET or HEAD, and to PUT or DELETE.
    pub get: f64,
    pub put: f64,
    /// Bytes a second between a node and the store.
    pub bandwidth: f64,
    /// From the planner's ask until the node's process does the first task.
    pub start: f64,
    /// The planner's own work on one output.
    pub plan: f64,
    /// Threads that look outputs up before a run.
    pub lookups: usize,
    /// By stage; its pass in row order goes by [`IN_ORDER`] behind the name.
    pub costs: BTreeMap<String, Cost>,
}

/// Who was busy for how long, and with what.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Busy {
    /// Seconds of the planner's own work.
    pub planner: f64,
    /// By stage: seconds of nodes.
    pub nodes: BTreeMap<String, f64>,
    /// Requests of the planner, and of nodes.
    pub asked_by_planner: f64,
    pub asked_by_nodes: f64,
    pub bytes: f64,
}

/// The nodes of a rehearsal.
#[derive(Debug)]
pub struct Nodes {
    parameters: Parameters,
    pace: Pace,
    /// When the planner has worked out what it was to work out.
    planner: f64,
    /// By node: when it is free.
    free: Vec<f64>,
    pub busy: Busy,
}

impl Nodes {
    pub fn new(parameters: Parameters) -> Self {
        let free = vec![0.0; parameters.nodes];
        Self { parameters, pace: Pace::default(), planner: 0.0, free, busy: Busy::default() }
    }

    /// When the planner has worked on so many outputs, at the earliest from `now` on.
    fn plan(&mut self, now: f64, outputs: usize) -> f64 {
        let seconds = outputs as f64 * self.parameters.plan;
        self.busy.planner += seconds;
        self.planner = self.planner.max(now) + seconds;
        self.planner
    }

    /// Seconds until so many outputs are looked up, some at once.
    fn look_up(&mut self, outputs: usize) -> f64 {
        self.busy.asked_by_planner += outputs as f64 * LOOKUP;
        outputs.div_ceil(LOOKUPS) as f64 * LOOKUP * self.parameters.get
    }

    fn cost(&self, work: &Work<'_>) -> Cost {
        let in_order = format!("{}{IN_ORDER}", work.stage);
        let name = if work.how == How::InOrder { in_order.as_str() } else { work.stage };
        self.parameters.costs.get(name).copied().unwrap_or_default()
    }

    /// Seconds of one node.
    fn work(&mut self, work: &Work<'_>) -> f64 {
        let Parameters { cpus, get, put, bandwidth, .. } = self.parameters;
        let Cost { seconds, read, written } = self.cost(work);
        let partitions = match work.how {
            How::Whole(partitions) => partitions,
            How::Apart | How::InOrder => work.tasks,
        } as f64;
        let rows = partitions * self.parameters.partition_rows as f64;
        let (computing, bytes) = (rows * seconds, rows * (read + written));
        let transfer = bytes / bandwidth;
        // Content is fetched by one request more.
        let (reads, writes) = match work.how {
            How::Apart => (READS + 1.0, WRITES),
            How::InOrder => (READS + 1.0 + LOOKUP, WRITES),
            How::Whole(_) => (2.0 * (LOOKUP + 1.0), 0.0),
        };
        let waiting = partitions * (reads * get + writes * put);
        self.busy.asked_by_nodes += partitions * (reads + writes);
        self.busy.bytes += bytes;
        let cpus = cpus as f64;
        let all = match work.how {
            How::Apart => ((computing + waiting) / cpus).max(transfer),
            How::InOrder | How::Whole(_) => computing + waiting + transfer,
        };
        *self.busy.nodes.entry(work.stage.to_owned()).or_default() += all;
        all
    }

    /// The node that is free first.
    fn first_free(&mut self) -> &mut f64 {
        let first = (0..self.free.len()).min_by(|a, b| self.free[*a].total_cmp(&self.free[*b]));
        &mut self.free[first.unwrap_or(0)]
    }
}

impl Cluster for Nodes {
    /// The planner asks for one task more than work at a time, so that the next one is there when one ends.
    fn slots(&self) -> usize {
        self.parameters.nodes + 1
    }

    fn batch(&self, stage: &str, ready: usize) -> usize {
        self.pace.batch(stage, ready, self.parameters.nodes)
    }

    /// Everything is looked up, as far as its key is known: a GET that finds nothing.
    fn open(&mut self, outputs: usize, ready: usize) -> f64 {
        self.busy.asked_by_planner += ready as f64;
        let asking = ready as f64 * self.parameters.get / self.parameters.lookups as f64;
        self.plan(0.0, outputs) + asking
    }

    fn ask(&mut self, now: f64, ask: &Ask<'_>) -> f64 {
        let begun = self.plan(now, ask.known + ask.asked) + self.look_up(ask.known);
        let Some(first) = ask.work.first() else { return begun };
        let seconds: f64 = ask.work.iter().map(|work| self.work(work)).sum();
        let seconds = self.parameters.start + seconds;
        self.pace.remember(first.stage, ask.asked, seconds);
        let node = self.first_free();
        *node = node.max(begun) + seconds;
        let done = *node;
        done + self.look_up(ask.asked)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "the numbers are exact")]

    use super::*;

    fn parameters() -> Parameters {
        let cost = Cost { seconds: 1.0, read: 10.0, written: 10.0 };
        Parameters {
            nodes: 2,
            cpus: 4,
            partition_rows: 10,
            get: 0.5,
            put: 1.0,
            bandwidth: 100.0,
            start: 3.0,
            plan: 0.25,
            lookups: 2,
            costs: BTreeMap::from([("a".to_owned(), cost), (format!("a{IN_ORDER}"), cost)]),
        }
    }

    fn ask(known: usize, asked: usize, how: How) -> Ask<'static> {
        let work = Work { stage: "a", tasks: asked, how };
        Ask { known, asked, work: if asked > 0 { vec![work] } else { Vec::new() } }
    }

    #[test]
    fn an_ask_takes_planning_a_start_the_work_and_a_lookup_of_each_output() {
        let mut nodes = Nodes::new(parameters());
        // Two partitions of 10 rows: 20 s of CPU and 13 s of waiting on 4 CPUs, 4 s of transfer beside it.
        let done = nodes.ask(0.0, &ask(0, 2, How::Apart));
        assert_eq!(done, 0.5 + 3.0 + (20.0 + 13.0) / 4.0 + 1.0);
        // The other node is free; the planner goes on where it was.
        assert_eq!(nodes.ask(0.0, &ask(0, 2, How::Apart)), done + 0.5);
        // Both are at work.
        assert_eq!(nodes.ask(0.0, &ask(0, 2, How::Apart)), done + 3.0 + 33.0 / 4.0);
        assert_eq!(nodes.busy.asked_by_planner, 12.0);
    }

    #[test]
    fn what_is_done_in_order_waits_for_every_request_and_what_is_known_is_only_looked_up() {
        let mut nodes = Nodes::new(parameters());
        let done = nodes.ask(0.0, &ask(0, 2, How::InOrder));
        assert_eq!(done, 0.5 + 3.0 + 20.0 + 2.0 * (7.0 * 0.5 + 4.0) + 4.0 + 1.0);
        let mut nodes = Nodes::new(parameters());
        assert_eq!(nodes.ask(0.0, &ask(0, 1, How::Whole(5))), 0.25 + 3.0 + 50.0 + 15.0 + 10.0 + 1.0);
        let mut nodes = Nodes::new(parameters());
        assert_eq!(nodes.ask(1.0, &ask(40, 0, How::Apart)), 1.0 + 10.0 + 3.0);
        assert_eq!((nodes.busy.planner, nodes.busy.nodes.len()), (10.0, 0));
        let mut nodes = Nodes::new(parameters());
        assert_eq!(nodes.open(8, 4), 2.0 + 1.0);
    }
}
