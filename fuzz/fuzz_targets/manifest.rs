#![no_main]
//! Any bytes as a manifest: a graph or problems that can be drawn, the same both times.

use libfuzzer_sys::fuzz_target;
use llavm_pipeline::Manifest;
use std::path::Path;

fuzz_target!(|text: &[u8]| {
    let read = || {
        let registry = llavm_stages::registry();
        Manifest::read(text, Path::new("fuzz.toml"), &["raw=elsewhere".to_owned()], &registry)
            .map(|manifest| manifest.graph.nodes.len())
            .map_err(|error| format!("{error}: {:?}", error.problems()))
    };
    assert_eq!(read(), read());
});
