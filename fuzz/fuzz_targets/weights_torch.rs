#![no_main]
//! Weights of `torch.save`, zip and pickle; `model/tests/fixtures/weights` holds seeds.

use libfuzzer_sys::fuzz_target;
use llavm_fuzz::weights::read_weights;

fuzz_target!(|bytes: &[u8]| {
    read_weights("pytorch_model.bin", bytes);
});
