//! Images for people and for comparisons: small ones, and files of them. Nothing of it enters a model.

use super::{Buffers, Decoding, Rgb, Window, decode};
use crate::processor::image::{Alpha, Orientation};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

/// Larger images are not looked at.
const MAX_PIXELS: u64 = 100_000_000;

/// An image in memory of its own: width × height × 3 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Small {
    pub width: u32,
    pub height: u32,
    pub rgb: Vec<u8>,
}

/// The encoded image, upright and on white, in the size that `fit` gives for its own; `None` when it cannot be decoded.
pub fn thumbnail(encoded: &[u8], fit: impl FnOnce(u32, u32) -> (u32, u32)) -> Option<Small> {
    let decoding = Decoding { max_pixels: MAX_PIXELS, alpha: Alpha::White, orientation: Orientation::Exif };
    let mut buffers = Buffers::default();
    let image = decode(encoded, &decoding, Window::whole, &mut buffers).ok()?;
    let (width, height) = fit(image.width, image.height);
    resized(&image, width.max(1), height.max(1))
}

fn resized(image: &Rgb<'_>, width: u32, height: u32) -> Option<Small> {
    let from = ImageRef::new(image.width, image.height, image.pixels, PixelType::U8x3).ok()?;
    let mut to = Image::new(width, height, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new().resize(&from, &mut to, &options).ok()?;
    Some(Small { width, height, rgb: to.into_vec() })
}

/// The size of an image whose longer side is at most `side`.
pub fn fit_into(side: u32, width: u32, height: u32) -> (u32, u32) {
    let scale = (f64::from(side) / f64::from(width.max(height))).min(1.0);
    let scaled = |length: u32| ((f64::from(length) * scale).round() as u32).max(1);
    (scaled(width), scaled(height))
}

/// RGB as a JPEG file.
pub fn to_jpeg(rgb: &[u8], (width, height): (u32, u32), quality: u8) -> Option<Vec<u8>> {
    let mut file = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut file, quality);
    is_whole(rgb, width, height)
        .then(|| encoder.write_image(rgb, width, height, ExtendedColorType::Rgb8).ok())
        .flatten()?;
    Some(file)
}

/// RGB as a PNG file.
pub fn to_png(rgb: &[u8], (width, height): (u32, u32)) -> Option<Vec<u8>> {
    let mut file = Vec::new();
    let encoder = PngEncoder::new(&mut file);
    is_whole(rgb, width, height)
        .then(|| encoder.write_image(rgb, width, height, ExtendedColorType::Rgb8).ok())
        .flatten()?;
    Some(file)
}

/// The encoders panic on less.
fn is_whole(rgb: &[u8], width: u32, height: u32) -> bool {
    rgb.len() == 3 * width as usize * height as usize
}
