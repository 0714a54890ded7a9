//! `export` of fixture models: what is written is loaded again and gives the loss of the model it came from, and the logits and
//! ids that Python's own loaders gave (`golden/make_exports.py`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use burn::tensor::Tensor;
use common::root;
use llavm_model::attention::TokenMask;
use llavm_model::chat_template::Message;
use llavm_model::config::{Dtype, PixelNorm};
use llavm_model::device::Device;
use llavm_model::folder::ModelFolder;
use llavm_model::generate::assistant::Assistant;
use llavm_model::generate::{Options, Prompt, generate};
use llavm_model::sampler::Sampling;
use llavm_model::vlm::{Batch, Vlm};
use llavm_model::weights::Checkpoint;
use llavm_model::{load, peft};
use llavm_stages::export::{Export, Format};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
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

/// Nats per answer token of one made-up row: an image, then words.
fn loss(model: &Vlm) -> f32 {
    let clip = model.clip.as_ref().unwrap();
    let bytes: Vec<u8> = (0..clip.config().pixels()).map(|n| (n * 37 % 251) as u8).collect();
    let features = clip.forward(clip.normalise(bytes, &PixelNorm::default()));
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
            config.target_modules = config.target_modules.sorted();
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
    let mut names: Vec<_> =
        fs::read_dir(to.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["README.md", "projector.safetensors"]);
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
fn beside_the_trained_tokenizer_no_other_one_stays() {
    let from = tempfile::tempdir().unwrap();
    copy_tree(&fixture("gqa"), from.path());
    let map = r#"{"eos_token": "<|endoftext|>"}"#;
    fs::write(from.path().join("qwen/special_tokens_map.json"), map).unwrap();
    let has_map =
        || export(from.path(), json!({ "format": "merged" })).path().join("special_tokens_map.json").exists();
    assert!(has_map(), "the tokenizer is the language model's own");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(fixture("gqa/qwen").join(name), from.path().join(name)).unwrap();
    }
    assert!(has_map(), "the same one beside it");
    let config = from.path().join("tokenizer_config.json");
    fs::write(&config, fs::read_to_string(&config).unwrap().replace("\"model_max_length\"", "\"longest\""))
        .unwrap();
    assert!(!has_map(), "another one was trained");
}

#[test]
fn a_model_whose_base_changed_is_not_exported() {
    let from = tempfile::tempdir().unwrap();
    copy_tree(&fixture("gqa"), from.path());
    let about = "qwen = \"qwen\"\nclip = \"clip\"\n[digests]\nqwen = \"0123\"\n";
    fs::write(from.path().join("model.toml"), about).unwrap();
    for format in ["llava", "merged", "peft", "projector"] {
        let stage: Export = serde_json::from_value(json!({ "format": format })).unwrap();
        let error = stage.export(from.path(), &from.path().join("out")).unwrap_err().to_string();
        assert!(error.contains("another one than the model"), "{format}: {error}");
    }
}

#[test]
fn every_format_is_called_the_same_in_a_manifest_and_on_the_command_line() {
    for format in Format::ALL {
        assert_eq!(serde_json::to_value(format).unwrap(), format.name());
        assert_eq!(format.name().parse(), Ok(format));
    }
    assert!("gguf".parse::<Format>().is_err());
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
    let by_name = format!("qwen = {:?}\nclip = {:?}\n", place("qwen"), place("clip"));
    // Towers that were too large to be copied: `towers.toml` says where they are.
    let by_towers = "qwen = \"qwen\"\nclip = \"clip\"\n".to_owned();
    for (about, towers) in [(&by_name, ""), (&by_towers, by_name.as_str())] {
        fs::write(from.path().join("model.toml"), about).unwrap();
        fs::write(from.path().join("towers.toml"), towers).unwrap();
        let to = export(from.path(), json!({ "format": "peft" }));
        let config: Value =
            serde_json::from_slice(&fs::read(to.path().join("adapter_config.json")).unwrap()).unwrap();
        assert_eq!(config["base_model_name_or_path"], place("qwen"));
        assert!(!to.path().join("base").exists());
    }
}

/// What `golden/make_exports.py` had transformers and PEFT compute with an export.
#[derive(Deserialize)]
struct Golden {
    prompt: Vec<u32>,
    images: usize,
    logits: Vec<f32>,
    greedy: Vec<u32>,
}

/// The patch states of the script's first `images` images.
fn golden_images(model: &Vlm, images: usize) -> Option<Tensor<3>> {
    let clip = model.clip.as_ref().unwrap();
    let image = |n: usize| (0..clip.config().pixels()).map(move |i| ((37 * i + 11 * n) % 251) as u8);
    let bytes: Vec<u8> = (0..images).flat_map(image).collect();
    (images > 0).then(|| clip.forward(clip.normalise(bytes, &PixelNorm::default())))
}

#[test]
fn every_format_computes_what_transformers_and_peft_computed_with_it() {
    let golden = fs::read_to_string(root("stages/tests/golden/exports.json")).unwrap();
    let golden: BTreeMap<String, Vec<Golden>> = serde_json::from_str(&golden).unwrap();
    assert_eq!(golden.len(), 3 * SHAPES.len());
    for (what, cases) in golden {
        let (name, format) = what.split_once(' ').unwrap();
        let from = fixture(name);
        let to = export(&from, json!({ "format": format }));
        let projector = to.path().join("projector.safetensors");
        let model = match format {
            "llava" => assistant(to.path()).model,
            "merged" => model(to.path(), None, &projector, &from.join("clip")),
            _ => model(&to.path().join("base"), Some(to.path()), &projector, &from.join("clip")),
        };
        for Golden { prompt, images, logits, greedy } in cases {
            let mask = TokenMask::full(1, prompt.len());
            let batch = Batch { input_ids: &prompt, mask: &mask, features: golden_images(&model, images) };
            let ours = model.logits_at(model.hidden(&batch).unwrap(), &[prompt.len() - 1]).into_data();
            let largest = logits.iter().fold(0.0, |largest: f32, logit| largest.max(logit.abs()));
            for (ours, theirs) in ours.iter::<f32>().zip(&logits) {
                assert!((ours - theirs).abs() <= 1e-4 * largest, "{what}: {ours} is not {theirs}");
            }
            let prompt = Prompt { ids: prompt, features: golden_images(&model, images) };
            let options =
                Options { max_new_tokens: greedy.len(), sampling: Sampling::default(), eos: Vec::new() };
            let ids =
                generate(&model, &[prompt], 0, &options, &mut |_, _| ControlFlow::Continue(())).unwrap();
            assert_eq!(ids, [greedy], "{what}");
        }
    }
}

fn assistant(folder: &Path) -> Assistant {
    let folder = ModelFolder::open(folder.to_str().unwrap()).unwrap();
    Assistant::load(&folder, &Device::flex(), Dtype::F32).unwrap()
}

/// The prompts of questions with up to two images, as token ids.
fn prompts(assistant: &Assistant) -> Vec<Vec<u32>> {
    let questions = ["What is it?", "这是什么？", "Compare <image> with <image>."];
    let asked = questions.iter().flat_map(|question| (0..=2).map(move |images| (question, images)));
    let prompt = |(question, images): (&&str, usize)| {
        let message = Message::new("user", question);
        assistant.processor.prompt(&[message], assistant.system.as_deref(), images).ok()
    };
    asked.filter_map(prompt).collect()
}

#[test]
fn a_llava_is_asked_and_answers_as_the_model_it_was() {
    for name in SHAPES {
        let from = fixture(name);
        let to = export(&from, json!({ "format": "llava" }));
        let (ours, mut theirs) = (assistant(&from), assistant(to.path()));
        assert_eq!(prompts(&ours).len(), 8, "one image for two placeholders is refused");
        assert_eq!(prompts(&theirs), prompts(&ours), "{name}");
        assert_eq!(theirs.processor.eos, ours.processor.eos);
        assert_eq!(theirs.processor.image, ours.processor.image);
        theirs.model.image_pad_id = PAD; // as the row below has it
        let (merged, expected) = (loss(&theirs.model), loss(&whole(&from)));
        assert!((merged - expected).abs() < 1e-5 * expected, "{name}: {merged} is not {expected}");
        assert!(!to.path().join("projector.safetensors").exists(), "the projector is in the weights");
    }
}

#[test]
fn a_llava_renders_conversations_as_its_model_was_trained_to() {
    let from = tempfile::tempdir().unwrap();
    copy_tree(&fixture("gqa"), from.path());
    for placement in ["append", "prepend"] {
        for enable_thinking in [false, true] {
            let own =
                format!("[processor]\nplacement = \"{placement}\"\nenable_thinking = {enable_thinking}\n");
            let about = format!("qwen = \"qwen\"\nclip = \"clip\"\nsystem = \"Be kind.\\n你好\"\n{own}");
            fs::write(from.path().join("model.toml"), about).unwrap();
            let to = export(from.path(), json!({ "format": "llava" }));
            let (ours, theirs) = (assistant(from.path()), assistant(to.path()));
            assert_eq!(prompts(&theirs), prompts(&ours), "{own}");
        }
    }
}

#[test]
fn a_whole_model_brings_what_is_needed_to_ask_it() {
    for (format, images) in [("llava", true), ("merged", false), ("peft", false)] {
        let to = export(&fixture("gqa"), json!({ "format": format }));
        for name in
            ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"]
        {
            assert!(to.path().join(name).is_file(), "{format} lacks {name}");
        }
        for name in ["preprocessor_config.json", "processor_config.json"] {
            assert_eq!(to.path().join(name).is_file(), images, "{format}: {name}");
        }
        let settings = fs::read(to.path().join("generation_config.json")).unwrap();
        let settings: Value = serde_json::from_slice(&settings).unwrap();
        assert_eq!(settings["eos_token_id"][0], 258, "{format}: the end that was trained comes first");
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
