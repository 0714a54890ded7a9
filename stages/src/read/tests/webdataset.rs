//! Webdataset tars.

use super::{Files, Row, image, turns};
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
    json!({"columns": {"id": "__key__", "answer": "txt"}, "prompts": ["Describe it."], "partition_rows": 2})
}

#[test]
fn members_of_one_name_are_one_row_whatever_their_order_and_name_length() {
    let long = format!("a/{}/0001", "long".repeat(60));
    let files = Files::new();
    let one = image(1);
    files.write(
        "rows.tar",
        tar(&[
            ("0000.json", br#"{"url": "http://x"}"#),
            ("0000.PNG", &one),
            ("0000.txt", "猫\n".as_bytes()),
            ("README", b"no member of any row"),
            (&format!("{long}.txt"), b"two"),
            (&format!("{long}.json"), b"{}"),
            (&format!("{long}.webp"), &image(2)),
            ("0002.txt", b"a caption of nothing"),
        ]),
    );
    let mut params = caption();
    params["columns"]["source"] = json!("json.url");
    let rows = files.rows("rows.tar", params);
    let found: Vec<_> = rows.iter().map(|row| (row.id.as_deref().unwrap(), row.images.clone())).collect();
    assert_eq!(found, [("0000", Some(vec![one])), (long.as_str(), Some(vec![image(2)])), ("0002", None)]);
    assert_eq!(rows[2].code(), Some("read/no-image"));
    assert_eq!(rows[0].messages, turns("Describe it.", "猫"));
    assert_eq!(rows[0].source.as_deref(), Some("http://x"));
}

#[test]
fn members_of_one_name_are_an_error_and_never_mixed() {
    let files = Files::new();
    files.write(
        "rows.tar",
        tar(&[
            ("x.jpg", &image(1)),
            ("x.txt", b"first"),
            ("x.jpg", &image(2)),
            ("x.txt", b"last"),
            ("y.jpg", &image(3)),
            ("y.txt", b"fine"),
        ]),
    );
    let rows = files.rows("rows.tar", caption());
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].reject.as_deref(), Some("read/duplicate-key: the key `x` has two members .jpg"));
    assert_eq!(
        (rows[1].images.clone(), rows[1].messages.clone()),
        (Some(vec![image(3)]), turns("Describe it.", "fine"))
    );
}

#[test]
fn all_images_of_a_sample_are_its_images_whatever_can_be_decoded() {
    let files = Files::new();
    files.write(
        "rows.tar",
        tar(&[
            ("./a.0.jpg", &image(1)),
            ("./a.1.png", &image(2)),
            ("./a.txt", b"two"),
            ("./b.avif", b"not decoded here"),
            ("./b.txt", b"one"),
            ("__MACOSX/._b.jpg", b"left by the Finder"),
        ]),
    );
    let rows = files.rows("rows.tar", caption());
    let images: Vec<_> = rows.iter().map(|row| row.images.clone().unwrap()).collect();
    assert_eq!(images, [vec![image(1), image(2)], vec![b"not decoded here".to_vec()]]);
    assert_eq!(rows[0].id.as_deref(), Some("a"));
}

#[test]
fn image_members_that_nothing_reads_are_named() {
    let files = Files::new();
    files.write(
        "rows.tar",
        tar(&[("a.jpg", &image(1)), ("a.txt", b"one"), ("b.avif", b"x"), ("b.txt", b"two")]),
    );
    let notes = |columns: serde_json::Value| {
        files.open("rows.tar", json!({"columns": columns, "prompts": ["p"]})).notes().join("\n")
    };
    let some = notes(json!({"image": "jpg", "answer": "txt"}));
    assert!(some.contains("columns = { image = \"image\" }") && some.contains("`avif`"), "{some}");
    assert_eq!(notes(json!({"image": "image", "answer": "txt"})), "");
}

#[test]
fn tars_one_behind_the_other_are_one() {
    let files = Files::new();
    let one = |name: &str| tar(&[(&format!("{name}.jpg"), &image(1)), (&format!("{name}.txt"), b"text")]);
    files.write("rows.tar", [one("a"), one("b"), one("c")].concat());
    let rows = files.rows("rows.tar", caption());
    assert_eq!(rows.iter().map(|row| row.id.as_deref().unwrap()).collect::<Vec<_>>(), ["a", "b", "c"]);
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
    // One image is a header and four blocks, one text a header and one block.
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
fn the_text_branch_does_not_read_images() {
    let files = Files::new();
    files.write("rows.tar", tar(&[("0.txt", b"zero"), ("0.json", b"{ broken")]));
    let columns = json!({"image": "json", "answer": "txt"});
    let source = files.open("rows.tar", json!({"columns": columns, "prompts": ["p"]}));
    let [text, images] =
        [["messages"], ["images"]].map(|columns| super::rows_of(source.as_ref(), 0, &columns));
    assert_eq!(text[0].messages, turns("p", "zero"));
    assert_eq!(images[0].code(), Some("read/bad-json"));
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

#[test]
fn numbered_images_are_one_samples_in_the_order_of_their_numbers() {
    let files = Files::new();
    let members: Vec<(String, Vec<u8>)> = [0, 1, 10, 2].map(|n| (format!("a.{n}.jpg"), image(n))).to_vec();
    let mut all: Vec<(&str, &[u8])> =
        members.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let last = image(7);
    all.extend([("a.txt", b"four".as_slice()), ("b.0.jpg", &last), ("b.txt", b"one")]);
    files.write("rows.tar", tar(&all));
    let mut params = caption();
    for column in ["image", "jpg"] {
        params["columns"]["image"] = json!(column);
        let rows = files.rows("rows.tar", params.clone());
        let images: Vec<_> = rows.iter().map(|row| row.images.clone().unwrap()).collect();
        assert_eq!(images, [vec![image(0), image(1), image(2), image(10)], vec![image(7)]], "{column}");
        assert_eq!(files.open("rows.tar", params.clone()).notes(), [] as [&str; 0], "{column}");
    }
    params["columns"]["image"] = json!("0.jpg");
    let first: Vec<_> =
        files.rows("rows.tar", params).iter().map(|row| row.images.clone().unwrap()).collect();
    assert_eq!(first, [vec![image(0)], vec![image(7)]], "one of them by its own name");
}

#[test]
fn numbered_captions_are_a_list() {
    let files = Files::new();
    files.write("rows.tar", tar(&[("a.jpg", &image(1)), ("a.0.txt", b"zero"), ("a.1.txt", b"one")]));
    let mut params = caption();
    params["explode"] = json!("txt");
    let rows = files.rows("rows.tar", params);
    let messages: Vec<_> = rows.iter().map(|row| row.messages.clone()).collect();
    assert_eq!(messages, [turns("Describe it.", "zero"), turns("Describe it.", "one")]);
}

#[test]
fn a_member_that_is_a_link_rejects_its_sample_by_name() {
    let files = Files::new();
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_entry_type(kind);
        if bytes.is_empty() {
            header.set_link_name("a.jpg").unwrap();
        }
        header.set_cksum();
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    add("a.jpg", tar::EntryType::Regular, &image(1));
    add("a.txt", tar::EntryType::Regular, b"one");
    for (name, kind) in [("b", tar::EntryType::Link), ("c", tar::EntryType::Symlink)] {
        add(&format!("{name}.jpg"), kind, b"");
        add(&format!("{name}.txt"), tar::EntryType::Regular, b"two");
    }
    files.write("rows.tar", tar.into_inner().unwrap());
    let rows = files.rows("rows.tar", caption());
    let codes: Vec<_> = rows.iter().map(Row::code).collect();
    assert_eq!(codes, [None, Some("read/linked-member"), Some("read/linked-member")]);
    assert!(rows[1].reject.as_deref().unwrap().contains("`b.jpg` is a link"), "{:?}", rows[1].reject);
}
