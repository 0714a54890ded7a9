//! Columns: what a stage needs, and what the tables it reads have.

use super::{GOOD, load, reported, reported_after};
use insta::assert_snapshot;

#[test]
fn a_column_that_is_not_there() {
    assert_snapshot!(reported_after("[\"tokens\", \"pixels\"]", "\"tokens\""), @r#"
     × `shards` (shard) needs the column `pixels` (list<u8>), which `tokens` does not have
       ╭─[toys.toml:26:9]
    25 │
    26 │ [stages.tokens]
       ·         ───┬──
       ·            ╰── `tokens` is made here
    27 │ kind = "tokenize"
       ╰────
       ╭─[toys.toml:33:8]
    32 │ kind = "shard"
    33 │ from = "tokens"
       ·        ────┬───
       ·            ╰── has: input_ids list<u32>
    34 │
       ╰────
     help: Tables with `pixels`: pixels. Name one in `from`.
    "#);
}

#[test]
fn a_column_that_no_stage_makes() {
    let (head, _) = GOOD.split_once("[stages.few]").unwrap();
    let text = head.to_owned() + "[stages.recoded]\nkind = \"recode\"\nfrom = \"rows\"\n";
    assert_snapshot!(reported(&text), @r#"
     × `recoded` (recode) needs the column `input_ids` (list<u32>), which `rows` does not have
       ╭─[toys.toml:11:9]
    10 │
    11 │ [stages.rows]
       ·         ──┬─
       ·           ╰── `rows` is made here
    12 │ kind = "read"
       ╰────
       ╭─[toys.toml:18:8]
    17 │ kind = "recode"
    18 │ from = "rows"
       ·        ───┬──
       ·           ╰── has: id utf8, images list<binary>, text utf8
       ╰────
     help: No stage of this manifest has `input_ids` of that type.
    "#);
}

#[test]
fn a_column_of_another_type() {
    let text = GOOD.replace("[\"tokens\", \"pixels\"]", "[\"recoded\", \"pixels\"]")
        + "[stages.recoded]\nkind = \"recode\"\nfrom = \"tokens\"\n";
    assert_snapshot!(reported(&text), @r#"
     × `shards` (shard) needs the column `input_ids` (list<u32>), which `recoded` makes as list<i64>
       ╭─[toys.toml:33:9]
    32 │ kind = "shard"
    33 │ from = ["recoded", "pixels"]
       ·         ─────────┬─────────
       ·                  ╰── has: input_ids list<i64>, pixels list<u8>
    34 │
       ╰────
       ╭─[toys.toml:38:9]
    37 │ from = "shards"
    38 │ [stages.recoded]
       ·         ───┬───
       ·            ╰── `recoded` is made here
    39 │ kind = "recode"
       ╰────
     help: Tables with `input_ids`: tokens. Name one in `from`.
    "#);
}

#[test]
fn a_column_that_two_tables_make() {
    let text = GOOD.replace("[\"tokens\", \"pixels\"]", "[\"tokens\", \"pixels\", \"recoded\"]")
        + "[stages.recoded]\nkind = \"recode\"\nfrom = \"tokens\"\n";
    assert_snapshot!(reported(&text), @r#"
     × `shards` (shard) needs the column `input_ids` (list<u32>), which both `tokens` and `recoded`
     │ make
       ╭─[toys.toml:26:9]
    25 │
    26 │ [stages.tokens]
       ·         ───┬──
       ·            ╰── `tokens` is made here
    27 │ kind = "tokenize"
       ╰────
       ╭─[toys.toml:33:9]
    32 │ kind = "shard"
    33 │ from = ["tokens", "pixels", "recoded"]
       ·         ──────────────┬──────────────
       ·                       ╰── `input_ids` is here twice
    34 │
       ╰────
       ╭─[toys.toml:38:9]
    37 │ from = "shards"
    38 │ [stages.recoded]
       ·         ───┬───
       ·            ╰── `recoded` is made here
    39 │ kind = "recode"
       ╰────
     help: Read only one of `tokens` and `recoded`.
    "#);
}

#[test]
fn columns_pass_through_a_filter_from_their_maker() {
    let graph = load(GOOD).unwrap().graph;
    let (rows, few) = (graph.find("rows").unwrap(), graph.find("few").unwrap());
    let offered: Vec<(String, usize)> =
        graph.offered(few).into_iter().map(|offered| (offered.column.name, offered.made_by)).collect();
    assert_eq!(offered, [("id".to_owned(), rows), ("images".to_owned(), rows), ("text".to_owned(), rows)]);
    let shards = &graph.nodes[graph.find("shards").unwrap()].inputs[0];
    assert_eq!(graph.made_by(shards, "pixels"), graph.find("pixels"));
    assert_eq!(graph.made_by(shards, "text"), None);
    assert_eq!(graph.source_of(graph.find("tokens").unwrap()), Some(rows));
}

#[test]
fn upstream_and_downstream_are_in_topological_order() {
    let graph = load(GOOD).unwrap().graph;
    let names =
        |nodes: Vec<usize>| nodes.iter().map(|&node| graph.nodes[node].name.clone()).collect::<Vec<_>>();
    assert_eq!(names(graph.upstream(&[graph.find("tokens").unwrap()])), ["rows", "few", "tokens"]);
    assert_eq!(names(graph.downstream(&[graph.find("pixels").unwrap()])), ["pixels", "shards", "model"]);
}
