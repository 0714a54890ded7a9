//! A store that is no folder: objects in a bucket. Whatever the engine does, it does there as well, with whatever goes wrong on the
//! way, and with any number of machines at once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::objects::{Bucket, Fault, Ignores, limits};
use common::{ALL_ROLES, World, counts, lines, ran, watched};
use llavm_pipeline::gc::Keep;
use llavm_pipeline::storage::{Address, Commit, Limits, Store};
use llavm_pipeline::{Engine, Finished, RunError, Silent, Summary};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// A world whose engines use a bucket, each on the machine of a name.
struct Elsewhere {
    world: World,
    bucket: Bucket,
}

impl Elsewhere {
    fn new() -> Self {
        Self::of(world())
    }

    fn of(world: World) -> Self {
        Self { world, bucket: Bucket::default() }
    }

    fn machine(&self, name: &str) -> PathBuf {
        self.world.path(&format!("machine-{name}"))
    }

    fn engine(&self, machine: &str) -> Engine {
        self.world.engine().with_store(self.bucket.store(&self.machine(machine)) as Arc<dyn Store>)
    }

    fn try_run(&self, machine: &str) -> Result<Finished, RunError> {
        watched("a run", || self.engine(machine).run(&Silent, &AtomicBool::new(false)))
    }

    fn run(&self, machine: &str) -> Summary {
        let finished = self.try_run(machine).unwrap();
        assert!(finished.errors.is_empty(), "{:?}", finished.errors);
        finished.summary
    }

    /// Tables, records and folders of jobs, as [`World::stored`] gives them. What a record does not name keeps its own name.
    fn stored(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let objects = self.bucket.objects();
        let is_result = |key: &&String| key.starts_with("tables/") || key.starts_with("jobs/");
        let mut stored = BTreeMap::new();
        for key in objects.keys().filter(is_result) {
            let parts: Vec<&str> = key.splitn(5, '/').collect();
            let name = match parts[..] {
                ["jobs", stage, unit, attempt, file] => {
                    let record = objects.get(&format!("jobs/{stage}/{unit}.json"));
                    let named = record.map(|bytes| blake3::hash(bytes).to_hex().to_string());
                    let is_named = named.is_some_and(|digest| digest.starts_with(attempt));
                    if is_named { format!("jobs/{stage}/{unit}/{file}") } else { key.clone() }
                }
                _ => key.clone(),
            };
            stored.insert(name.into(), objects[key].clone());
        }
        stored
    }
}

fn world() -> World {
    let world = World::new(ALL_ROLES);
    world.write("a.txt", &(lines("a", 700) + &lines("REJECT", 20) + &lines("a", 100)));
    world
}

/// What a run in a folder gives.
fn undisturbed(world: &World) -> BTreeMap<PathBuf, Vec<u8>> {
    world.run();
    let stored = world.stored();
    fs::remove_dir_all(world.store()).unwrap();
    stored
}

#[test]
fn a_run_on_objects_gives_what_a_run_in_a_folder_gives_and_makes_no_folder() {
    let elsewhere = Elsewhere::new();
    elsewhere.run("one");
    assert!(elsewhere.stored() == undisturbed(&world()));
    assert!(!elsewhere.world.store().exists());
    assert_eq!(ran(&elsewhere.run("one")), counts([]), "everything is found again");
    let status = elsewhere.engine("one").status().unwrap();
    assert!(status.stages.iter().all(|stage| stage.ready == stage.partitions || stage.files.is_empty()));
    let left: Vec<String> = elsewhere.bucket.objects().into_keys().filter(|key| is_lease(key)).collect();
    assert!(left.is_empty(), "leases are given back: {left:?}");
}

fn is_lease(key: &str) -> bool {
    key.starts_with("claims/") || key.starts_with("locks/")
}

#[test]
fn another_machine_finds_everything_and_can_read_it() {
    let elsewhere = Elsewhere::new();
    elsewhere.run("one");
    assert_eq!(ran(&elsewhere.run("two")), counts([]));
    fs::remove_dir_all(elsewhere.machine("two")).unwrap();
    let rows = elsewhere.engine("two").table("loud").unwrap().read(0, usize::MAX, &["text"]).unwrap();
    assert_eq!(rows.num_rows(), 820);
    let folders = elsewhere.engine("two").folders("counted").unwrap();
    assert!(folders[0].starts_with(elsewhere.machine("two")));
    assert_eq!(fs::read_to_string(folders[0].join("total.txt")).unwrap().split(' ').next(), Some("3"));
}

#[test]
fn damaged_objects_are_found_and_made_again() {
    let elsewhere = Elsewhere::new();
    elsewhere.run("one");
    let (whole, objects) = (elsewhere.stored(), elsewhere.bucket.objects());
    for stage in ["tables/pixels", "jobs/packed", "tables/unique"] {
        let is_content = |key: &&String| {
            key.starts_with(stage) && Path::new(key).extension().is_none_or(|end| end != "json")
        };
        let damaged = objects.keys().find(is_content).unwrap();
        let mut bytes = objects[damaged].clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        elsewhere.bucket.set(damaged, &bytes);
        let found = elsewhere.engine("one").verify().unwrap();
        assert_eq!(found.problems.len(), 1, "{damaged:?}: {:?}", found.problems);
        // Another machine, which has no copy, sees the mark too.
        elsewhere.run("two");
        assert!(elsewhere.stored() == whole, "{damaged:?}");
        assert_eq!(elsewhere.engine("one").verify().unwrap().problems, []);
    }
}

#[test]
fn what_no_manifest_uses_is_dropped_from_objects_unless_it_is_young() {
    let mut elsewhere = Elsewhere::new();
    elsewhere.run("one");
    let before = elsewhere.stored();
    elsewhere.world.edit("seed = 1", "seed = 2");
    elsewhere.run("one");
    let hour = elsewhere.bucket.store_with(&elsewhere.machine("two"), limits());
    let careful = elsewhere.world.engine().with_store(hour as Arc<dyn Store>);
    assert_eq!(careful.unused(Keep::default()).unwrap().dropped, []);
    let engine = elsewhere.engine("one");
    let listed = engine.unused(Keep::default()).unwrap();
    assert!(!listed.dropped.is_empty());
    engine.collect(Keep::default(), &listed).unwrap();
    let after = elsewhere.stored();
    assert!(before.keys().any(|name| !after.contains_key(name)), "something went");
    assert_eq!(ran(&elsewhere.run("one")), counts([]), "what the manifest stands for stayed");
    assert_eq!(elsewhere.engine("one").verify().unwrap().problems, []);
}

/// A world with one partition: few changes, each of another kind.
fn small() -> World {
    let mut world = world();
    world.edit("partition_rows = 300", "partition_rows = 1000");
    world
}

/// Runs into a fault at change number `at`, and then again without; false when there is no such change.
fn disturbed(fault: Fault, at: usize, undisturbed: &BTreeMap<PathBuf, Vec<u8>>) -> bool {
    let elsewhere = Elsewhere::of(small());
    elsewhere.bucket.fail(at, fault);
    let disturbed = elsewhere.try_run("one");
    if !elsewhere.bucket.has_failed() {
        return false;
    }
    if fault == Fault::Twice {
        let errors = disturbed.unwrap().errors;
        assert!(errors.is_empty(), "{at}: {errors:?}");
    }
    // A lease that could not be given back is still held, until nobody renews it.
    let lease = Limits { lease: Duration::from_millis(50), young: Duration::ZERO, ..limits() };
    let store = elsewhere.bucket.store_with(&elsewhere.machine("two"), lease);
    let engine = elsewhere.world.engine().with_store(store as Arc<dyn Store>);
    let again = watched("a run", || engine.run(&Silent, &AtomicBool::new(false)).unwrap());
    assert!(again.errors.is_empty(), "{fault:?} {at}: {:?}", again.errors);
    assert!(elsewhere.stored() == *undisturbed, "{fault:?} {at}");
    assert!(engine.verify().unwrap().problems.is_empty(), "{fault:?} {at}");
    true
}

#[test]
fn a_fault_at_any_change_then_run_again_equals_undisturbed() {
    let undisturbed = undisturbed(&small());
    std::thread::scope(|scope| {
        for fault in [Fault::Before, Fault::After, Fault::Twice] {
            let undisturbed = &undisturbed;
            scope.spawn(move || {
                let changes = (0..1000).take_while(|at| disturbed(fault, *at, undisturbed)).count();
                assert!(changes > 25, "there are changes to disturb: {changes}");
            });
        }
    });
}

#[test]
fn many_machines_at_once_give_what_one_gives() {
    let elsewhere = Elsewhere::new();
    std::thread::scope(|scope| {
        for machine in 0..16 {
            let elsewhere = &elsewhere;
            scope.spawn(move || elsewhere.run(&machine.to_string()));
        }
    });
    assert!(elsewhere.stored() == undisturbed(&world()));
    assert_eq!(elsewhere.engine("0").verify().unwrap().problems, []);
}

/// Commits `text` under one key, as a stage would whose bytes are not always the same.
fn commit(store: &dyn Store, content: &Address, record: &Address, text: &str, accepts: bool) -> Vec<u8> {
    let scratch = store.workdir().scratch().unwrap();
    let unfinished = scratch.unfinished("content");
    if *content == *record {
        fs::create_dir_all(unfinished.path().join("inner")).unwrap();
        fs::write(unfinished.path().join("inner/text"), text).unwrap();
    } else {
        fs::write(unfinished.path(), text).unwrap();
    }
    let accepts = move |_: &[u8]| Ok(accepts);
    let from = unfinished.path();
    let (bytes, force) = (text.as_bytes(), false);
    store.commit(&Commit { content, from, record, bytes, force, accepts: &accepts }).unwrap()
}

#[test]
fn of_many_that_commit_other_bytes_under_one_key_one_wins_and_all_go_on_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = Bucket::default();
    for kind in ["table", "folder"] {
        let stands: BTreeSet<Vec<u8>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|n| {
                    let (bucket, machine) = (&bucket, folder.path().join(n.to_string()));
                    scope.spawn(move || {
                        let (store, text) = (bucket.store(&machine), format!("{kind} {n}"));
                        let record = if kind == "table" { Address::table } else { Address::folder };
                        let content = record("stage", if kind == "table" { &text } else { "key" });
                        let stands = commit(store.as_ref(), &content, &record("stage", "key"), &text, true);
                        let winner = record(
                            "stage",
                            if kind == "table" { std::str::from_utf8(&stands).unwrap() } else { "key" },
                        );
                        let path = store.content(&winner).unwrap().unwrap();
                        let path = if kind == "table" { path } else { path.join("inner/text") };
                        assert_eq!(fs::read(path).unwrap(), stands);
                        stands
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(stands.len(), 1, "{kind}");
    }
}

#[test]
fn a_record_that_is_not_accepted_is_replaced_and_its_folder_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = Bucket::default();
    let (one, two) = (bucket.store(&folder.path().join("1")), bucket.store(&folder.path().join("2")));
    let address = Address::folder("stage", "key");
    let text =
        |store: &dyn Store| fs::read_to_string(store.content(&address).unwrap().unwrap().join("inner/text"));
    commit(one.as_ref(), &address, &address, "first", true);
    assert_eq!(text(two.as_ref()).unwrap(), "first");
    assert_eq!(commit(two.as_ref(), &address, &address, "second", false), b"second");
    assert_eq!(text(two.as_ref()).unwrap(), "second");
    let other = bucket.store(&folder.path().join("3"));
    assert_eq!(text(other.as_ref()).unwrap(), "second");
    assert_eq!(commit(one.as_ref(), &address, &address, "third", true), b"second", "somebody was first");
}

#[test]
fn changes_of_a_root_by_many_machines_all_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = Bucket::default();
    std::thread::scope(|scope| {
        for n in 0..16_u8 {
            let (bucket, machine) = (&bucket, folder.path().join(n.to_string()));
            scope.spawn(move || {
                let store = bucket.store(&machine);
                for _ in 0..5 {
                    let mut add =
                        |old: Option<Vec<u8>>| Ok(Some([old.unwrap_or_default(), vec![n]].concat()));
                    store.change_root("root", &mut add).unwrap();
                }
            });
        }
    });
    let store = bucket.store(&folder.path().join("0"));
    let mut all = store.root("root").unwrap().unwrap();
    all.sort_unstable();
    assert_eq!(all, (0..16).flat_map(|n| [n; 5]).collect::<Vec<u8>>());
    assert_eq!(store.roots().unwrap().len(), 1);
}

#[test]
fn a_lease_is_held_by_one_renewed_and_taken_over_when_nobody_does() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = Bucket::default();
    let short = Limits { lease: Duration::from_secs(6), ..limits() };
    let stores: Vec<_> =
        (0..16).map(|n| bucket.store_with(&folder.path().join(n.to_string()), short)).collect();
    let held: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            stores.iter().map(|store| scope.spawn(|| store.lease("stage", "key").unwrap())).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(held.len(), 1);
    let body = || bucket.objects().remove("claims/stage-key").unwrap();
    let first = body();
    while body() == first {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(stores[0].lease("stage", "key").unwrap().is_none(), "it was renewed");
    drop(held);
    assert!(stores[0].lease("stage", "key").unwrap().is_some());
    // What a killed process left.
    bucket.set("claims/stage-dead", b"nobody 0");
    let moment = Limits { lease: Duration::from_millis(1), ..limits() };
    let store = bucket.store_with(&folder.path().join("late"), moment);
    std::thread::sleep(Duration::from_millis(20));
    assert!(store.lease("stage", "dead").unwrap().is_some());
}

#[test]
fn gc_is_refused_while_a_machine_uses_the_store_and_not_for_a_dead_one() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = Bucket::default();
    let (one, two) = (bucket.store(&folder.path().join("1")), bucket.store(&folder.path().join("2")));
    let used = one.lock_shared().unwrap();
    assert!(two.lock_exclusive().unwrap_err().to_string().contains("in use by a run"));
    drop(used);
    let alone = two.lock_exclusive().unwrap();
    assert!(one.lock_exclusive().unwrap_err().to_string().contains("another gc"));
    drop(alone);
    bucket.set("locks/users/dead", b"nobody 0");
    bucket.set("claims/stage-dead", b"nobody 0");
    let moment = Limits { lease: Duration::from_millis(1), ..limits() };
    std::thread::sleep(Duration::from_millis(20));
    let store = bucket.store_with(&folder.path().join("late"), moment);
    drop(store.lock_exclusive().unwrap());
    let left: Vec<String> = bucket.objects().into_keys().filter(|key| is_lease(key)).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_bucket_without_conditional_puts_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let probe = |ignores| {
        let bucket = Bucket { ignores, ..Bucket::default() };
        let probed = bucket.store(folder.path()).probe();
        assert!(bucket.objects().is_empty(), "nothing stays behind");
        probed.map_err(|error| format!("{error}: {}", error.advice().unwrap()))
    };
    assert_eq!(probe(Ignores::Nothing), Ok(()));
    let create = probe(Ignores::Create).unwrap_err();
    assert!(create.contains("puts an object that is there already (If-None-Match)"), "{create}");
    let update = probe(Ignores::Update).unwrap_err();
    assert!(update.contains("puts over a version that is no longer there (If-Match)"), "{update}");
    assert!(update.contains("Several machines would overwrite"), "{update}");
}

/// Calls by what is asked, of leases, content and records, without those that do not grow with the data.
fn calls(bucket: &Bucket) -> BTreeMap<&'static str, usize> {
    let mut all = BTreeMap::new();
    for ((operation, top), n) in bucket.take_calls() {
        if matches!(top.as_str(), "tables" | "jobs" | "claims") {
            *all.entry(operation).or_default() += n;
        }
    }
    all
}

/// One stored table over so many partitions.
fn calls_of(partitions: usize) -> [BTreeMap<&'static str, usize>; 2] {
    let world = World::new(
        "[stages.rows]\nkind = \"lines\"\nfiles = [\"$DIR/a.txt\"]\npartition_rows = 10\n[stages.loud]\nkind = \"upper\"\nfrom = \"rows\"\n",
    );
    world.write("a.txt", &lines("a", 10 * partitions));
    let elsewhere = Elsewhere::of(world);
    elsewhere.run("one");
    let first = calls(&elsewhere.bucket);
    elsewhere.run("two");
    [first, calls(&elsewhere.bucket)]
}

/// `docs/object-store.md` states them.
#[test]
fn calls_for_each_partition_are_what_the_docs_say() {
    let (few, many) = (calls_of(4), calls_of(14));
    let each = |n: usize| -> BTreeMap<&str, f64> {
        let of = |(what, calls): (&&'static str, &usize)| {
            (*what, (*calls as f64 - few[n].get(what).copied().unwrap_or(0) as f64) / 10.0)
        };
        many[n].iter().map(of).filter(|(_, calls)| *calls != 0.0).collect()
    };
    assert_eq!(
        each(0),
        BTreeMap::from([("create", 2.0), ("delete", 1.0), ("get", 3.0), ("head", 1.0), ("put", 1.0)]),
        "a partition that is made"
    );
    assert_eq!(each(1), BTreeMap::from([("get", 1.0), ("head", 1.0)]), "a partition that is there");
}

#[test]
fn content_on_a_machine_is_not_fetched_again_and_what_was_not_used_for_long_goes() {
    let elsewhere = Elsewhere::new();
    elsewhere.run("one");
    let read = || elsewhere.engine("two").table("loud").unwrap().read(0, usize::MAX, &["text"]).unwrap();
    elsewhere.bucket.take_calls();
    read();
    let first = elsewhere.bucket.take_calls()[&("get", "tables".to_owned())];
    read();
    let second = elsewhere.bucket.take_calls()[&("get", "tables".to_owned())];
    assert!(second < first, "only records are fetched: {second} of {first}");
    let content = elsewhere.machine("two").join("content");
    let files = |folder: &Path| {
        let mut found = BTreeMap::new();
        common::read_all(folder, &mut found);
        found.into_keys().collect::<Vec<_>>()
    };
    assert!(!files(&content).is_empty());
    let old = std::time::SystemTime::UNIX_EPOCH;
    for file in files(&content) {
        fs::File::open(&file).unwrap().set_modified(old).unwrap();
    }
    let engine = elsewhere.engine("two");
    let listed = engine.unused(Keep::default()).unwrap();
    engine.collect(Keep::default(), &listed).unwrap();
    assert!(files(&content).is_empty());
    assert_eq!(read().num_rows(), 820, "it is fetched again");
}

/// `packed` reads texts, and of `pixels` only which rows were rejected.
#[test]
fn a_table_is_not_fetched_for_its_rejects_where_its_record_tells_them() {
    let mut elsewhere = Elsewhere::new();
    for stage in ["loud", "pixels"] {
        elsewhere.world.options.until = Some(stage.to_owned());
        elsewhere.run("one");
    }
    // A job that reads the folder would compare all that it names with the records.
    elsewhere.world.options.until = Some("packed".to_owned());
    elsewhere.run("two");
    let content = elsewhere.machine("two").join("content/tables");
    let fetched = |stage: &str| content.join(stage).exists();
    assert!(fetched("loud") && !fetched("pixels"));
    elsewhere.world.options.until = None;
    elsewhere.run("two");
    assert!(fetched("pixels") && elsewhere.stored() == undisturbed(&world()));
}
