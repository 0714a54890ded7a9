#![no_main]
//! Any bytes as an image: a square of the right size or a reason, the same both times.

use libfuzzer_sys::fuzz_target;
use llavm_model::processor::image::{Crop, ImageProcessor};

// The codecs catch panics of the decoders; the default hook of libFuzzer would abort before it can.
fuzz_target!(init: std::panic::set_hook(Box::new(|_| {})), |bytes: &[u8]| {
    let crop = if bytes.len().is_multiple_of(2) { Crop::Center } else { Crop::Pad };
    let processor = ImageProcessor { max_pixels: 1 << 20, size: 32, crop, ..ImageProcessor::default() };
    let pixels = processor.prepare(bytes);
    assert_eq!(pixels, processor.prepare(bytes));
    match pixels {
        Ok(pixels) => assert_eq!(pixels.len(), processor.n_bytes()),
        Err(error) => {
            assert!(matches!(error.code, "undecodable" | "unsupported" | "too-large") && !error.detail.is_empty());
        }
    }
});
