#![no_main]
//! Parquet: footers, pages, nested columns.

use libfuzzer_sys::fuzz_target;
use llavm_fuzz::read_all;
use serde_json::json;

// The reader catches panics of the decoder; the default hook of libFuzzer would abort before it can.
fuzz_target!(init: std::panic::set_hook(Box::new(|_| {})), |bytes: &[u8]| {
    read_all("parquet", bytes, json!({"columns": {"prompt": "input", "answer": "output"}}));
    read_all("parquet", bytes, json!({"conversation": "messages"}));
});
