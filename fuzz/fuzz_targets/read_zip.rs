#![no_main]
//! Zips of images.

use libfuzzer_sys::fuzz_target;
use llavm_fuzz::read_with_zip;

fuzz_target!(|bytes: &[u8]| {
    read_with_zip(bytes);
});
