//! What a job sees of the run, and what of its folder counts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::jobs::text;
use common::{World, counts, lines};
use std::fs;

const TEXT: &str = r#"
name = "toy"
[stages.rows]
kind = "lines"
files = ["$DIR/a.txt"]
partition_rows = 300
[stages.kept]
kind = "keep"
from = "rows"
least = 3
[stages.loud]
kind = "upper"
from = "kept"
[stages.lengths]
kind = "length"
from = "loud"
[stages.pixels]
kind = "image"
from = "kept"
[stages.packed]
kind = "pack"
from = ["loud", "lengths", "pixels"]
[stages.seen]
kind = "probe"
from = "packed"
take = [["upper", "id"], ["text", "id"], ["pixels", "image"]]
"#;

fn world() -> World {
    let mut world = World::new(TEXT);
    // `a0` to `a9` are too short for `kept`.
    world.write("a.txt", &(lines("a", 700) + "exactlythirtn|p\nREJECT|q\n"));
    world.edit("name = \"toy\"", "name = \"toy\"\nmax_rejects = 0.5");
    world
}

fn written(world: &World, stage: &str, name: &str) -> String {
    let folder = world.engine().folders(stage).unwrap().remove(0);
    fs::read_to_string(folder.join(name)).unwrap()
}

/// A table as `probe` takes it: of each partition the last row first and the first one twice.
fn backwards(world: &World, stage: &str, columns: &[&str]) -> String {
    let batch = world.engine().table(stage).unwrap().read(0, usize::MAX, columns).unwrap();
    let lines: Vec<String> = text(&batch).lines().map(|line| format!("{line}\n")).collect();
    lines.chunks(300).flat_map(|rows| rows.iter().rev().chain(rows.first())).cloned().collect()
}

#[test]
fn rows_taken_in_any_order_are_those_of_the_table_stored_or_derived() {
    let mut world = world();
    world.run();
    let tables = [("loud", ["upper", "id"]), ("lengths", ["text", "id"]), ("pixels", ["pixels", "image"])];
    let check = |world: &World| {
        for (n, (stage, columns)) in tables.iter().enumerate() {
            let taken = written(world, "seen", &format!("table-{n}.txt"));
            assert_eq!(taken, backwards(world, stage, columns), "{stage}");
            assert_eq!(taken.lines().count(), 702 + 3);
        }
    };
    check(&world);
    assert!(written(&world, "seen", "table-1.txt").starts_with("4 a.txt:299"));
    assert!(written(&world, "seen", "table-1.txt").contains("- a.txt:701 upper/toy: `REJECT`"));
    world.edit("kind = \"image\"", "kind = \"image\"\nstore = false");
    world.edit("kind = \"length\"", "kind = \"length\"\nstored = true");
    world.run();
    check(&world);
}

#[test]
fn partitions_one_by_one_can_be_taken_while_others_are_made() {
    let mut world = world();
    world.edit("kind = \"pack\"", "kind = \"pack\"\nper_partition = true");
    world.run();
    assert_eq!(written(&world, "seen", "table-0.txt"), backwards(&world, "loud", &["upper", "id"]));
}

#[test]
fn a_link_is_an_input_behind_those_of_from_and_counts_by_content() {
    let mut world = world();
    world.edit("take = [[\"upper\", \"id\"], [\"text\", \"id\"], [\"pixels\", \"image\"]]\n", "");
    world.manifest += "[stages.again]\nkind = \"probe\"\nfrom = \"packed\"\ninit_from = \"seen\"\n";
    world.run();
    assert_eq!(written(&world, "again", "inputs.txt"), "packed seen");
    assert_eq!(written(&world, "seen", "inputs.txt"), "packed");
    world.edit("init_from = \"seen\"", "init_from = \"other\"");
    world.manifest += "[stages.other]\nkind = \"probe\"\nfrom = \"packed\"\n";
    assert_eq!(world.ran(), counts([("other", 1)]), "another stage with the same output");
}

#[test]
fn what_is_ephemeral_makes_nothing_again_and_is_not_verified() {
    let mut world = world();
    world.manifest += "[stages.again]\nkind = \"probe\"\nfrom = \"seen\"\n";
    world.run();
    world.edit(
        "kind = \"probe\"\nfrom = \"packed\"",
        "kind = \"probe\"\nclock = \"12:00\"\nfrom = \"packed\"",
    );
    world.options.force = vec!["seen".to_owned()];
    assert_eq!(world.ran(), counts([("seen", 1)]));
    assert_eq!(written(&world, "seen", "runs/clock.txt"), "12:00");
    world.options.force = vec!["again".to_owned()];
    let clock = world.files("seen").into_iter().find(|file| file.ends_with("runs/clock.txt")).unwrap();
    fs::write(clock, "later").unwrap();
    world.assert_verified();
    assert_eq!(world.ran(), counts([("again", 1)]));
    let inputs = world.files("seen").into_iter().find(|file| file.ends_with("inputs.txt")).unwrap();
    fs::write(inputs, "damaged").unwrap();
    assert_eq!(world.engine().verify().unwrap().problems.len(), 1);
}

#[test]
fn lineage_and_origin_tell_what_an_input_was_made_of() {
    let mut world = world();
    world.edit("least = 3", "least = 4");
    world.run();
    insta::assert_snapshot!(written(&world, "seen", "lineage.txt"), @r#"
    packed pack
    pixels image
    lengths length
    loud upper
    kept keep
    rows lines
    "#);
    assert_eq!(written(&world, "seen", "settings.txt"), r#"loud casing {"idle":0}"#);
    let origin: serde_json::Value =
        serde_json::from_str(&written(&world, "seen", "runs/origin.json")).unwrap();
    assert!(origin["text"].as_str().unwrap().contains("least = 4"));
    let stages = origin["stages"].as_array().unwrap();
    let reported: Vec<String> = stages
        .iter()
        .map(|stage| {
            let known = ["key", "digest"].map(|name| stage[name].as_str().map_or(0, str::len));
            format!("{} {} {} {} {known:?}", stage["name"], stage["from"], stage["partitions"], stage["rows"])
        })
        .collect();
    insta::assert_snapshot!(reported.join("\n"), @r#"
    "rows" [] 3 0 [0, 0]
    "kept" ["rows"] 3 702 [64, 64]
    "loud" ["kept"] 3 702 [64, 64]
    "lengths" ["loud"] 3 0 [0, 0]
    "pixels" ["kept"] 3 702 [64, 64]
    "packed" ["loud","lengths","pixels"] 1 702 [64, 64]
    "seen" ["packed"] 1 0 [0, 0]
    "#);
    assert_eq!(written(&world, "seen", "threads.txt"), "2");
}

#[test]
fn a_gather_stage_copies_columns_of_whatever_its_rows_went_through() {
    let mut world = world();
    world.edit("kind = \"pack\"", "kind = \"pack\"\nkeep = [\"id\", \"text\", \"image\"]");
    world.run();
    let kept = written(&world, "packed", "kept.txt");
    assert_eq!(kept.lines().count(), 702);
    // `lengths` makes a `text` too, and is nearer than the source.
    assert!(kept.contains("a.txt:123 4 pa123\n"), "{kept}");

    fs::rename(world.path("a.txt"), world.path("b.txt")).unwrap();
    world.edit("$DIR/a.txt", "$DIR/b.txt");
    assert_eq!(world.ran(), counts([]), "the name of a file is only in the ids");
    let text = fs::read_to_string(world.path("b.txt")).unwrap();
    world.write("b.txt", &text.replace("|pa123\n", "|other\n"));
    assert_eq!(world.ran(), counts([("pixels", 1), ("packed", 1), ("seen", 1)]));
    assert!(written(&world, "packed", "kept.txt").contains("b.txt:123 4 other\n"));
}
