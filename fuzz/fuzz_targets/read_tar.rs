#![no_main]
//! Webdataset tars.

use libfuzzer_sys::fuzz_target;
use llavm_fuzz::read_all;
use serde_json::json;

fuzz_target!(|bytes: &[u8]| {
    read_all("tar", bytes, json!({"columns": {"answer": "txt"}, "prompts": ["q"]}));
});
