//! The program as a black box: exit status, what it says, and what it leaves on the disk.

#![allow(clippy::unwrap_used, reason = "a test whose helpers fail has failed")]

use insta::assert_snapshot;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a call of the program did.
struct Call {
    status: i32,
    stdout: String,
    stderr: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llavm"));
    command
        .current_dir(folder)
        .args(args)
        .stdin(Stdio::null())
        .env_remove("LLAVM_LOG")
        .env_remove("NO_COLOR");
    command
}

fn llavm(folder: &Path, args: &[&str]) -> Call {
    let output = command(folder, args).output().unwrap();
    Call {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A folder with the manifest `m.toml`; `DATA` in it stands for the project's `data/`.
fn folder(manifest: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data = root().join("data");
    std::fs::write(folder.path().join("m.toml"), manifest.replace("DATA", data.to_str().unwrap())).unwrap();
    folder
}

/// Every file below `folder`, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { all.push(path) }
        }
    }
    all.sort();
    all
}

/// The text branch of the sample of captions.
const TEXT: &str = r#"
name = "text"

[vars]
system = "You are a helpful assistant."

[stages.rows]
kind    = "read"
files   = "DATA/cc3m/*.parquet"
columns = { image = "image", prompt = "input", answer = "output" }
limit   = 40

[stages.chat]
kind      = "chat-template"
from      = "rows"
tokenizer = "DATA/qwen3-tokenizer"
system    = "${system}"

[stages.pads]
kind = "image-pads"
from = "chat"

[stages.tokens]
kind      = "tokenize"
from      = "pads"
tokenizer = "DATA/qwen3-tokenizer"

[stages.labels]
kind = "shift-labels"
from = "tokens"
"#;

#[test]
fn every_command_has_a_help_with_an_example() {
    let help = llavm(root(), &["--help"]);
    assert_eq!(help.status, 0, "{}", help.stderr);
    let headings = help.stdout.lines().filter(|line| line.ends_with(" commands:"));
    assert_eq!(
        headings.collect::<Vec<_>>(),
        ["Pipeline commands:", "Model commands:", "Hub commands:", "Other commands:"]
    );
    let commands: Vec<&str> = help
        .stdout
        .lines()
        .skip_while(|line| *line != "Pipeline commands:")
        .take_while(|line| *line != "Options:")
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    for wanted in
        ["run", "validate", "status", "explain", "graph", "peek", "verify", "gc", "kinds", "completions"]
    {
        assert!(commands.contains(&wanted), "{wanted} is listed: {}", help.stdout);
    }
    for command in commands {
        let help = llavm(root(), &[command, "--help"]);
        assert_eq!(help.status, 0, "{command}");
        assert!(help.stdout.contains("Example"), "{command} shows an example: {}", help.stdout);
    }
}

#[test]
fn a_wrong_command_line_ends_with_status_2() {
    for args in [
        &["validat", "m.toml"][..],
        &["run"],
        &["run", "m.toml", "--jobs", "0"],
        &["graph", "m.toml", "--format", "png"],
    ] {
        let call = llavm(root(), args);
        assert_eq!((call.status, call.stdout.as_str()), (2, ""), "{args:?}: {}", call.stderr);
    }
    assert!(llavm(root(), &["validat"]).stderr.contains("'validate'"));
}

#[test]
fn all_mistakes_of_a_manifest_are_told_and_nothing_is_run() {
    let folder = folder(
        r#"
name = "wrong"

[stages.rows]
kind    = "read"
files   = "nowhere/*.parquet"
colums  = { image = "image" }

[stages.chat]
kind      = "chat-templat"
from      = "rows"

[stages.pixels]
kind = "decode-resize"
from = "rws"
size = "large"
"#,
    );
    let call = llavm(folder.path(), &["run", "m.toml"]);
    assert_eq!((call.status, call.stdout.as_str()), (2, ""));
    assert_snapshot!(call.stderr.replace(" \n", "\n"), @r#"
      × `rows` (read): no file matches `nowhere/*.parquet`
       ╭─[m.toml:6:11]
     5 │ kind    = "read"
     6 │ files   = "nowhere/*.parquet"
       ·           ─────────┬─────────
       ·                    ╰── not there
     7 │ colums  = { image = "image" }
       ╰────
      help: Paths are relative to the folder llavm is started in; `*` stands for any part of a name,
            `**` for folders.

      × `rows` (read) has no parameter `colums`
       ╭─[m.toml:7:1]
     6 │ files   = "nowhere/*.parquet"
     7 │ colums  = { image = "image" }
       · ───┬──
       ·    ╰── unknown
     8 │
       ╰────
      help: Did you mean `columns`? Parameters of `read`: files, format, columns, conversation,
            images, image_name, placeholder_images, explode, where, limit, prompts, language, source,
            header, delimiter, quote, encoding, placeholders, text_only, partition_rows.

      × `chat` is of the unknown kind `chat-templat`
        ╭─[m.toml:10:13]
      9 │ [stages.chat]
     10 │ kind      = "chat-templat"
        ·             ───────┬──────
        ·                    ╰── no such kind
     11 │ from      = "rows"
        ╰────
      help: Did you mean `chat-template`? Kinds: read, shapes, filter, quality, clean-text,
            decode-resize, encode-images, chat-template, image-pads, tokenize, shift-labels, shard,
            train, evaluate, benchmark, export.

      × `pixels` reads the unknown stage `rws`
        ╭─[m.toml:15:8]
     14 │ kind = "decode-resize"
     15 │ from = "rws"
        ·        ──┬──
        ·          ╰── no such stage
     16 │ size = "large"
        ╰────
      help: Did you mean `rows`? Stages: chat, rows.

      × `pixels` (decode-resize): `size`: expected a whole number, 0 or more, not the string "large"
        ╭─[m.toml:16:8]
     15 │ from = "rws"
     16 │ size = "large"
        ·        ───────
        ╰────

    m.toml: 5 problems; nothing was run
    "#);
    assert_eq!(files(folder.path()).len(), 1, "only the manifest is there");
}

#[test]
fn a_manifest_that_is_not_there_ends_with_status_2() {
    let call = llavm(root(), &["validate", "nowhere.toml"]);
    assert_eq!(call.status, 2);
    assert_snapshot!(call.stderr, @r"
      × cannot read the manifest nowhere.toml: No such file or directory (os error 2)
      help: Give the path of a TOML file, for example manifests/quickstart.toml.

    nowhere.toml: 1 problem; nothing was run
    ");
}

#[test]
fn an_unknown_stage_or_variable_on_the_command_line_names_the_nearest() {
    let folder = folder(TEXT);
    let call = llavm(folder.path(), &["run", "m.toml", "--until", "token"]);
    assert_eq!(call.status, 2);
    assert_snapshot!(call.stderr, @r"
    × m.toml has no stage `token`
    help: Did you mean `tokens`? Stages: rows, chat, pads, tokens, labels.
    ");
    let call = llavm(folder.path(), &["validate", "m.toml", "--set", "sytem=x"]);
    assert_eq!(call.status, 2);
    assert_snapshot!(call.stderr, @r"
      × `--set` names the unknown variable `sytem`
       ╭─[command line:1:7]
     1 │ --set sytem=x
       ·       ──┬──
       ·         ╰── not in [vars]
       ╰────
      help: Did you mean `system`? Variables: system.

    m.toml: 1 problem; nothing was run
    ");
}

#[test]
fn a_forced_stage_that_is_left_out_is_a_mistake() {
    let folder = folder(TEXT);
    let call = llavm(folder.path(), &["run", "m.toml", "--from", "tokens", "--force", "chat"]);
    assert_eq!(call.status, 2);
    assert_snapshot!(call.stderr, @"
    × `--force chat` names a stage that `--from tokens` leaves out
    help: Leave out one of the options, or choose stages that include `chat`.
    ");
    let call = llavm(folder.path(), &["run", "m.toml", "--until", "chat", "--force", "labels"]);
    assert_eq!((call.status, files(folder.path()).len()), (2, 1), "{}", call.stderr);
}

#[test]
fn a_mistyped_store_is_not_created() {
    let folder = folder(&format!("store = \"mistyped\"\n{TEXT}"));
    for command in ["gc", "verify"] {
        let call = llavm(folder.path(), &[command, "m.toml"]);
        assert_eq!((call.status, files(folder.path()).len()), (2, 1), "{}", call.stderr);
        assert!(call.stderr.contains("there is no store at mistyped"), "{}", call.stderr);
    }
    assert!(!folder.path().join("mistyped").exists());
}

#[test]
fn every_manifest_of_the_project_is_right() {
    let manifests = std::fs::read_dir(root().join("manifests")).unwrap();
    let is_manifest = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "toml");
    for manifest in manifests.map(|entry| entry.unwrap().path()).filter(is_manifest) {
        let call = llavm(root(), &["graph", manifest.to_str().unwrap()]);
        assert_eq!(call.status, 0, "{}: {}", manifest.display(), call.stderr);
    }
}

/// The Chinese sample, two sets mixed, with a line of one of them changed.
fn mixed(from: &str, to: &str) -> Call {
    let text = std::fs::read_to_string(root().join("manifests/zh-sample.toml")).unwrap();
    assert_eq!(text.matches(from).count(), 1, "{from}");
    let folder = folder(&text.replace(from, to).replace("\"data/", "\"DATA/"));
    llavm(folder.path(), &["validate", "m.toml"])
}

#[test]
fn sets_that_are_rendered_or_prepared_otherwise_are_not_mixed() {
    let system = "system    = \"你是一个乐于助人的助手。\"\nloss_on";
    let cases = [
        (system, "system = \"另一个\"\nloss_on", "the system prompt", ["你是一个乐于助人的助手。", "另一个"]),
        (system, "loss_on", "the system prompt", ["你是一个乐于助人的助手。", "no system prompt"]),
        (
            "from = \"talk\"\n\n",
            "from = \"talk\"\ncrop = \"pad\"\n\n",
            "how an image becomes a square",
            ["center", "pad"],
        ),
        (
            "from      = \"talk-pads\"\n",
            "from = \"talk-pads\"\nspecial_in_text = \"allow\"\n",
            "special tokens in messages",
            ["reject", "allow"],
        ),
    ];
    for (from, to, what, both) in cases {
        let call = mixed(from, to);
        assert_eq!(call.status, 2, "{}", call.stdout);
        let said = call.stderr.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [&format!("do not agree on {what}"), both[0], both[1]] {
            assert!(said.contains(part), "no {part} in\n{}", call.stderr);
        }
    }
    let call = mixed(system, "system = \"另一个\"\nloss_on");
    assert_snapshot!(call.stderr.replace(" \n", "\n"), @r#"
      × `captions-chat` (chat-template) and `talk-chat` (chat-template) do not agree on the system
      │ prompt
        ╭─[m.toml:23:13]
     22 │ tokenizer = "${tokenizer}"
     23 │ system    = "你是一个乐于助人的助手。"
        ·             ─────────────┬────────────
        ·                          ╰── `你是一个乐于助人的助手。`
     24 │
        ╰────
        ╭─[m.toml:54:10]
     53 │ tokenizer = "${tokenizer}"
     54 │ system = "另一个"
        ·          ────┬───
        ·              ╰── `另一个`
     55 │ loss_on   = "all-assistant"
        ╰────
      help: A model is asked with one system prompt: give all data sets the same `system`, or none and
            put it into the rows as a first message of role `system`.

    m.toml: 1 problem; nothing was run
    "#);
    assert_eq!(mixed(system, system).status, 0);
}

#[test]
fn validate_says_when_earlier_answers_are_not_trained_as_they_are_asked() {
    let note = "trains earlier answers as this template renders them";
    let said = |to: &str| {
        let call = mixed("loss_on   = \"all-assistant\"\n", to);
        assert_eq!(call.status, 0, "{}", call.stderr);
        call.stdout
    };
    let told = said("loss_on = \"all-assistant\"\n");
    assert!(told.lines().any(|line| line.starts_with("talk-chat: ") && line.contains(note)), "{told}");
    assert!(!said("loss_on = \"last\"\n").contains(note));
}

#[test]
fn a_graph_as_text_mermaid_and_dot() {
    let folder = folder(TEXT);
    assert_snapshot!(llavm(root(), &["graph", "manifests/cc3m-sample.toml"]).stdout, @r"
    stage            kind             reads
    rows             read             raw files
    chat             chat-template    rows
    pads             image-pads       chat
    pixels.distinct  distinct-images  rows
    pixels           decode-resize    rows + pixels.distinct
    tokens           tokenize         pads
    labels           shift-labels     tokens
    shards           shard            labels + pixels
    ");
    assert_snapshot!(llavm(folder.path(), &["graph", "m.toml", "--format", "mermaid"]).stdout, @r#"
    flowchart LR
      s0["rows<br/><small>read</small>"]
      s1["chat<br/><small>chat-template</small>"]
      s2["pads<br/><small>image-pads</small>"]
      s3["tokens<br/><small>tokenize</small>"]
      s4["labels<br/><small>shift-labels</small>"]
      s0 --> s1
      s1 --> s2
      s2 --> s3
      s3 --> s4
    "#);
    assert_snapshot!(llavm(folder.path(), &["graph", "m.toml", "--format", "dot"]).stdout, @r#"
    digraph manifest {
      rankdir = LR;
      node [shape = box];
      s0 [label = "rows\nread"];
      s1 [label = "chat\nchat-template"];
      s2 [label = "pads\nimage-pads"];
      s3 [label = "tokens\ntokenize"];
      s4 [label = "labels\nshift-labels"];
      s0 -> s1;
      s1 -> s2;
      s2 -> s3;
      s3 -> s4;
    }
    "#);
}

#[test]
fn kinds_are_listed_with_their_parameters() {
    let all = llavm(root(), &["kinds"]).stdout;
    let names =
        "read shapes quality clean-text decode-resize chat-template image-pads tokenize shift-labels shard";
    for kind in names.split(' ') {
        assert!(all.lines().any(|line| line.split_whitespace().next() == Some(kind)), "{all}");
    }
    assert_snapshot!(llavm(root(), &["kinds", "tokenize"]).stdout, @r#"
    tokenize (map): turn the rendered conversation into token ids
    Reads `from`: one table, or tables that line up. Gives a table.

    parameter          default
    tokenizer          (must be given)
    max_tokens         2048
    overlong           "reject"
    min_answer_tokens  (none)
    max_answer_tokens  (none)
    special_in_text    "reject"
    "#);
    let call = llavm(root(), &["kinds", "tokenise"]);
    assert_eq!(call.status, 2);
    assert!(call.stderr.contains("Did you mean `tokenize`?"), "{}", call.stderr);
}

#[test]
fn every_shell_gets_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = llavm(root(), &["completions", shell]).stdout;
        assert!(
            script.contains("explain") && script.contains("--dry-run") || script.contains("dry-run"),
            "{shell}"
        );
    }
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let mut child = command(root(), &["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn a_dry_run_tells_the_plan_and_makes_nothing() {
    let folder = folder(TEXT);
    let call = llavm(folder.path(), &["run", "m.toml", "--dry-run"]);
    assert_eq!(call.status, 0, "{}", call.stderr);
    assert_snapshot!(call.stdout, @r"
    rows    computed when read (read)
    chat    run 1 of 1 (chat-template): never made before
    pads    depends on the above 1 of 1 (image-pads)
    tokens  depends on the above 1 of 1 (tokenize)
    labels  depends on the above 1 of 1 (shift-labels)

    about   rows       disk  memory  steps
    chat      40   15.6 KiB
    pads      40   39.1 KiB
    tokens    40   17.6 KiB
    labels    40   31.2 KiB
    in all        103.5 KiB

    nothing was run (--dry-run)
    ");
    // Digests and row counts of the raw files are remembered, for the run that will probably follow.
    let made = files(&folder.path().join(".llavm"));
    let is_memory = |path: &PathBuf| path.parent().is_some_and(|folder| folder.ends_with("digests"));
    let allowed = |path: &PathBuf| path.ends_with("lock") || is_memory(path);
    assert!(made.iter().all(allowed), "{made:?}");
}

#[test]
fn a_run_is_told_and_the_next_one_has_nothing_to_do() {
    let folder = folder(TEXT);
    let first = llavm(folder.path(), &["run", "m.toml", "--summary", "first.json"]);
    assert_eq!(first.status, 0, "{}", first.stderr);
    assert!(!first.stdout.contains('\x1b') && !first.stderr.contains('\x1b'), "no colours off a terminal");
    let summary = json(&folder.path().join("first.json"));
    assert_eq!(summary["manifest"], "text");
    assert_eq!(stage(&summary, "tokens")["rows"], 40);
    assert_eq!(stage(&summary, "tokens")["ran"], 1);

    let second = llavm(folder.path(), &["run", "m.toml", "--summary", "second.json"]);
    assert_eq!(second.status, 0, "{}", second.stderr);
    assert_eq!(second.stdout, "text: nothing to do, all 5 stages are up to date\n");
    assert_eq!(stage(&json(&folder.path().join("second.json")), "tokens")["reused"], 1);
}

#[test]
fn status_lists_stored_files_and_explain_names_the_changed_parameter() {
    let folder = folder(TEXT);
    assert_eq!(llavm(folder.path(), &["run", "m.toml"]).status, 0);
    let status: serde_json::Value =
        serde_json::from_str(&llavm(folder.path(), &["status", "m.toml", "--json"]).stdout).unwrap();
    let tokens = stage(&status, "tokens");
    assert_eq!((tokens["state"].as_str(), tokens["rows"].as_u64()), (Some("ready"), Some(40)));
    for file in tokens["files"].as_array().unwrap() {
        assert!(folder.path().join(file.as_str().unwrap()).is_file(), "{file}");
    }
    let explained = llavm(folder.path(), &["explain", "m.toml", "chat", "--set", "system=Be brief."]);
    assert_eq!(explained.status, 0, "{}", explained.stderr);
    assert!(explained.stdout.contains("parameter system changed"), "{}", explained.stdout);
    let verified = llavm(folder.path(), &["verify", "m.toml"]);
    assert_eq!(verified.status, 0, "{}{}", verified.stdout, verified.stderr);
    assert!(llavm(folder.path(), &["gc", "m.toml", "--dry-run"]).stdout.starts_with("0 B would be freed"));
}

#[test]
fn a_run_over_its_budget_ends_with_status_1_and_shows_examples() {
    let manifest = r#"
name = "broken"
max_rejects = 0.01

[stages.rows]
kind    = "read"
files   = "DATA/broken/rows.parquet"
columns = { id = "id", image = "image", prompt = "input", answer = "output" }

[stages.pixels]
kind = "decode-resize"
from = "rows"
"#;
    let folder = folder(manifest);
    let call = llavm(folder.path(), &["run", "m.toml"]);
    assert_eq!(call.status, 1, "{}", call.stderr);
    assert!(call.stderr.contains("max_rejects") && call.stderr.contains("the first ones"), "{}", call.stderr);
}

#[test]
fn peek_shows_images_template_and_loss() {
    let folder = folder(TEXT);
    let early = llavm(folder.path(), &["peek", "m.toml", "labels"]);
    assert_eq!(early.status, 1, "nothing was run yet");
    assert!(early.stderr.contains("Run the manifest first"), "{}", early.stderr);
    assert_eq!(llavm(folder.path(), &["run", "m.toml"]).status, 0);
    let call = llavm(folder.path(), &["peek", "m.toml", "labels", "--rows", "1", "--first", "1"]);
    assert_eq!(call.status, 0, "{}", call.stderr);
    assert!(call.stdout.contains("image of 193 × 188"), "{}", call.stdout);
    assert!(call.stdout.contains("<|image_pad|> ×49"), "{}", call.stdout);
    let trained = call.stdout.rsplit_once('⟦').and_then(|(_, rest)| rest.split_once('⟧')).unwrap().0;
    assert!(trained.ends_with("<|im_end|>"), "{trained}");

    let call = llavm(folder.path(), &["peek", "m.toml", "labels", "--html", "look.html"]);
    assert_eq!(
        (call.status, call.stdout.as_str()),
        (0, "3 rows of labels in look.html\n"),
        "{}",
        call.stderr
    );
    let html = std::fs::read_to_string(folder.path().join("look.html")).unwrap();
    assert_eq!(html.matches("<img alt=\"\" src=\"data:image/png;base64,").count(), 3);
    assert!(html.contains("<span class=\"loss\" title=\"151645\">&lt;|im_end|&gt;</span>"));
}

#[test]
fn a_data_report_of_shards_shows_the_rejects_of_every_stage() {
    let folder = folder(&std::fs::read_to_string(root().join("manifests/broken-sample.toml")).unwrap());
    let manifest = std::fs::read_to_string(folder.path().join("m.toml")).unwrap().replace("data/", "DATA/");
    let data = root().join("data").display().to_string();
    std::fs::write(folder.path().join("m.toml"), manifest.replace("DATA", &data)).unwrap();
    let early = llavm(folder.path(), &["data-report", "m.toml", "shards", "-o", "r.html"]);
    assert_eq!(early.status, 1);
    assert!(early.stderr.contains("is not there yet") && early.stderr.contains("Run the manifest first"));
    llavm(folder.path(), &["run", "m.toml"]);
    let call = llavm(folder.path(), &["data-report", "m.toml", "shards", "-o", "r.html"]);
    assert_eq!(call.status, 0, "{}", call.stderr);
    let page = std::fs::read_to_string(folder.path().join("r.html")).unwrap().replace("&#x2f;", "/");
    for part in ["decode-resize/undecodable", "Tokens trained on", "data:image/jpeg;base64,", "Samples"] {
        assert!(page.contains(part), "{part}");
    }
    let again = llavm(folder.path(), &["data-report", "m.toml", "shards", "-o", "s.html"]);
    assert_eq!(again.status, 0);
    let second = std::fs::read_to_string(folder.path().join("s.html")).unwrap().replace("&#x2f;", "/");
    assert!(page == second);
}

fn json(file: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn stage<'a>(report: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    report["stages"].as_array().unwrap().iter().find(|stage| stage["name"] == name).unwrap()
}
