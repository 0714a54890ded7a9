#![no_main]
//! Any bytes as a picture: a square of the right size or a reason, the same both times.

use libfuzzer_sys::fuzz_target;
use llavm_stages::decode_resize::DecodeResize;

// The stage catches panics of the decoders; the default hook of libFuzzer would abort before it can.
fuzz_target!(init: std::panic::set_hook(Box::new(|_| {})), |bytes: &[u8]| {
    let stage = DecodeResize { max_pixels: 1 << 20, size: 32, ..DecodeResize::default() };
    let pixels = stage.pixels(bytes);
    assert_eq!(pixels, stage.pixels(bytes));
    match pixels {
        Ok(pixels) => assert_eq!(pixels.len(), stage.n_bytes()),
        Err((code, detail)) => assert!(matches!(code, "undecodable" | "too-large") && !detail.is_empty()),
    }
});
