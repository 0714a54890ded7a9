//! JSON Lines.

use super::{ALL, Files, all_rows, image, rows_of, turns};
use serde_json::json;

fn line(number: usize) -> String {
    format!("{{\"prompt\": \"q{number}\", \"answer\": \"a{number}\"}}\n")
}

#[test]
fn line_ends_marks_and_blank_lines_change_nothing() {
    let files = Files::new();
    files.write("plain.jsonl", [line(0), line(1), line(2)].concat());
    let odd = format!("\u{feff}{}\r\n  \r\n\n{}\r\n{}", line(0).trim(), line(1).trim(), line(2).trim());
    files.write("odd.jsonl", odd);
    let messages = |name: &str| {
        let rows = files.rows(name, json!({}));
        rows.into_iter().map(|row| row.messages).collect::<Vec<_>>()
    };
    assert_eq!(messages("plain.jsonl"), [turns("q0", "a0"), turns("q1", "a1"), turns("q2", "a2")]);
    assert_eq!(messages("odd.jsonl"), messages("plain.jsonl"));
}

#[test]
fn a_broken_line_costs_its_row_and_names_its_line() {
    let files = Files::new();
    let mut text = line(0).into_bytes();
    text.extend_from_slice(b"\n{\"prompt\": \"caf\xe9\"}\n[1]\n");
    text.extend_from_slice(line(3).as_bytes());
    text.extend_from_slice(b"{\"prompt\": \"cut");
    files.write("rows.jsonl", text);
    let rows = files.rows("rows.jsonl", json!({}));
    let rejects: Vec<_> = rows.iter().map(|row| row.reject.as_deref().unwrap_or("fine")).collect();
    insta::assert_snapshot!(rejects.join("\n"), @r"
    fine
    read/bad-json: line 3: not UTF-8 (invalid utf-8 sequence of 1 bytes from index 15); set `encoding` if the file is text in another one
    read/bad-json: line 4: a JSON array, expected an object
    fine
    read/bad-file: line 6: EOF while parsing a string at line 1 column 15; the file ends in this row, without a line end: it was cut short
    ");
    let ids: Vec<_> = rows.iter().map(|row| row.id.as_deref().unwrap()).collect();
    assert_eq!(ids, ["rows.jsonl#0", "rows.jsonl#1", "rows.jsonl#2", "rows.jsonl#3", "rows.jsonl#4"]);
    assert_eq!(rows[1].messages, None);
}

#[test]
fn partitions_never_cross_files_and_appending_keeps_full_ones() {
    let files = Files::new();
    files.write("a.jsonl", (0..5).map(line).collect::<String>());
    files.write("b.jsonl", (5..7).map(line).collect::<String>());
    let open = || files.open("*.jsonl", json!({"partition_rows": 2}));
    let before = open();
    let labels: Vec<_> = before.partitions().iter().map(|part| part.label.clone()).collect();
    assert_eq!(labels, ["a.jsonl rows 0..2", "a.jsonl rows 2..4", "a.jsonl rows 4..5", "b.jsonl rows 0..2"]);
    let messages = |source: &dyn llavm_pipeline::stage::Source| {
        all_rows(source, &ALL).into_iter().map(|row| row.messages).collect::<Vec<_>>()
    };
    let expected: Vec<_> = (0..7).map(|n| turns(&format!("q{n}"), &format!("a{n}"))).collect();
    assert_eq!(messages(before.as_ref()), expected);

    files.write("a.jsonl", (0..6).map(line).collect::<String>());
    let after = open();
    let digest =
        |source: &dyn llavm_pipeline::stage::Source, part| source.digest(part, &["messages"]).unwrap();
    for part in [0, 1, 3] {
        assert_eq!(digest(before.as_ref(), part), digest(after.as_ref(), part), "partition {part}");
    }
    assert_ne!(digest(before.as_ref(), 2), digest(after.as_ref(), 2));
}

#[test]
fn text_does_not_depend_on_image_files_but_images_do() {
    let files = Files::new();
    files.write("rows.jsonl", r#"{"prompt": "q", "answer": "a", "image": "x.jpg"}"#);
    files.write("images/x.jpg", image(1));
    let open = || files.open("rows.jsonl", json!({"images": "images"}));
    let digests = || {
        let source = open();
        [["messages"], ["images"]].map(|columns| source.digest(0, &columns).unwrap())
    };
    let before = digests();
    assert_eq!(all_rows(open().as_ref(), &ALL)[0].images, Some(vec![image(1)]));
    files.write("images/x.jpg", image(2));
    let after = digests();
    assert_eq!(before[0], after[0]);
    assert_ne!(before[1], after[1]);
    std::fs::remove_file(files.path("images/x.jpg")).unwrap();
    let gone = digests();
    assert_eq!(before[0], gone[0]);
    assert!(gone[1] != after[1] && gone[1] != before[1]);
    let source = open();
    assert_eq!(rows_of(source.as_ref(), 0, &["messages"])[0].reject, None);
    assert_eq!(
        rows_of(source.as_ref(), 0, &["images"])[0].reject.as_deref(),
        Some("read/missing-image: `x.jpg` is not in `images`")
    );
}

#[test]
fn a_path_never_leaves_the_images_folder() {
    let files = Files::new();
    files.write("secret.jpg", image(9));
    let outside = files.path("secret.jpg").display().to_string();
    let row = |image: &str| json!({"prompt": "q", "answer": "a", "image": image}).to_string();
    files.write(
        "rows.jsonl",
        [row("../secret.jpg"), row("./../images/../secret.jpg"), row(&outside)].join("\n"),
    );
    files.write("images/x.jpg", image(1));
    let rows = files.rows("rows.jsonl", json!({"images": "images"}));
    assert!(
        rows.iter().all(|row| row.code() == Some("read/missing-image") && row.images.is_none()),
        "{rows:?}"
    );
}

#[test]
fn file_names_and_paths_enter_no_digest_but_that_of_ids() {
    let files = Files::new();
    files.write("one/a.jsonl", line(0));
    files.write("other/b.jsonl", line(0));
    let [one, other] = ["one/*.jsonl", "other/*.jsonl"].map(|name| files.open(name, json!({})));
    let same = |columns: &[&str]| one.digest(0, columns).unwrap() == other.digest(0, columns).unwrap();
    assert!(same(&["messages", "images", "language", "source"]));
    assert!(!same(&["id"]));
}

#[test]
fn limit_counts_rows_of_all_files_before_where() {
    let files = Files::new();
    files.write("a.jsonl", (0..3).map(line).collect::<String>());
    files.write("b.jsonl", (3..6).map(line).collect::<String>());
    let kept = |params| {
        let rows = files.rows("*.jsonl", params);
        rows.into_iter().map(|row| row.id.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(kept(json!({"limit": 4})), ["a.jsonl#0", "a.jsonl#1", "a.jsonl#2", "b.jsonl#0"]);
    let condition = "answer <> 'a1' AND prompt LIKE 'q%'";
    assert_eq!(kept(json!({"limit": 4, "where": condition})), ["a.jsonl#0", "a.jsonl#2", "b.jsonl#0"]);
}

#[test]
fn a_row_without_prompt_draws_one_and_always_the_same() {
    let files = Files::new();
    files.write("rows.jsonl", (0..40).map(|n| format!("{{\"answer\": \"a{n}\"}}\n")).collect::<String>());
    let prompts = ["What is this?", "Describe it."];
    let read = || files.rows("rows.jsonl", json!({"prompts": prompts, "columns": {"answer": "answer"}}));
    let rows = read();
    assert_eq!(rows, read());
    for prompt in prompts {
        let drawn =
            rows.iter().filter(|row| row.messages.as_ref().unwrap()[0] == format!("user: {prompt}")).count();
        assert!((8..=32).contains(&drawn), "`{prompt}` was drawn {drawn} times of 40");
    }
}

#[test]
fn a_wrong_column_name_lists_what_the_rows_have() {
    let files = Files::new();
    files.write(
        "rows.jsonl",
        "{\"question\": \"q\", \"score\": 1}\n{\"question\": \"q\", \"score\": 0.5, \"tags\": [\"x\"]}\n",
    );
    let params = json!({"columns": {"prompt": "questions", "answer": "score"}});
    insta::assert_snapshot!(files.error("rows.jsonl", params), @r"
    rows.jsonl has no column `questions`. Did you mean `question`? Its columns:
      question: string
      score: float
      tags: list<string>
    ");
    let params = json!({"columns": {"prompt": "question", "answer": "score"}, "where": "tags = 'x'"});
    insta::assert_snapshot!(files.error("rows.jsonl", params), @"where: column `tags` of rows.jsonl is list<string>");
}

/// Rows of chats of which one alone, far behind the sample, has one field more.
fn chats_and(field: &str) -> String {
    let line = |n: usize| match n {
        200 => format!(r#"{{"prompt": "q", "answer": "a", {field}}}"#),
        _ => r#"{"prompt": "q", "answer": "a"}"#.to_owned(),
    };
    (0..300).map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_column_that_one_row_alone_has_is_found() {
    let files = Files::new();
    files.write("images/a.jpg", image(1));
    files.write("usual.jsonl", chats_and(r#""image": "a.jpg""#));
    files.write("named.jsonl", chats_and(r#""photo": {"path": "a.jpg"}, "tag": 7"#));
    for (file, columns) in [
        ("usual.jsonl", json!({})),
        ("named.jsonl", json!({"image": "photo"})),
        ("named.jsonl", json!({"image": "photo.path", "source": "tag"})),
    ] {
        let rows = files.rows(file, json!({"images": "images", "columns": columns}));
        let with: Vec<_> = (0..300).filter(|row| rows[*row].images.as_ref().unwrap().len() == 1).collect();
        assert_eq!(with, [200], "{file} {columns}");
    }
    let rows = files
        .rows("named.jsonl", json!({"columns": {"source": "tag"}, "where": "tag = 7", "text_only": true}));
    assert_eq!(rows.iter().map(|row| row.source.as_deref()).collect::<Vec<_>>(), [Some("7")]);
    let error = files.error("named.jsonl", json!({"columns": {"image": "foto"}}));
    assert!(error.to_string().contains("named.jsonl has no column `foto`"), "{error}");
}

#[test]
fn columns_that_only_late_rows_have_are_seen() {
    let files = Files::new();
    let early = "{\"prompt\": \"q\", \"answer\": \"a\"}\n".repeat(100);
    files.write(
        "photo.jsonl",
        format!("{early}{{\"prompt\": \"q\", \"answer\": \"a\", \"photo\": \"a.jpg\"}}\n"),
    );
    let error = files.error("photo.jsonl", json!({})).to_string();
    assert!(error.contains("`photo` (string) looks like one"), "{error}");
    files.write(
        "note.jsonl",
        format!("{early}{{\"prompt\": \"q\", \"answer\": \"a\", \"context\": \"long\"}}\n"),
    );
    let notes = files.open("note.jsonl", json!({})).notes().join("\n");
    assert!(notes.contains("`context`"), "{notes}");
}

#[test]
fn lines_that_are_nearly_json_say_what_to_do() {
    let files = Files::new();
    let said = |line: &[u8]| {
        files.write("rows.jsonl", [b"{\"prompt\": \"q\", \"answer\": \"a\"}\n", line, b"\n"].concat());
        files.rows("rows.jsonl", json!({}))[1].reject.clone().unwrap()
    };
    assert!(said(b"{'prompt': 'q', 'answer': 'a'}").contains("use json.dumps"));
    assert!(said(b"{\"prompt\": \"q\", \"answer\": \"a\"},").contains("name such a file `.json`"));
    assert!(said(b"{").contains("write each row on one line"));
    assert!(said(b"{\"prompt\": \"caf\xe9\", \"answer\": \"a\"}").contains("set `encoding`"));
}
