//! Runs gone through without doing anything: the same tasks in the same order, and the same questions to a store.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::float_cmp, reason = "whole seconds are exact")]

mod common;

use common::objects::Bucket;
use common::{ALL_ROLES, World, lines};
use llavm_pipeline::rehearsal::{Ask, Cluster, How, KeysOnly, Wave, Work};
use llavm_pipeline::storage::Store;
use llavm_pipeline::{Committed, Counts, Ended, Engine, Entry, Executor, Pass, Silent, TaskError, TaskSpec};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

/// Everything takes a second, however much it is.
struct Clock {
    slots: usize,
    batch: usize,
    asks: Vec<String>,
}

impl Cluster for Clock {
    fn slots(&self) -> usize {
        self.slots
    }

    fn batch(&self, _stage: &str, _ready: usize) -> usize {
        self.batch
    }

    fn open(&mut self, outputs: usize, ready: usize) -> f64 {
        self.asks.push(format!("{outputs} outputs, {ready} ready"));
        0.0
    }

    fn ask(&mut self, now: f64, ask: &Ask<'_>) -> f64 {
        let how = |work: &Work<'_>| match work.how {
            How::Apart => format!("{} {}", work.tasks, work.stage),
            How::InOrder => format!("{} {} in order", work.tasks, work.stage),
            How::Whole(partitions) => format!("{} of {partitions} partitions", work.stage),
        };
        let work: Vec<String> = ask.work.iter().map(how).collect();
        self.asks.push(format!("{now}: {} known, {}", ask.known, work.join(" and ")));
        now + 1.0
    }
}

/// Three partitions; gather units one for each, or one of all.
fn world(per_partition: bool) -> World {
    let mut world = World::new(ALL_ROLES);
    world.write("a.txt", &lines("a", 900));
    if !per_partition {
        world.edit("per_partition = true", "per_partition = false");
    }
    world
}

fn rehearse(world: &World, slots: usize, batch: usize) -> (f64, Vec<Wave>, Vec<String>) {
    let mut clock = Clock { slots, batch, asks: Vec::new() };
    let rehearsed = world.engine().rehearse(&mut clock).unwrap();
    (rehearsed.seconds, rehearsed.waves, clock.asks)
}

#[test]
fn every_output_is_asked_for_once_in_the_order_of_a_run() {
    let (seconds, waves, asks) = rehearse(&world(false), 2, 9);
    assert_eq!(
        asks,
        [
            "14 outputs, 6 ready",
            "0: 0 known, 3 pixels",
            "0: 0 known, 3 unique",
            // The pass begins when all before it is there; one process does all of it.
            "1: 0 known, 3 unique in order",
            // The planner learns of it partition by partition.
            "2: 0 known, 1 loud",
            "2: 1 known, ",
            "3: 0 known, 1 loud",
            "3: 1 known, ",
            "4: 0 known, 1 loud",
            "5: 0 known, packed of 3 partitions",
        ]
    );
    assert_eq!(seconds, 6.0);
    let tasks: Vec<_> = waves.iter().map(|wave| (wave.stage.as_str(), wave.pass, wave.tasks)).collect();
    let (first, main) = (Pass::Intermediate, Pass::Main);
    assert_eq!(
        tasks,
        [
            ("pixels", main, 3),
            ("unique", first, 3),
            ("unique", main, 3),
            ("loud", main, 3),
            ("packed", main, 1)
        ]
    );
}

#[test]
fn with_one_slot_nothing_goes_on_beside_something_else() {
    let (seconds, waves, asks) = rehearse(&world(true), 1, 1);
    assert_eq!(seconds, (asks.len() - 1) as f64);
    assert_eq!(waves.iter().map(|wave| wave.tasks).sum::<usize>(), 15);
    assert_eq!(waves.iter().map(|wave| wave.asks).sum::<usize>(), asks.len() - 1);
}

/// Workers that share a bucket with the planner.
struct Workers(Engine);

impl Executor for Workers {
    fn execute(&self, task: &TaskSpec) -> Result<Committed, TaskError> {
        let ended = Mutex::new(None);
        let never = AtomicBool::new(false);
        self.0
            .work(std::slice::from_ref(task), false, &Silent, &never, &|_, end| {
                if let Ended::Done(done) = end {
                    *ended.lock().unwrap() = Some(done.clone());
                }
            })
            .unwrap();
        ended.into_inner().unwrap().ok_or(TaskError::Busy)
    }
}

/// Workers that have done everything at once.
struct AtOnce(Arc<KeysOnly>);

impl Executor for AtOnce {
    fn execute(&self, task: &TaskSpec) -> Result<Committed, TaskError> {
        self.0.make(&task.stage, &task.key);
        let entry = Entry { key: task.key.clone(), digest: task.key.clone(), rows: 0 };
        Ok(Committed { entry, counts: Counts::default(), reused: false })
    }
}

fn run(engine: &Engine) {
    let finished = engine.run(&Silent, &AtomicBool::new(false)).unwrap();
    assert!(finished.errors.is_empty(), "{:?}", finished.errors);
}

/// Requests of a planner whose workers use the same bucket, by kind: a run that makes all, and one with nothing to do.
fn asked_of_a_bucket(world: &World) -> [BTreeMap<&'static str, u64>; 2] {
    let theirs = Bucket::default();
    let ours = Bucket { inner: Arc::clone(&theirs.inner), ..Bucket::default() };
    let store = |bucket: &Bucket, machine| bucket.store(&world.path(machine)) as Arc<dyn Store>;
    let workers = Workers(world.engine().with_store(store(&theirs, "worker")));
    let planner = world.engine().with_store(store(&ours, "planner")).with_executor(Arc::new(workers));
    [(), ()].map(|()| {
        run(&planner);
        let mut all = BTreeMap::new();
        for ((operation, top), n) in ours.take_calls() {
            let kind = match operation {
                "get" => "GET",
                "head" => "HEAD",
                "list" => "LIST",
                "delete" => "DELETE",
                _ => "PUT",
            };
            // A lease that is renewed, a clock that is asked, what killed processes left once a week: none of it is planning.
            if !matches!(top.as_str(), "locks" | "claims") {
                *all.entry(kind).or_default() += n as u64;
            }
        }
        all
    })
}

fn asked_of_keys(world: &World) -> [BTreeMap<&'static str, u64>; 2] {
    let store = KeysOnly::open(&world.path("keys"), 300).unwrap();
    let workers = AtOnce(Arc::clone(&store));
    let planner = world.engine().with_store(Arc::clone(&store) as _).with_executor(Arc::new(workers));
    [(), ()].map(|()| {
        run(&planner);
        store.take_requests()
    })
}

#[test]
fn a_store_of_nothing_but_keys_is_asked_what_a_bucket_is_asked() {
    let mut world = world(false);
    let job = world.manifest.find("[stages.counted]").unwrap();
    world.manifest.truncate(job);
    let (bucket, mut keys) = (asked_of_a_bucket(&world), asked_of_keys(&world));
    for requests in &mut keys {
        // Its lease on the store.
        for kind in ["PUT", "HEAD", "DELETE"] {
            *requests.get_mut(kind).unwrap() -= 1;
        }
        requests.retain(|_, n| *n > 0);
    }
    assert_eq!(keys, bucket);
}
