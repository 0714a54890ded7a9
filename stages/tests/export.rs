//! `export` of fixture models: what is written is loaded again and gives the loss of the model it came from.
//! With Python's own loaders: `examples/loss_in_python.py`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::root;
use llavm_model::attention::TokenMask;
use llavm_model::config::Dtype;
use llavm_model::device::Device;
use llavm_model::vlm::{Batch, Vlm};
use llavm_model::weights::Checkpoint;
use llavm_model::{load, peft};
use llavm_stages::export::Export;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Shapes of Qwen3: grouped queries, an untied head, biases.
const SHAPES: [&str; 3] = ["gqa", "untied", "biased"];
/// The fixtures' image pad.
const PAD: u32 = 282;

fn fixture(name: &str) -> PathBuf {
    root("model/tests/fixtures").join(name)
}

fn export(from: &Path, params: Value) -> tempfile::TempDir {
    let stage: Export = serde_json::from_value(params).unwrap();
    let to = tempfile::tempdir().unwrap();
    stage.export(from, to.path()).unwrap();
    to
}

/// The model of a language model's folder, an adapter's and a projector's.
fn model(qwen: &Path, adapter: Option<&Path>, projector: &Path, clip: &Path) -> Vlm {
    let device = Device::flex();
    let clip = load::clip(clip, &device, Dtype::F32).unwrap();
    let mut language = load::qwen3(qwen, &device, Dtype::F32).unwrap();
    if let Some(adapter) = adapter {
        load::adapter(&mut language, qwen, adapter, &device, Dtype::F32).unwrap();
    }
    let (vision, hidden) = (clip.config().hidden_size, language.config().hidden_size);
    let projector = load::projector(projector, vision, hidden, &device, Dtype::F32).unwrap();
    Vlm::new(Some(clip), projector, language, PAD)
}

/// Nats per answer token of one made-up row: a picture, then words.
fn loss(model: &Vlm) -> f32 {
    let clip = model.clip.as_ref().unwrap();
    let bytes: Vec<u8> = (0..clip.config().pixels()).map(|n| (n * 37 % 251) as u8).collect();
    let features = clip.forward(clip.normalise(bytes, &load::pixel_norm(Path::new("")).unwrap()));
    let pads = clip.config().num_patches();
    let ids: Vec<u32> = std::iter::repeat_n(PAD, pads).chain((0..20).map(|n| n * 13 % 250)).collect();
    let labels: Vec<i32> = (0..ids.len()).map(|n| if n < pads { -100 } else { n as i32 * 7 % 250 }).collect();
    let mask = TokenMask::full(1, ids.len());
    let batch = Batch { input_ids: &ids, mask: &mask, features: Some(features) };
    let loss = model.loss(&batch, &labels).unwrap().per_token.mean().into_data();
    loss.iter::<f32>().next().unwrap()
}

fn whole(folder: &Path) -> Vlm {
    let (adapter, projector) = (folder.join("adapter"), folder.join("projector.safetensors"));
    model(&folder.join("qwen"), Some(&adapter), &projector, &folder.join("clip"))
}

#[test]
fn an_exported_adapter_with_its_base_and_projector_has_the_loss_of_the_model() {
    for name in SHAPES {
        let from = fixture(name);
        let to = export(&from, json!({ "format": "peft" }));
        let (base, projector) = (to.path().join("base"), to.path().join("projector.safetensors"));
        let exported = model(&base, Some(to.path()), &projector, &from.join("clip"));
        assert_eq!(loss(&exported).to_bits(), loss(&whole(&from)).to_bits(), "{name}");
        let config = |folder: &Path| {
            let mut config = peft::read_config(folder).unwrap();
            config.target_modules.sort();
            config
        };
        assert_eq!(config(to.path()), config(&from.join("adapter")));
        let without = model(&base, None, &projector, &from.join("clip"));
        assert!((loss(&without) - loss(&exported)).abs() > 1e-3, "the adapter matters");
    }
}

#[test]
fn a_merged_model_has_the_loss_of_the_adapter_beside_its_base() {
    for name in SHAPES {
        let from = fixture(name);
        let to = export(&from, json!({ "format": "merged" }));
        let projector = to.path().join("projector.safetensors");
        let merged = loss(&model(to.path(), None, &projector, &from.join("clip")));
        let expected = loss(&whole(&from));
        assert!((merged - expected).abs() < 1e-5 * expected, "{name}: {merged} is not {expected}");
        let config: Value =
            serde_json::from_slice(&fs::read(to.path().join("config.json")).unwrap()).unwrap();
        assert_eq!((&config["model_type"], &config["dtype"]), (&json!("qwen3"), &json!("float32")));
        assert!(
            to.path().join("tokenizer.json").is_file() && to.path().join("generation_config.json").is_file()
        );
    }
}

#[test]
fn the_projector_alone_in_half_the_bytes() {
    let from = fixture("gqa");
    let to = export(&from, json!({ "format": "projector", "dtype": "bf16" }));
    let names: Vec<_> = fs::read_dir(to.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["projector.safetensors"]);
    let (file, whole) = (to.path().join("projector.safetensors"), from.join("projector.safetensors"));
    let shapes = |path: &Path| {
        let file = Checkpoint::open_file(path).unwrap();
        file.keys().map(|key| (key.to_owned(), file.shape(key).unwrap().to_vec())).collect::<Vec<_>>()
    };
    assert_eq!(shapes(&file), shapes(&whole));
    let bytes = |path: &Path| path.metadata().unwrap().len();
    assert!(bytes(&file) < bytes(&whole) * 6 / 10);
}

#[test]
fn a_model_without_an_adapter_exports_none() {
    let from = tempfile::tempdir().unwrap();
    for part in ["qwen", "clip"] {
        fs::create_dir(from.path().join(part)).unwrap();
        for entry in fs::read_dir(fixture("gqa").join(part)).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), from.path().join(part).join(entry.file_name())).unwrap();
        }
    }
    for file in ["model.toml", "projector.safetensors"] {
        fs::copy(fixture("gqa").join(file), from.path().join(file)).unwrap();
    }
    let stage: Export = serde_json::from_value(json!({ "format": "peft" })).unwrap();
    let error = stage.export(from.path(), &from.path().join("out")).unwrap_err();
    assert!(error.to_string().ends_with("has no adapter"), "{error}");
    assert!(error.advice().unwrap().contains("merged"));
}

#[test]
fn an_adapter_on_a_language_model_elsewhere_names_the_place_in_full() {
    let from = tempfile::tempdir().unwrap();
    let outside = fixture("gqa");
    for file in ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "projector.safetensors"]
    {
        fs::create_dir_all(from.path().join(file).parent().unwrap()).unwrap();
        fs::copy(outside.join(file), from.path().join(file)).unwrap();
    }
    let place = |part: &str| outside.join(part).canonicalize().unwrap().display().to_string();
    let about = format!("qwen = {:?}\nclip = {:?}\n", place("qwen"), place("clip"));
    fs::write(from.path().join("model.toml"), about).unwrap();
    let to = export(from.path(), json!({ "format": "peft" }));
    let config: Value =
        serde_json::from_slice(&fs::read(to.path().join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(config["base_model_name_or_path"], place("qwen"));
    assert!(!to.path().join("base").exists());
}
