//! Rows that cannot be used, stages that fail, second passes, and what is reported of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{World, counts, lines, stage};
use llavm_pipeline::summary::RunStatus;
use llavm_pipeline::{Engine, RunError};
use std::fs;

const TEXT: &str = r#"
[stages.rows]
kind = "lines"
files = ["$DIR/a.txt"]
[stages.loud]
kind = "upper"
from = "rows"
[stages.pixels]
kind = "image"
from = "rows"
[stages.packed]
kind = "pack"
from = ["loud", "pixels"]
"#;

fn texts(texts: &[&str]) -> String {
    let lines: Vec<String> = texts.iter().map(|text| format!("{text}|p\n")).collect();
    lines.concat()
}

#[test]
fn rejects_keep_their_place_and_are_counted_with_their_ids_in_every_run() {
    let mut world = World::new(TEXT);
    world.edit("[stages.rows]", "max_rejects = 0.9\n[stages.rows]");
    world.write("a.txt", &texts(&["one", "!x", "REJECT", "two", "three", "!y", "four", "five"]));
    for run in 0..2 {
        let finished = world.try_run();
        assert!(finished.errors.is_empty(), "{:?}", finished.errors);
        let summary = &finished.summary;
        assert_eq!(stage(summary, "rows").rejected, [("lines/bad".to_owned(), 2)].into(), "run {run}");
        assert_eq!(stage(summary, "loud").rejected, [("upper/toy".to_owned(), 1)].into());
        assert_eq!(stage(summary, "loud").reject_examples[0].id, "a.txt:2");
        assert!(stage(summary, "pixels").rejected.is_empty(), "images do not read texts");
        let listed = fs::read_to_string(finished.folder.join("rejects.jsonl")).unwrap();
        insta::allow_duplicates! { insta::assert_snapshot!(listed, @r#"
        {"id":"a.txt:1","partition":"a.txt rows 0..4","reason":"lines/bad: it says x","row":1,"stage":"rows"}
        {"id":"a.txt:5","partition":"a.txt rows 4..8","reason":"lines/bad: it says y","row":1,"stage":"rows"}
        {"id":"a.txt:2","partition":"a.txt rows 0..4","reason":"upper/toy: `REJECT`","row":2,"stage":"loud"}
        "#) };
        let written = fs::read_to_string(finished.folder.join("summary.json")).unwrap();
        assert_eq!(&serde_json::from_str::<llavm_pipeline::Summary>(&written).unwrap(), summary);
    }
    let rejects = world.column("loud", "reject");
    insta::assert_snapshot!(format!("{rejects:?}"), @r#"[None, Some("lines/bad: it says x"), Some("upper/toy: `REJECT`"), None, None, Some("lines/bad: it says y"), None, None]"#);
    assert_eq!(world.column("loud", "upper")[2], None);
    assert_eq!(
        world.column("loud", "id")[3],
        Some("a.txt:3".to_owned()),
        "columns of the source can be read beside it"
    );
    let packed = fs::read_to_string(&world.files("packed")[1]).unwrap();
    assert_eq!(packed.lines().collect::<Vec<_>>(), ["ONE", "TWO", "THREE", "FOUR", "FIVE"]);
}

#[test]
fn a_run_over_budget_shows_the_first_rejects_and_a_higher_budget_lets_it_pass() {
    let mut world = World::new(TEXT);
    world.edit("files = [\"$DIR/a.txt\"]", "files = [\"$DIR/a.txt\"]\npartition_rows = 1000");
    world.write("a.txt", &(lines("a", 100) + &lines("REJECT", 100) + &lines("b", 400)));
    let finished = world.try_run();
    assert_eq!(finished.summary.status, RunStatus::Failed);
    assert_eq!(stage(&finished.summary, "packed").ran, 0);
    insta::assert_snapshot!(finished.errors[0], @r#"
    `loud` (upper) rejected 100 of 600 rows (16.7%), more than 10%; the first ones:
      a.txt:100: upper/toy: `REJECT0`
      a.txt:101: upper/toy: `REJECT1`
      a.txt:102: upper/toy: `REJECT2`
      a.txt:103: upper/toy: `REJECT3`
      a.txt:104: upper/toy: `REJECT4`
    "#);
    insta::assert_snapshot!(finished.errors[0].advice().unwrap(), @r#"Look at the rows named here. If such rows are expected, raise `max_rejects` of the stage (a share of its rows, or { fraction, consecutive, files }); rows that are fine are kept either way."#);
    let again = world.try_run();
    assert_eq!(again.errors[0].to_string(), finished.errors[0].to_string(), "what is reused counts too");
    world.edit("kind = \"upper\"", "kind = \"upper\"\nmax_rejects = 0.2");
    assert_eq!(stage(&world.run(), "packed").ran, 1);
}

/// Five files of which the second and the fourth are over the budget of 10%.
fn over_budget() -> World {
    let mut world = World::new(TEXT);
    world.edit(
        "files = [\"$DIR/a.txt\"]",
        "files = [\"$DIR/0.txt\", \"$DIR/1.txt\", \"$DIR/2.txt\", \"$DIR/3.txt\", \"$DIR/4.txt\"]\npartition_rows = 1000",
    );
    for n in 0..5 {
        let rejects = if n % 2 == 1 { 60 } else { 0 };
        world.write(
            &format!("{n}.txt"),
            &(lines(&format!("{n}a"), 150) + &lines(&format!("{n}REJECT"), rejects)),
        );
    }
    world
}

#[test]
fn the_error_of_a_budget_is_one_and_the_same_whichever_partition_is_finished_first() {
    let errors: Vec<String> = [1, 2, 8]
        .iter()
        .flat_map(|jobs| {
            let mut world = over_budget();
            world.options.jobs = *jobs;
            world.options.keep_going = true;
            // The first run makes all partitions, the second finds all of them.
            [world.try_run(), world.try_run()].map(|finished| {
                assert_eq!(finished.errors.len(), 1, "{:?}", finished.errors);
                finished.errors[0].to_string()
            })
        })
        .collect();
    assert!(errors.iter().all(|error| *error == errors[0]), "{errors:#?}");
    insta::assert_snapshot!(errors[0].lines().next().unwrap(), @"`loud` (upper) rejected 60 of 360 rows (16.7%), more than 10%; the first ones:");
}

#[test]
fn a_lost_file_has_a_budget_of_its_own_however_many_rows_there_are() {
    let mut world = World::new(TEXT);
    world.edit("[stages.rows]", "max_rejects = 1.0\n[stages.rows]");
    world.write("a.txt", &(lines("a", 300) + &texts(&["!x", "!lost b.parquet: no footer", "one"])));
    let finished = world.try_run();
    assert_eq!(finished.summary.status, RunStatus::Failed);
    insta::assert_snapshot!(finished.errors[0], @"
    `rows` (lines) rejected 1 file that could not be read to the end, more than 0 (`files`); the first ones:
      a.txt:301: lines/bad-file: b.parquet: no footer
    ");
    world.edit("max_rejects = 1.0", "max_rejects = { fraction = 1.0, files = 1 }");
    world.run();
}

#[test]
fn a_long_run_of_rejects_stops_the_run_at_once() {
    let mut world = World::new(TEXT);
    world.edit("kind = \"upper\"", "kind = \"upper\"\nmax_rejects = { fraction = 1.0, consecutive = 9 }");
    world.edit("files = [\"$DIR/a.txt\"]", "files = [\"$DIR/a.txt\"]\npartition_rows = 1000");
    world.write("a.txt", &(lines("a", 100) + &lines("REJECT", 9) + &lines("b", 100)));
    world.run();
    world.write("a.txt", &(lines("a", 100) + &lines("REJECT", 10) + &lines("b", 100)));
    insta::assert_snapshot!(world.try_run().errors[0], @r#"
    `loud` (upper) rejected 10 rows one after the other, more than 9; the first ones:
      a.txt:100: upper/toy: `REJECT0`
      a.txt:101: upper/toy: `REJECT1`
      a.txt:102: upper/toy: `REJECT2`
      a.txt:103: upper/toy: `REJECT3`
      a.txt:104: upper/toy: `REJECT4`
    "#);
    assert!(world.files("loud").is_empty());
}

#[test]
fn a_filter_may_reject_as_much_as_it_likes() {
    let mut world = World::new(TEXT);
    world.edit("[stages.loud]\nkind = \"upper\"\nfrom = \"rows\"", "[stages.kept]\nkind = \"keep\"\nleast = 3\nfrom = \"rows\"\n[stages.loud]\nkind = \"upper\"\nfrom = \"kept\"");
    world.write("a.txt", &texts(&["a", "b", "c", "long", "d", "e", "longer"]));
    let summary = world.run();
    assert_eq!(stage(&summary, "kept").rejected, [("keep/short".to_owned(), 5)].into());
    assert!(stage(&summary, "loud").rejected.is_empty());
    let packed = fs::read_to_string(&world.files("packed")[1]).unwrap();
    assert_eq!(packed, "LONG\nLONGER\n");
    // In the second partition the same rows are kept as before: what reads it does not run.
    world.edit("least = 3", "least = 5");
    assert_eq!(world.ran(), counts([("kept", 2), ("loud", 1), ("packed", 1)]));
}

#[test]
fn a_failing_stage_is_told_with_its_partition_and_other_branches_go_on_when_asked() {
    let mut world = World::new(TEXT);
    world.write("a.txt", &texts(&["one", "two", "three", "four", "five", "FAIL", "seven", "eight", "nine"]));
    let finished = world.try_run();
    insta::assert_snapshot!(finished.errors[0], @r#"`loud` (upper), a.txt rows 4..8: cannot work on `FAIL`"#);
    assert_eq!(finished.errors[0].advice().as_deref(), Some("Write something else."));
    world.options.keep_going = true;
    let finished = world.try_run();
    assert_eq!(finished.errors.len(), 1);
    assert_eq!(finished.summary.status, RunStatus::Failed);
    let made = |name| stage(&finished.summary, name).ran + stage(&finished.summary, name).reused;
    assert_eq!((made("pixels"), made("loud"), made("packed")), (3, 2, 0));
    world.write("a.txt", &texts(&["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]));
    assert_eq!(world.ran(), counts([("loud", 1), ("packed", 1)]));
}

#[test]
fn a_panic_in_a_stage_is_an_error_that_names_the_rows() {
    let mut world = World::new(TEXT);
    world.edit("files = [\"$DIR/a.txt\"]", "files = [\"$DIR/a.txt\"]\npartition_rows = 1000");
    world.write("a.txt", &(lines("a", 300) + &texts(&["PANIC"]) + &lines("b", 300)));
    insta::assert_snapshot!(world.try_run().errors[0], @r#"`loud` (upper), a.txt rows 0..601: it panicked on rows 256..384 of the partition: toy panic"#);
    world.write("a.txt", &lines("a", 601));
    assert_eq!(stage(&world.run(), "packed").ran, 1);
}

const UNIQUE: &str = r#"
[stages.rows]
kind = "lines"
files = ["$DIR/a.txt", "$DIR/b.txt", "$DIR/c.txt"]
[stages.unique]
kind = "unique"
from = "rows"
[stages.loud]
kind = "upper"
from = "unique"
"#;

fn unique() -> World {
    let world = World::new(UNIQUE);
    world.write("a.txt", &texts(&["x", "y", "x"]));
    world.write("b.txt", &texts(&["y", "z"]));
    world.write("c.txt", &texts(&["z", "w", "x"]));
    world
}

#[test]
fn a_second_pass_sees_all_rows_before_and_reruns_only_what_those_change() {
    let world = unique();
    let summary = world.run();
    assert_eq!(stage(&summary, "unique").rejected, [("unique/again".to_owned(), 4)].into());
    assert_eq!(stage(&summary, "unique").partitions, 3);
    let loud = |world: &World| world.column("loud", "upper").into_iter().flatten().collect::<Vec<_>>();
    assert_eq!(loud(&world), ["X", "Y", "Z", "W"]);
    assert_eq!(world.ran(), counts([]));

    // Of the second file's verdicts none changes, but those of the third follow from it.
    world.write("b.txt", &texts(&["y", "v"]));
    assert_eq!(world.ran(), counts([("unique", 2), ("loud", 2)]));
    assert_eq!(loud(&world), ["X", "Y", "V", "Z", "W"]);
    let fresh = unique();
    fresh.write("b.txt", &texts(&["y", "v"]));
    fresh.run();
    world.gc();
    assert!(world.stored() == fresh.stored());
    world.assert_verified();
}

#[test]
fn a_damaged_partition_of_a_second_pass_is_made_again() {
    let mut world = unique();
    world.run();
    let whole = world.stored();
    for path in whole.keys().filter(|path| path.starts_with("tables/unique")) {
        let mut bytes = whole[path].clone();
        let last = bytes.len() - 20;
        bytes[last] ^= 1;
        fs::write(world.store().join(path), bytes).unwrap();
    }
    world.options.force = vec!["loud".to_owned()];
    world.run();
    assert!(world.stored() == whole);
}

#[test]
fn until_from_and_force_choose_what_runs() {
    let mut world = World::new(TEXT);
    world.write("a.txt", &lines("a", 6));
    world.options.until = Some("loud".to_owned());
    assert_eq!(world.ran(), counts([("loud", 2)]));
    world.options.until = None;
    world.options.from = Some("packed".to_owned());
    let refused = world.engine().run(&llavm_pipeline::Silent, &false.into());
    insta::assert_snapshot!(refused.unwrap_err(), @r#"`pixels`, a.txt rows 0..4: no output yet"#);
    world.options.from = Some("pixels".to_owned());
    assert_eq!(world.ran(), counts([("pixels", 2), ("packed", 1)]));
    world.options.from = None;
    world.options.force = vec!["loud".to_owned()];
    assert_eq!(world.ran(), counts([("loud", 2)]), "made again with the same bytes");
}

#[test]
fn status_says_how_far_every_stage_is() {
    let mut world = World::new(TEXT);
    world.write("a.txt", &lines("a", 6));
    world.options.until = Some("loud".to_owned());
    world.run();
    let reported = |engine: &Engine| {
        let status = engine.status().unwrap();
        let line = |stage: &llavm_pipeline::status::StageStatus| {
            format!(
                "{} {:?} {}/{} {} rows {} files",
                stage.name,
                stage.state,
                stage.ready,
                stage.partitions,
                stage.rows,
                stage.files.len()
            )
        };
        status.stages.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(reported(&world.engine()), @r#"
    rows Derived 0/2 0 rows 0 files
    loud Ready 2/2 6 rows 2 files
    pixels Missing 0/2 0 rows 0 files
    packed Missing 0/1 0 rows 0 files
    "#);
}

#[test]
fn rows_that_are_not_there_yet_cannot_be_read() {
    let world = World::new(TEXT);
    world.write("a.txt", &lines("a", 6));
    let engine = world.engine();
    let error = engine.table("loud").unwrap().read(0, 1, &["upper"]).unwrap_err();
    insta::assert_snapshot!(error, @r#"`loud` (upper), a.txt rows 0..4: `loud` is not there yet"#);
    let table = engine.table("rows").unwrap();
    let batch = table.read(3, 2, &["id", "text"]).unwrap();
    assert_eq!((batch.num_rows(), batch.num_columns()), (2, 3));
    assert_eq!(table.read(5, 9, &["id"]).unwrap().num_rows(), 1);
    assert_eq!(table.read(9, 9, &["id"]).unwrap().num_rows(), 0);
    assert!(matches!(engine.table("nothing"), Err(RunError::NoSuchStage { .. })));
}

#[test]
#[cfg(unix)]
fn a_run_with_the_rejects_of_an_earlier_one_writes_no_list_again() {
    use std::os::unix::fs::MetadataExt;
    let mut world = World::new(TEXT);
    world.edit("[stages.rows]", "max_rejects = 0.9\n[stages.rows]");
    world.write("a.txt", &texts(&["one", "!x", "REJECT", "two"]));
    let list = || fs::metadata(world.try_run().folder.join("rejects.jsonl")).unwrap();
    let (first, second) = (list(), list());
    assert!(first.len() > 0);
    assert_eq!((first.dev(), first.ino()), (second.dev(), second.ino()), "two names of one file");
    world.write("a.txt", &texts(&["one", "!x", "two", "two"]));
    assert_ne!(fs::metadata(world.try_run().folder.join("rejects.jsonl")).unwrap().len(), first.len());
}

#[test]
fn gc_drops_the_folders_of_old_runs() {
    let world = World::new(TEXT);
    world.write("a.txt", &texts(&["one", "two"]));
    for _ in 0..23 {
        world.run();
    }
    let runs = || fs::read_dir(world.store().join("runs")).unwrap().count();
    assert_eq!(runs(), 23);
    let dropped = world.gc().dropped;
    assert!(
        dropped.len() == 3 && dropped.iter().all(|dropped| dropped.path.starts_with("runs")),
        "{dropped:?}"
    );
    assert_eq!(runs(), 20);
    assert_eq!(world.ran(), counts([]), "results stay");
}
