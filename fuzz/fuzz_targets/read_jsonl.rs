#![no_main]
//! JSON lines: broken lines, odd conversations, odd image cells.

use libfuzzer_sys::fuzz_target;
use llavm_fuzz::read_all;
use serde_json::json;

fuzz_target!(|bytes: &[u8]| {
    read_all("jsonl", bytes, json!({"prompts": ["q"]}));
    read_all("jsonl", bytes, json!({"conversation": "messages"}));
    read_all("jsonl", bytes, json!({"conversation": "prompt-completion"}));
});
