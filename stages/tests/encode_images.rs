//! `encode-images` on the fixture tower that transformers wrote (`model/tests/fixtures/make_fixtures.py`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray, ListArray, RecordBatch, new_null_array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field};
use common::{Table, root};
use llavm_model::config::{Dtype, PixelNorm};
use llavm_model::device::Device;
use llavm_model::load;
use llavm_model::processor::files::tower_image;
use llavm_pipeline::Rejects;
use llavm_pipeline::stage::{MapStage, Parameters};
use llavm_stages::encode_images::EncodeImages;
use llavm_stages::image_lists::{ImageLists, Origin, OriginLists, origins_list};
use serde_json::{Value, json};
use std::sync::Arc;

/// Bytes of an image of the fixture tower, and numbers of its states.
const PIXELS: usize = 3 * 48 * 48;
const STATES: usize = 9 * 32;

fn params() -> Value {
    json!({ "clip": root("model/tests/fixtures/gqa/clip").display().to_string() })
}

/// Image `n`: bytes that look random.
fn image(n: usize) -> Vec<u8> {
    let mut bytes = vec![0; PIXELS];
    blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Rows of images numbered through.
fn pixels(counts: &[usize]) -> Table {
    let total = counts.iter().sum();
    let flat: Vec<u8> = (0..total).flat_map(image).collect();
    let items = BinaryViewArray::from_iter_values(flat.chunks(PIXELS));
    let field = Arc::new(Field::new("item", DataType::BinaryView, true));
    let offsets = OffsetBuffer::from_lengths(counts.iter().copied());
    let list = Arc::new(ListArray::try_new(field, offsets, Arc::new(items), None).unwrap()) as ArrayRef;
    with_unknown_origins(list)
}

/// Rows of images of which nobody knows whether they stand elsewhere.
fn with_unknown_origins(pixels: ArrayRef) -> Table {
    let origins = new_null_array(&origins_list(), pixels.len());
    let columns = [("pixels", pixels, true), ("origins", origins, true)];
    Table::new(RecordBatch::try_from_iter_with_nullable(columns).unwrap())
}

/// An f16 of two bytes (IEEE 754-2008, binary16).
fn f16(bytes: &[u8]) -> f32 {
    let bits = u16::from_le_bytes(bytes.try_into().unwrap());
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    let value = match exponent {
        0 => fraction * 2_f32.powi(-24),
        _ => (1.0 + fraction / 1024.0) * 2_f32.powi(exponent - 15),
    };
    if bits >> 15 == 1 { -value } else { value }
}

fn states(table: &Table, row: usize) -> Vec<f32> {
    let items = table.batch["features"].as_list::<i32>().value(row);
    items.as_binary_view().iter().flat_map(|item| item.unwrap().chunks(2).map(f16)).collect()
}

#[test]
fn features_equal_the_states_of_the_tower_within_rounding_to_f16() {
    let counts = [2, 0, 1, 17, 3];
    let mut rows = pixels(&counts);
    rows.rejects[2] = Some("decode-resize/undecodable: no".to_owned());
    let encoded = rows.then::<EncodeImages>(params());
    assert!(encoded.batch["features"].is_null(2) && encoded.batch["features"].is_valid(1));
    let folder = root("model/tests/fixtures/gqa/clip");
    let tower = load::clip(&folder, &Device::flex(), Dtype::F32).unwrap();
    let norm = tower_image(&folder).unwrap().norm;
    let mut first = 0;
    for (row, count) in counts.into_iter().enumerate() {
        let bytes: Vec<u8> = (first..first + count).flat_map(image).collect();
        first += count;
        if count == 0 || row == 2 {
            continue;
        }
        let expected = tower.forward(tower.normalise(bytes, &norm)).into_data();
        let expected: Vec<f32> = expected.iter().collect();
        let found = states(&encoded, row);
        assert_eq!(found.len(), count * STATES);
        // Half a step of f16, and what f32 sums of another batch may differ by.
        let sums = 2e-6 * expected.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= expected.abs() / 2048.0 + sums, "{found} is not {expected}");
        }
    }
}

/// A model is trained on features and asked with pixels: both go through one processor.
#[test]
fn pixels_are_normalised_as_the_processor_of_the_tower_says() {
    let own = root("model/tests/fixtures/gqa/clip");
    let plain = PixelNorm { mean: [0.0; 3], std: [1.0; 3] };
    let says_so = json!({ "do_normalize": false });
    for (file, content) in [
        ("preprocessor_config.json", says_so.clone()),
        ("processor_config.json", json!({ "image_processor": says_so })),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for name in ["config.json", "model.safetensors"] {
            std::fs::copy(own.join(name), folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join(file), content.to_string()).unwrap();
        let encoded =
            pixels(&[1]).then::<EncodeImages>(json!({ "clip": folder.path().display().to_string() }));
        let tower = load::clip(folder.path(), &Device::flex(), Dtype::F32).unwrap();
        let expected = tower.forward(tower.normalise(image(0), &plain)).into_data();
        for (found, expected) in states(&encoded, 0).into_iter().zip(expected.iter::<f32>()) {
            assert!(
                (found - expected).abs() <= expected.abs() / 1024.0 + 1e-5,
                "{file}: {found} is not {expected}"
            );
        }
    }
}

#[test]
fn a_row_has_the_same_features_alone_and_in_a_batch() {
    let rows = pixels(&[1, 3, 30]);
    let together = rows.then::<EncodeImages>(params());
    for row in 0..3 {
        let alone = rows.slice(row, row + 1).then::<EncodeImages>(params());
        let pairs = states(&alone, 0).into_iter().zip(states(&together, row));
        pairs.for_each(|(a, b)| assert!((a - b).abs() <= b.abs() / 1024.0 + 1e-6, "{a} is not {b}"));
    }
}

#[test]
fn the_content_of_the_tower_is_in_the_key_and_its_place_is_not() {
    let stage: EncodeImages = serde_json::from_value(params()).unwrap();
    let names: Vec<String> = stage.resources().unwrap().into_iter().map(|resource| resource.name).collect();
    assert_eq!(names, ["model.safetensors", "config.json"]);
    assert_eq!(serde_json::to_value(&stage).unwrap(), json!({ "device": "cpu", "dtype": "f16" }));
    let mut second = params();
    second["device"] = json!("cuda:1");
    let stage: EncodeImages = serde_json::from_value(second).unwrap();
    assert_eq!(serde_json::to_value(&stage).unwrap()["device"], "cuda");
}

#[test]
fn equal_images_are_encoded_once_and_share_their_states() {
    let counts = [1, 2, 1];
    let flat: Vec<Vec<u8>> = [5, 6, 5, 6].map(image).into();
    let items = BinaryViewArray::from_iter_values(flat.iter());
    let field = Arc::new(Field::new("item", DataType::BinaryView, true));
    let list = ListArray::try_new(field, OffsetBuffer::from_lengths(counts), Arc::new(items), None).unwrap();
    let list = Arc::new(list) as ArrayRef;
    let table = with_unknown_origins(list);
    let encoded = table.then::<EncodeImages>(params());
    let states = |row| states(&encoded, row);
    assert_eq!(states(1), [states(2), states(0)].concat());
    let features = encoded.batch["features"].as_list::<i32>().values().as_binary_view().clone();
    assert_eq!((features.len(), features.data_buffers().len()), (4, 2));
}

#[test]
fn images_that_stand_elsewhere_stay_there_and_a_rejected_row_keeps_what_others_show() {
    let items = BinaryViewArray::from_iter([Some(image(1)), None, Some(image(2))]);
    let field = Arc::new(Field::new("item", DataType::BinaryView, true));
    let list = ListArray::try_new(field, OffsetBuffer::from_lengths([2, 1]), Arc::new(items), None).unwrap();
    let mut origins = OriginLists::with_capacity(2);
    let elsewhere = Origin { partition: 0, row: 7, item: 1 };
    origins.item([1; 16], None);
    origins.item([9; 16], Some(elsewhere));
    origins.push();
    origins.item([2; 16], None);
    origins.push();
    let columns =
        [("pixels", Arc::new(list) as ArrayRef, true), ("origins", origins.finish().unwrap(), true)];
    let rows = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let stage: EncodeImages = serde_json::from_value(params()).unwrap();
    let mut rejects = Rejects::after(vec![false, true]);
    let encoded = stage.open(&common::NoEngine).unwrap().apply(&rows, &mut rejects).unwrap();
    let features = ImageLists::of(&encoded, "features").unwrap();
    let there = |row| features.row(row).map(|image| image.is_some()).collect::<Vec<_>>();
    assert_eq!([there(0), there(1)], [vec![true, false], vec![true]]);
    assert_eq!(encoded["origins"].as_ref(), rows["origins"].as_ref());
}

#[test]
fn pixels_of_another_size_than_the_towers_are_named_with_the_size_to_set() {
    let items = BinaryViewArray::from_iter_values([[1_u8; 3 * 32 * 32]]);
    let field = Arc::new(Field::new("item", DataType::BinaryView, true));
    let list = ListArray::try_new(field, OffsetBuffer::from_lengths([1]), Arc::new(items), None).unwrap();
    let rows = with_unknown_origins(Arc::new(list)).batch;
    let stage: EncodeImages = serde_json::from_value(params()).unwrap();
    let failed = stage.open(&common::NoEngine).unwrap().apply(&rows, &mut Rejects::none(1)).unwrap_err();
    assert_eq!(failed.to_string(), "`pixels` holds images of 32 × 32, the vision tower takes 48 × 48");
}

#[test]
fn a_tower_that_is_not_there_is_told_before_anything_runs() {
    let params = json!({ "clip": "no/such/folder", "device": "gpu" });
    let stage: EncodeImages = serde_json::from_value(params).unwrap();
    let missing: Vec<String> = stage.missing().into_iter().map(|missing| missing.text).collect();
    insta::assert_debug_snapshot!((missing, stage.check()), @r#"
    (
        [
            "the folder no/such/folder does not exist. Write hub:ORG/NAME for a repository of the Hugging Face hub, ms:ORG/NAME for one of ModelScope.",
        ],
        [
            (
                "device",
                "unknown device `gpu`: use cpu, cuda, cuda:N, wgpu or wgpu:cpu",
            ),
        ],
    )
    "#);
}
