//! `n_images`, found without the bytes of the images, and digests that do not follow them.

use super::parquet::{cc3m_columns, parquet_bytes_with, structs, texts, with_ruined_images};
use super::webdataset::tar;
use super::{Files, image};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, LargeListArray, ListArray, StringArray, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{Field, UInt32Type};
use llavm_pipeline::stage::{Digest, Source};
use parquet::file::properties::EnabledStatistics;
use serde_json::json;
use std::sync::Arc;

const ROWS: usize = 6;

/// `n_images` of all rows when nothing else is asked for, null where the row is rejected.
fn counts(source: &dyn Source) -> Vec<Option<u32>> {
    let batches = (0..source.partitions().len()).flat_map(|n| source.batches(n, &["n_images"]).unwrap());
    let count = |batch: arrow::array::RecordBatch| {
        batch.column_by_name("n_images").unwrap().as_primitive::<UInt32Type>().iter().collect::<Vec<_>>()
    };
    batches.flat_map(|batch| count(batch.unwrap())).collect()
}

/// How many images `images` holds.
fn lengths(source: &dyn Source) -> Vec<Option<u32>> {
    let rows = super::all_rows(source, &["images"]);
    rows.iter().map(|row| row.images.as_ref().map(|images| images.len() as u32)).collect()
}

fn list(item: ArrayRef, lengths: [usize; ROWS], valid: Option<Vec<bool>>) -> ArrayRef {
    let field = Arc::new(Field::new("item", item.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths(lengths);
    Arc::new(ListArray::new(field, offsets, item, valid.map(NullBuffer::from)))
}

fn nullable(structs: &StructArray, valid: Vec<bool>) -> ArrayRef {
    let (fields, columns, _) = structs.clone().into_parts();
    Arc::new(StructArray::new(fields, columns, Some(NullBuffer::from(valid))))
}

/// Image columns of [`ROWS`] rows with images that begin with `first`: all there, none there, mixed.
fn layouts(first: u8) -> Vec<(&'static str, ArrayRef)> {
    let image = |n: u8| image(first + n);
    let some: Vec<Vec<u8>> = (0..ROWS as u8).map(image).collect();
    let all: Vec<Option<&[u8]>> = some.iter().map(|image| Some(image.as_slice())).collect();
    let mixed: Vec<Option<&[u8]>> =
        all.iter().enumerate().map(|(n, image)| image.filter(|_| n % 3 != 1)).collect();
    let there: Vec<bool> = mixed.iter().map(Option::is_some).collect();
    let with_path = |cells: &[Option<&[u8]>], path: Option<&'static str>| {
        structs(&cells.iter().map(|cell| (*cell, path)).collect::<Vec<_>>())
    };
    let bytes =
        |cells: &[Option<&[u8]>]| -> ArrayRef { Arc::new(BinaryArray::from_iter(cells.iter().copied())) };
    let ones = [1; ROWS];
    let several = [2, 0, 1, 0, 0, 3];
    let large = {
        let item = bytes(&mixed);
        let field = Arc::new(Field::new("item", item.data_type().clone(), true));
        LargeListArray::new(field, OffsetBuffer::from_lengths(several), item, None)
    };
    vec![
        ("all", bytes(&all)),
        ("mixed", bytes(&mixed)),
        ("none", bytes(&[None; ROWS])),
        ("structs", Arc::new(with_path(&all, None))),
        ("structs with paths", Arc::new(with_path(&all, Some("was.jpg")))),
        ("null structs", nullable(&with_path(&mixed, Some("was.jpg")), there.clone())),
        ("structs of nulls", Arc::new(with_path(&mixed, None))),
        ("structs of nothing", Arc::new(with_path(&[None; ROWS], None))),
        ("structs, some bytes only in a file", Arc::new(with_path(&mixed, Some("there.jpg")))),
        ("lists of one", list(bytes(&all), ones, None)),
        ("lists", list(bytes(&all), several, None)),
        ("lists of nulls", list(bytes(&mixed), several, None)),
        ("large lists", Arc::new(large)),
        ("null lists", list(bytes(&all), several, Some(vec![true, false, true, true, false, true]))),
        ("lists of structs", list(Arc::new(with_path(&all, Some("was.jpg"))), several, None)),
        ("lists of null structs", list(nullable(&with_path(&mixed, None), there), several, None)),
        ("lists of structs of nulls", list(Arc::new(with_path(&mixed, None)), several, None)),
    ]
}

/// A folder with the images that paths may name.
fn files() -> Files {
    let files = Files::new();
    files.write("images/there.jpg", image(1));
    files.write("images/was.jpg", image(1));
    files
}

fn write(files: &Files, cell: ArrayRef, statistics: EnabledStatistics) {
    let columns = vec![("image", cell), ("input", texts("q", ROWS)), ("output", texts("a", ROWS))];
    files.write("train.parquet", parquet_bytes_with(columns, 4, statistics));
}

fn params() -> serde_json::Value {
    let mut params = cc3m_columns();
    params["partition_rows"] = json!(5);
    params["images"] = json!("images");
    params
}

const STATISTICS: [EnabledStatistics; 3] =
    [EnabledStatistics::None, EnabledStatistics::Chunk, EnabledStatistics::Page];

#[test]
fn counts_without_the_bytes_equal_those_of_the_images() {
    let files = files();
    for (name, cell) in layouts(0) {
        for statistics in STATISTICS {
            write(&files, Arc::clone(&cell), statistics);
            let source = files.open("train.parquet", params());
            assert_eq!(counts(source.as_ref()), lengths(source.as_ref()), "{name}, {statistics:?}");
        }
    }
}

#[test]
fn a_field_of_a_struct_is_counted_as_it_is_read() {
    let files = files();
    for image in ["image.bytes", "image.path", "image.gone.0"] {
        for (name, cell) in layouts(0).into_iter().filter(|(name, _)| name.contains("structs")) {
            write(&files, cell, EnabledStatistics::Chunk);
            let mut params = params();
            params["columns"]["image"] = json!(image);
            let Ok(source) =
                super::SourceStage::open(&files.stage("train.parquet", params), &super::Context::default())
            else {
                continue;
            };
            assert_eq!(counts(source.as_ref()), lengths(source.as_ref()), "{name}, {image}");
        }
    }
}

/// Digests of the text branch, of the images, and of the counts alone.
fn digests(source: &dyn Source) -> Vec<[Digest; 3]> {
    let of = |n| {
        [["messages", "n_images"].as_slice(), &["images"], &["n_images"]]
            .map(|columns| source.digest(n, columns).unwrap())
    };
    (0..source.partitions().len()).map(of).collect()
}

#[test]
fn other_images_in_a_parquet_file_leave_the_digests_of_the_text_as_they_were() {
    let files = files();
    for statistics in STATISTICS {
        for ((name, cell), (_, other)) in layouts(0).into_iter().zip(layouts(100)) {
            if name == "structs, some bytes only in a file" || name.contains("no") {
                continue;
            }
            write(&files, cell, statistics);
            let before = digests(files.open("train.parquet", params()).as_ref());
            write(&files, other, statistics);
            let after = digests(files.open("train.parquet", params()).as_ref());
            for (before, after) in before.iter().zip(&after) {
                assert_eq!(before[0], after[0], "{name}, {statistics:?}");
                assert_eq!(before[2], after[2], "{name}, {statistics:?}");
            }
            assert!(before.iter().zip(&after).any(|(before, after)| before[1] != after[1]), "{name}");
        }
    }
}

#[test]
fn other_words_in_a_parquet_file_leave_the_digests_of_the_images_as_they_were() {
    let files = files();
    let cells = layouts(0).swap_remove(0).1;
    let mut found = ["a", "b"].map(|answer| {
        let columns =
            vec![("image", Arc::clone(&cells)), ("input", texts("q", ROWS)), ("output", texts(answer, ROWS))];
        files.write("train.parquet", parquet_bytes_with(columns, 4, EnabledStatistics::Chunk));
        digests(files.open("train.parquet", params()).as_ref()).swap_remove(0)
    });
    let [before, after] = &mut found;
    assert_ne!(before[0], after[0]);
    assert_eq!(before[1..], after[1..]);
}

#[test]
fn images_that_cannot_be_read_are_counted_by_the_statistics() {
    let files = Files::new();
    let images: ArrayRef = Arc::new(BinaryArray::from_iter_values((0..100).map(image)));
    let columns = vec![("image", images), ("input", texts("q", 100)), ("output", texts("a", 100))];
    let mut bytes = parquet_bytes_with(columns, 100, EnabledStatistics::Chunk);
    // The statistics, in the footer, hold images too.
    let behind = bytes.split_off(bytes.len() / 2);
    files.write("train.parquet", [with_ruined_images(bytes), behind].concat());
    let source = files.open("train.parquet", cc3m_columns());
    assert_eq!(counts(source.as_ref()), [Some(1); 100]);
    assert!(lengths(source.as_ref()).contains(&None));
}

#[test]
fn a_where_clause_and_a_limit_keep_counts_at_their_rows() {
    let files = files();
    write(&files, layouts(0).swap_remove(1).1, EnabledStatistics::Chunk);
    let mut params = params();
    params["where"] = json!("output <> 'a0'");
    params["limit"] = json!(4);
    let source = files.open("train.parquet", params);
    assert_eq!(counts(source.as_ref()), [Some(0), Some(1), Some(1)]);
    assert_eq!(lengths(source.as_ref()), counts(source.as_ref()));
}

#[test]
fn other_images_in_a_tar_leave_the_digests_of_the_text_as_they_were() {
    let files = Files::new();
    let params = json!({"columns": {"prompt": "q", "answer": "txt"}, "partition_rows": 1});
    let digests_of = |first: &[u8], text: &[u8]| {
        let members: [(&str, &[u8]); 5] =
            [("0.jpg", first), ("0.q", b"?"), ("0.txt", text), ("1.q", b"?"), ("1.txt", b"text only")];
        files.write("rows.tar", tar(&members));
        let source = files.open("rows.tar", params.clone());
        assert_eq!(counts(source.as_ref()), [Some(1), Some(0)]);
        assert_eq!(counts(source.as_ref()), lengths(source.as_ref()));
        digests(source.as_ref()).swap_remove(0)
    };
    let before = digests_of(&image(1), b"zero");
    let other_image = digests_of(&[image(2), image(3)].concat().repeat(60), b"zero");
    let other_text = digests_of(&image(1), b"null");
    assert_eq!(before[0], other_image[0]);
    assert_ne!(before[1], other_image[1]);
    assert_ne!(before[0], other_text[0]);
}

#[test]
fn text_cells_are_counted_as_they_are_read() {
    let files = Files::new();
    files.write("images/a.jpg", image(1));
    let cells = ["a.jpg", "", "https://example.org/a.jpg", "gone.jpg", "data:image/png;base64,%%%", "a.jpg"];
    write(&files, Arc::new(StringArray::from(cells.to_vec())), EnabledStatistics::Chunk);
    let source = files.open("train.parquet", params());
    assert_eq!(counts(source.as_ref()), [Some(1), Some(0), None, Some(1), None, Some(1)]);
}
