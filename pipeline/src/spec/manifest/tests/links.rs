//! Stages that parameters name, and columns that a gather stage copies.

use super::{GOOD, load, reported, reported_after};
use insta::assert_snapshot;

/// [`GOOD`] with a second training that starts from `init_from`.
fn second(init_from: &str) -> String {
    format!("{GOOD}\n[stages.again]\nkind = \"train\"\nfrom = \"shards\"\ninit_from = {init_from}\n")
}

#[test]
fn a_linked_stage_is_read_behind_those_of_from() {
    let graph = load(&second("\"model\"")).unwrap().graph;
    let again = &graph.nodes[graph.find("again").unwrap()];
    let read: Vec<&str> = again.tables().map(|table| graph.nodes[table].name.as_str()).collect();
    assert_eq!(read, ["shards", "model"]);
    assert_eq!(again.stage.role.kind(), crate::spec::registry::RoleKind::Job);
}

#[test]
fn a_link_to_nothing_and_one_to_a_table() {
    assert_snapshot!(reported(&second("\"modle\"")), @r#"
     × `again` reads the unknown stage `modle`
       ╭─[toys.toml:42:13]
    41 │ from = "shards"
    42 │ init_from = "modle"
       ·             ───┬───
       ·                ╰── no such stage
       ╰────
     help: Did you mean `model`? Stages: few, model, pixels, rows, shards, tokens.
    "#);
    assert_snapshot!(reported(&second("\"tokens\"")), @r#"
     × `again` (train) reads a folder, but `tokens` gives a table
       ╭─[toys.toml:27:8]
    26 │ [stages.tokens]
    27 │ kind = "tokenize"
       ·        ─────┬────
       ·             ╰── `tokenize` gives a table
    28 │ from = "few"
       ╰────
       ╭─[toys.toml:42:13]
    41 │ from = "shards"
    42 │ init_from = "tokens"
       ·             ────┬───
       ·                 ╰── a folder is needed here
       ╰────
     help: Stages that give a folder: model, shards.
    "#);
}

#[test]
fn a_cycle_through_a_link() {
    assert_snapshot!(reported(&second("\"again\"")), @r#"
     × stages that wait for each other: again -> again
       ╭─[toys.toml:42:13]
    41 │ from = "shards"
    42 │ init_from = "again"
       ·             ───┬───
       ·                ╰── `again` reads `again`
       ╰────
     help: Let one of them read another stage.
    "#);
}

#[test]
fn a_link_that_is_no_name_is_reported_once() {
    assert_snapshot!(reported(&second("3")), @r#"
     × `again` (train): `init_from`: expected a string, not the integer `3`
       ╭─[toys.toml:42:13]
    41 │ from = "shards"
    42 │ init_from = 3
       ·             ─
       ╰────
    "#);
}

#[test]
fn a_column_to_keep_that_nothing_makes() {
    let shard = "kind = \"shard\"";
    assert!(load(&GOOD.replace(shard, "kind = \"shard\"\nkeep = [\"text\", \"language\"]")).is_ok());
    assert_snapshot!(reported_after(shard, "kind = \"shard\"\nkeep = [\"texts\"]"), @r#"
     × `shards` (shard) keeps the column `texts`, which no stage makes that its rows went through
       ╭─[toys.toml:33:8]
    32 │ kind = "shard"
    33 │ keep = ["texts"]
       ·        ─────────
    34 │ from = ["tokens", "pixels"]
       ╰────
     help: Did you mean `text`? Columns: id, images, input_ids, pixels, text.
    "#);
}
