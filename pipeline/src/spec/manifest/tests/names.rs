//! Names: of keys, kinds, stages and variables.

use super::{GOOD, drawn, load, load_with, reported, reported_after};
use insta::assert_snapshot;
use std::fmt::Write;

#[test]
fn a_good_manifest_has_no_mistake() {
    let graph = load(GOOD).unwrap().graph;
    let names: Vec<&str> = graph.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["rows", "few", "pixels", "tokens", "shards", "model"]);
    assert_eq!((graph.name.as_str(), graph.seed, graph.store.to_str()), ("toys", 7, Some("/data/store")));
    assert_eq!(graph.nodes[2].stage.params, serde_json::json!({ "size": 32, "filter": "bicubic" }));
    assert_eq!(graph.nodes[0].stage.params["files"], serde_json::json!(["/data/raw/*.parquet"]));
    assert_eq!((graph.nodes[3].budget.fraction, graph.nodes[3].budget.consecutive), (0.5, 1000));
}

#[test]
fn text_that_is_not_toml() {
    assert_snapshot!(reported("name = \"a\"\n[stages.rows\nkind = \"read\"\n"), @r#"
     × not TOML: unclosed table, expected `]`
      ╭─[toys.toml:2:13]
    1 │ name = "a"
    2 │ [stages.rows
      ·             ▲
    3 │ kind = "read"
      ╰────
    "#);
}

#[test]
fn an_unknown_top_level_key() {
    assert_snapshot!(reported_after("seed = 7", "sead = 7"), @r#"
     × unknown key `sead`
      ╭─[toys.toml:3:1]
    2 │ name = "toys"
    3 │ sead = 7
      · ──┬─
      ·   ╰── unknown
    4 │ store = "${root}/store"
      ╰────
     help: Did you mean `seed`? Top-level keys: name, seed, store, vars, stages, max_rejects.
    "#);
}

#[test]
fn an_unknown_kind() {
    assert_snapshot!(reported_after("kind = \"tokenize\"", "kind = \"tokenise\""), @r#"
     × `tokens` is of the unknown kind `tokenise`
       ╭─[toys.toml:27:8]
    26 │ [stages.tokens]
    27 │ kind = "tokenise"
       ·        ─────┬────
       ·             ╰── no such kind
    28 │ from = "few"
       ╰────
     help: Did you mean `tokenize`? Kinds: read, keep, resize, tokenize, recode, shard, train.
    "#);
}

#[test]
fn an_unknown_stage_in_from() {
    assert_snapshot!(reported_after("[\"tokens\", \"pixels\"]", "[\"tokens\", \"pixel\"]"), @r#"
     × `shards` reads the unknown stage `pixel`
       ╭─[toys.toml:33:19]
    32 │ kind = "shard"
    33 │ from = ["tokens", "pixel"]
       ·                   ───┬───
       ·                      ╰── no such stage
    34 │
       ╰────
     help: Did you mean `pixels`? Stages: few, model, pixels, rows, tokens.
    "#);
}

#[test]
fn a_stage_named_twice_in_from() {
    assert_snapshot!(reported_after("[\"tokens\", \"pixels\"]", "[\"tokens\", \"pixels\", \"tokens\"]"), @r#"
     × `shards` reads `tokens` twice
       ╭─[toys.toml:33:29]
    32 │ kind = "shard"
    33 │ from = ["tokens", "pixels", "tokens"]
       ·         ────┬───            ────┬───
       ·             │                   ╰── again here
       ·             ╰── first here
    34 │
       ╰────
     help: Name each table once.
    "#);
}

#[test]
fn all_unknown_parameters_of_a_stage() {
    assert_snapshot!(reported_after("size = \"${size}\"", "sise = 3\nfilters = \"bicubic\""), @r#"
     × `pixels` (resize) has no parameter `sise`
       ╭─[toys.toml:24:1]
    23 │ from = "few"
    24 │ sise = 3
       · ──┬─
       ·   ╰── unknown
    25 │ filters = "bicubic"
       ╰────
     help: Did you mean `size`? Parameters of `resize`: size, filter.
     × `pixels` (resize) has no parameter `filters`
       ╭─[toys.toml:25:1]
    24 │ sise = 3
    25 │ filters = "bicubic"
       · ───┬───
       ·    ╰── unknown
    26 │
       ╰────
     help: Did you mean `filter`? Parameters of `resize`: size, filter.
    "#);
}

#[test]
fn a_stage_without_kind_and_one_with_an_impossible_name() {
    assert_snapshot!(reported("[stages.\"a/b\"]\nfrom = \"c\"\n[stages.c]\nkind = \"tokenize\"\nfrom = \"c\"\n"), @r#"
     × `a/b` cannot name a stage
      ╭─[toys.toml:1:9]
    1 │ [stages."a/b"]
      ·         ─────
    2 │ from = "c"
      ╰────
     help: A stage name has letters, digits, - and _, at most 100 of them; it names a folder of the
           store.
     × the stage `a/b` has no `kind`
      ╭─[toys.toml:1:9]
    1 │ [stages."a/b"]
      ·         ──┬──
      ·           ╰── `kind` is missing
    2 │ from = "c"
      ╰────
     help: Say what it does: kind = "read". `llavm kinds` lists all kinds.
     × stages that wait for each other: c -> c
      ╭─[toys.toml:5:8]
    4 │ kind = "tokenize"
    5 │ from = "c"
      ·        ─┬─
      ·         ╰── `c` reads `c`
      ╰────
     help: Let one of them read another stage.
    "#);
}

#[test]
fn a_manifest_without_stages() {
    assert_snapshot!(reported("name = \"empty\"\n"), @r#"
    × the manifest has no stages
    help: A stage is a table such as [stages.rows] with kind = "read".
    "#);
    assert_snapshot!(reported("stages = 3\n"), @r"
     × `stages` is not a table
      ╭─[toys.toml:1:10]
    1 │ stages = 3
      ·          ┬
      ·          ╰── not a table
      ╰────
    ");
}

#[test]
fn an_unknown_variable_and_one_of_the_environment() {
    assert_snapshot!(reported_after("\"${raw}/*.parquet\"", "\"${rwa}/*.parquet\", \"${env:NOWHERE}\""), @r#"
     × unknown variable `rwa`
       ╭─[toys.toml:13:11]
    12 │ kind = "read"
    13 │ files = ["${rwa}/*.parquet", "${env:NOWHERE}"]
       ·           ───┬──
       ·              ╰── not in [vars]
    14 │ columns = { image = "img", text = "caption" }
       ╰────
     help: Did you mean `raw`? Variables: raw, root, size.
     × the environment has no variable `NOWHERE`
       ╭─[toys.toml:13:31]
    12 │ kind = "read"
    13 │ files = ["${rwa}/*.parquet", "${env:NOWHERE}"]
       ·                               ───────┬──────
       ·                                      ╰── not set, or not UTF-8
    14 │ columns = { image = "img", text = "caption" }
       ╰────
     help: Set it: export NOWHERE=…
    "#);
}

#[test]
fn variables_that_need_each_other() {
    assert_snapshot!(reported_after("root = \"/data\"", "root = \"${raw}\""), @r#"
     × variables that need each other: raw -> root -> raw
      ╭─[toys.toml:8:7]
    6 │ [vars]
    7 │ root = "${raw}"
      ·        ────┬───
      ·            ╰── `root`
    8 │ raw = "${root}/raw"
      ·       ──────┬──────
      ·             ╰── `raw`
    9 │ size = 32
      ╰────
     help: Give one of them a value of its own.
    "#);
}

#[test]
fn an_unclosed_reference() {
    assert_snapshot!(reported_after("\"${raw}/*.parquet\"", "\"${raw/*.parquet\""), @r#"
     × a `${` without its `}`
       ╭─[toys.toml:13:10]
    12 │ kind = "read"
    13 │ files = ["${raw/*.parquet"]
       ·          ─────────────────
    14 │ columns = { image = "img", text = "caption" }
       ╰────
     help: Write `${name}`, or `$${` for a plain `${`.
    "#);
}

#[test]
fn a_list_inside_a_string() {
    assert_snapshot!(reported_after("root = \"/data\"", "root = [\"/data\", \"/more\"]"), @r#"
     × `${root}` is a list and stands inside a string
      ╭─[toys.toml:4:10]
    3 │ seed = 7
    4 │ store = "${root}/store"
      ·          ───┬───
      ·             ╰── a list
    5 │
      ╰────
     help: A list can only be a whole value: files = "${files}".
     × `${root}` is a list and stands inside a string
      ╭─[toys.toml:8:8]
    7 │ root = ["/data", "/more"]
    8 │ raw = "${root}/raw"
      ·        ───┬───
      ·           ╰── a list
    9 │ size = 32
      ╰────
     help: A list can only be a whole value: files = "${files}".
    "#);
}

#[test]
fn a_wrong_set_points_into_the_command_line() {
    let error = load_with(GOOD, &["rwa=/x", "size=big", "size"]).err().unwrap();
    assert_snapshot!(drawn(&error), @r"
     × `--set` names the unknown variable `rwa`
      ╭─[command line:1:7]
    1 │ --set rwa=/x
      ·       ─┬─
      ·        ╰── not in [vars]
      ╰────
     help: Did you mean `raw`? Variables: raw, root, size.
     × `--set` wants NAME=VALUE
      ╭─[command line:1:7]
    1 │ --set size
      ·       ──┬─
      ·         ╰── no `=` here
      ╰────
     help: For example: --set raw=/data/cc3m
     × the variable `size` is a whole number
      ╭─[command line:1:12]
    1 │ --set size=big
      ·            ─┬─
      ·             ╰── not a whole number
      ╰────
     help: [vars] has size = 32.
    ");
}

#[test]
fn references_take_set_values_types_and_escapes() {
    let files = |text: &str, set: &[&str]| {
        load_with(text, set).unwrap().graph.nodes[0].stage.params["files"][0].clone()
    };
    assert_eq!(files(GOOD, &["raw=/x/$${y}"]), "/x/$${y}/*.parquet");
    assert_eq!(files(GOOD, &["root=/r"]), "/r/raw/*.parquet");
    assert_eq!(
        files(&GOOD.replace("${raw}/", "$${raw}/${env:PLACE}-${size}/"), &[]),
        "${raw}//mnt-32/*.parquet"
    );
    let size = load_with(GOOD, &["size=64"]).unwrap().graph.nodes[2].stage.params["size"].clone();
    assert_eq!(size, 64);
}

#[test]
fn variables_that_double_each_other_end_in_a_message() {
    let mut text = String::from("[vars]\nv0 = \"0123456789abcdef\"\n");
    for n in 1..64 {
        let last = n - 1;
        writeln!(text, "v{n} = \"${{v{last}}}${{v{last}}}\"").unwrap();
    }
    text +=
        "[stages.rows]\nkind = \"read\"\nfiles = [\"${v63}\"]\ncolumns = { image = \"a\", text = \"b\" }\n";
    assert_snapshot!(reported(&text), @r#"
     × the variables in this string expand to more than 1 MiB
       ╭─[toys.toml:19:7]
    18 │ v16 = "${v15}${v15}"
    19 │ v17 = "${v16}${v16}"
       ·       ──────────────
    20 │ v18 = "${v17}${v17}"
       ╰────
    "#);
}

#[test]
fn lists_of_variables_that_double_each_other_end_in_a_message() {
    let mut text = String::from("[vars]\nv0 = [\"a\"]\n");
    for n in 1..64 {
        let last = n - 1;
        writeln!(text, "v{n} = [\"${{v{last}}}\", \"${{v{last}}}\"]").unwrap();
    }
    text += "[stages.rows]\nkind = \"read\"\nfiles = [\"a\"]\ncolumns = { image = \"a\", text = \"b\" }\n";
    assert_snapshot!(reported(&text), @r#"
     × the variables of this manifest expand to more than 16 MiB
       ╭─[toys.toml:19:8]
    18 │ v16 = ["${v15}", "${v15}"]
    19 │ v17 = ["${v16}", "${v16}"]
       ·        ────┬───
       ·            ╰── from here on
    20 │ v18 = ["${v17}", "${v17}"]
       ╰────
     help: Variables that hold others several times grow with every step.
    "#);
}

#[test]
fn a_long_chain_of_variables_ends_in_a_message() {
    let mut text = String::from("[vars]\nv00000 = \"a\"\n");
    for n in 1..20_000 {
        writeln!(text, "v{:05} = \"${{v{n:05}}}\"", n - 1).unwrap();
    }
    text = text.replacen("v00000 = \"a\"\n", "", 1) + "v19999 = \"a\"\n";
    text += "[stages.rows]\nkind = \"read\"\nfiles = [\"a\"]\ncolumns = { image = \"a\", text = \"b\" }\n";
    assert_snapshot!(reported(&text).lines().next().unwrap(), @"  × more than 64 variables that need one another");
}

#[test]
fn stages_that_differ_only_in_case_are_a_mistake() {
    let text = GOOD.replace("[stages.few]", "[stages.Rows]").replace("from = \"few\"", "from = \"Rows\"");
    assert_snapshot!(reported(&text), @"
     × `Rows` and `rows` differ only in upper and lower case
       ╭─[toys.toml:11:9]
    10 │
    11 │ [stages.rows]
       ·         ────
    12 │ kind = \"read\"
       ╰────
       ╭─[toys.toml:16:9]
    15 │
    16 │ [stages.Rows]
       ·         ────
    17 │ kind = \"keep\"
       ╰────
     help: Some disks do not distinguish such folders. Give one of them another name.
    ");
}
