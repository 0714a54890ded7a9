//! All formats beside each other, JSON arrays and CSV.

use super::{Files, Row, all_rows, image, turns};
use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parquet::arrow::ArrowWriter;
use serde_json::json;
use std::sync::Arc;

/// Odd but legal texts: full-width marks, emoji, line breaks, quotes, a comma, a placeholder in the middle.
const PROMPTS: [&str; 4] = ["这是什么？\n<image>", "Look at <image>, please", "Say \"hi\"", "多少，几个？"];
const ANSWERS: [&str; 4] = ["一只猫。😺", "two\r\nlines", "hi", "3"];
const COLUMNS: [&str; 3] = ["image", "q", "a"];

fn params() -> serde_json::Value {
    json!({"columns": {"image": "image", "prompt": "q", "answer": "a"}, "partition_rows": 3})
}

fn cells(row: usize) -> [String; 3] {
    [STANDARD.encode(image(row as u8)), PROMPTS[row].to_owned(), ANSWERS[row].to_owned()]
}

fn as_parquet() -> Vec<u8> {
    let image: ArrayRef = Arc::new(BinaryArray::from_iter_values((0..4).map(image)));
    let [prompts, answers] =
        [PROMPTS, ANSWERS].map(|texts| Arc::new(StringArray::from(texts.to_vec())) as ArrayRef);
    let batch = RecordBatch::try_from_iter(COLUMNS.into_iter().zip([image, prompts, answers])).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn as_json() -> Vec<serde_json::Value> {
    let object = |row| COLUMNS.into_iter().zip(cells(row)).map(|(name, cell)| (name.to_owned(), json!(cell)));
    (0..4).map(|row| object(row).collect::<serde_json::Map<_, _>>().into()).collect()
}

fn as_csv() -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS).unwrap();
    (0..4).for_each(|row| writer.write_record(cells(row)).unwrap());
    writer.into_inner().unwrap()
}

fn as_tar() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for row in 0..4_usize {
        let members = [("jpg", image(row as u8)), ("q", PROMPTS[row].into()), ("a", ANSWERS[row].into())];
        for (extension, bytes) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append_data(&mut header, format!("shard/{row:05}.{extension}"), bytes.as_slice()).unwrap();
        }
    }
    tar.into_inner().unwrap()
}

#[test]
fn the_same_rows_come_from_parquet_jsonl_json_csv_and_webdataset() {
    let files = Files::new();
    let lines: Vec<_> = as_json().iter().map(serde_json::Value::to_string).collect();
    files.write("rows.parquet", as_parquet());
    files.write("rows.jsonl", lines.join("\n"));
    files.write("rows.json", serde_json::to_vec_pretty(&as_json()).unwrap());
    files.write("lines/rows.json", lines.join("\n"));
    files.write("rows.csv", as_csv());
    files.write("rows.tar", as_tar());
    let expected: Vec<_> = (0..4)
        .map(|row| Row {
            images: Some(vec![image(row as u8)]),
            messages: turns(PROMPTS[row], ANSWERS[row]),
            ..Row::default()
        })
        .collect();
    for name in ["rows.parquet", "rows.jsonl", "rows.json", "lines/rows.json", "rows.csv", "rows.tar"] {
        let source = files.open(name, params());
        assert_eq!(source.partitions().len(), 2, "{name}");
        assert_eq!(all_rows(source.as_ref(), &["images", "messages"]), expected, "{name}");
        let again = files.open(name, params());
        let digest =
            |source: &dyn llavm_pipeline::stage::Source| source.digest(1, &["images", "messages"]).unwrap();
        assert_eq!(digest(source.as_ref()), digest(again.as_ref()), "{name}");
    }
}

#[test]
fn a_truncated_json_array_loses_only_the_row_it_ends_in() {
    let files = Files::new();
    files.write("rows.json", r#"[{"prompt": "q", "answer": "a"}, {"prompt": "q", "ans"#);
    let rows = files.rows("rows.json", json!({}));
    assert_eq!(rows[0].messages, turns("q", "a"));
    assert_eq!(rows[1].reject.as_deref(), Some("read/bad-file: the file ends inside this row"));
    assert_eq!(rows.len(), 2);
}

#[test]
fn what_is_no_array_says_what_it_is() {
    let files = Files::new();
    for (text, reported) in [
        (
            "{\n \"data\": []\n}",
            "the file is one JSON object, expected an array of rows or one object per line",
        ),
        ("hello", "no JSON: it begins with `hello`"),
        ("", "the file is empty: download it again"),
    ] {
        files.write("rows.json", text);
        let rows = files.rows("rows.json", json!({}));
        assert_eq!(rows[0].reject, Some(format!("read/bad-file: rows.json: {reported}")));
    }
}

#[test]
fn csv_rows_may_span_lines_and_a_short_row_is_named() {
    let files = Files::new();
    files.write(
        "rows.csv",
        "\u{feff}prompt,answer,n\r\n\"two\nlines\",a,1\r\n\r\nonly,two\r\nlast,b,2\r\n\"open,c,3\r\n",
    );
    let rows = files.rows("rows.csv", json!({}));
    assert_eq!(rows[0].messages, turns("two\nlines", "a"));
    assert_eq!(rows[1].reject.as_deref(), Some("read/bad-row: line 5: 2 fields, expected 3"));
    assert_eq!(rows[2].messages, turns("last", "b"));
    assert_eq!(
        rows[3].reject.as_deref(),
        Some("read/bad-file: line 7: a quoted field is never closed, so that it takes all lines behind it")
    );
    let numbers = files.rows("rows.csv", json!({"where": "n > 1"}));
    let fine: Vec<_> =
        numbers.iter().filter(|row| row.reject.is_none()).map(|row| row.id.as_deref().unwrap()).collect();
    assert_eq!(fine, ["rows.csv#2"]);
    assert_eq!(numbers.len(), 3, "rows that cannot be read stay, as rejects");
}

#[test]
fn tables_without_header_number_their_columns() {
    let files = Files::new();
    files.write("rows.tsv", "COCO_1#0\t一只\"猫\"\nCOCO_2#0\t\"引号\n");
    let columns = json!({"id": "column_1", "answer": "column_2"});
    let rows =
        files.rows("rows.tsv", json!({"header": false, "prompts": ["描述这张图片。"], "columns": columns}));
    assert_eq!(rows[0].messages, turns("描述这张图片。", "一只\"猫\""));
    assert_eq!(rows[1].messages, turns("描述这张图片。", "\"引号"));
    assert_eq!(rows[1].id.as_deref(), Some("COCO_2#0"));
}

#[test]
fn a_renamed_csv_column_changes_every_partition() {
    let files = Files::new();
    let digest = |header: &str| {
        files.write("rows.csv", format!("{header}\na,b,c\n"));
        files.open("rows.csv", json!({})).digest(0, &["messages"]).unwrap()
    };
    assert_ne!(digest("prompt,answer,other"), digest("answer,prompt,other"));
}

#[test]
fn every_conversation_layout_gives_the_same_turns() {
    let files = Files::new();
    let user = "What?\n<image>";
    let messages = json!([{"role": "user", "content": user}, {"role": "assistant", "content": "A cat"}]);
    let llava = json!([{"from": "human", "value": user}, {"from": "gpt", "value": "A cat"}]);
    let rows = [
        (json!({"prompt": user, "answer": "A cat"}), "prompt-answer"),
        (json!({"messages": messages}), "messages"),
        (json!({"prompt": [messages[0]], "completion": [messages[1]]}), "prompt-completion"),
        (json!({"prompt": user, "completion": "A cat"}), "prompt-completion"),
        (json!({"conversations": llava}), "llava"),
        (json!({"conversations": llava.to_string()}), "llava"),
    ];
    for (row, conversation) in rows {
        files.write("rows.jsonl", row.to_string());
        let rows = files.rows("rows.jsonl", json!({"conversation": conversation}));
        assert_eq!(rows[0].messages, turns(user, "A cat"), "{row}");
    }
}

mod foreign_bytes {
    use super::super::{ALL, Context, Files, rows_of};
    use super::{as_csv, as_json, as_parquet, as_tar, params};
    use llavm_pipeline::stage::SourceStage;
    use proptest::prelude::*;

    /// A whole file of each format.
    fn whole(format: usize) -> (&'static str, Vec<u8>) {
        let lines: Vec<_> = as_json().iter().map(serde_json::Value::to_string).collect();
        match format {
            0 => ("rows.parquet", as_parquet()),
            1 => ("rows.jsonl", lines.join("\n").into_bytes()),
            2 => ("rows.json", serde_json::to_vec(&as_json()).unwrap()),
            3 => ("rows.csv", as_csv()),
            _ => ("rows.tar", as_tar()),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Some bytes overwritten, the end cut off: rows and rejects, or an error; the same number of rows for every column.
        #[test]
        fn a_damaged_file_gives_rows_or_a_named_error(
            format in 0_usize..5,
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let (name, mut bytes) = whole(format);
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let files = Files::new();
            files.write(name, bytes);
            if let Ok(source) = files.stage(name, params()).open(&Context::default()) {
                for partition in 0..source.partitions().len() {
                    let rows = rows_of(source.as_ref(), partition, &ALL);
                    prop_assert!(rows.iter().all(|row| row.id.is_some() && (row.reject.is_some() || row.images.is_some())));
                    for columns in [["images"], ["messages"]] {
                        prop_assert_eq!(rows_of(source.as_ref(), partition, &columns).len(), rows.len());
                    }
                }
            }
        }
    }
}

#[test]
fn compressed_feather_reads_as_plain() {
    let texts = |text: &str| Arc::new(StringArray::from_iter_values((0..300).map(|n| format!("{text}{n}"))));
    let batch =
        RecordBatch::try_from_iter([("prompt", texts("q") as ArrayRef), ("answer", texts("a") as ArrayRef)]);
    let batch = batch.unwrap();
    let files = Files::new();
    for (name, compression) in
        [("plain", None), ("lz4", Some(CompressionType::LZ4_FRAME)), ("zstd", Some(CompressionType::ZSTD))]
    {
        let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let mut writer = FileWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
        writer.write(&batch).unwrap();
        let name = format!("{name}.feather");
        files.write(&name, writer.into_inner().unwrap());
        let rows = files.rows(&name, json!({}));
        assert_eq!(rows.len(), 300, "{name}: {:?}", rows.first().map(|row| &row.reject));
        assert_eq!(rows[299].messages, turns("q299", "a299"), "{name}");
    }
}

#[test]
fn two_columns_of_one_name_are_named() {
    let files = Files::new();
    files.write("rows.csv", "prompt,answer,answer\nq,one,uno\n");
    let notes = files.open("rows.csv", json!({})).notes().join("\n");
    assert!(notes.contains("several columns are called `answer`"), "{notes}");
}
