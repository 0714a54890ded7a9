//! What a second run does: nothing, or only what a change touches.

mod common;

use common::{World, counts, lines, stage};
use std::fs;

/// Text and pictures of two files, joined by a gather stage.
const MANIFEST: &str = r#"
name = "toy"
[stages.rows]
kind = "lines"
files = ["$DIR/a.txt", "$DIR/b.txt"]

[stages.loud]
kind = "upper"
from = "rows"
words = "$DIR/words"

[stages.pixels]
kind = "picture"
from = "rows"

[stages.packed]
kind = "pack"
from = ["loud", "pixels"]
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
    assert_eq!(common::ran(&summary), counts([("loud", 5), ("pixels", 5), ("packed", 1)]));
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

#[test]
fn a_parameter_of_the_text_branch_touches_no_picture() {
    let mut world = world();
    world.run();
    world.edit("kind = \"upper\"", "kind = \"upper\"\nsuffix = \"?\"");
    assert_eq!(world.ran(), counts([("loud", 5), ("packed", 1)]));
}

#[test]
fn a_changed_text_in_a_row_reruns_its_partition_of_the_text_branch_only() {
    let world = world();
    world.run();
    world.write("a.txt", &lines("a", 10).replace("a9|", "changed|"));
    assert_eq!(world.ran(), counts([("loud", 1), ("packed", 1)]));
}

#[test]
fn an_appended_file_runs_its_partitions_only() {
    let mut world = world();
    world.run();
    world.write("c.txt", &lines("c", 3));
    world.edit("\"$DIR/b.txt\"", "\"$DIR/b.txt\", \"$DIR/c.txt\"");
    assert_eq!(world.ran(), counts([("loud", 1), ("pixels", 1), ("packed", 1)]));
}

#[test]
fn names_times_order_and_threads_rerun_nothing() {
    let mut world = world();
    world.run();
    fs::rename(world.path("a.txt"), world.path("renamed.txt")).unwrap();
    world.edit("a.txt", "renamed.txt");
    let touched = fs::File::options().write(true).open(world.path("b.txt")).unwrap();
    touched.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let (head, packed) = world.manifest.split_once("[stages.packed]").unwrap();
    let (head, pixels) = head.split_once("[stages.pixels]").unwrap();
    world.manifest = format!(
        "name = \"other\"\n[stages.packed]{packed}[stages.pixels]{pixels}{}",
        head.replace("name = \"toy\"", "")
    );
    world.options.jobs = 7;
    assert_eq!(world.ran(), counts([]));
}

#[test]
fn another_content_of_a_resource_at_the_same_path_reruns_its_stage() {
    let world = world();
    world.run();
    world.write("words", "?");
    assert_eq!(world.ran(), counts([("loud", 5), ("packed", 1)]));
}

#[test]
fn a_stage_with_the_same_output_as_before_stops_the_rerun() {
    let mut world = world();
    world.run();
    let files = world.files("pixels");
    world.edit("kind = \"picture\"", "kind = \"picture\"\nidle = 1");
    assert_eq!(world.ran(), counts([("pixels", 5)]));
    assert_eq!(world.files("pixels"), files, "what a shard points at stays where it is");
    // What the old key stood for can go; what the shards name stays.
    world.engine().gc(false).unwrap();
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
    pixels (picture): 4 of 5 partitions are there
      b.txt rows 0..4: the content of input rows (picture) changed
    "#);
    insta::assert_snapshot!(world.engine().plan().unwrap().to_string(), @r#"
    rows    computed when read (lines)
    loud    run 5 of 5 (upper): parameter suffix changed from "" to "?"
    pixels  reuse 4, run 1 of 5 (picture): the content of input rows (picture) changed
    packed  depends on the above 1 of 1 (pack)
    "#);
}
