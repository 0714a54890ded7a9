//! Damage, kills by the user, several runs at once: the store ends up as after one undisturbed run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{World, counts, lines, stage};
use llavm_pipeline::inspect::verify::Problem;
use llavm_pipeline::observer::Silent;
use llavm_pipeline::summary::RunStatus;
use llavm_pipeline::{Event, Observer, RunError};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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
kind = "picture"
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
    let found = world.engine().verify().unwrap().problems;
    assert_eq!(found.iter().map(|found| found.problem).collect::<Vec<_>>(), [Problem::Damaged; 2]);
    assert_eq!(world.ran(), counts([]), "nothing reads it");

    world.options.force = vec!["packed".to_owned()];
    let warnings = Warnings::default();
    let finished = world.engine().run(&warnings, &AtomicBool::new(false)).unwrap();
    assert!(finished.errors.is_empty(), "{:?}", finished.errors);
    assert_eq!(warnings.0.lock().unwrap().len(), 2);
    assert!(world.stored() == whole);
    world.assert_verified();
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
    assert!(world.engine().gc(false).unwrap().dropped.is_empty());
    world.edit("kind = \"upper\"", "kind = \"upper\"\nsuffix = \"?\"");
    world.run();
    let listed = world.engine().gc(true).unwrap();
    assert!(listed.dropped.iter().all(|dropped| !dropped.path.starts_with("tables/pixels")));
    assert!(listed.dropped.iter().any(|dropped| dropped.path.starts_with("tables/loud")));
    assert_eq!(world.engine().gc(false).unwrap(), listed);
    assert_eq!(world.ran(), counts([]));
    world.assert_verified();
    world.edit("\nsuffix = \"?\"", "");
    world.run();
    assert!(before.keys().all(|path| world.store().join(path).exists()));
}
