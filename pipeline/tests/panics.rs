//! Panics anywhere: the run ends with an error that says where, never hangs, and the next one completes it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails, and an observer panics"
)]

mod common;

use common::{World, lines, watched};
use llavm_pipeline::{Event, Observer};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const PANICS: u64 = 20;

/// Toy stages of all four roles that count the file `trap` down wherever they are called.
const MANIFEST: &str = r#"
max_rejects = 1.0
[stages.rows]
kind = "lines"
files = ["$DIR/a.txt"]
partition_rows = 300
trap = "$DIR/trap"
[stages.unique]
kind = "unique"
from = "rows"
[stages.loud]
kind = "upper"
from = "unique"
trap = "$DIR/trap"
[stages.pixels]
kind = "image"
from = "rows"
[stages.packed]
kind = "pack"
from = ["loud", "pixels"]
per_partition = true
trap = "$DIR/trap"
[stages.counted]
kind = "count"
from = "packed"
trace = "$DIR/trace"
trap = "$DIR/trap"
"#;

fn world() -> World {
    let world = World::new(MANIFEST);
    world.write("a.txt", &(lines("a", 1000) + &lines("REJECT", 20)));
    world
}

/// The error of a run, if it has one.
fn error(world: &World) -> Option<String> {
    let never = AtomicBool::new(false);
    match world.engine().run(&llavm_pipeline::Silent, &never) {
        Ok(finished) => {
            assert!(finished.errors.len() <= 1, "{:?}", finished.errors);
            finished.errors.first().map(ToString::to_string)
        }
        Err(error) => Some(error.to_string()),
    }
}

#[test]
fn after_panics_at_twenty_points_the_next_run_equals_an_undisturbed_one() {
    let undisturbed = world();
    undisturbed.write("trap", &u64::MAX.to_string());
    undisturbed.run();
    let left: u64 = fs::read_to_string(undisturbed.path("trap")).unwrap().parse().unwrap();
    let (points, whole) = (u64::MAX - left, undisturbed.stored());
    assert!(points > 3 * PANICS, "{points}");
    let (mut fired, mut failed) = (0, 0);
    for n in 0.. {
        // Every seventh of 60 places in turn: early and late ones.
        let point = n * 7 % 60 * points / 60;
        let world = world();
        world.write("trap", &point.to_string());
        let error = watched("a run with a panic", || error(&world));
        // How often a digest is asked for depends on which worker comes first: a run may end before a late point. And a panic
        // where only a progress bar wanted to know something does no harm.
        fired += u64::from(!world.path("trap").exists());
        failed += u64::from(error.is_some());
        if let Some(error) = error {
            assert!(error.contains("panicked") && error.contains("toy trap"), "point {point}: {error}");
            assert!(error.starts_with('`'), "it names the stage: {error}");
        }
        let _ = fs::remove_file(world.path("trap"));
        watched("the next run", || world.run());
        assert!(world.stored() == whole, "point {point}");
        world.assert_verified();
        if fired == PANICS {
            break;
        }
        assert!(n < 3 * PANICS, "{fired} panics in {n} runs");
    }
    assert!(failed > PANICS / 2, "{failed}");
}

#[test]
fn a_source_that_panics_while_it_is_opened_or_read_is_an_error_with_its_stage_and_partition() {
    let world = world();
    world.write("trap", "0");
    insta::assert_snapshot!(error(&world).unwrap(), @"`rows` (lines): it panicked while opening: toy trap");
    world.run();

    let mut world = self::world();
    world.edit("trap = \"$DIR/trap\"\n[stages.unique]", "trap = \"$DIR/rows\"\n[stages.unique]");
    // It is opened, then its digests are taken, as often as workers ask for them; then it is read.
    let texts: Vec<String> = (10..100)
        .step_by(2)
        .filter_map(|point| {
            world.write("rows", &point.to_string());
            watched("a run", || error(&world))
        })
        .collect();
    assert!(texts.iter().any(|text| text.contains("a.txt rows ") && text.contains("toy trap")), "{texts:?}");
}

/// Panics at an event, as one does whose terminal is gone.
struct Lost {
    events: AtomicUsize,
    at: usize,
}

impl Observer for Lost {
    fn event(&self, _event: &Event<'_>) {
        assert!(self.events.fetch_add(1, Ordering::Relaxed) != self.at, "failed printing to stderr");
    }
}

#[test]
fn an_observer_that_panics_stops_no_run() {
    for at in [0, 3, 10, 30] {
        let world = world();
        let (observer, never) = (Lost { events: AtomicUsize::new(0), at }, AtomicBool::new(false));
        let finished = watched("a run", || world.engine().run(&observer, &never).unwrap());
        assert!(finished.errors.is_empty(), "{:?}", finished.errors);
        assert_eq!(observer.events.load(Ordering::Relaxed), at + 1, "it is not asked again");
        world.assert_verified();
    }
}
