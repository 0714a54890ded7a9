//! What a second run does: nothing, or only what a change touches.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{World, counts, lines, stage};
use std::collections::BTreeMap;
use std::fs;
use std::time::SystemTime;

/// Text and images of two files, joined by a gather stage.
const MANIFEST: &str = r#"
name = "toy"
seed = 1
[stages.rows]
kind = "lines"
files = ["$DIR/a.txt", "$DIR/b.txt"]

[stages.loud]
kind = "upper"
from = "rows"
words = "$DIR/words"

[stages.pixels]
kind = "image"
from = "rows"

[stages.packed]
kind = "pack"
from = ["loud", "pixels"]

[stages.counted]
kind = "count"
from = "packed"
trace = "$DIR/trace"

[stages.seen]
kind = "probe"
from = "packed"
"#;

fn world() -> World {
    let world = World::new(MANIFEST);
    world.write("a.txt", &lines("a", 10));
    world.write("b.txt", &lines("b", 5));
    world.write("words", "!");
    world
}

#[test]
fn a_second_run_runs_nothing() {
    let world = world();
    let summary = world.run();
    assert_eq!(
        common::ran(&summary),
        counts([("loud", 5), ("pixels", 5), ("packed", 1), ("counted", 1), ("seen", 1)])
    );
    assert_eq!(stage(&summary, "loud").rows, 15);
    assert_eq!(stage(&summary, "rows").rows, 15);
    assert_eq!(world.column("loud", "upper")[..2], [Some("A0!".to_owned()), Some("A1!".to_owned())]);
    let stored = world.stored();
    let again = world.run();
    assert_eq!(common::ran(&again), counts([]));
    assert_eq!(stage(&again, "pixels").reused, 5);
    assert_eq!(world.stored(), stored);
    assert!(world.engine().plan().unwrap().is_empty());
    world.assert_verified();
}

/// A change, and what it makes run.
struct Scenario {
    /// The line of the table.
    what: &'static str,
    change: fn(&mut World),
    runs: BTreeMap<String, usize>,
}

fn scenario<const N: usize>(
    what: &'static str,
    change: fn(&mut World),
    runs: [(&str, usize); N],
) -> Scenario {
    Scenario { what, change, runs: counts(runs) }
}

/// One scenario for each line of the table in the documentation of `keys/mod.rs`.
fn scenarios() -> Vec<Scenario> {
    vec![
        scenario(
            "the content of a raw file",
            |world| world.write("a.txt", &lines("a", 10).replace("a9|", "changed|")),
            [("loud", 1), ("packed", 1), ("counted", 1), ("seen", 1)],
        ),
        scenario(
            "a file is added or removed",
            |world| {
                world.write("c.txt", &lines("c", 3));
                world.edit("\"$DIR/b.txt\"", "\"$DIR/b.txt\", \"$DIR/c.txt\"");
            },
            [("loud", 1), ("pixels", 1), ("packed", 1), ("counted", 1), ("seen", 1)],
        ),
        scenario(
            "a parameter of a stage",
            |world| world.edit("\"upper\"", "\"upper\"\nsuffix = \"?\""),
            [("loud", 5), ("packed", 1), ("counted", 1), ("seen", 1)],
        ),
        scenario(
            "a parameter spelled out that has its default value",
            |world| world.edit("\"upper\"", "\"upper\"\nsuffix = \"\""),
            [],
        ),
        scenario(
            "the content of a resource (a tokenizer)",
            |world| world.write("words", "?"),
            [("loud", 5), ("packed", 1), ("counted", 1), ("seen", 1)],
        ),
        scenario(
            "the version of a stage kind",
            |world| {
                world.tweak = |graph| {
                    let loud = graph.find("loud").unwrap();
                    graph.nodes[loud].stage.version += 1;
                }
            },
            [("loud", 5)],
        ),
        scenario(
            "the output of an input",
            |world| world.edit("\"image\"", "\"image\"\nbytes = 9"),
            [("pixels", 5), ("packed", 1), ("counted", 1), ("seen", 1)],
        ),
        scenario(
            "an input is made again with the same bytes",
            |world| world.edit("\"image\"", "\"image\"\nidle = 1"),
            [("pixels", 5)],
        ),
        scenario(
            "what a model repeats of a map stage (`Parameters::settings`), its output staying the same",
            |world| world.edit("\"upper\"", "\"upper\"\nidle = 1"),
            [("loud", 5), ("seen", 1)],
        ),
        scenario(
            "`seed`",
            |world| world.edit("seed = 1", "seed = 2"),
            [("packed", 1), ("counted", 1), ("seen", 1)],
        ),
        scenario(
            "the order of partitions, weights or names of the tables of a gather stage",
            |world| world.edit("\"$DIR/a.txt\", \"$DIR/b.txt\"", "\"$DIR/b.txt\", \"$DIR/a.txt\""),
            [("packed", 1), ("counted", 1), ("seen", 1)],
        ),
        scenario(
            "a path, a modification time, the name of a file, the order of sections in the manifest",
            |world| {
                fs::rename(world.path("a.txt"), world.path("renamed.txt")).unwrap();
                world.edit("a.txt", "renamed.txt");
                let touched = fs::File::options().write(true).open(world.path("b.txt")).unwrap();
                touched.set_modified(SystemTime::UNIX_EPOCH).unwrap();
                let (head, packed) = world.manifest.split_once("[stages.packed]").unwrap();
                let (head, pixels) = head.split_once("[stages.pixels]").unwrap();
                let (top, rows) = head.split_once("[stages.rows]").unwrap();
                world.manifest =
                    format!("{top}[stages.packed]{packed}[stages.pixels]{pixels}[stages.rows]{rows}");
            },
            [],
        ),
        scenario(
            "the number of threads, a reject budget, the name of the manifest",
            |world| {
                world.edit("name = \"toy\"", "name = \"other\"\nmax_rejects = 0.7");
                world.options.jobs = 7;
            },
            [],
        ),
        scenario(
            "the name of a stage",
            |world| world.edit("pixels", "px"),
            [("px", 5), ("packed", 1), ("counted", 1), ("seen", 1)],
        ),
    ]
}

#[test]
fn every_line_of_the_table_of_what_invalidates_what_is_true() {
    let lines = include_str!("../src/keys/mod.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
    let listed: Vec<&str> = lines.skip(1).filter_map(|line| line.split(" | ").next()).collect();
    let scenarios = scenarios();
    assert_eq!(scenarios.iter().map(|scenario| scenario.what).collect::<Vec<_>>(), listed);
    for Scenario { what, change, runs } in scenarios {
        let mut world = world();
        world.run();
        change(&mut world);
        assert_eq!(world.ran(), runs, "{what}");
        assert_eq!(world.ran(), counts([]), "{what}, and again");
    }
}

#[test]
fn what_a_shard_points_at_stays_when_another_key_gives_the_same_bytes() {
    let mut world = world();
    world.run();
    let files = world.files("pixels");
    world.edit("kind = \"image\"", "kind = \"image\"\nidle = 1");
    world.run();
    assert_eq!(world.files("pixels"), files);
    world.gc();
    assert_eq!(world.ran(), counts([]));
    world.assert_verified();
}

#[test]
fn a_reverted_change_reruns_nothing() {
    let mut world = world();
    world.run();
    world.edit("kind = \"upper\"", "kind = \"upper\"\nsuffix = \"?\"");
    world.run();
    world.edit("\nsuffix = \"?\"", "");
    assert_eq!(world.ran(), counts([]));
}

#[test]
fn a_derived_stage_is_never_stored_and_its_parameters_still_count() {
    let mut world = World::new(
        r#"
max_rejects = 1.0
[stages.rows]
kind = "lines"
files = ["$DIR/a.txt"]
[stages.loud]
kind = "upper"
from = "rows"
[stages.lengths]
kind = "length"
from = "loud"
[stages.loudlengths]
kind = "upper"
from = "lengths"
"#,
    );
    world.write("a.txt", "one|p\nlonger-than-it|p\nthirteen-long|p\n");
    let summary = world.run();
    assert_eq!(common::ran(&summary), counts([("loud", 1), ("loudlengths", 1)]));
    let read = world.column("loudlengths", "upper");
    assert_eq!(read, [Some("3".to_owned()), Some("14".to_owned()), None]);
    assert_eq!(world.column("lengths", "text")[0], Some("3".to_owned()));
    assert_eq!(stage(&summary, "lengths").rejected, [("length/unlucky".to_owned(), 1)].into());
    assert_eq!(stage(&summary, "lengths").reject_examples[0].id, "a.txt:2");
    assert!(stage(&summary, "loudlengths").rejected.is_empty());
    world.edit("kind = \"length\"", "kind = \"length\"\nstored = true");
    assert_eq!(world.ran().get("lengths"), Some(&1));
    assert_eq!(world.column("loudlengths", "upper"), read);
}

#[test]
fn explain_names_the_cause() {
    let mut world = world();
    let why = |world: &World, stage: &str| world.engine().explain(stage).unwrap().to_string();
    insta::assert_snapshot!(why(&world, "loud"), @r#"
    loud (upper): 0 of 5 partitions are there
      a.txt rows 0..4, a.txt rows 4..8, a.txt rows 8..10 and 2 more: never made before
    "#);
    world.run();
    insta::assert_snapshot!(why(&world, "packed"), @r#"packed (pack): 1 of 1 partitions are there"#);
    world.edit("kind = \"upper\"", "kind = \"upper\"\nsuffix = \"?\"");
    insta::assert_snapshot!(why(&world, "loud"), @r#"
    loud (upper): 0 of 5 partitions are there
      a.txt rows 0..4, a.txt rows 4..8, a.txt rows 8..10 and 2 more: parameter suffix changed from "" to "?"
    "#);
    insta::assert_snapshot!(why(&world, "packed"), @r#"
    packed (pack): 0 of 1 partitions are there
      all partitions: input loud will run (parameter suffix changed from "" to "?")
    "#);
    world.write("words", "?");
    world.write("b.txt", &lines("b", 5).replace("pb3", "other"));
    insta::assert_snapshot!(why(&world, "loud"), @r#"
    loud (upper): 0 of 5 partitions are there
      a.txt rows 0..4, a.txt rows 4..8, a.txt rows 8..10 and 2 more: parameter suffix changed from "" to "?"
      a.txt rows 0..4, a.txt rows 4..8, a.txt rows 8..10 and 2 more: the content of words changed
    "#);
    insta::assert_snapshot!(why(&world, "pixels"), @r#"
    pixels (image): 4 of 5 partitions are there
      b.txt rows 0..4: the content of input rows (image) changed
    "#);
    insta::assert_snapshot!(world.engine().plan().unwrap().to_string(), @r#"
    rows     computed when read (lines)
    loud     run 5 of 5 (upper): parameter suffix changed from "" to "?"
    pixels   reuse 4, run 1 of 5 (image): the content of input rows (image) changed
    packed   depends on the above 1 of 1 (pack)
    counted  depends on the above 1 of 1 (count)
    seen     depends on the above 1 of 1 (probe)
    "#);
}
