//! Values of parameters and of the keys all stages share.

use super::{GOOD, drawn, load, reported, reported_after};
use insta::assert_snapshot;

#[test]
fn several_wrong_types_of_one_stage() {
    assert_snapshot!(reported_after("size = \"${size}\"", "size = \"big\"\nfilter = \"bicubik\""), @r#"
     × `pixels` (resize): `size`: expected a whole number, 0 or more, not the string "big"
       ╭─[toys.toml:24:8]
    23 │ from = "few"
    24 │ size = "big"
       ·        ─────
    25 │ filter = "bicubik"
       ╰────
     × `pixels` (resize): `filter`: unknown value `bicubik`
       ╭─[toys.toml:25:10]
    24 │ size = "big"
    25 │ filter = "bicubik"
       ·          ─────────
    26 │
       ╰────
     help: Did you mean `bicubic`? Values: bicubic, bilinear.
    "#);
}

#[test]
fn several_missing_keys_of_one_stage() {
    let text = "[stages.rows]\nkind = \"read\"\nlimit = -3\n";
    assert_snapshot!(reported(text), @r#"
     × `rows` (read): `files` is missing
      ╭─[toys.toml:1:9]
    1 │ [stages.rows]
      ·         ──┬─
      ·           ╰── `files` is missing
    2 │ kind = "read"
      ╰────
     × `rows` (read): `columns` is missing
      ╭─[toys.toml:1:9]
    1 │ [stages.rows]
      ·         ──┬─
      ·           ╰── `columns` is missing
    2 │ kind = "read"
      ╰────
     × `rows` (read): `limit`: expected a whole number, 0 or more, not the integer `-3`
      ╭─[toys.toml:3:9]
    2 │ kind = "read"
    3 │ limit = -3
      ·         ──
      ╰────
    "#);
}

#[test]
fn a_wrong_key_within_a_table() {
    assert_snapshot!(reported_after("text = \"caption\"", "txt = \"caption\""), @r#"
     × `rows` (read): `text` is missing
       ╭─[toys.toml:14:11]
    13 │ files = ["${raw}/*.parquet"]
    14 │ columns = { image = "img", txt = "caption" }
       ·           ─────────────────┬────────────────
       ·                            ╰── `text` is missing
    15 │
       ╰────
     × `rows` (read): `columns`: unknown key `txt`
       ╭─[toys.toml:14:28]
    13 │ files = ["${raw}/*.parquet"]
    14 │ columns = { image = "img", txt = "caption" }
       ·                            ───
    15 │
       ╰────
     help: Did you mean `text`? Keys: image, text.
    "#);
}

#[test]
fn a_value_the_stage_itself_refuses() {
    assert_snapshot!(reported_after("size = \"${size}\"", "size = 0"), @r#"
     × `pixels` (resize): `size` must be at least 1
       ╭─[toys.toml:24:8]
    23 │ from = "few"
    24 │ size = 0
       ·        ─
    25 │
       ╰────
    "#);
}

#[test]
fn wrong_seed_store_and_rejects() {
    let text = GOOD
        .replace("seed = 7", "seed = -7\nmax_rejects = 2")
        .replace("\"${root}/store\"", "3")
        .replace("{ fraction = 0.5 }", "{ fractoin = 0.5 }");
    assert_snapshot!(reported(&text), @r#"
     × `seed`: expected a whole number, 0 or more, not the integer `-7`
      ╭─[toys.toml:3:8]
    2 │ name = "toys"
    3 │ seed = -7
      ·        ──
    4 │ max_rejects = 2
      ╰────
     × `max_rejects`: 2 is no fraction from 0 to 1
      ╭─[toys.toml:4:15]
    3 │ seed = -7
    4 │ max_rejects = 2
      ·               ─
    5 │ store = 3
      ╰────
     help: 0.05 lets a stage reject one row in twenty; 1 lets it reject any number.
     × `store`: expected a string, not the integer `3`
      ╭─[toys.toml:5:9]
    4 │ max_rejects = 2
    5 │ store = 3
      ·         ─
    6 │
      ╰────
     × `max_rejects`: expected a fraction from 0 to 1, or a table { fraction, consecutive, files }
       ╭─[toys.toml:30:15]
    29 │ from = "few"
    30 │ max_rejects = { fractoin = 0.5 }
       ·               ──────────────────
    31 │
       ╰────
    "#);
}

#[test]
fn a_from_that_names_nothing() {
    let text = GOOD
        .replace("from = \"shards\"", "from = []")
        .replace("from = \"rows\"", "from = { stage = \"rows\" }");
    assert_snapshot!(reported(&text), @r#"
     × the `from` of `few` names no stages
       ╭─[toys.toml:18:8]
    17 │ kind = "keep"
    18 │ from = { stage = "rows" }
       ·        ─────────┬────────
       ·                 ╰── neither a stage, a list of stages nor a list of groups
    19 │ where = "length(text) < 9"
       ╰────
     help: Write from = "rows", or from = ["labels", "pixels"] for tables that line up, or from =
           [{ tables = ["labels", "pixels"], weight = 2 }, { table = "c" }] to mix.
     × the `from` of `model` names no stages
       ╭─[toys.toml:37:8]
    36 │ kind = "train"
    37 │ from = []
       ·        ─┬
       ·         ╰── neither a stage, a list of stages nor a list of groups
       ╰────
     help: Write from = "rows", or from = ["labels", "pixels"] for tables that line up, or from =
           [{ tables = ["labels", "pixels"], weight = 2 }, { table = "c" }] to mix.
    "#);
}

#[test]
fn a_missing_file_is_reported_before_a_run_and_with_other_mistakes() {
    let text = GOOD.replace("${raw}/*.parquet", "gone/*.parquet");
    let manifest = load(&text).unwrap();
    let all: Vec<usize> = (0..manifest.graph.nodes.len()).collect();
    let error = manifest.check_files(&all).unwrap_err();
    assert_snapshot!(drawn(&error), @r#"
     × `rows` (read): no file matches `gone/*.parquet`
       ╭─[toys.toml:13:9]
    12 │ kind = "read"
    13 │ files = ["gone/*.parquet"]
       ·         ─────────┬────────
       ·                  ╰── not there
    14 │ columns = { image = "img", text = "caption" }
       ╰────
     help: Check the path; it is relative to the current directory.
    "#);
    assert!(manifest.check_files(&all[1..]).is_ok());
    let both = reported(&text.replace("size = \"${size}\"", "size = 0"));
    assert!(both.contains("no file matches") && both.contains("must be at least 1"), "{both}");
}

#[test]
fn text_that_is_not_utf8_and_a_file_that_is_not_there() {
    let registry = super::toy::registry();
    let path = std::path::Path::new("toys.toml");
    let error = super::Manifest::read(b"name = \"\xff\"", path, &[], &registry).err().unwrap();
    assert_snapshot!(drawn(&error), @r"
    × the manifest is not UTF-8 text: byte 8
    help: Save it as UTF-8.
    ");
    let error = super::Manifest::load(std::path::Path::new("nowhere.toml"), &[], &registry).err().unwrap();
    assert_snapshot!(drawn(&error), @r"
    × cannot read the manifest nowhere.toml: No such file or directory (os error 2)
    help: Give the path of a TOML file, for example manifests/quickstart.toml.
    ");
}

#[test]
fn parameters_of_a_kind_are_known_without_a_manifest() {
    let registry = super::toy::registry();
    let shown = |kind: &str| {
        let all = super::super::describe(registry.get(kind).unwrap());
        all.into_iter().map(|p| (p.name, p.required, p.default)).collect::<Vec<_>>()
    };
    assert_eq!(shown("read"), [("files", true, None), ("columns", true, None), ("limit", false, None)]);
    assert_eq!(
        shown("resize"),
        [("size", false, Some(224.into())), ("filter", false, Some("bicubic".into()))]
    );
}
