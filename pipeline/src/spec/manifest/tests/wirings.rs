//! What reads what.

use super::{GOOD, reported, reported_after};
use insta::assert_snapshot;

#[test]
fn a_cycle_is_drawn_whole() {
    assert_snapshot!(reported_after("kind = \"keep\"\nfrom = \"rows\"", "kind = \"keep\"\nfrom = [\"tokens\", \"pixels\"]"), @r#"
     × stages that wait for each other: pixels -> few -> pixels
       ╭─[toys.toml:18:19]
    17 │ kind = "keep"
    18 │ from = ["tokens", "pixels"]
       ·                   ────┬───
       ·                       ╰── `few` reads `pixels`
    19 │ where = "length(text) < 9"
       ╰────
       ╭─[toys.toml:23:8]
    22 │ kind = "resize"
    23 │ from = "few"
       ·        ──┬──
       ·          ╰── `pixels` reads `few`
    24 │ size = "${size}"
       ╰────
     help: Let one of them read another stage.
    "#);
}

#[test]
fn two_cycles_are_both_reported() {
    let text =
        GOOD.replace("from = \"rows\"", "from = \"few\"").replace("from = \"shards\"", "from = \"model\"");
    let reported = reported(&text);
    assert!(reported.contains("few -> few") && reported.contains("model -> model"), "{reported}");
}

#[test]
fn a_map_stage_without_from() {
    assert_snapshot!(reported_after("kind = \"resize\"\nfrom = \"few\"", "kind = \"resize\""), @r#"
     × `pixels` (resize) does not say what it reads
       ╭─[toys.toml:21:9]
    20 │
    21 │ [stages.pixels]
       ·         ───┬──
       ·            ╰── `from` is missing
    22 │ kind = "resize"
       ╰────
     help: Add from = "rows". It could read: rows, few.
    "#);
}

#[test]
fn a_source_with_from() {
    assert_snapshot!(reported_after("kind = \"read\"", "kind = \"read\"\nfrom = \"few\""), @r#"
     × stages that wait for each other: rows -> few -> rows
       ╭─[toys.toml:13:8]
    12 │ kind = "read"
    13 │ from = "few"
       ·        ──┬──
       ·          ╰── `rows` reads `few`
    14 │ files = ["${raw}/*.parquet"]
       ╰────
       ╭─[toys.toml:19:8]
    18 │ kind = "keep"
    19 │ from = "rows"
       ·        ───┬──
       ·           ╰── `few` reads `rows`
    20 │ where = "length(text) < 9"
       ╰────
     help: Let one of them read another stage.
     × `rows` (read) is a source and reads no stage
       ╭─[toys.toml:13:8]
    12 │ kind = "read"
    13 │ from = "few"
       ·        ──┬──
       ·          ╰── not wanted
    14 │ files = ["${raw}/*.parquet"]
       ╰────
     help: Leave `from` out; a source takes its rows from files or makes them up.
    "#);
}

#[test]
fn a_folder_where_a_table_is_needed() {
    let text = GOOD.to_owned() + "[stages.again]\nkind = \"shard\"\nfrom = \"shards\"\n";
    assert_snapshot!(reported(&text), @r#"
     × `again` (shard) reads a table, but `shards` gives a folder
       ╭─[toys.toml:32:8]
    31 │ [stages.shards]
    32 │ kind = "shard"
       ·        ───┬───
       ·           ╰── `shard` gives a folder
    33 │ from = ["tokens", "pixels"]
       ╰────
       ╭─[toys.toml:40:8]
    39 │ kind = "shard"
    40 │ from = "shards"
       ·        ────┬───
       ·            ╰── a table is needed here
       ╰────
     help: Stages that give a table: few, pixels, rows, tokens.
    "#);
}

#[test]
fn a_table_where_a_folder_is_needed() {
    assert_snapshot!(reported_after("from = \"shards\"", "from = \"tokens\""), @r#"
     × `model` (train) reads a folder, but `tokens` gives a table
       ╭─[toys.toml:27:8]
    26 │ [stages.tokens]
    27 │ kind = "tokenize"
       ·        ─────┬────
       ·             ╰── `tokenize` gives a table
    28 │ from = "few"
       ╰────
       ╭─[toys.toml:37:8]
    36 │ kind = "train"
    37 │ from = "tokens"
       ·        ────┬───
       ·            ╰── a folder is needed here
       ╰────
     help: Stages that give a folder: shards.
    "#);
}

#[test]
fn groups_in_a_map_stage() {
    assert_snapshot!(
        reported_after("kind = \"resize\"\nfrom = \"few\"", "kind = \"resize\"\nfrom = [{ table = \"few\" }, { table = \"rows\", weight = 0 }]"),
        @r#"
     × `pixels` (resize) cannot mix groups of tables
       ╭─[toys.toml:23:8]
    22 │ kind = "resize"
    23 │ from = [{ table = "few" }, { table = "rows", weight = 0 }]
       ·        ─────────────────────────┬─────────────────────────
       ·                                 ╰── several groups
    24 │ size = "${size}"
       ╰────
     help: Only a gather stage such as `shard` mixes; tables that line up are from = ["a", "b"].
     × `weight`: 0 is not above 0
       ╭─[toys.toml:23:55]
    22 │ kind = "resize"
    23 │ from = [{ table = "few" }, { table = "rows", weight = 0 }]
       ·                                                       ─
    24 │ size = "${size}"
       ╰────
     help: Weights are relative: 2 takes rows of this group twice as often as 1.
    "#
    );
}

#[test]
fn tables_that_do_not_line_up() {
    let text = GOOD.replace("kind = \"tokenize\"\nfrom = \"few\"", "kind = \"tokenize\"\nfrom = \"others\"")
        + "[stages.others]\nkind = \"read\"\nfiles = [\"b\"]\ncolumns = { image = \"a\", text = \"b\" }\n";
    assert_snapshot!(reported(&text), @r#"
     × `shards` reads tables that do not line up
       ╭─[toys.toml:33:19]
    32 │ kind = "shard"
    33 │ from = ["tokens", "pixels"]
       ·         ────┬───  ────┬───
       ·             │         ╰── has the rows of `rows`
       ·             ╰── has the rows of `others`
    34 │
       ╰────
     help: Tables read together must come from one source. To mix data sets, write groups: from =
           [{ table = "a" }, { table = "b" }].
    "#);
}
