//! The stages of the text branch, one core, on batches of CC3M-like rows: rows a second are the items a second of the report.

#![allow(clippy::unwrap_used, reason = "a benchmark without its data cannot go on")]

#[path = "../tests/common/mod.rs"]
mod common;

use common::{NoEngine, Table, Turn, conversations, qwen};
use divan::counter::ItemsCount;
use llavm_pipeline::Rejects;
use llavm_pipeline::stage::{MapStage, StageKind};
use llavm_stages::chat_template::ChatTemplate;
use llavm_stages::image_pads::ImagePads;
use llavm_stages::shift_labels::ShiftLabels;
use llavm_stages::tokenize::Tokenize;
use serde_json::{Value, json};

fn main() {
    divan::main();
}

const ROWS: usize = 128;

/// Questions of LLaVA's pre-training set, and captions of about its length that all differ.
fn rows() -> Table {
    let questions = [
        "Give a brief description of the image.\n<image>",
        "<image>\nRender a clear and concise summary of the photo.",
        "Provide a brief description of the given image.",
    ];
    let row = |n: usize| -> (Vec<Turn>, u32) {
        let caption =
            format!("a view of house number {n} by the sea, with {} boats and a pier at dusk", n * 7 % 13);
        let turn = |role: &str, text: &str| (role.to_owned(), text.to_owned());
        (vec![turn("user", questions[n % 3]), turn("assistant", &caption)], 1)
    };
    conversations(&(0..ROWS).map(row).collect::<Vec<_>>())
}

fn bench<T: StageKind + MapStage>(bencher: divan::Bencher<'_, '_>, input: &Table, params: Value) {
    let stage: T = serde_json::from_value(params).unwrap();
    let stage = stage.open(&NoEngine).unwrap();
    bencher
        .counter(ItemsCount::new(ROWS))
        .bench(|| stage.apply(&input.batch, &mut Rejects::none(ROWS)).unwrap());
}

fn chat() -> Value {
    json!({ "tokenizer": qwen(), "system": "You are a helpful assistant." })
}

#[divan::bench(sample_count = 20)]
fn chat_template(bencher: divan::Bencher<'_, '_>) {
    bench::<ChatTemplate>(bencher, &rows(), chat());
}

#[divan::bench(sample_count = 20)]
fn image_pads(bencher: divan::Bencher<'_, '_>) {
    bench::<ImagePads>(bencher, &rows().then::<ChatTemplate>(chat()), json!({}));
}

fn padded() -> Table {
    rows().then::<ChatTemplate>(chat()).then::<ImagePads>(json!({}))
}

#[divan::bench(sample_count = 20)]
fn tokenize(bencher: divan::Bencher<'_, '_>) {
    bench::<Tokenize>(bencher, &padded(), json!({ "tokenizer": qwen() }));
}

#[divan::bench(sample_count = 20)]
fn shift_labels(bencher: divan::Bencher<'_, '_>) {
    let tokens = padded().then::<Tokenize>(json!({ "tokenizer": qwen() }));
    bench::<ShiftLabels>(bencher, &tokens, json!({}));
}
