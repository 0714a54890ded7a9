#![no_main]
//! JSON arrays, and JSON lines under that name.

use libfuzzer_sys::fuzz_target;
use llavm_fuzz::read_all;
use serde_json::json;

fuzz_target!(|bytes: &[u8]| {
    read_all("json", bytes, json!({"prompts": ["q"]}));
    read_all("json", bytes, json!({"conversation": "llava"}));
});
