#![no_main]
//! CSV and TSV, with and without a header.

use libfuzzer_sys::fuzz_target;
use llavm_fuzz::read_all;
use serde_json::json;

fuzz_target!(|bytes: &[u8]| {
    for extension in ["csv", "tsv"] {
        read_all(extension, bytes, json!({"header": true}));
        let columns = json!({"answer": "column_1"});
        read_all(extension, bytes, json!({"header": false, "prompts": ["q"], "columns": columns, "where": "column_1 <> 'x'"}));
    }
});
