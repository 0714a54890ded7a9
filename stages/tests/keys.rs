//! What of the parameters of real stages enters their keys.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use llavm_pipeline::Manifest;
use llavm_stages::registry;
use serde_json::Value;
use std::path::Path;

const TRAIN: &str = "kind = \"train\"\nfrom = \"shards\"\nqwen = \"${m}/qwen3\"\nclip = \"${m}/clip\"\ntrainable = [\"projector\"]";

/// The canonical parameters of the stage `x` on a device.
fn params(stage: &str, device: &str) -> Value {
    let towers = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/shapes-model");
    let text = format!(
        "[vars]\nm = \"{towers}\"\n[stages.rows]\nkind = \"shapes\"\nrows = 8\n\
         [stages.pixels]\nkind = \"decode-resize\"\nfrom = \"rows\"\nsize = 48\n\
         [stages.chat]\nkind = \"chat-template\"\nfrom = \"rows\"\ntokenizer = \"${{m}}/qwen3\"\n\
         [stages.pads]\nkind = \"image-pads\"\nfrom = \"chat\"\ncount = 9\nmissing = \"prepend\"\n\
         [stages.tokens]\nkind = \"tokenize\"\nfrom = \"pads\"\ntokenizer = \"${{m}}/qwen3\"\n\
         [stages.labels]\nkind = \"shift-labels\"\nfrom = \"tokens\"\n\
         [stages.shards]\nkind = \"shard\"\nfrom = [\"labels\", \"pixels\"]\nkeep = [\"messages\"]\n\
         [stages.model]\n{TRAIN}\n[stages.x]\n{stage}\ndevice = \"{device}\"\n"
    );
    let manifest = Manifest::read(text.as_bytes(), Path::new("m.toml"), &[], &registry());
    let graph = manifest.unwrap_or_else(|error| panic!("{error:?}")).graph;
    graph.nodes[graph.find("x").unwrap()].stage.params.clone()
}

#[test]
fn the_number_of_a_device_decides_nothing_and_its_kind_does() {
    let stages = [TRAIN, "kind = \"evaluate\"\nfrom = [\"model\", \"shards\"]"];
    for stage in stages {
        assert_eq!(params(stage, "cuda:0"), params(stage, "cuda:1"), "{stage}");
        assert_eq!(params(stage, "cuda:0"), params(stage, "cuda"), "{stage}");
        assert_ne!(params(stage, "cuda:0"), params(stage, "cpu"), "{stage}");
        assert_ne!(params(stage, "wgpu:cpu"), params(stage, "wgpu"), "{stage}");
    }
}
