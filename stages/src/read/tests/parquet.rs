//! Parquet.

use super::super::parquet::{Dictionaries, Parquet};
use super::super::raw::{RawFile, Request};
use super::{ALL, Context, Files, all_rows, image, rows_of, turns};
use arrow::array::{
    ArrayRef, BinaryArray, Int64Array, LargeBinaryArray, LargeListArray, LargeStringArray, ListArray,
    RecordBatch, StringArray, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field};
use llavm_pipeline::stage::SourceStage;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use serde_json::json;
use std::sync::Arc;

pub fn parquet_bytes(columns: Vec<(&str, ArrayRef)>, group_rows: usize) -> Vec<u8> {
    parquet_bytes_with(columns, group_rows, EnabledStatistics::None)
}

pub fn parquet_bytes_with(
    columns: Vec<(&str, ArrayRef)>,
    group_rows: usize,
    statistics: EnabledStatistics,
) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group_rows))
        .set_data_page_row_count_limit(16)
        .set_write_batch_size(16)
        .set_dictionary_enabled(false)
        .set_compression(Compression::UNCOMPRESSED)
        .set_statistics_enabled(statistics)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

pub fn texts(prefix: &str, rows: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("{prefix}{row}"))))
}

fn images(rows: usize) -> ArrayRef {
    Arc::new(BinaryArray::from_iter_values((0..rows).map(|row| image(row as u8))))
}

fn cc3m(rows: usize, group_rows: usize) -> Vec<u8> {
    let columns = vec![("image", images(rows)), ("input", texts("q", rows)), ("output", texts("a", rows))];
    parquet_bytes(columns, group_rows)
}

pub fn cc3m_columns() -> serde_json::Value {
    json!({"columns": {"image": "image", "prompt": "input", "answer": "output"}, "partition_rows": 100})
}

pub fn structs(rows: &[(Option<&[u8]>, Option<&str>)]) -> StructArray {
    let bytes: ArrayRef = Arc::new(BinaryArray::from_iter(rows.iter().map(|row| row.0)));
    let paths: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|row| row.1)));
    StructArray::from(vec![
        (Arc::new(Field::new("bytes", DataType::Binary, true)), bytes),
        (Arc::new(Field::new("path", DataType::Utf8, true)), paths),
    ])
}

#[test]
fn rows_come_in_order_across_partitions_and_row_groups() {
    let files = Files::new();
    files.write("train.parquet", cc3m(333, 70));
    let source = files.open("train.parquet", cc3m_columns());
    let labels: Vec<_> = source.partitions().iter().map(|part| part.label.as_str()).collect();
    assert_eq!(labels[3], "train.parquet rows 300..333");
    let rows = all_rows(source.as_ref(), &ALL);
    assert_eq!(rows.len(), 333);
    for (number, row) in rows.iter().enumerate() {
        assert_eq!(row.id, Some(format!("train.parquet#{number}")));
        assert_eq!(row.images, Some(vec![image(number as u8)]));
        assert_eq!(row.messages, turns(&format!("q{number}"), &format!("a{number}")));
        assert_eq!(row.reject, None);
    }
}

#[test]
fn every_image_layout_gives_the_same_images() {
    let files = Files::new();
    let one = image(1);
    let cells: [ArrayRef; 6] = [
        Arc::new(BinaryArray::from(vec![Some(one.as_slice()), None])),
        Arc::new(LargeBinaryArray::from(vec![Some(one.as_slice()), None])),
        Arc::new(structs(&[(Some(&one), Some("was.jpg")), (None, None)])),
        Arc::new(ListArray::new(
            Arc::new(Field::new("item", DataType::Binary, true)),
            OffsetBuffer::from_lengths([1, 0]),
            Arc::new(BinaryArray::from(vec![one.as_slice()])),
            None,
        )),
        {
            let item = structs(&[(Some(&one), None), (None, None)]);
            let field = Field::new("item", item.fields().clone().into_data_type(), true);
            Arc::new(LargeListArray::new(
                Arc::new(field),
                OffsetBuffer::from_lengths([1, 1]),
                Arc::new(item),
                None,
            ))
        },
        Arc::new(LargeStringArray::from(vec![Some("folder/one.jpg"), Some("")])),
    ];
    files.write("images/folder/one.jpg", &one);
    for (number, cell) in cells.into_iter().enumerate() {
        let name = format!("{number}.parquet");
        let kind = cell.data_type().clone();
        files.write(
            &name,
            parquet_bytes(vec![("image", cell), ("input", texts("q", 2)), ("output", texts("a", 2))], 10),
        );
        let mut params = cc3m_columns();
        params["images"] = json!("images");
        let rows = files.rows(&name, params);
        let found: Vec<_> = rows.iter().map(|row| row.images.clone().unwrap()).collect();
        assert_eq!(found, [vec![one.clone()], vec![]], "{kind}");
    }
}

trait IntoDataType {
    fn into_data_type(self) -> DataType;
}

impl IntoDataType for arrow::datatypes::Fields {
    fn into_data_type(self) -> DataType {
        DataType::Struct(self)
    }
}

/// Overwrites all images of the file, wherever they are on the disk.
pub fn with_ruined_images(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    let mark = [0xff, 0xd8, 0xff, 0xe0];
    while let Some(found) = bytes[at..].windows(4).position(|window| window == mark) {
        at += found;
        // The page header that precedes the first image of each page goes too.
        let from = at.saturating_sub(24);
        bytes[from..at + 4].fill(0xee);
        at += 4;
    }
    bytes
}

#[test]
fn the_text_branch_never_touches_images() {
    let files = Files::new();
    files.write("train.parquet", with_ruined_images(cc3m(100, 100)));
    let source = files.open("train.parquet", cc3m_columns());
    let rows = rows_of(source.as_ref(), 0, &["id", "messages"]);
    assert_eq!(rows.len(), 100);
    assert!(rows.iter().all(|row| row.reject.is_none() && row.messages.is_some()));
    let images = rows_of(source.as_ref(), 0, &["images"]);
    assert!(images.iter().any(|row| row.code() == Some("read/corrupt-page")), "{images:?}");
}

#[test]
fn a_corrupt_page_costs_the_rows_of_its_batch_only() {
    let files = Files::new();
    let mut bytes = cc3m(300, 128);
    let mark = b"q200";
    let at = bytes.windows(4).position(|window| window == mark).unwrap();
    bytes[at - 40..at + 40].fill(0xee);
    files.write("train.parquet", bytes);
    let mut params = cc3m_columns();
    params["partition_rows"] = json!(300);
    let rows = files.rows("train.parquet", params);
    assert_eq!(rows.len(), 300);
    let rejected: Vec<_> = (0..300).filter(|row| rows[*row].reject.is_some()).collect();
    assert_eq!(rejected, (128..256).collect::<Vec<_>>());
    assert!(rejected.iter().all(|row| rows[*row].code() == Some("read/corrupt-page")));
    assert_eq!(rows[299].messages, turns("q299", "a299"));
}

#[test]
fn pages_with_too_few_levels_cost_their_rows_and_no_time() {
    // Found by `fuzz/run`: passing over such a page never ended.
    for bytes in [include_bytes!("fuzz/levels-1.parquet").as_slice(), include_bytes!("fuzz/levels-2.parquet")]
    {
        let files = Files::new();
        files.write("train.parquet", bytes);
        let rows = files.rows("train.parquet", json!({"conversation": "messages", "partition_rows": 3}));
        assert_eq!(rows.len(), 8);
        assert!(rows.iter().any(|row| row.code() == Some("read/corrupt-page")), "{rows:?}");
    }
}

#[test]
fn a_file_that_is_no_parquet_is_one_reject_and_the_others_are_read() {
    let files = Files::new();
    let whole = cc3m(3, 10);
    files.write("a.parquet", &whole[..whole.len() / 2]);
    files.write("b.parquet", &whole);
    files.write("c.parquet", "<!DOCTYPE html>");
    files.write("d.parquet", "");
    let rows = files.rows("*.parquet", cc3m_columns());
    let outcome: Vec<_> = rows.iter().map(|row| (row.id.as_deref().unwrap(), row.code())).collect();
    let bad = Some("read/bad-file");
    assert_eq!(
        outcome,
        [
            ("a.parquet#0", bad),
            ("b.parquet#0", None),
            ("b.parquet#1", None),
            ("b.parquet#2", None),
            ("c.parquet#0", bad),
            ("d.parquet#0", bad),
        ]
    );
    assert!(rows[4].reject.as_ref().unwrap().contains("c.parquet"), "{:?}", rows[4]);
}

#[test]
fn where_keeps_the_rows_sql_would_and_skips_the_others_in_every_column() {
    let files = Files::new();
    let scores = Arc::new(Int64Array::from_iter((0..300).map(|row| (row % 7 != 0).then_some(row))));
    let columns = vec![
        ("image", images(300)),
        ("input", texts("q", 300)),
        ("output", texts("a", 300)),
        ("score", scores as ArrayRef),
    ];
    files.write("train.parquet", parquet_bytes(columns, 50));
    let mut params = cc3m_columns();
    params["where"] = json!("score % 2 = 1 OR input = 'q4'");
    let source = files.open("train.parquet", params);
    let expected: Vec<_> = (0..300).filter(|row| (row % 7 != 0 && row % 2 == 1) || *row == 4).collect();
    let rows = all_rows(source.as_ref(), &ALL);
    let ids: Vec<_> = rows.iter().map(|row| row.id.clone().unwrap()).collect();
    assert_eq!(ids, expected.iter().map(|row| format!("train.parquet#{row}")).collect::<Vec<_>>());
    for (row, number) in rows.iter().zip(&expected) {
        assert_eq!(row.images, Some(vec![image(*number as u8)]));
        assert_eq!(row.messages, turns(&format!("q{number}"), &format!("a{number}")));
    }
    assert_eq!(all_rows(source.as_ref(), &["images"]).len(), expected.len());
}

#[test]
fn a_wrong_column_name_lists_columns_and_types() {
    let files = Files::new();
    let image: ArrayRef = Arc::new(structs(&[(None, None)]));
    files.write(
        "train.parquet",
        parquet_bytes(
            vec![("image", image), ("input", texts("q", 1)), ("score", Arc::new(Int64Array::from(vec![1])))],
            1,
        ),
    );
    let params = json!({"columns": {"image": "img", "prompt": "input", "answer": "input"}});
    insta::assert_snapshot!(files.error("train.parquet", params), @r"
    train.parquet has no column `img`. Did you mean `image`? Its columns:
      image: struct<bytes: binary, path: string>
      input: string
      score: int
    ");
    let rows = files.rows(
        "train.parquet",
        json!({"columns": {"image": "image.bytes", "prompt": "input", "answer": "input"}}),
    );
    assert_eq!(rows[0].images, Some(vec![]));
}

#[test]
fn one_file_with_other_columns_is_named() {
    let files = Files::new();
    files.write("a.parquet", cc3m(1, 1));
    files.write("b.parquet", parquet_bytes(vec![("image", images(1)), ("input", texts("q", 1))], 1));
    let error = files.error("*.parquet", cc3m_columns());
    assert!(error.to_string().starts_with("b.parquet has no column `output`."), "{error}");
}

#[test]
fn null_cells_reject_or_stay_null() {
    let files = Files::new();
    let answers: ArrayRef =
        Arc::new(StringArray::from(vec![Some("图中是一只猫。😺"), None, Some(" "), Some("ok")]));
    let prompts: ArrayRef =
        Arc::new(StringArray::from(vec![Some("这是什么？\n<image>"), Some("q"), Some("q"), None]));
    let languages: ArrayRef = Arc::new(StringArray::from(vec![Some("zh"), None, None, None]));
    let columns = vec![("image", images(4)), ("input", prompts), ("output", answers), ("lang", languages)];
    files.write("train.parquet", parquet_bytes(columns, 10));
    let mut params = cc3m_columns();
    params["columns"]["language"] = json!("lang");
    let rows = files.rows("train.parquet", params);
    assert_eq!(rows[0].messages, turns("这是什么？\n<image>", "图中是一只猫。😺"));
    assert_eq!(rows[0].language.as_deref(), Some("zh"));
    let codes: Vec<_> = rows.iter().map(super::Row::code).collect();
    assert_eq!(codes, [None, Some("read/no-answer"), Some("read/no-answer"), Some("read/no-prompt")]);
    assert!(rows[1].images.is_none() && rows[1].messages.is_none() && rows[1].id.is_some());
}

#[test]
fn a_changed_file_changes_its_digests_and_params_only_theirs() {
    let files = Files::new();
    files.write("train.parquet", cc3m(10, 10));
    let digests = |params: serde_json::Value| {
        let source = files.stage("train.parquet", params).open(&Context::default()).unwrap();
        [["messages"], ["images"]].map(|columns| source.digest(0, &columns).unwrap())
    };
    let before = digests(cc3m_columns());
    let mut params = cc3m_columns();
    params["columns"]["answer"] = json!("input");
    let other_answer = digests(params);
    assert!(before[0] != other_answer[0] && before[1] == other_answer[1]);
    files.write("train.parquet", cc3m(10, 5));
    let rewritten = digests(cc3m_columns());
    assert!(before[0] != rewritten[0] && before[1] != rewritten[1]);
}

/// Nine images of a mebibyte each, again and again, in row groups of 24 rows.
fn repeated_images(of: &dyn Fn(ArrayRef) -> ArrayRef, dictionary: bool) -> Vec<u8> {
    let image = |n: usize| [image(n as u8), vec![n as u8; 1 << 20]].concat();
    let images: ArrayRef = Arc::new(BinaryArray::from_iter_values((0..60).map(|row| image(row % 9))));
    let batch = RecordBatch::try_from_iter([
        ("image", of(images)),
        ("input", texts("q", 60)),
        ("output", texts("a", 60)),
    ]);
    let batch = batch.unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(24))
        .set_dictionary_enabled(dictionary)
        .set_dictionary_page_size_limit(1 << 30)
        .set_compression(Compression::UNCOMPRESSED)
        .set_statistics_enabled(EnabledStatistics::None)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn large_dictionaries_are_shared_by_partitions_and_change_no_row() {
    let alone = |images: ArrayRef| images;
    let in_lists = |images: ArrayRef| -> ArrayRef {
        let field = Arc::new(Field::new("item", DataType::Binary, true));
        Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(vec![1; 60]), images, None))
    };
    let in_structs = |images: ArrayRef| -> ArrayRef {
        Arc::new(StructArray::from(vec![(Arc::new(Field::new("bytes", DataType::Binary, true)), images)]))
    };
    let layouts: [&dyn Fn(ArrayRef) -> ArrayRef; 3] = [&alone, &in_lists, &in_structs];
    for layout in layouts {
        let files = Files::new();
        let mut params = cc3m_columns();
        params["partition_rows"] = json!(7);
        files.write("plain.parquet", repeated_images(layout, false));
        files.write("dictionary.parquet", repeated_images(layout, true));
        let expected = files.rows("plain.parquet", params.clone());
        let source = files.open("dictionary.parquet", params);
        // From the last partition to the first, so that kept dictionaries are dropped and loaded again.
        let mut partitions: Vec<_> =
            (0..source.partitions().len()).rev().map(|n| rows_of(source.as_ref(), n, &ALL)).collect();
        partitions.reverse();
        let found: Vec<_> = partitions.into_iter().flatten().collect();
        for (found, expected) in found.iter().zip(&expected) {
            assert!(found.images == expected.images && found.messages == expected.messages);
        }
        assert_eq!((found.len(), expected.len()), (60, 60));
    }
}

#[test]
fn a_large_dictionary_is_kept_no_longer_than_a_partition_needs_it() {
    let files = Files::new();
    files.write("dictionary.parquet", repeated_images(&|images| images, true));
    let kept_after_each = |partition_rows: u64| -> Vec<usize> {
        let (path, dictionaries) = (files.path("dictionary.parquet"), Arc::new(Dictionaries::default()));
        let file = Parquet::open(&path, partition_rows, &dictionaries, &Context::default()).unwrap().unwrap();
        let splits = 0..file.splits().len();
        let read =
            |split| file.read(split, Request::default()).unwrap().for_each(|chunk| drop(chunk.unwrap()));
        splits.map(|split| (read(split), dictionaries.len()).1).collect()
    };
    // Row groups of 24, 24 and 12 rows: the fourth and the seventh partition of 7 rows are the last of one and the first of the next.
    assert_eq!(kept_after_each(7), [1, 1, 1, 1, 1, 1, 1, 1, 0]);
    assert_eq!(kept_after_each(24), [0, 0, 0]);
}

#[test]
fn a_ruined_large_dictionary_costs_the_rows_of_its_group_only() {
    let files = Files::new();
    let mut bytes = repeated_images(&|images| images, true);
    // The length of the dictionary's second image, far beyond the page.
    let second = 4 + (1 << 20) + 10;
    let start = bytes.windows(14).position(|bytes| bytes.ends_with(&image(0))).unwrap();
    bytes[start + second..start + second + 4].copy_from_slice(&[0xff; 4]);
    files.write("ruined.parquet", bytes);
    let mut params = cc3m_columns();
    params["partition_rows"] = json!(24);
    let rows = files.rows("ruined.parquet", params);
    let codes: Vec<_> = rows.iter().map(|row| row.code().unwrap_or_default()).collect();
    assert!(codes[..24].iter().all(|code| *code == "read/corrupt-page"), "{:?}", rows[0].reject);
    assert!(codes[24..].iter().all(|code| code.is_empty()), "{codes:?}");
}
