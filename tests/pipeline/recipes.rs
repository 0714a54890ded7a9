//! The full recipe, dry: its manifests with the sample data in place of the large sets, and towers of the right sizes without
//! their weights.

use crate::project::{Project, text};
use std::fs;

/// `config.json` of Qwen/Qwen3-0.6B, the part that decides sizes.
const QWEN: &str = r#"{
  "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024,
  "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
  "head_dim": 128, "max_position_embeddings": 40960, "rms_norm_eps": 1e-06, "rope_theta": 1000000,
  "attention_bias": false, "tie_word_embeddings": true, "torch_dtype": "bfloat16"
}"#;

/// `config.json` of openai/clip-vit-base-patch32, the part that is read; what is left out has these sizes.
const CLIP: &str = r#"{ "model_type": "clip", "vision_config": { "model_type": "clip_vision_model" } }"#;

/// What `--set` puts in place of what would be downloaded.
const SETS: [&str; 10] = [
    "--set",
    "raw=data/cc3m",
    "--set",
    "talk=data/instruct",
    "--set",
    "qwen=qwen",
    "--set",
    "clip=clip",
    "--set",
    "device=cpu",
];

fn project() -> Project {
    let project = Project::with(&[
        "data/cc3m",
        "data/instruct",
        "manifests/cc3m-align.toml",
        "manifests/instruct-lora.toml",
    ]);
    let tokenizer = crate::project::repository().join("data/qwen3-tokenizer");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        project.write(&format!("qwen/{name}"), fs::read(tokenizer.join(name)).unwrap());
    }
    for (folder, config) in [("qwen", QWEN), ("clip", CLIP)] {
        project.write(&format!("{folder}/config.json"), config);
        // A safetensors file without tensors: nothing reads weights before a run.
        project.write(&format!("{folder}/model.safetensors"), b"\x02\0\0\0\0\0\0\0{}");
    }
    project
}

/// The estimates of `run --dry-run`.
fn estimates(project: &Project, manifest: &str) -> String {
    let sets: Vec<&str> = SETS
        .chunks(2)
        .filter(|set| manifest.contains("instruct") || !set[1].starts_with("talk"))
        .flatten()
        .copied()
        .collect();
    let output = project.llavm(&[&["run", manifest, "--dry-run"], &sets[..]].concat());
    assert!(output.status.success(), "{}", text(&output));
    let reported = text(&output);
    let (_, estimates) = reported.split_once("\n\n").unwrap();
    estimates.to_owned()
}

#[test]
fn a_dry_run_of_the_recipe_tells_disk_memory_and_steps() {
    let project = project();
    insta::assert_snapshot!(estimates(&project, "manifests/cc3m-align.toml"), @r"
    about     rows       disk   memory  steps
    chat       320  125.0 KiB
    pads       320  312.5 KiB
    pixels     320
    features   320   23.0 MiB
    tokens     320  140.6 KiB
    labels     320  250.0 KiB
    shards     304  375.0 KiB
    align      304   70.1 MiB  2.4 GiB     10
    in all           94.2 MiB

    nothing was run (--dry-run)
    ");
    insta::assert_snapshot!(estimates(&project, "manifests/instruct-lora.toml"), @r"
    about          rows       disk   memory  steps
    chat            320  125.0 KiB
    pads            320  312.5 KiB
    pixels          320
    features        320   23.0 MiB
    talk-chat       128   50.0 KiB
    talk-pads       128  125.0 KiB
    talk-pixels     128
    talk-features   128    9.2 MiB
    talk-tokens     128   56.2 KiB
    talk-labels     128  100.0 KiB
    talk-shards     122  150.0 KiB
    tokens          320  140.6 KiB
    labels          320  250.0 KiB
    shards          304  375.0 KiB
    align           304   70.1 MiB  2.4 GiB     10
    talk            122  153.2 MiB  2.1 GiB      4
    in all               257.1 MiB

    nothing was run (--dry-run)
    ");
}

#[test]
fn the_first_stage_is_the_same_in_both_manifests() {
    let project = project();
    let (align, both) =
        (project.read("manifests/cc3m-align.toml"), project.read("manifests/instruct-lora.toml"));
    let (_, stages) = align.split_at(align.find("[stages.rows]").unwrap());
    assert!(both.contains(stages));
}
