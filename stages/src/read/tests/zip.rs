//! Images in a zip.

use super::{Files, Row, image};
use rayon::prelude::*;
use serde_json::json;
use std::io::Write;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

fn zip(entries: &[(&str, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn rows_naming(names: &[&str]) -> String {
    names.iter().map(|name| json!({"prompt": "q", "answer": "a", "image": name}).to_string() + "\n").collect()
}

#[test]
fn entries_are_read_from_stored_and_deflated_zips_by_many_threads() {
    let files = Files::new();
    let names: Vec<String> = (0..200).map(|number| format!("{number:03}/图.jpg")).collect();
    let entries: Vec<_> =
        names.iter().zip(0..=255).map(|(name, number)| (name.as_str(), image(number))).collect();
    files.write("rows.jsonl", rows_naming(&names.iter().map(String::as_str).collect::<Vec<_>>()));
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        files.write("images.zip", zip(&entries, method));
        let source = files.open("rows.jsonl", json!({"images": "images.zip", "partition_rows": 10}));
        let rows: Vec<Row> = (0..20)
            .into_par_iter()
            .flat_map(|part| super::rows_of(source.as_ref(), part, &["images"]))
            .collect();
        for (number, row) in (0..=199).zip(&rows) {
            assert_eq!(row.images, Some(vec![image(number)]), "{method:?}: {:?}", row.reject);
        }
    }
}

#[test]
fn the_folder_that_all_entries_share_may_be_left_out() {
    let files = Files::new();
    files.write(
        "images.zip",
        zip(&[("images/a.jpg", image(1)), ("images/b.jpg", image(2))], CompressionMethod::Stored),
    );
    files.write("rows.jsonl", rows_naming(&["a.jpg", "images/b.jpg", "c.jpg", "../a.jpg"]));
    let rows = files.rows("rows.jsonl", json!({"images": "images.zip"}));
    assert_eq!(rows[0].images, Some(vec![image(1)]));
    assert_eq!(rows[1].images, Some(vec![image(2)]));
    assert_eq!(rows[2].reject.as_deref(), Some("read/missing-image: `c.jpg` is not in `images`"));
    assert_eq!(rows[3].code(), Some("read/missing-image"));
}

#[test]
fn what_the_finder_adds_to_a_zip_hides_no_folder() {
    let files = Files::new();
    let entries =
        [("photos/a.jpg", image(1)), ("__MACOSX/photos/._a.jpg", vec![0, 5]), (".DS_Store", vec![0])];
    files.write("images.zip", zip(&entries, CompressionMethod::Stored));
    files.write("rows.jsonl", rows_naming(&["a.jpg"]));
    assert_eq!(files.rows("rows.jsonl", json!({"images": "images.zip"}))[0].images, Some(vec![image(1)]));
}

#[test]
fn a_damaged_entry_costs_its_row_and_a_zip_cut_short_is_an_error() {
    let files = Files::new();
    let mut bytes = zip(&[("a.jpg", vec![5; 500]), ("b.jpg", image(2))], CompressionMethod::Stored);
    let at = bytes.windows(8).position(|window| window == [5; 8]).unwrap();
    bytes[at + 100] ^= 1;
    files.write("images.zip", &bytes);
    files.write("rows.jsonl", rows_naming(&["a.jpg", "b.jpg"]));
    let rows = files.rows("rows.jsonl", json!({"images": "images.zip"}));
    assert_eq!(rows[0].code(), Some("read/unreadable-image-file"));
    assert_eq!(rows[1].images, Some(vec![image(2)]));
    files.write("images.zip", &bytes[..bytes.len() - 30]);
    let error = files.error("rows.jsonl", json!({"images": "images.zip"}));
    assert!(error.to_string().contains("not a zip file that can be read"), "{error}");
}

#[test]
fn a_changed_zip_changes_images_and_no_text() {
    let files = Files::new();
    files.write("rows.jsonl", rows_naming(&["a.jpg"]));
    let digests = |number| {
        files.write("images.zip", zip(&[("a.jpg", image(number))], CompressionMethod::Stored));
        let source = files.open("rows.jsonl", json!({"images": "images.zip"}));
        [["messages"], ["images"]].map(|columns| source.digest(0, &columns).unwrap())
    };
    let (before, after) = (digests(1), digests(2));
    assert!(before[0] == after[0] && before[1] != after[1]);
}

#[test]
fn where_a_folder_stands_among_zips_decides_the_digest_of_images() {
    let files = Files::new();
    files.write("images.zip", zip(&[("a.jpg", image(1))], CompressionMethod::Stored));
    files.write("folder/a.jpg", image(2));
    files.write("rows.jsonl", rows_naming(&["a.jpg"]));
    let digests = [["images.zip", "folder"], ["folder", "images.zip"]].map(|places| {
        let source = files.open("rows.jsonl", json!({"images": places.map(|place| files.path(place))}));
        (source.digest(0, &["images"]).unwrap(), source.digest(0, &["messages"]).unwrap())
    });
    assert_ne!(digests[0].0, digests[1].0, "the first place that has the image gives it");
    assert_eq!(digests[0].1, digests[1].1);
}
