//! Files that other programs wrote, and files that are not what their names say.

use super::{Context, Files, Row, all_rows, image, rows_of, turns};
use crate::image_lists::image_digest;
use crate::read::Read;
use arrow::array::AsArray;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use llavm_pipeline::stage::SourceStage;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn odd() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/odd")
}

/// The rows of a file under data/odd.
fn rows(name: &str, expected: &Value) -> Vec<Row> {
    let mut params = expected["params"].clone();
    params["files"] = json!(odd().join(name));
    if let Some(images) = params.get("images").and_then(Value::as_str) {
        params["images"] = json!(odd().join(images));
    }
    let stage: Read = serde_json::from_value(params).unwrap();
    let source = stage.open(&super::Context::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
    all_rows(source.as_ref(), &super::ALL)
}

/// `data/make_odd.py` wrote the files, and read them with pandas, pyarrow, datasets, json and tarfile.
#[test]
fn files_read_as_the_programs_that_wrote_them_read_them() {
    let expected = std::fs::read(odd().join("expected.json")).unwrap();
    let expected: serde_json::Map<String, Value> = serde_json::from_slice(&expected).unwrap();
    assert!(expected.len() > 40);
    let mut wrong = Vec::new();
    for (name, expected) in &expected {
        let rows = rows(name, expected);
        let answer = |row: &Row| match &row.messages {
            Some(turns) => {
                turns.last().and_then(|turn| turn.strip_prefix("assistant: ")).unwrap_or_default().to_owned()
            }
            None => format!("rejected: {:?}", row.reject),
        };
        let found: Vec<String> = rows.iter().map(answer).collect();
        if json!(found) != expected["answers"] {
            wrong.push(format!("{name}: {found:?} instead of {}", expected["answers"]));
        }
        let ids: Vec<&str> = rows.iter().filter_map(|row| row.id.as_deref()).collect();
        if expected.get("ids").is_some_and(|expected| *expected != json!(ids)) {
            wrong.push(format!("{name}: ids {ids:?} instead of {}", expected["ids"]));
        }
        let with_image = name.starts_with("saved") || name.contains(".tar.") || name.contains(".zip-");
        if with_image && rows.iter().any(|row| row.images.as_ref().is_none_or(|images| images.len() != 1)) {
            wrong.push(format!("{name}: a row has no image: {:?}", rows[0].reject));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_file_that_is_something_else_is_named_by_its_first_bytes() {
    let files = Files::new();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let reported = |name: &str, bytes: &[u8]| {
        files.write(name, bytes);
        let rows = files.rows(name, json!({}));
        assert_eq!(rows.len(), 1, "{name}");
        rows[0].reject.clone().unwrap()
    };
    let lfs = "it is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder, or download it with `llavm fetch`";
    let page = "it is a web page (HTML), such as a login or an error page: download the file itself";
    let zeros = "it holds nothing but zero bytes, as a download does that never finished: download it again";
    let cases: [(&str, &[u8], &str); 11] = [
        ("a.parquet", pointer.as_bytes(), lfs),
        ("a.jsonl", pointer.as_bytes(), lfs),
        ("b.json", b"<!DOCTYPE html><title>Sign in", page),
        ("c.csv", b"PK\x03\x04\x14\0", "it is a zip archive: unpack it first"),
        ("d.jsonl", b"\xff\xfe{\0}\0", "it is text in UTF-16: set encoding = \"utf-16\""),
        ("e.tar", &[0; 4096], zeros),
        ("f.tsv", b"", "the file is empty: download it again"),
        ("g.jsonl", b"\x1f\x8b\x08\0cut", "the gzip file is damaged or cut short: "),
        ("h.parquet", b"\x1f\x8b\x08\0", "it is packed with gzip: unpack it first"),
        (
            "i.jsonl",
            b"[{\"prompt\": 1},\n {}]\n",
            "it is one JSON array: name it `.json`, or set format = \"json\"",
        ),
        (
            "j.jsonl",
            b"[{\"prompt\": 1}, {}]",
            "it is one JSON array: name it `.json`, or set format = \"json\"",
        ),
    ];
    for (name, bytes, expected) in cases {
        let reject = reported(name, bytes);
        assert!(reject.starts_with(&format!("read/bad-file: {name}: {expected}")), "{reject}");
    }
}

#[test]
fn a_table_in_another_encoding_is_refused_whole() {
    let files = Files::new();
    let (gbk, ..) = encoding_rs::GBK.encode("prompt,answer\nq,一张图\nq,a cat\nq,联通\n");
    files.write("rows.csv", &gbk);
    let rows = files.rows("rows.csv", json!({}));
    assert_eq!(rows.len(), 1);
    let expected = "read/bad-file: rows.csv: line 2 is not UTF-8, nor are most lines beyond ASCII: set encoding = \"gbk\", or whatever";
    assert!(rows[0].reject.as_deref().is_some_and(|reject| reject.starts_with(expected)), "{rows:?}");
    let answers: Vec<_> =
        files.rows("rows.csv", json!({"encoding": "gbk"})).into_iter().map(|row| row.messages).collect();
    assert_eq!(answers, ["一张图", "a cat", "联通"].map(|answer| turns("q", answer)));
    let rows = files.rows("rows.csv", json!({"encoding": "utf-8"}));
    assert_eq!(
        rows.iter().map(Row::code).collect::<Vec<_>>()[0],
        Some("read/bad-row"),
        "each line by itself"
    );
}

#[test]
fn broken_lines_at_the_head_do_not_hide_the_columns() {
    let files = Files::new();
    let comments = "# exported by a tool\n".repeat(200);
    let rows: String = (0..3)
        .map(|n| format!("{{\"question\": \"q\", \"answer\": [\"a{n}\", \"b{n}\"], \"score\": {n}}}\n"))
        .collect();
    files.write("rows.jsonl", comments + &rows);
    let params = json!({"columns": {"prompt": "question"}, "explode": "answer", "where": "score > 0"});
    let rows = files.rows("rows.jsonl", params);
    let fine: Vec<_> =
        rows.iter().filter(|row| row.reject.is_none()).map(|row| row.messages.clone()).collect();
    assert_eq!(fine, ["a1", "b1", "a2", "b2"].map(|answer| turns("q", answer)));
    assert_eq!(rows.len(), 204);
    let error = files.error("rows.jsonl", json!({}));
    assert!(error.to_string().contains("no column `prompt`"), "{error}");
}

#[test]
fn a_condition_sees_the_type_that_holds_all_rows() {
    let files = Files::new();
    let line = |n: usize| match n {
        80 => r#"{"prompt": "q", "answer": "a80", "score": 0.9}"#.to_owned(),
        n => format!(r#"{{"prompt": "q", "answer": "a{n}", "score": {}}}"#, n % 2),
    };
    files.write("one.jsonl", (0..100).map(line).collect::<Vec<_>>().join("\n") + "\n");
    let kept = |name: &str, condition: &str| files.rows(name, json!({"where": condition})).len();
    assert_eq!(kept("one.jsonl", "score > 0.5"), 51);
    let csv = |score: &str| format!("prompt,answer,score\n{}", format!("q,a,{score}\n").repeat(70));
    files.write("t/1.csv", csv("1"));
    files.write("t/2.csv", csv("0.75"));
    assert_eq!(kept("t/*.csv", "score > 0.5"), 140);
    files.write("u/1.jsonl", "{\"prompt\": \"q\", \"answer\": \"a\", \"score\": 1}\n");
    files.write("u/2.jsonl", "{\"prompt\": \"q\", \"answer\": \"a\", \"score\": 0.75}\n");
    assert_eq!(kept("u/*.jsonl", "score > 0.5"), 2);
    files.write("big.jsonl", "{\"prompt\": \"q\", \"answer\": \"a\", \"id\": 18446744073709551615}\n{\"prompt\": \"q\", \"answer\": \"a\", \"id\": 3}\n");
    let rows = files.rows("big.jsonl", json!({"where": "id > 1", "columns": {"id": "id"}}));
    assert_eq!(rows.iter().map(Row::code).collect::<Vec<_>>(), [Some("read/not-comparable"), None]);
    assert_eq!(rows[0].id.as_deref(), Some("big.jsonl#0"));
    let ids: Vec<_> = files
        .rows("big.jsonl", json!({"columns": {"id": "id"}}))
        .into_iter()
        .map(|row| row.id.unwrap())
        .collect();
    assert_eq!(ids, ["18446744073709551615", "3"]);
}

#[test]
fn a_column_that_looks_like_the_image_has_to_be_named() {
    let files = Files::new();
    files.write("rows.jsonl", r#"{"prompt": "q", "answer": "a", "photo": "x/1.jpg", "note": "n"}"#);
    let error = files.error("rows.jsonl", json!({}));
    assert_eq!(
        error.to_string(),
        "no column of rows.jsonl is read as the image, but `photo` (string) looks like one"
    );
    insta::assert_snapshot!(error.advice().unwrap(), @"Name it: columns = { image = \"photo\" }. Set text_only = true if the rows are to be read without images.");
    assert_eq!(files.rows("rows.jsonl", json!({"text_only": true})).len(), 1);
    files.write("x/1.jpg", image(1));
    let rows = files.rows("rows.jsonl", json!({"columns": {"image": "photo"}, "images": "."}));
    assert_eq!(rows[0].images, Some(vec![image(1)]));
}

#[test]
fn what_nothing_uses_is_named() {
    let files = Files::new();
    files.write(
        "rows.jsonl",
        r#"{"prompt": "<image1>\nWhat?", "answer": "a", "image": "1.jpg", "context": "long ago", "score": 1, "system": "Be brief."}"#,
    );
    let open = |params| files.open("rows.jsonl", params);
    let notes = open(json!({"images": "."})).notes().join("\n");
    insta::assert_snapshot!(notes, @r#"
    columns that nothing uses: `context` (string)
    1 of the first rows hold `<image{n}>`, which stands for no image here: set placeholders = ["<image{n}>"] if it should
    "#);
    let source = open(json!({"images": ".", "placeholders": "<image{n}>"}));
    assert_eq!(source.notes().len(), 1);
    let rows = all_rows(source.as_ref(), &["messages"]);
    let said = rows[0].messages.clone().unwrap();
    assert_eq!(said, ["system: Be brief.", "user: <image>\nWhat?", "assistant: a"]);
}

#[test]
fn images_in_messages_are_found_in_the_folder_and_digested() {
    let files = Files::new();
    files.write("images/a.jpg", image(1));
    let row = json!({"messages": [
        {"role": "user", "content": [{"type": "image", "image": "a.jpg"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
    ]});
    files.write("rows.jsonl", row.to_string());
    let open = || files.open("rows.jsonl", json!({"images": "images", "conversation": "messages"}));
    let rows = all_rows(open().as_ref(), &super::ALL);
    assert_eq!(
        (rows[0].images.clone(), rows[0].messages.clone()),
        (Some(vec![image(1)]), turns("<image>\nWhat?", "A cat."))
    );
    let digests = || ["images", "messages"].map(|column| open().digest(0, &[column]).unwrap());
    let before = digests();
    files.write("images/a.jpg", image(2));
    let after = digests();
    assert!(before[0] != after[0] && before[1] == after[1], "another image renders no text again");
}

#[test]
fn names_of_other_systems_are_found_or_named() {
    let files = Files::new();
    files.write("images/dir/caf\u{e9}.jpg", image(1));
    files.write("images/b c.jpg", image(2));
    let absolute = files.path("images/b c.jpg").display().to_string();
    let names = [
        "dir/cafe\u{301}.jpg".to_owned(),
        r"dir\café.jpg".to_owned(),
        absolute.clone(),
        format!("file://{}", absolute.replace(' ', "%20")),
        r"C:\photos\a.jpg".to_owned(),
        "/elsewhere/a.jpg".to_owned(),
    ];
    let line = |name: &String| json!({"prompt": "q", "answer": "a", "image": name}).to_string();
    files.write("rows.jsonl", names.iter().map(line).collect::<Vec<_>>().join("\n"));
    let source = files.open("rows.jsonl", json!({"images": "images"}));
    let rows = rows_of(source.as_ref(), 0, &["images"]);
    let images: Vec<_> = rows[..4].iter().map(|row| row.images.clone().unwrap_or_default()).collect();
    assert_eq!(images, [vec![image(1)], vec![image(1)], vec![image(2)], vec![image(2)]], "{rows:?}");
    insta::assert_snapshot!(
        rows[4..].iter().map(|row| row.reject.as_deref().unwrap()).collect::<Vec<_>>().join("\n"),
        @r"
    read/missing-image: `C:\photos\a.jpg` is a path of another computer: write names relative to a folder, and set `images` to that folder
    read/missing-image: `/elsewhere/a.jpg` is an absolute path that lies in none of `images`: set `images` to a folder that holds it
    "
    );
}

#[test]
fn rows_of_one_image_are_of_one_group() {
    let files = Files::new();
    files.write("images/a.jpg", image(1));
    let lines = [
        r#"{"image": "a.jpg", "answer": ["one", "two"], "patient": 7}"#,
        r#"{"image": "b.jpg", "answer": "three", "patient": 7}"#,
        r#"{"answer": "four", "patient": null}"#,
    ];
    files.write("rows.jsonl", lines.join("\n"));
    let groups = |params: Value| {
        let source = files.open("rows.jsonl", params);
        let batches: Vec<_> = source.batches(0, &["group"]).unwrap().map(Result::unwrap).collect();
        let batch = &batches[0];
        (0..batch.num_rows()).map(|row| crate::shard::group_names(batch, row)).collect::<Vec<_>>()
    };
    let params = json!({"images": "images", "explode": "answer", "columns": {"prompt": "answer"}});
    assert_eq!(groups(params), [vec!["a.jpg"], vec!["a.jpg"], vec!["b.jpg"], vec![]]);
    let params = json!({"images": "images", "columns": {"prompt": "answer", "group": "patient"}});
    assert_eq!(groups(params), [vec!["7"], vec!["7"], vec![]]);
}

#[test]
fn images_inside_files_are_hashed_once_and_are_those_of_the_rows() {
    let files = Files::new();
    let [one, other] = [1, 2].map(|n| STANDARD.encode(image(n)));
    let cells = [json!(one), json!([other, one]), json!(null), json!("gone.jpg"), json!(other)];
    let lines = cells.map(|cell| json!({"image": cell, "prompt": "q", "answer": "a"}).to_string());
    files.write("rows.jsonl", lines.join("\n"));
    let context = Context::default();
    let digest = |image: &Vec<u8>| image_digest(&blake3::hash(image)).to_vec();
    for predicate in [None, None, Some("answer = 'a'")] {
        let stage = files.stage("rows.jsonl", json!({"where": predicate}));
        let source = stage.open(&context).unwrap();
        let rows = rows_of(source.as_ref(), 0, &["images"]);
        let wanted: Vec<_> =
            rows.iter().map(|row| row.images.as_ref().map(|all| all.iter().map(digest).collect())).collect();
        let batch = source.batches(0, &["image_digests", "group"]).unwrap().next().unwrap().unwrap();
        let lists = batch.column_by_name("image_digests").unwrap().as_list::<i32>();
        let found: Vec<Option<Vec<_>>> = lists
            .iter()
            .map(|list| {
                Some(list?.as_fixed_size_binary().iter().map(|digest| digest.unwrap().to_vec()).collect())
            })
            .collect();
        assert_eq!(found, wanted);
        let rejects = batch.column_by_name("reject").unwrap().as_string::<i32>();
        assert!(rejects.iter().eq(rows.iter().map(|row| row.reject.as_deref())), "{rejects:?}");
        let group = source.batches(0, &["group"]).unwrap().next().unwrap().unwrap();
        let groups: Vec<_> = (0..5).map(|row| crate::shard::group_names(&group, row)).collect();
        let name = |n: u8| blake3::hash(&image(n)).to_hex().to_string();
        assert_eq!(
            groups,
            [vec![name(1)], vec![name(2), name(1)], vec![], vec!["gone.jpg".to_owned()], vec![name(2)]]
        );
    }
    assert_eq!(context.kept.count("read/image-hashes/"), 1);
}

#[test]
fn the_row_of_many_files_draws_more_than_one_instruction() {
    let files = Files::new();
    for n in 0..40 {
        files.write(&format!("rows/{n:02}.jsonl"), format!("{{\"answer\": \"a cat number {n}\"}}\n"));
    }
    let rows =
        files.rows("rows/*.jsonl", json!({"prompts": ["What is it?", "Describe it.", "Say what you see."]}));
    let drawn: std::collections::BTreeSet<_> =
        rows.iter().map(|row| row.messages.clone().unwrap()[0].clone()).collect();
    assert_eq!(drawn.len(), 3);
}

#[test]
fn large_images_end_a_batch_early_and_reject_no_neighbour() {
    let files = Files::new();
    // In tests a batch ends at 1 MiB.
    let rows: String = (0..130)
        .map(|n| {
            files.write(&format!("images/{n}.jpg"), vec![n; 20_000]);
            format!("{{\"image\": \"{n}.jpg\", \"answer\": [\"a{n}\", \"b{n}\"], \"prompt\": \"q\"}}\n")
        })
        .collect();
    files.write("rows.jsonl", rows);
    files.write("images/129.jpg", vec![129; 3 << 20]);
    for explode in [None, Some("answer")] {
        let params = json!({"images": "images", "explode": explode, "columns": {"answer": if explode.is_some() { "answer" } else { "answer.0" }}});
        let source = files.open("rows.jsonl", params);
        let copies = if explode.is_some() { 2 } else { 1 };
        let rows = rows_of(source.as_ref(), 0, &["images"]);
        assert_eq!(rows.len(), 130 * copies);
        for (n, row) in rows.iter().enumerate() {
            let image = &row.images.as_ref().unwrap_or_else(|| panic!("{:?}", row.reject))[0];
            assert_eq!(usize::from(image[0]), n / copies);
        }
        let batches = source.batches(0, &["images"]).unwrap().map(|batch| batch.unwrap().num_rows());
        assert!(batches.max().unwrap() <= 52, "of 20,000 bytes, 52 images make 1 MiB");
    }
}
