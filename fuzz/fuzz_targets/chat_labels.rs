#![no_main]
//! Any conversation through the text branch: labels are the tokens that follow, pads are those of the images, and what is
//! trained on ends with one end of turn. Turns are separated by NUL; the first byte says how many images there are.

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, RecordBatch, StringBuilder, StructBuilder, UInt32Array};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, UInt32Type};
use libfuzzer_sys::fuzz_target;
use llavm_fuzz::Context;
use llavm_pipeline::Rejects;
use llavm_pipeline::stage::{Apply, MapStage, StageKind};
use llavm_stages::chat_template::ChatTemplate;
use llavm_stages::image_pads::ImagePads;
use llavm_stages::shift_labels::ShiftLabels;
use llavm_stages::tokenize::Tokenize;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const PAD: u32 = 151_655;
const TOKENIZER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/qwen3-tokenizer");

static STAGES: LazyLock<[Box<dyn Apply>; 4]> = LazyLock::new(|| {
    [
        open::<ChatTemplate>(json!({ "tokenizer": TOKENIZER })),
        open::<ImagePads>(json!({})),
        open::<Tokenize>(json!({ "tokenizer": TOKENIZER })),
        open::<ShiftLabels>(json!({})),
    ]
});

fn open<T: StageKind + MapStage>(params: Value) -> Box<dyn Apply> {
    let stage: T = serde_json::from_value(params).expect("parameters");
    stage.open(&Context).expect("a stage")
}

fn row(turns: &str, n_images: u32) -> RecordBatch {
    let text = |name| Field::new(name, DataType::Utf8, true);
    let fields = Fields::from(vec![text("role"), text("content")]);
    let mut messages = ListBuilder::new(StructBuilder::from_fields(fields, 1));
    for (n, content) in turns.split('\0').enumerate() {
        let turn = messages.values();
        let role = if n % 2 == 0 { "user" } else { "assistant" };
        turn.field_builder::<StringBuilder>(0).expect("role").append_value(role);
        turn.field_builder::<StringBuilder>(1).expect("content").append_value(content);
        turn.append(true);
    }
    messages.append(true);
    RecordBatch::try_from_iter_with_nullable([
        ("messages", Arc::new(messages.finish()) as ArrayRef, true),
        ("n_images", Arc::new(UInt32Array::from(vec![n_images])) as ArrayRef, true),
    ])
    .expect("a batch")
}

fuzz_target!(|data: (u8, &str)| {
    let n_images = u32::from(data.0 % 3);
    let mut rejects = Rejects::none(1);
    let mut batch = row(data.1, n_images);
    for stage in STAGES.iter() {
        batch = stage.apply(&batch, &mut rejects).expect("no row ends a run");
    }
    if rejects.is_rejected(0) {
        return;
    }
    let (ids, labels) = (batch.column(0).as_list::<i32>().value(0), batch.column(1).as_list::<i32>().value(0));
    let (ids, labels) = (ids.as_primitive::<UInt32Type>().values(), labels.as_primitive::<Int32Type>().values());
    assert_eq!(ids.len(), labels.len());
    assert_eq!(ids.iter().filter(|id| **id == PAD).count(), 49 * n_images as usize);
    for (next, label) in ids[1..].iter().zip(labels.iter()) {
        assert!(*label == -100 || *label == next.cast_signed());
    }
    assert_eq!(labels.iter().filter(|label| **label == 151_645).count(), 1);
});
