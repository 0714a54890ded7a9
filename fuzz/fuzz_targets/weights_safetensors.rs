#![no_main]
//! Weights as safetensors.

use libfuzzer_sys::fuzz_target;
use llavm_fuzz::weights::read_weights;

fuzz_target!(|bytes: &[u8]| {
    read_weights("model.safetensors", bytes);
});
