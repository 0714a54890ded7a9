//! Webdataset tars.

use super::{Files, Row, picture, turns};
use serde_json::json;

pub fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

fn caption() -> serde_json::Value {
    json!({"columns": {"id": "__key__", "answer": "txt", "source": "json.url"}, "prompts": ["Describe it."], "partition_rows": 2})
}

#[test]
fn members_of_one_name_are_one_row_whatever_their_order_and_name_length() {
    let long = format!("a/{}/0001", "long".repeat(60));
    let files = Files::new();
    let one = picture(1);
    files.write(
        "rows.tar",
        tar(&[
            ("0000.json", br#"{"url": "http://x"}"#),
            ("0000.PNG", &one),
            ("0000.txt", "猫\n".as_bytes()),
            ("README", b"no member of any row"),
            (&format!("{long}.txt"), b"two"),
            (&format!("{long}.json"), b"{}"),
            (&format!("{long}.webp"), &picture(2)),
            ("0002.txt", b"a caption of nothing"),
        ]),
    );
    let rows = files.rows("rows.tar", caption());
    let found: Vec<_> = rows.iter().map(|row| (row.id.as_deref().unwrap(), row.images.clone())).collect();
    assert_eq!(found, [("0000", Some(vec![one])), (long.as_str(), Some(vec![picture(2)])), ("0002", None)]);
    assert_eq!(rows[2].code(), Some("read/no-image"));
    assert_eq!(rows[0].messages, turns("Describe it.", "猫"));
    assert_eq!(rows[0].source.as_deref(), Some("http://x"));
}

#[test]
fn a_tar_cut_short_or_overwritten_loses_only_what_is_gone() {
    let files = Files::new();
    let big = vec![7; 2000];
    let bytes = tar(&[
        ("0.jpg", &big),
        ("0.txt", b"zero"),
        ("1.jpg", &big),
        ("1.txt", b"one"),
        ("2.jpg", &big),
        ("2.txt", b"two"),
    ]);
    let params = json!({"columns": {"answer": "txt"}, "prompts": ["p"], "partition_rows": 2});
    // One picture is a header and four blocks, one text a header and one block.
    let row = (5 + 2) * 512;
    files.write("cut.tar", &bytes[..row + 1500]);
    let rows = files.rows("cut.tar", params.clone());
    let codes: Vec<_> = rows.iter().map(Row::code).collect();
    assert_eq!(codes, [None, Some("read/bad-file")]);
    let mut overwritten = bytes.clone();
    overwritten[row..row + 512].fill(b'x');
    files.write("overwritten.tar", overwritten);
    let rows = files.rows("overwritten.tar", params.clone());
    let codes: Vec<_> = rows.iter().map(Row::code).collect();
    assert_eq!(codes, [None, Some("read/bad-file")]);
    files.write("page.tar", "<!DOCTYPE html>".repeat(100));
    assert_eq!(files.rows("page.tar", params)[0].code(), Some("read/bad-file"));
}

#[test]
fn the_text_branch_does_not_read_pictures() {
    let files = Files::new();
    files.write("rows.tar", tar(&[("0.txt", b"zero"), ("0.json", b"{ broken")]));
    let columns = json!({"image": "json", "answer": "txt"});
    let source = files.open("rows.tar", json!({"columns": columns, "prompts": ["p"]}));
    let [text, pictures] =
        [["messages"], ["images"]].map(|columns| super::rows_of(source.as_ref(), 0, &columns));
    assert_eq!(text[0].messages, turns("p", "zero"));
    assert_eq!(pictures[0].code(), Some("read/bad-json"));
}

#[test]
fn where_compares_fields_of_json_members() {
    let files = Files::new();
    files.write(
        "rows.tar",
        tar(&[
            ("0.txt", b"zero"),
            ("0.json", br#"{"width": 100}"#),
            ("1.txt", b"one"),
            ("1.json", br#"{"width": 300}"#),
        ]),
    );
    let mut params = json!({"columns": {"id": "__key__", "answer": "txt"}, "prompts": ["p"]});
    params["where"] = json!("\"json.width\" >= 200");
    let rows = files.rows("rows.tar", params);
    assert_eq!(rows.iter().map(|row| row.id.as_deref().unwrap()).collect::<Vec<_>>(), ["1"]);
}
