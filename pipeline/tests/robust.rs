//! Damage, kills by the user, several runs at once: the store ends up as after one undisturbed run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{World, counts, lines, stage, watched};
use llavm_pipeline::Silent;
use llavm_pipeline::gc::Keep;
use llavm_pipeline::storage::{Folder, Store};
use llavm_pipeline::summary::RunStatus;
use llavm_pipeline::verify::Problem;
use llavm_pipeline::{Ended, Event, Observer, RunError, TaskSpec};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// Partitions of several batches, two branches, a second pass, a gather stage and a job.
const MANIFEST: &str = r#"
seed = 1
max_rejects = 1.0
[stages.rows]
kind = "lines"
files = ["$DIR/a.txt", "$DIR/b.txt"]
partition_rows = 300
[stages.unique]
kind = "unique"
from = "rows"
[stages.loud]
kind = "upper"
from = "unique"
sleep = 1
[stages.pixels]
kind = "image"
from = "rows"
[stages.packed]
kind = "pack"
from = ["loud", "pixels"]
per_partition = true
[stages.counted]
kind = "count"
from = "packed"
trace = "$DIR/trace"
"#;

fn world() -> World {
    let world = World::new(MANIFEST);
    world.write("a.txt", &(lines("a", 700) + &lines("!a", 3) + &lines("REJECT", 20)));
    world.write("b.txt", &(lines("a", 5) + &lines("b", 500)));
    world
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn one_two_and_eight_threads_write_the_same_bytes() {
    let stored: Vec<_> = [1, 2, 8]
        .map(|jobs| {
            let mut world = world();
            world.options.jobs = jobs;
            world.run();
            world.stored()
        })
        .into();
    assert!(stored[0].len() > 20);
    assert!(stored[0] == stored[1] && stored[0] == stored[2]);
}

/// Collects warnings.
#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Observer for Warnings {
    fn event(&self, event: &Event<'_>) {
        if let Event::Warning { text, .. } = event {
            self.0.lock().unwrap().push((*text).to_owned());
        }
    }
}

#[test]
fn a_flipped_bit_in_a_table_is_found_by_verify_and_by_the_next_run_that_reads_it() {
    let mut world = world();
    world.run();
    let whole = world.stored();
    let damaged: Vec<PathBuf> = world.files("loud")[1..3].to_vec();
    for path in &damaged {
        flip(path);
    }
    assert_eq!(world.ran(), counts([]), "nobody has seen it");

    world.options.force = vec!["packed".to_owned()];
    let warnings = Warnings::default();
    let finished = world.engine().run(&warnings, &AtomicBool::new(false)).unwrap();
    assert!(finished.errors.is_empty(), "{:?}", finished.errors);
    assert_eq!(warnings.0.lock().unwrap().len(), 2);
    assert!(world.stored() == whole);
    world.assert_verified();
}

#[test]
fn what_verify_finds_damaged_the_next_run_makes_again_and_nothing_else() {
    let world = world();
    world.run();
    let whole = world.stored();
    let files = world.files("loud");
    files[1..3].iter().for_each(|file| flip(file));
    flip(&world.files("pixels")[0]);
    let total = world.files("counted").into_iter().find(|file| file.ends_with("total.txt")).unwrap();
    flip(&total);
    for _ in 0..2 {
        let found = world.engine().verify().unwrap().problems;
        assert_eq!(found.iter().map(|found| found.problem).collect::<Vec<_>>(), [Problem::Damaged; 4]);
    }
    assert!(world.engine().explain("loud").unwrap().to_string().ends_with("its file is missing or damaged"));
    assert_eq!(world.ran(), counts([("loud", 2), ("pixels", 1), ("counted", 1)]));
    assert!(world.stored() == whole);
    world.assert_verified();
    assert_eq!(world.ran(), counts([]));
}

#[test]
fn repair_makes_again_what_is_lost_and_nothing_else() {
    let mut world = world();
    world.options.until = Some("packed".to_owned());
    world.run();
    let whole = world.stored();
    world.options.until = None;
    flip(&world.files("loud")[0]);
    fs::remove_file(&world.files("pixels")[1]).unwrap();
    flip(&world.files("packed")[0]);
    flip(
        &fs::canonicalize(
            world.store().join(
                whole
                    .keys()
                    .find(|path| {
                        path.starts_with("tables/unique") && path.extension().is_some_and(|end| end == "json")
                    })
                    .unwrap(),
            ),
        )
        .unwrap(),
    );
    // A damaged record cannot say which content is its own.
    let problems = world.engine().verify().unwrap().problems;
    let strays = problems.iter().filter(|found| found.problem == Problem::Stray).count();
    assert_eq!((problems.len(), strays), (5, 1));
    let made = Mutex::new(Vec::new());
    let report = |task: &TaskSpec, ended: &Ended| {
        assert!(matches!(ended, Ended::Done(done) if !done.reused), "{task:?} {ended:?}");
        made.lock().unwrap().push(task.stage.clone());
    };
    world.engine().repair(&Silent, &AtomicBool::new(false), &report).unwrap();
    let mut made = made.into_inner().unwrap();
    made.sort_unstable();
    assert_eq!(made, ["loud", "packed", "pixels", "unique"], "and not the job, which was never made");
    assert!(world.stored() == whole);
    world.assert_verified();
}

#[test]
fn what_a_reader_finds_damaged_the_next_run_makes_again() {
    let world = world();
    world.run();
    let whole = world.stored();
    flip(&world.files("loud")[0]);
    world.engine().table("loud").unwrap().read(0, 1, &["upper"]).unwrap_err();
    assert_eq!(world.ran(), counts([("loud", 1)]));
    assert!(world.stored() == whole);
}

#[test]
fn a_file_that_is_put_back_counts_again() {
    let world = world();
    world.run();
    let file = &world.files("loud")[0];
    let whole = fs::read(file).unwrap();
    flip(file);
    world.engine().verify().unwrap();
    fs::write(file, whole).unwrap();
    world.assert_verified();
    assert_eq!(world.ran(), counts([]));
}

#[test]
fn a_high_bit_flipped_anywhere_in_a_file_is_mended_and_no_bug_of_a_stage() {
    let mut world = world();
    world.run();
    let whole = world.stored();
    // Of pixels, `packed` reads only which rows are rejected, and does not compare the whole file.
    let file = world.files("pixels")[0].clone();
    let bytes = fs::read(&file).unwrap();
    world.options.force = vec!["packed".to_owned()];
    let header = (0..64).map(|n| n * 13);
    let footer = (1..24).map(|n| bytes.len() - n * 7);
    for at in header.chain(footer) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x80;
        fs::write(&file, damaged).unwrap();
        watched("a run on a damaged file", || world.run());
        world.engine().verify().unwrap();
        watched("the run after it", || world.run());
        assert!(world.stored() == whole, "byte {at}");
    }
}

#[test]
fn a_flipped_bit_in_pixels_that_shards_point_at_is_repaired_before_a_job_uses_them() {
    let mut world = world();
    world.run();
    let whole = world.stored();
    flip(&world.files("pixels")[0]);
    world.options.force = vec!["counted".to_owned()];
    world.run();
    assert!(world.stored() == whole);
}

#[test]
fn a_flipped_bit_in_a_record_a_shard_or_a_job_is_found_and_repaired() {
    let mut world = world();
    world.run();
    let whole = world.stored();
    let paths = whole.keys().filter(|path| {
        let text = path.to_string_lossy();
        text.starts_with("tables/loud") && text.ends_with(".json")
            || text.ends_with("rows.txt")
            || text.ends_with("total.txt")
    });
    for path in paths {
        flip(&world.store().join(path));
        assert!(!world.engine().verify().unwrap().problems.is_empty(), "{}", path.display());
        world.options.force =
            if path.ends_with("rows.txt") { vec!["counted".to_owned()] } else { Vec::new() };
        if path.ends_with("total.txt") {
            world.options.force = vec!["counted".to_owned()];
        }
        world.run();
        assert!(world.stored() == whole, "{}", path.display());
    }
}

#[test]
fn a_missing_or_cut_off_file_is_made_again() {
    let world = world();
    world.run();
    let whole = world.stored();
    let files = world.files("pixels");
    fs::remove_file(&files[0]).unwrap();
    fs::File::options().write(true).open(&files[1]).unwrap().set_len(100).unwrap();
    let problems: Vec<Problem> =
        world.engine().verify().unwrap().problems.iter().map(|found| found.problem).collect();
    assert!(problems.contains(&Problem::Missing) && problems.contains(&Problem::Damaged));
    assert_eq!(world.ran(), counts([("pixels", 2)]));
    assert!(world.stored() == whole);
}

#[test]
fn strays_and_leftovers_are_found() {
    let world = world();
    world.run();
    fs::write(world.store().join("tables/loud/half.arrow"), "x").unwrap();
    fs::create_dir(world.store().join("tmp/killed")).unwrap();
    let found = world.engine().verify().unwrap().problems;
    let found: Vec<_> = found.iter().map(|found| (found.path.to_str().unwrap(), found.problem)).collect();
    assert_eq!(found, [("tables/loud/half.arrow", Problem::Stray), ("tmp/killed", Problem::Leftover)]);
    world.run();
    assert!(!world.store().join("tmp/killed").exists());
}

#[test]
fn several_runs_at_once_make_every_partition_once() {
    let undisturbed = world();
    undisturbed.run();
    let world = world();
    let summaries = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let summary = world.run();
                summaries.lock().unwrap().push(summary);
            });
        }
    });
    let summaries = summaries.into_inner().unwrap();
    for name in ["unique", "loud", "pixels", "packed", "counted"] {
        let ran: usize = summaries.iter().map(|summary| stage(summary, name).ran).sum();
        assert_eq!(ran, stage(&summaries[0], name).partitions, "{name}");
        assert!(summaries.iter().all(|summary| stage(summary, name).ran + stage(summary, name).reused
            == stage(summary, name).partitions));
    }
    assert!(world.stored() == undisturbed.stored());
    world.assert_verified();
    assert_eq!(fs::read_dir(world.store().join("claims")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(world.store().join("tmp")).unwrap().count(), 0);
}

/// Cancels the run at an event.
struct CancelAt<'a> {
    events: AtomicUsize,
    at: usize,
    cancel: &'a AtomicBool,
}

impl Observer for CancelAt<'_> {
    fn event(&self, _event: &Event<'_>) {
        if self.events.fetch_add(1, Ordering::Relaxed) == self.at {
            self.cancel.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn cancelled_at_any_event_then_run_equals_undisturbed() {
    let undisturbed = world();
    undisturbed.run();
    let whole = undisturbed.stored();
    for at in (0..80).step_by(8) {
        let world = world();
        let cancel = AtomicBool::new(false);
        let observer = CancelAt { events: AtomicUsize::new(0), at, cancel: &cancel };
        let finished = world.engine().run(&observer, &cancel).unwrap();
        assert_eq!(finished.summary.status, RunStatus::Interrupted, "at event {at}");
        assert!(matches!(finished.errors[..], [RunError::Interrupted { .. }]), "{:?}", finished.errors);
        assert_eq!(fs::read_dir(world.store().join("tmp")).unwrap().count(), 0);
        world.assert_verified();
        let kept: usize = finished.summary.stages.iter().map(|stage| stage.ran).sum();
        let summary = world.run();
        assert_eq!(summary.stages.iter().map(|stage| stage.reused).sum::<usize>(), kept, "at event {at}");
        assert!(world.stored() == whole, "at event {at}");
    }
}

#[test]
fn a_job_goes_on_where_it_was_interrupted() {
    let mut world = world();
    world.edit("trace =", "wait_after = 2\ntrace =");
    let cancel = AtomicBool::new(false);
    let engine = world.engine();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| engine.run(&Silent, &cancel).unwrap());
        while !fs::read_to_string(world.path("trace")).is_ok_and(|trace| trace.contains('2')) {
            std::thread::yield_now();
        }
        cancel.store(true, Ordering::Relaxed);
        assert_eq!(run.join().unwrap().summary.status, RunStatus::Interrupted);
    });
    assert_eq!(world.engine().verify().unwrap().unfinished.len(), 1);
    world.edit("wait_after = 2", "wait_after = 0");
    world.run();
    assert_eq!(fs::read_to_string(world.path("trace")).unwrap(), "1\n2\n3\n4\n5\n");
    assert!(world.engine().verify().unwrap().unfinished.is_empty());
    let undisturbed = self::world();
    undisturbed.run();
    assert!(world.stored() == undisturbed.stored());
}

#[test]
fn a_job_begins_before_the_last_partition_is_there() {
    let mut world = world();
    // The last text is only worked on when the job has noted its first unit.
    world.write("b.txt", "WAIT|p\n");
    world.edit("sleep = 1", "wait_for = \"$DIR/trace\"");
    let summary = world.run();
    assert_eq!(common::ran(&summary).get("counted"), Some(&1));
    // Now something like it is finished: it waits until it knows that its input is new, and does not run in vain.
    world.edit("kind = \"upper\"", "kind = \"upper\"\nidle = 1");
    assert_eq!(world.ran(), counts([("loud", 4)]));
}

#[test]
fn gc_drops_what_no_manifest_stands_for() {
    let mut world = world();
    world.run();
    let before = world.stored();
    assert!(world.gc().dropped.is_empty());
    world.edit("kind = \"upper\"", "kind = \"upper\"\nsuffix = \"?\"");
    world.run();
    let listed = world.engine().unused(Keep::default()).unwrap();
    assert!(listed.dropped.iter().all(|dropped| !dropped.path.starts_with("tables/pixels")));
    assert!(listed.dropped.iter().any(|dropped| dropped.path.starts_with("tables/loud")));
    assert_eq!(world.gc(), listed);
    assert_eq!(world.ran(), counts([]));
    world.assert_verified();
    world.edit("\nsuffix = \"?\"", "");
    world.run();
    assert!(before.keys().all(|path| world.store().join(path).exists()));
}

#[test]
fn runs_drop_what_is_outdated_before_it_piles_up() {
    let world = world();
    world.run();
    let runs = || fs::read_dir(world.store().join("runs")).unwrap().count();
    for n in 0..40 {
        fs::create_dir(world.store().join(format!("runs/1999-{n:02}"))).unwrap();
    }
    world.run();
    assert_eq!(runs(), 21, "the newest 20, and this one");
    for n in 0..19 {
        fs::create_dir(world.store().join(format!("runs/2000-{n:02}"))).unwrap();
    }
    world.run();
    assert_eq!(runs(), 41, "not every time");
    world.run();
    assert_eq!(runs(), 21);
    // A value that nobody has asked for in a long time, and a week after the last time.
    let old = SystemTime::now() - Duration::from_hours(24 * 40);
    let set_old = |path: &Path| File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    let value = world.store().join("digests").join("0".repeat(64));
    fs::write(&value, "unused").unwrap();
    set_old(&value);
    world.run();
    assert!(value.exists());
    set_old(&world.store().join("trimmed"));
    let other = Folder::open(&world.store()).unwrap();
    let in_use = other.lock_shared().unwrap();
    world.run();
    assert!(value.exists(), "another process is at work");
    drop(in_use);
    world.run();
    assert!(!value.exists());
    assert_eq!(world.ran(), counts([]));
}

/// Outputs of the manifest `file` with `set` on the store of `world`.
fn run_as(world: &mut World, file: &str, set: &str) {
    file.clone_into(&mut world.file);
    world.set = if set.is_empty() { Vec::new() } else { vec![set.to_owned()] };
    world.run();
}

const SWEEP: &str = r#"
max_rejects = 1.0
[vars]
suffix = ""
[stages.rows]
kind = "lines"
files = ["$DIR/a.txt"]
[stages.loud]
kind = "upper"
from = "rows"
suffix = "${suffix}"
"#;

#[test]
fn gc_keeps_every_manifest_of_a_name_and_every_run_of_a_sweep() {
    let mut world = World::new(SWEEP);
    world.write("a.txt", &lines("a", 10));
    fs::create_dir(world.path("other")).unwrap();
    let runs = [("train.toml", "suffix=1"), ("train.toml", "suffix=2"), ("other/train.toml", "suffix=3")];
    for (file, set) in runs {
        run_as(&mut world, file, set);
    }
    let all = world.stored();
    assert!(world.gc().dropped.is_empty());
    assert!(world.stored() == all);
    for (file, set) in runs {
        file.clone_into(&mut world.file);
        world.set = vec![set.to_owned()];
        assert_eq!(world.ran(), counts([]), "{file} {set}");
    }
    // Only the last settings of each manifest.
    let keep = Keep { last: Some(1), ..Keep::default() };
    let listed = world.engine().unused(keep).unwrap();
    assert_eq!(listed.roots.len(), 1);
    assert_eq!(listed.roots[0].settings, ["suffix=1"]);
    assert_eq!(listed.dropped.len(), 6, "three partitions and their records");
    assert!(world.stored() == all, "a list drops nothing");
    assert_eq!(world.engine().collect(keep, &listed).unwrap(), listed);
    assert_eq!(world.stored().len(), all.len() - 6);
    run_as(&mut world, "train.toml", "suffix=1");
    world.assert_verified();
}

#[test]
fn gc_lets_go_of_what_was_last_run_long_ago() {
    let mut world = World::new(SWEEP);
    world.write("a.txt", &lines("a", 10));
    run_as(&mut world, "train.toml", "");
    let day = std::time::Duration::from_hours(24);
    let young = Keep { older_than: Some(day), ..Keep::default() };
    assert!(world.engine().unused(young).unwrap().dropped.is_empty());
    let old = Keep { older_than: Some(std::time::Duration::ZERO), ..Keep::default() };
    std::thread::sleep(std::time::Duration::from_millis(10));
    assert_eq!(world.engine().unused(old).unwrap().dropped.len(), 6);
}

#[test]
fn gc_keeps_the_pixels_that_kept_shards_point_at() {
    let mut world = world();
    world.run();
    let pixels = world.files("pixels");
    // The pixels are made anew, the shards are not yet.
    world.edit("kind = \"image\"", "kind = \"image\"\nbytes = 9");
    world.options.until = Some("pixels".to_owned());
    world.run();
    world.gc();
    assert!(pixels.iter().all(|file| file.exists()));
    world.assert_verified();
}

#[test]
fn verify_beside_a_run_takes_nothing_for_a_stray() {
    let mut world = world();
    world.edit("sleep = 1", "sleep = 20");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            world.run();
            done.store(true, Ordering::SeqCst);
        });
        while !world.store().join("tables").exists() {
            std::thread::yield_now();
        }
        while !done.load(Ordering::SeqCst) {
            assert_eq!(world.engine().verify().unwrap().problems, []);
        }
    });
}

#[test]
fn gc_and_verify_create_no_store() {
    let world = world();
    assert!(world.engine().verify().is_err() && world.engine().unused(Keep::default()).is_err());
    assert!(!world.store().exists());
}
