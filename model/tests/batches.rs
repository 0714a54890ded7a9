//! A batch that fits no model is refused with what is wrong and what next, never a panic.

#![expect(clippy::unwrap_used, reason = "a fixture that does not read is a failed test")]

use burn::tensor::{Device, Tensor};
use llavm_model::attention::TokenMask;
use llavm_model::cache::KvCache;
use llavm_model::config::{ClipVisionConfig, Dtype, Qwen3Config};
use llavm_model::projector::Projector;
use llavm_model::qwen3::Qwen3;
use llavm_model::source::{Loader, RandomSource};
use llavm_model::vlm::{Batch, BatchError, Vlm};

/// 304 embeddings, 512 positions, 9 patches of 32 values an image; the tower itself is not needed.
fn model() -> Vlm {
    let (device, mut source) = (Device::flex(), RandomSource::new(1));
    let fixture = |part| format!("{}/tests/fixtures/gqa/{part}/config.json", env!("CARGO_MANIFEST_DIR"));
    let read = |part| std::fs::read_to_string(fixture(part)).unwrap();
    let qwen = Qwen3Config::from_json(&read("qwen")).unwrap();
    let clip = ClipVisionConfig::from_json(&read("clip")).unwrap();
    let projector =
        Projector::load(Loader::new(&mut source, &device, Dtype::F32), clip.hidden_size, qwen.hidden_size);
    Vlm::new(None, projector, Qwen3::load(Loader::new(&mut source, &device, Dtype::F32), &qwen), 271)
}

fn hidden(model: &Vlm, ids: &[u32], features: Option<Tensor<3>>) -> Option<BatchError> {
    let mask = TokenMask::full(1, ids.len());
    model.hidden(&Batch { input_ids: ids, mask: &mask, features }).err()
}

#[test]
fn pads_and_patches_must_be_equal_in_number() {
    let model = model();
    let ids = [vec![model.image_pad_id; 8], vec![1, 2]].concat();
    let error =
        hidden(&model, &ids, Some(Tensor::zeros([1, 9, 32], &Device::flex()))).map(|error| error.to_string());
    insta::assert_snapshot!(error.unwrap_or_default(), @"batch: 8 image pads for 9 patches (images: 1); `count` of image-pads must equal the patches of the vision tower");
    let no_image = hidden(&model, &ids, None);
    assert_eq!(no_image, Some(BatchError::Pads { pads: 8, patches: 0, images: 0 }));
    let no_images = Tensor::zeros([0, 9, 32], &Device::flex());
    assert_eq!(hidden(&model, &[1, 2, 3], Some(no_images)), None);
}

#[test]
fn an_id_without_embedding_is_named() {
    let error = hidden(&model(), &[1, 304], None).map(|error| error.to_string());
    insta::assert_snapshot!(error.unwrap_or_default(), @"batch: token id 304, but the language model has 304 embeddings; is the tokenizer its own?");
}

#[test]
fn a_text_longer_than_the_model_is_refused_with_the_cache_counted_in() {
    let model = model();
    let too_long = || BatchError::Positions { tokens: 513, limit: 512 };
    assert_eq!(hidden(&model, &[1; 513], None), Some(too_long()));
    let mut cache = KvCache::new();
    let feed = |tokens: usize, rows: usize, cache: &mut KvCache| {
        let (ids, mask) = (vec![1; tokens * rows], TokenMask::full(rows, tokens));
        model.hidden_cached(&Batch { input_ids: &ids, mask: &mask, features: None }, cache).err()
    };
    assert_eq!(feed(10, 1, &mut cache), None);
    assert_eq!(feed(503, 1, &mut cache), Some(too_long()));
    assert_eq!(feed(1, 2, &mut cache), Some(BatchError::Rows { rows: 2, cached: 1 }));
}

#[test]
fn labels_must_fit_the_ids_and_hold_a_token() {
    let model = model();
    let mask = TokenMask::full(1, 3);
    let batch = Batch { input_ids: &[1, 2, 3], mask: &mask, features: None };
    let error = |labels: &[i32]| model.loss(&batch, labels).err();
    assert_eq!(error(&[-100, -100, -100]), Some(BatchError::NoAnswer));
    assert_eq!(error(&[-100, 5]), Some(BatchError::Length { ids: 2, mask: 3 }));
    assert_eq!(error(&[-100, 5, 400]), Some(BatchError::Vocabulary { id: 400, vocab: 304 }));
}
