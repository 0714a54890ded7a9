//! Odd images against Pillow and Transformers: `images/make_images.py` writes them and the squares that Python makes of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use llavm_model::processor::image::{Alpha, Crop, ImageProcessor, Orientation};
use std::path::{Path, PathBuf};

/// What the script calls the squares.
const VARIANTS: [&str; 6] = ["white", "drop", "upright", "pad", "none", "resize-to"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images")
}

fn processor() -> ImageProcessor {
    ImageProcessor { size: 48, ..ImageProcessor::default() }
}

/// The encoded images.
fn names() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let is_square = |name: &String| VARIANTS.iter().any(|variant| name.ends_with(&format!(".{variant}.png")));
    let mut names: Vec<String> = names.filter(|name| !is_square(name) && *name != "make_images.py").collect();
    names.sort();
    names
}

/// Python's square, channels first; that of `white` where the script found no difference.
fn expected(name: &str, variant: &str) -> Vec<u8> {
    let path = |variant: &str| folder().join(format!("{name}.{variant}.png"));
    let own = path(variant);
    let square = image::open(if own.is_file() { own } else { path("white") }).unwrap().to_rgb8();
    let channel = |channel: usize| square.pixels().map(move |pixel| pixel.0[channel]);
    (0..3).flat_map(channel).collect()
}

/// Most grey levels between ours and Python's.
fn apart(name: &str, variant: &str, processor: &ImageProcessor) -> u8 {
    let encoded = std::fs::read(folder().join(name)).unwrap();
    let ours = processor.prepare(&encoded).unwrap_or_else(|error| panic!("{name}: {error}"));
    let theirs = expected(name, variant);
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(&theirs).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn every_odd_image_is_transformers_and_pillows_to_the_bit() {
    let (stored, exif) = (Orientation::Stored, Orientation::Exif);
    let ways =
        [("white", Alpha::White, stored), ("drop", Alpha::Drop, stored), ("upright", Alpha::White, exif)];
    let names = names();
    assert_eq!(names.len(), 53);
    // hayro-jpeg2000 reconstructs what a lossy file leaves out in another way than OpenJPEG.
    for name in names.iter().filter(|name| *name != "lossy.jp2") {
        for (variant, alpha, orientation) in ways {
            let processor = ImageProcessor { alpha, orientation, ..processor() };
            assert_eq!(apart(name, variant, &processor), 0, "{name} ({variant})");
        }
    }
    assert!(apart("lossy.jp2", "white", &processor()) <= 10);
}

#[test]
fn padding_squeezing_and_another_size_before_the_crop_are_transformers_to_the_bit() {
    for (variant, processor) in [
        ("pad", ImageProcessor { crop: Crop::Pad, ..processor() }),
        ("none", ImageProcessor { crop: Crop::None, ..processor() }),
        ("resize-to", ImageProcessor { resize_to: Some(60), ..processor() }),
    ] {
        assert_eq!(apart("photo.png", variant, &processor), 0, "{variant}");
    }
}

/// A JPEG of one progressive scan, repeated.
fn many_scans(scans: usize, side: u16) -> Vec<u8> {
    let mut jpeg = b"\xFF\xD8\xFF\xDB\x00\x43\x00".to_vec();
    jpeg.extend([1; 64]);
    let [high, low] = side.to_be_bytes();
    jpeg.extend([0xFF, 0xC2, 0, 11, 8, high, low, high, low, 1, 1, 0x11, 0]);
    // One code of one bit for the number 0.
    jpeg.extend([0xFF, 0xC4, 0, 20, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for _ in 0..scans {
        jpeg.extend([0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 0, 0, 0]);
    }
    jpeg.extend([0xFF, 0xD9]);
    jpeg
}

#[test]
fn a_small_file_of_many_scans_of_a_huge_image_is_refused_before_it_is_decoded() {
    let refused = |scans, side| processor().prepare(&many_scans(scans, side)).unwrap_err();
    let error = refused(400, 13_000);
    assert_eq!(error.code, "too-large", "{error}");
    assert!(error.detail.contains("400 scans of 13000 × 13000 pixels"), "{error}");
    assert_eq!(refused(600, 8).code, "too-large");
}

#[test]
fn the_usual_ten_scans_of_the_largest_image_that_is_allowed_are_decoded() {
    let progressive = folder().join("../../../stages/tests/pillow/jpeg-progressive.jpg");
    let progressive = std::fs::read(progressive).unwrap();
    let allowed = |max_pixels| ImageProcessor { max_pixels, ..processor() }.prepare(&progressive);
    assert!(allowed(200 * 300).is_ok());
    assert_eq!(allowed(200 * 300 - 1).unwrap_err().code, "too-large");
}
