//! A LLaVA that transformers saved answers as in transformers: `fixtures/llava/make.py` made model and answers.

#![allow(clippy::unwrap_used, reason = "a fixture that does not read is a failed test")]

mod common;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use common::{difference, values};
use llavm_model::attention::TokenMask;
use llavm_model::chat_template::Message;
use llavm_model::config::{Dtype, PixelNorm};
use llavm_model::folder::ModelFolder;
use llavm_model::generate::assistant::Assistant;
use llavm_model::generate::{Options, Prompt, generate};
use llavm_model::load;
use llavm_model::sampler::Sampling;
use llavm_model::vlm::{Batch, Vlm};
use safetensors::SafeTensors;
use serde::Deserialize;

/// One conversation of `expected.json`.
#[derive(Deserialize)]
struct Case {
    images: usize,
    question: String,
    prompt: Vec<u32>,
    ids: Vec<u32>,
    logits: Vec<f32>,
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llava")
}

fn cases() -> Vec<Case> {
    serde_json::from_str(&std::fs::read_to_string(fixture().join("expected.json")).unwrap()).unwrap()
}

fn model() -> Vlm {
    let (folder, device) = (fixture().join("saved"), Device::flex());
    let config = load::llava_config(&folder).unwrap().unwrap();
    let clip = load::clip(&folder, &device, Dtype::F32).unwrap();
    let qwen = load::qwen3(&folder, &device, Dtype::F32).unwrap();
    let (vision, hidden) = (config.vision.hidden_size, config.text.hidden_size);
    let projector = load::projector(&folder, vision, hidden, &device, Dtype::F32).unwrap();
    Vlm::new(Some(clip), projector, qwen, config.image_token_id)
}

/// Patch states of the first `images` images.
fn features(model: &Vlm, images: usize) -> Option<Tensor<3>> {
    let file = std::fs::read(fixture().join("pixels.safetensors")).unwrap();
    let clip = model.clip.as_ref().unwrap();
    let mut pixels = SafeTensors::deserialize(&file).unwrap().tensor("pixels").unwrap().data().to_vec();
    pixels.truncate(images * clip.config().pixels());
    (images > 0).then(|| clip.forward(clip.normalise(pixels, &PixelNorm::default())))
}

/// The folder as a model folder: processor and prompts from transformers' files alone.
#[test]
fn prompts_are_those_of_transformers() {
    let folder = ModelFolder::open(fixture().join("saved").to_str().unwrap()).unwrap();
    let assistant = Assistant::load(&folder, &Device::flex(), Dtype::F32).unwrap();
    for Case { images, question, prompt, ids, .. } in cases() {
        let message = Message::new("user", &question);
        let ours = assistant.processor.prompt(&[message], assistant.system.as_deref(), images).unwrap();
        assert_eq!(ours, prompt, "{question}");
        let prompt = Prompt { ids: ours, features: features(&assistant.model, images) };
        let eos = assistant.processor.eos.clone();
        let options = Options { max_new_tokens: 64, sampling: Sampling::default(), eos };
        let mut ignore = |_, _| ControlFlow::Continue(());
        let answer = generate(&assistant.model, &[prompt], 0, &options, &mut ignore).unwrap();
        assert_eq!(answer, [ids], "{question}");
    }
    assert_eq!((assistant.processor.image.size, assistant.processor.image_token_id), (48, 268));
}

#[test]
fn logits_equal_transformers_with_no_one_and_two_images() {
    let model = model();
    for Case { images, question, prompt, logits, .. } in cases() {
        let mask = TokenMask::full(1, prompt.len());
        let batch = Batch { input_ids: &prompt, mask: &mask, features: features(&model, images) };
        let hidden = model.hidden(&batch).unwrap();
        let ours = values(model.logits_at(hidden, &[prompt.len() - 1]));
        let apart = difference(&ours, &logits);
        assert!(apart <= 1e-4, "{question}: {apart:e}");
    }
}

#[test]
fn sixty_four_greedy_ids_equal_transformers() {
    let model = model();
    for Case { images, question, prompt, ids, .. } in cases() {
        let prompt = Prompt { ids: prompt, features: features(&model, images) };
        // The ids that end an answer, as saved beside the model.
        let eos = load::eos_ids(&fixture().join("saved")).unwrap();
        let options = Options { max_new_tokens: 64, sampling: Sampling::default(), eos };
        let ours = generate(&model, &[prompt], 0, &options, &mut |_, _| ControlFlow::Continue(())).unwrap();
        assert_eq!(ours, [ids], "{question}");
    }
}
