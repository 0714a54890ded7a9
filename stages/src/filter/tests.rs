use super::{By, Dedup, Duplicates, Filter};
use crate::row::{images_type, message_fields, messages_type};
use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryBuilder, ListArray, ListBuilder, RecordBatch, StringArray,
    StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field};
use image::imageops::FilterType;
use image::{ImageFormat, RgbImage};
use llavm_pipeline::stage::{Digest, MapStage, OpenContext, Parameters, SequentialPass};
use llavm_pipeline::{Rejects, StageError};
use proptest::prelude::*;
use serde_json::json;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `filter` reads no file.
struct NoFiles;

impl OpenContext for NoFiles {
    fn file_digest(&self, path: &Path) -> Result<Digest, StageError> {
        Err(StageError::new(format!("{} was asked for", path.display())))
    }

    fn files_digest(&self, memo: &str, _paths: &[PathBuf]) -> Result<Digest, StageError> {
        Err(StageError::new(memo))
    }

    fn seed(&self) -> u64 {
        0
    }
}

fn stage(params: serde_json::Value) -> Filter {
    serde_json::from_value(params).unwrap()
}

/// Images and one question and answer per row, with the columns in `columns`.
pub fn rows(rows: &[(Vec<&[u8]>, &str, &str)], columns: &[&str]) -> RecordBatch {
    let mut cells = ListBuilder::new(BinaryBuilder::new());
    let (mut roles, mut contents) = (Vec::new(), Vec::new());
    for (images, prompt, answer) in rows {
        images.iter().for_each(|image| cells.values().append_value(image));
        cells.append(true);
        roles.extend(["user", "assistant"]);
        contents.extend([*prompt, *answer]);
    }
    let none: ArrayRef = Arc::new(StringArray::new_null(roles.len()));
    let mut texts: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(roles)), Arc::new(StringArray::from(contents))];
    texts.resize(message_fields().len(), none);
    let turns = StructArray::new(message_fields(), texts, None);
    let item = Arc::new(Field::new("item", DataType::Struct(message_fields()), true));
    let messages =
        ListArray::new(item, OffsetBuffer::from_lengths(rows.iter().map(|_| 2)), Arc::new(turns), None);
    let images = cells.finish();
    assert_eq!((images.data_type(), messages.data_type()), (&images_type(), &messages_type()));
    let all: [(&str, ArrayRef); 2] = [("images", Arc::new(images)), ("messages", Arc::new(messages))];
    RecordBatch::try_from_iter(all.into_iter().filter(|(name, _)| columns.contains(name))).unwrap()
}

/// `code: detail` per row, or nothing, after both passes.
fn verdicts(params: serde_json::Value, batches: &[RecordBatch]) -> Vec<Option<String>> {
    verdicts_of(&stage(params), batches)
}

/// The same of any stage that leaves rows out.
pub fn verdicts_of(stage: &impl MapStage, batches: &[RecordBatch]) -> Vec<Option<String>> {
    assert_eq!(stage.check(), []);
    let apply = stage.open(&NoFiles).unwrap();
    let mut sweep = stage.sequential();
    let mut verdicts = Vec::new();
    for batch in batches {
        let mut rejects = Rejects::none(batch.num_rows());
        let given = apply.apply(batch, &mut rejects).unwrap();
        assert_eq!(given.schema(), stage.intermediate().schema());
        if let Some(sweep) = &mut sweep {
            let output = sweep.next(&given, &mut rejects).unwrap();
            assert_eq!((output.num_columns(), output.num_rows()), (0, batch.num_rows()));
        }
        let mut reported = vec![None; batch.num_rows()];
        rejects
            .new_rejects()
            .for_each(|(row, reject)| reported[row] = Some(format!("{}: {}", reject.code, reject.detail)));
        verdicts.extend(reported);
    }
    verdicts
}

fn photo(name: &str) -> RgbImage {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/photos").join(name);
    image::open(path).unwrap().to_rgb8()
}

pub fn encoded(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[test]
fn rows_that_miss_the_condition_say_by_what_values() {
    let wide = encoded(&RgbImage::new(300, 200), ImageFormat::Png);
    let small = encoded(&RgbImage::new(30, 20), ImageFormat::Png);
    let batch = rows(
        &[
            (vec![&wide], "q", "一只猫。"),
            (vec![&small], "q", "一只猫。"),
            (vec![], "q", "long enough"),
            (vec![&wide], "q", "no"),
        ],
        &["images", "messages"],
    );
    let reported =
        verdicts(json!({"where": "(images = 0 OR image_width >= 100) AND answer_chars > 3"}), &[batch]);
    let condition = "where: (images = 0 OR image_width >= 100) AND answer_chars > 3 does not hold";
    assert_eq!(
        reported,
        [
            None,
            Some(format!("{condition}: images = 1, image_width = 30, answer_chars = 4")),
            None,
            Some(format!("{condition}: images = 1, image_width = 300, answer_chars = 2")),
        ]
    );
}

#[test]
fn a_null_measure_leaves_the_row_out_as_in_sql() {
    let batch = rows(&[(vec![], "q", "a"), (vec![b"no image"], "q", "a")], &["images"]);
    let reported = verdicts(json!({"where": "image_height > 1"}), &[batch]);
    let reported: Vec<_> = reported.iter().map(|reported| reported.as_deref().unwrap()).collect();
    assert_eq!(reported, ["where: image_height > 1 does not hold: image_height = null"; 2]);
}

#[test]
fn only_what_the_condition_names_is_read() {
    let input = |params| stage(params).input().names().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(input(json!({"where": "turns > 1"})), ["messages"]);
    assert_eq!(input(json!({"where": "language = 'zh' AND image_width > 1"})), ["language", "images"]);
    assert_eq!(input(json!({"dedup": "exact", "by": "text"})), ["messages"]);
    assert_eq!(input(json!({"dedup": "perceptual"})), ["images"]);
}

#[test]
fn the_first_of_equal_rows_stays_across_batches() {
    let columns = ["images", "messages"];
    let batches = [
        rows(&[(vec![b"1"], "q", "a"), (vec![b"2"], "q", "a"), (vec![b"1"], "q", "a")], &columns),
        rows(
            &[(vec![b"1"], "q", "b"), (vec![], "q", "a"), (vec![b"1"], "q", "a"), (vec![], "q", "a")],
            &columns,
        ),
    ];
    let repeats = |by: &str, what: &str, rows: [Option<u64>; 7]| {
        let expected = rows.map(|row| {
            row.map(|row| format!("duplicate: the same {what} as row {row} of the table, counted from 0"))
        });
        assert_eq!(verdicts(json!({"dedup": "exact", "by": by}), &batches), expected, "{by}");
    };
    repeats("both", "images and text", [None, None, Some(0), None, None, Some(0), Some(4)]);
    repeats("image", "images", [None, None, Some(0), Some(0), None, Some(0), Some(4)]);
    repeats("text", "text", [None, Some(0), Some(0), None, Some(0), Some(0), Some(0)]);
}

#[test]
fn an_image_made_smaller_and_saved_again_looks_like_itself_and_others_do_not() {
    let (cat, rocket) = (photo("chelsea.jpg"), photo("rocket.jpg"));
    let small = image::imageops::resize(&cat, cat.width() / 2, cat.height() / 2, FilterType::Triangle);
    let [cat, small, rocket] =
        [(cat, ImageFormat::Png), (small, ImageFormat::Jpeg), (rocket, ImageFormat::Jpeg)]
            .map(|(image, format)| encoded(&image, format));
    let batch = rows(
        &[
            (vec![&cat], "q", "a"),
            (vec![&rocket], "q", "a"),
            (vec![&small], "q", "b"),
            (vec![], "q", "a"),
            (vec![], "q", "a"),
            (vec![b"no image"], "q", "a"),
            (vec![b"no image"], "q", "a"),
        ],
        &["images", "messages"],
    );
    let reported = verdicts(json!({"dedup": "perceptual"}), std::slice::from_ref(&batch));
    let alike = "duplicate: images that look like those of row 0 of the table, counted from 0";
    assert_eq!(reported, [None, None, Some(alike.to_owned()), None, None, None, None]);
    assert_eq!(verdicts(json!({"dedup": "perceptual", "by": "both"}), &[batch]), vec![None; 7]);
}

proptest! {
    /// The look-up by parts finds exactly what comparing with every kept row finds.
    #[test]
    fn parts_find_the_first_row_within_the_distance(
        hashes in prop::collection::vec((0_u64..4, any::<u64>(), any::<u64>()), 1..60),
        distance in 0_u32..=16,
    ) {
        // Few centres with some bits flipped, so that near pairs happen.
        let hashes: Vec<u64> = hashes.iter().map(|(centre, a, b)| centre.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (a & b & a.rotate_left(7))).collect();
        let mut kept: Vec<u64> = Vec::new();
        let mut rows: Vec<u64> = Vec::new();
        let mut sweep = Duplicates::new(Dedup::Perceptual, By::Image, distance);
        for (row, hash) in hashes.iter().enumerate() {
            let near = kept.iter().position(|other| (other ^ hash).count_ones() <= distance);
            let expected = near.map(|index| rows[index]);
            if near.is_none() {
                kept.push(*hash);
                rows.push(row as u64);
            }
            let column: ArrayRef = Arc::new(BinaryArray::from(vec![hash.to_le_bytes().as_slice()]));
            let mut rejects = Rejects::none(1);
            sweep.next(&RecordBatch::try_from_iter([(super::FINGERPRINT, column)]).unwrap(), &mut rejects).unwrap();
            let found = rejects.new_rejects().next().map(|(_, reject)| reject.detail.clone());
            let expected = expected.map(|row| format!("images that look like those of row {row} of the table, counted from 0"));
            prop_assert_eq!(found, expected);
        }
    }
}

#[test]
fn wrong_parameters_are_told_before_a_run() {
    let reported = |params| {
        stage(params).check().into_iter().map(|(name, text)| format!("{name}: {text}")).collect::<Vec<_>>()
    };
    assert_eq!(reported(json!({})), ["where: nothing to filter by: set `where`, `dedup` or both"]);
    let unknown = reported(json!({"where": "image_widht > 1"})).concat();
    assert!(
        unknown.starts_with("where: there is no `image_widht`. Did you mean `image_width`?"),
        "{unknown}"
    );
    assert!(
        reported(json!({"where": "turns +"})).concat().starts_with("where: `turns +` is no SQL condition")
    );
    assert!(reported(json!({"where": "turns + 1"})).concat().starts_with("where: where = \"turns + 1\": "));
    assert_eq!(reported(json!({"dedup": "perceptual", "by": "text", "distance": 17})).len(), 2);
}
