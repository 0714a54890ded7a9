//! What is written is what was read, tensor by tensor, in the layout of transformers and PEFT; what does not fit is
//! refused. The fixtures were written by transformers and PEFT (`fixtures/make_fixtures.py`).

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use llavm_model::config::Dtype;
use llavm_model::folder::{Description, ModelFolder};
use llavm_model::load;
use llavm_model::lora::TargetModules;
use llavm_model::peft;
use llavm_model::save::{self, Parts};
use llavm_model::vlm::Vlm;
use llavm_model::weights::Checkpoint;
use safetensors::SafeTensors;
use serde_json::Value;

const SHAPES: [&str; 3] = ["gqa", "untied", "biased"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn load_parts(folder: &Path, dtype: Dtype) -> Vlm {
    let device = Device::flex();
    let clip = load::clip(&folder.join("clip"), &device, dtype).unwrap();
    let mut qwen = load::qwen3(&folder.join("qwen"), &device, dtype).unwrap();
    let (vision, hidden) = (clip.config().hidden_size, qwen.config().hidden_size);
    let file = folder.join("projector.safetensors");
    let projector = load::projector(&file, vision, hidden, &device, dtype).unwrap();
    load::adapter(&mut qwen, &folder.join("qwen"), &folder.join("adapter"), &device, dtype).unwrap();
    Vlm::new(Some(clip), projector, qwen, 282)
}

fn resave(name: &str, target: &Path, dtype: Dtype) {
    let source = fixture(name);
    let mut model = load_parts(&source, Dtype::F32);
    let mut description = ModelFolder::open(source.to_str().unwrap()).unwrap().description;
    description.dtype = dtype;
    let parts = Parts {
        lora: Some(peft::read_config(&source.join("adapter")).unwrap()),
        qwen: Some(Some(source.join("qwen"))),
        clip: Some(Some(source.join("clip"))),
    };
    save::model_folder(target, &mut model, description, &parts).unwrap();
}

type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

/// Every tensor of a folder or file, with its shape.
fn tensors(place: &Path) -> Tensors {
    let checkpoint =
        if place.is_dir() { Checkpoint::open(place) } else { Checkpoint::open_file(place) }.unwrap();
    let floats = checkpoint.keys().filter(|key| checkpoint.stored(key).unwrap().width().is_some());
    let read = |key: &str| checkpoint.read(key, DType::F32).unwrap().unwrap().iter::<f32>().collect();
    floats.map(|key| (key.to_owned(), checkpoint.shape(key).unwrap().to_vec(), read(key))).collect()
}

/// The tensors of a vision tower, by keys without the prefix that transformers 5 leaves out.
fn tower(place: &Path) -> Tensors {
    let all = tensors(place);
    let whole = all.iter().any(|(key, ..)| key.starts_with("vision_model."));
    let own = all.into_iter().filter(|(key, ..)| !whole || key.starts_with("vision_model."));
    own.map(|(key, shape, values)| (key.trim_start_matches("vision_model.").to_owned(), shape, values))
        .collect()
}

#[test]
fn a_saved_model_holds_the_tensors_it_was_loaded_from() {
    for name in SHAPES {
        let (source, parent) = (fixture(name), tempfile::tempdir().unwrap());
        let target = parent.path().join("saved");
        resave(name, &target, Dtype::F32);
        for part in ["qwen", "projector.safetensors", "adapter/adapter_model.safetensors"] {
            assert!(tensors(&source.join(part)) == tensors(&target.join(part)), "{name} {part}");
        }
        assert!(tower(&source.join("clip")) == tower(&target.join("clip")), "{name} clip");
        load_parts(&target, Dtype::F32);
    }
}

#[test]
fn files_carry_what_transformers_asks_for() {
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("saved");
    resave("gqa", &target, Dtype::Bf16);
    let bytes = fs::read(target.join("qwen/model.safetensors")).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert!(file.tensors().iter().all(|(_, view)| view.dtype() == safetensors::Dtype::BF16));

    let read = |path: PathBuf| -> Value { serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap() };
    let mut config = read(target.join("qwen/config.json"));
    let mut origin = read(fixture("gqa").join("qwen/config.json"));
    // Transformers 4 reads these two, 5 their successors.
    assert_eq!(config["rope_theta"].take(), origin["rope_parameters"]["rope_theta"]);
    for dtype in ["dtype", "torch_dtype"] {
        assert_eq!(config[dtype].take(), "bfloat16");
    }
    for field in ["dtype", "torch_dtype", "rope_theta"] {
        origin[field].take();
    }
    assert_eq!(config, origin);
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        let (ours, theirs) =
            (fs::read(target.join("qwen").join(name)), fs::read(fixture("gqa").join("qwen").join(name)));
        assert_eq!(ours.unwrap(), theirs.unwrap(), "{name}");
    }
    let description = ModelFolder::open(target.to_str().unwrap()).unwrap().description;
    assert_eq!(
        (description.qwen.as_str(), description.clip.as_str(), description.dtype),
        ("qwen", "clip", Dtype::Bf16)
    );
}

#[test]
fn an_adapter_configuration_has_every_field_that_peft_writes() {
    for name in SHAPES {
        let folder = fixture(name).join("adapter");
        let mut theirs: Value =
            serde_json::from_str(&fs::read_to_string(folder.join(peft::CONFIG)).unwrap()).unwrap();
        let config = peft::read_config(&folder).unwrap();
        let base = peft::BaseModel::of("hub:Qwen/Qwen3-0.6B@v1.0");
        let mut ours: Value = serde_json::from_str(&peft::config_json(&config, &base)).unwrap();
        assert_eq!(
            (&ours["base_model_name_or_path"], &ours["revision"]),
            (&"Qwen/Qwen3-0.6B".into(), &"v1.0".into())
        );
        theirs["revision"] = "v1.0".into();
        for value in [&mut ours, &mut theirs] {
            value["base_model_name_or_path"].take();
            let mut names: Vec<String> = serde_json::from_value(value["target_modules"].take()).unwrap();
            names.sort(); // PEFT writes a set
            value["target_modules"] = names.into();
        }
        assert_eq!(ours, theirs, "{name}");
    }
}

#[test]
fn an_adapter_that_is_more_than_plain_lora_is_refused_by_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(fixture("gqa").join("adapter").join(peft::CONFIG)).unwrap();
    let refusal = |field: &str, value: &str| {
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config[field] = serde_json::from_str(value).unwrap();
        fs::write(folder.path().join(peft::CONFIG), config.to_string()).unwrap();
        let error = peft::read_config(folder.path()).unwrap_err().to_string();
        error.replace(folder.path().to_str().unwrap(), "/a")
    };
    insta::assert_snapshot!(refusal("use_dora", "true"), @"/a/adapter_config.json: LoRA: use_dora = true: only plain LoRA on linears is supported");
    insta::assert_snapshot!(refusal("modules_to_save", r#"["lm_head"]"#), @r#"/a/adapter_config.json: LoRA: modules_to_save = ["lm_head"]: replacing other weights is not supported"#);
    insta::assert_snapshot!(refusal("trainable_token_indices", "[1, 2]"), @"/a/adapter_config.json: LoRA: trainable_token_indices = [1,2]: replacing other weights is not supported");
    insta::assert_snapshot!(refusal("peft_type", r#""IA3""#), @r#"/a/adapter_config.json: LoRA: peft_type = "IA3": only LORA adapters are supported"#);
    insta::assert_snapshot!(refusal("task_type", r#""SEQ_CLS""#), @r#"/a/adapter_config.json: LoRA: task_type = "SEQ_CLS": only CAUSAL_LM adapters are supported"#);
    insta::assert_snapshot!(refusal("bias", r#""all""#), @r#"/a/adapter_config.json: LoRA: bias = "all": only "none" is supported"#);
    insta::assert_snapshot!(refusal("init_lora_weights", r#""pissa""#), @r#"/a/adapter_config.json: LoRA: init_lora_weights = "pissa": it changes the base model's weights, which is not supported"#);
    insta::assert_snapshot!(refusal("layers_pattern", r#""blocks""#), @r#"/a/adapter_config.json: LoRA: layers_pattern = "blocks": the layers of Qwen3 are called `layers`"#);
    insta::assert_snapshot!(refusal("some_setting_of_peft_2", "3"), @"/a/adapter_config.json: LoRA: some_setting_of_peft_2 = 3: this version does not know the field; if it changes nothing that the model computes, take it out");
    let error = refusal("rank_pattern", r#"{"q_proj": "four"}"#);
    assert!(error.contains("invalid type: string \"four\", expected usize"), "{error}");
}

/// What PEFT 0.21.2 reads from the same file.
#[test]
fn a_setting_that_is_left_out_has_pefts_default() {
    let folder = tempfile::tempdir().unwrap();
    let read = |text: &str| {
        fs::write(folder.path().join(peft::CONFIG), text).unwrap();
        peft::read_config(folder.path()).unwrap()
    };
    let config = read(r#"{"peft_type": "LORA", "target_modules": null, "fan_in_fan_out": true}"#);
    assert_eq!((config.r, config.lora_alpha as u64, config.lora_dropout as u64), (8, 8, 0));
    assert_eq!(config.target_modules, TargetModules::names(&["q_proj", "v_proj"]));
    assert_eq!(
        read(r#"{"target_modules": "all-linear"}"#).target_modules,
        TargetModules::Pattern("all-linear".into())
    );
}

#[test]
fn an_adapter_without_tensors_or_of_other_weights_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let base = fixture("gqa").join("qwen");
    let source = fixture("gqa").join("adapter");
    fs::copy(source.join(peft::CONFIG), folder.path().join(peft::CONFIG)).unwrap();
    let refusal = |tensors: &[&str]| {
        let data = [0_u8; 4];
        let view = || safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &data).unwrap();
        let file = safetensors::serialize(tensors.iter().map(|name| (*name, view())), None).unwrap();
        fs::write(folder.path().join(peft::WEIGHTS), file).unwrap();
        let mut qwen = load::qwen3(&base, &Device::flex(), Dtype::F32).unwrap();
        let error = load::adapter(&mut qwen, &base, folder.path(), &Device::flex(), Dtype::F32).unwrap_err();
        error.to_string().replace(folder.path().to_str().unwrap(), "/a")
    };
    insta::assert_snapshot!(refusal(&[]), @"/a: the adapter holds no tensors.");
    insta::assert_snapshot!(refusal(&["base_model.model.lm_head.lora_A.weight"]), @"/a: the adapter changes `lm_head`, which is not supported: only the linears of the layers may be adapted.");
    insta::assert_snapshot!(refusal(&["base_model.model.model.embed_tokens.weight"]), @"/a: the adapter replaces `model.embed_tokens.weight`, which is not supported: it must be LoRA alone.");
}

/// Transformers 5 warns and does not tie; transformers 4 would have used the embedding.
#[test]
fn a_head_of_its_own_is_not_tied_whatever_the_configuration_says() {
    let parent = tempfile::tempdir().unwrap();
    let source = fixture("untied").join("qwen");
    let qwen = |tied: bool, head: Option<&str>| {
        let folder = parent.path().join("qwen");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let device = Device::flex();
        let mut model = load::qwen3(&source, &device, Dtype::F32).unwrap();
        if head == Some("embedding") {
            model.lm_head = Some(model.embed_tokens.clone());
        }
        save::qwen3(&mut model, &folder, Dtype::F32, Some(&source)).unwrap();
        let path = folder.join("config.json");
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        config["tie_word_embeddings"] = tied.into();
        fs::write(&path, config.to_string()).unwrap();
        load::qwen3(&folder, &device, Dtype::F32).unwrap()
    };
    assert!(qwen(true, None).lm_head.is_some(), "other values");
    assert!(qwen(true, Some("embedding")).lm_head.is_none(), "equal values");
    assert!(qwen(false, None).lm_head.is_some(), "not tied");

    let mut untied = qwen(true, None);
    let again = parent.path().join("again");
    fs::create_dir(&again).unwrap();
    save::qwen3(&mut untied, &again, Dtype::F32, Some(&parent.path().join("qwen"))).unwrap();
    let config: Value =
        serde_json::from_str(&fs::read_to_string(again.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["tie_word_embeddings"], false, "what is written says what it is");
}

#[test]
fn weights_that_do_not_fit_their_configuration_are_listed_in_one_error() {
    let folder = tempfile::tempdir().unwrap();
    let source = fixture("gqa").join("qwen");
    for name in ["model.safetensors", "config.json"] {
        fs::copy(source.join(name), folder.path().join(name)).unwrap();
    }
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config["num_key_value_heads"] = 3.into();
    config["tie_word_embeddings"] = false.into();
    config["num_hidden_layers"] = 2.into();
    fs::write(&path, config.to_string()).unwrap();
    let error = load::qwen3(folder.path(), &Device::flex(), Dtype::F32).unwrap_err().to_string();
    insta::assert_snapshot!(error.replace(folder.path().to_str().unwrap(), "/m"), @r#"
/m: the weights do not fit the configuration.
  missing      lm_head.weight [304, 48]
  wrong shape  model.layers.0.self_attn.k_proj.weight is [32, 48], the configuration asks for [48, 48]
  wrong shape  model.layers.0.self_attn.v_proj.weight is [32, 48], the configuration asks for [48, 48]
  wrong shape  model.layers.1.self_attn.k_proj.weight is [32, 48], the configuration asks for [48, 48]
  wrong shape  model.layers.1.self_attn.v_proj.weight is [32, 48], the configuration asks for [48, 48]
  unknown      model.layers.2.input_layernorm.weight [48]
  unknown      model.layers.2.mlp.down_proj.weight [48, 80]
  unknown      model.layers.2.mlp.gate_proj.weight [80, 48]
  unknown      model.layers.2.mlp.up_proj.weight [80, 48]
  unknown      model.layers.2.post_attention_layernorm.weight [48]
  unknown      model.layers.2.self_attn.k_norm.weight [16]
  unknown      model.layers.2.self_attn.k_proj.weight [32, 48]
  unknown      model.layers.2.self_attn.o_proj.weight [48, 96]
  unknown      model.layers.2.self_attn.q_norm.weight [16]
  unknown      model.layers.2.self_attn.q_proj.weight [96, 48]
  unknown      model.layers.2.self_attn.v_proj.weight [32, 48]
1 missing, 4 misshaped, 11 unknown, 0 unusable. Do the configuration and the weights belong to the same model?
"#);
}

#[test]
fn an_adapter_of_another_base_is_refused_as_such() {
    let device = Device::flex();
    let base = fixture("untied").join("qwen");
    let mut qwen = load::qwen3(&base, &device, Dtype::F32).unwrap();
    let adapter = fixture("biased").join("adapter");
    let error = load::adapter(&mut qwen, &base, &adapter, &device, Dtype::F32).unwrap_err().to_string();
    let error = error.replace(fixture("").to_str().unwrap(), "/");
    let (first, rest) = error.split_once('\n').unwrap();
    insta::assert_snapshot!(first, @"the adapter in /biased/adapter belongs to another base model than /untied/qwen.");
    assert!(
        rest.contains(
            "model.layers.0.self_attn.q_proj.lora_A.weight is [8, 96], the configuration asks for [8, 64]"
        ),
        "{rest}"
    );
}

#[test]
fn the_end_tokens_are_those_of_the_generation_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let eos = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).unwrap();
        load::eos_ids(folder.path())
    };
    assert_eq!(eos("config.json", "{}").unwrap(), Vec::<u32>::new());
    assert_eq!(eos("config.json", r#"{"eos_token_id": 7}"#).unwrap(), [7]);
    assert_eq!(eos("generation_config.json", r#"{"eos_token_id": null}"#).unwrap(), [7]);
    assert_eq!(
        eos("generation_config.json", r#"{"eos_token_id": [151645, 151643]}"#).unwrap(),
        [151_645, 151_643]
    );
    assert!(eos("generation_config.json", r#"{"eos_token_id": "x"}"#).is_err());
}

#[test]
fn a_description_with_another_number_of_pads_is_refused() {
    let text = "qwen = \"q\"\nclip = \"c\"\nimage_pad_num = 49\n";
    assert_eq!(Description::from_toml(text).unwrap().image_pad_num, Some(49));
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("saved");
    resave("gqa", &target, Dtype::F32);
    let path = target.join("model.toml");
    let text = fs::read_to_string(&path).unwrap().replace("image_pad_num = 9", "image_pad_num = 49");
    fs::write(&path, text).unwrap();
    let folder = ModelFolder::open(target.to_str().unwrap()).unwrap();
    let error =
        llavm_model::generate::assistant::Assistant::load(&folder, &Device::flex(), Dtype::F32).unwrap_err();
    let error = error.to_string();
    assert!(
        error.ends_with("image_pad_num = 49, but the vision tower makes 9 patches of an image."),
        "{error}"
    );
}

/// The fixtures with their adapters merged, written as a LLaVA and read back through its own folder.
#[test]
fn a_llava_holds_the_model_that_was_written() {
    for name in SHAPES {
        let (source, parent) = (fixture(name), tempfile::tempdir().unwrap());
        let mut model = load_parts(&source, Dtype::F32);
        model.qwen.merge_lora();
        let folder = parent.path();
        save::llava(&mut model, folder, Dtype::F32, Some(&source.join("qwen"))).unwrap();

        let device = Device::flex();
        let config = load::llava_config(folder).unwrap().unwrap();
        assert_eq!((config.image_token_id, &config.text), (282, model.qwen.config()), "{name}");
        let mut qwen = load::qwen3(folder, &device, Dtype::F32).unwrap();
        let mut clip = load::clip(folder, &device, Dtype::F32).unwrap();
        let (vision, hidden) = (clip.config().hidden_size, qwen.config().hidden_size);
        let mut projector = load::projector(folder, vision, hidden, &device, Dtype::F32).unwrap();
        let again = parent.path().join("again");
        for (part, write) in [("qwen", true), ("clip", false)] {
            let (ours, theirs) = (again.join(part), again.join(format!("{part}-merged")));
            fs::create_dir_all(&ours).unwrap();
            fs::create_dir_all(&theirs).unwrap();
            if write {
                save::qwen3(&mut qwen, &ours, Dtype::F32, None).unwrap();
                save::qwen3(&mut model.qwen, &theirs, Dtype::F32, None).unwrap();
            } else {
                save::clip(&mut clip, &ours, Dtype::F32, None).unwrap();
                save::clip(model.clip.as_mut().unwrap(), &theirs, Dtype::F32, None).unwrap();
            }
            assert!(tensors(&ours) == tensors(&theirs), "{name} {part}");
        }
        save::projector(&mut projector, &again.join("projector.safetensors"), Dtype::F32).unwrap();
        assert!(
            tensors(&again.join("projector.safetensors")) == tensors(&source.join("projector.safetensors"))
        );
    }
}

/// The keys and shapes of a LLaVA that transformers wrote, but for the vision tower's old name, which all of them read.
#[test]
fn a_llava_is_written_with_the_keys_of_transformers() {
    let (saved, parent) = (fixture("llava/saved"), tempfile::tempdir().unwrap());
    let device = Device::flex();
    let qwen = load::qwen3(&saved, &device, Dtype::F32).unwrap();
    let clip = load::clip(&saved, &device, Dtype::F32).unwrap();
    let (vision, hidden) = (clip.config().hidden_size, qwen.config().hidden_size);
    let projector = load::projector(&saved, vision, hidden, &device, Dtype::F32).unwrap();
    let mut model = Vlm::new(Some(clip), projector, qwen, 268);
    save::llava(&mut model, parent.path(), Dtype::F32, Some(&saved)).unwrap();
    let old_name = |(key, shape, values): (String, Vec<usize>, Vec<f32>)| {
        (key.replace("vision_tower.vision_model.", "vision_tower."), shape, values)
    };
    let ours: Tensors = tensors(parent.path()).into_iter().map(old_name).collect();
    assert!(ours == tensors(&saved));
    let config = |folder: &Path| -> Value {
        serde_json::from_str(&fs::read_to_string(folder.join("config.json")).unwrap()).unwrap()
    };
    let (ours, theirs) = (config(parent.path()), config(&saved));
    for (field, value) in theirs.as_object().unwrap() {
        if let Some(inner) = value.as_object() {
            let unread = ["projection_dim", "initializer_factor"]; // of a tower: transformers fills them in
            for (name, value) in inner.iter().filter(|(name, _)| !unread.contains(&name.as_str())) {
                assert_eq!(&ours[field][name], value, "{field}.{name}");
            }
        } else if field != "transformers_version" {
            assert_eq!(&ours[field], value, "{field}");
        }
    }
    assert_eq!(
        ours["text_config"]["architectures"],
        serde_json::json!(["Qwen3ForCausalLM"]),
        "vLLM asks for it"
    );
    let version = serde_json::json!("4.51.0");
    assert_eq!(
        (&ours["transformers_version"], &ours["text_config"]["transformers_version"]),
        (&version, &version)
    );
}
