//! `encode-images` on the fixture tower that transformers wrote (`model/tests/fixtures/make_fixtures.py`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, ListArray, RecordBatch};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};
use common::{Table, root};
use llavm_model::config::Dtype;
use llavm_model::device::Device;
use llavm_model::load;
use llavm_pipeline::stage::{MapStage, Parameters};
use llavm_stages::encode_images::EncodeImages;
use serde_json::{Value, json};
use std::sync::Arc;

/// Bytes of a picture of the fixture tower, and numbers of its states.
const PIXELS: usize = 3 * 48 * 48;
const STATES: usize = 9 * 32;

fn params() -> Value {
    json!({ "clip": root("model/tests/fixtures/gqa/clip").display().to_string() })
}

/// Picture `n`: bytes that look random.
fn picture(n: usize) -> Vec<u8> {
    let mut bytes = vec![0; PIXELS];
    blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Rows of pictures numbered through.
fn pixels(counts: &[usize]) -> Table {
    let total = counts.iter().sum();
    let flat: Vec<u8> = (0..total).flat_map(picture).collect();
    let items = FixedSizeBinaryArray::try_new(PIXELS as i32, Buffer::from_vec(flat), None).unwrap();
    let field = Arc::new(Field::new("item", DataType::FixedSizeBinary(PIXELS as i32), true));
    let offsets = OffsetBuffer::from_lengths(counts.iter().copied());
    let list = Arc::new(ListArray::try_new(field, offsets, Arc::new(items), None).unwrap()) as ArrayRef;
    Table::new(RecordBatch::try_from_iter_with_nullable([("pixels", list, true)]).unwrap())
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
    let items = items.as_fixed_size_binary();
    (0..items.len()).flat_map(|n| items.value(n).chunks(2).map(f16).collect::<Vec<_>>()).collect()
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
    let norm = load::pixel_norm(&folder).unwrap();
    let mut first = 0;
    for (row, count) in counts.into_iter().enumerate() {
        let bytes: Vec<u8> = (first..first + count).flat_map(picture).collect();
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
    let column = DataType::FixedSizeBinary(STATES as i32 * 2);
    assert_eq!(stage.output().get("features").unwrap().data_type, llavm_stages::arrays::list_of(column));
}

#[test]
fn a_tower_that_is_not_there_is_told_before_anything_runs() {
    let params = json!({ "clip": "no/such/folder", "device": "gpu" });
    let stage: EncodeImages = serde_json::from_value(params).unwrap();
    let missing: Vec<String> = stage.missing().into_iter().map(|missing| missing.text).collect();
    insta::assert_debug_snapshot!((missing, stage.check()), @r#"
    (
        [
            "the folder no/such/folder does not exist. Write hub:ORG/NAME for a repository of the Hugging Face hub.",
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
