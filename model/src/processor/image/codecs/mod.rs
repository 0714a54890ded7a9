//! Codecs: every question about encoded images is answered here.
//!
//! | question | function |
//! |---|---|
//! | its pixels, as Pillow's `Image.open(…).convert("RGB")` or Transformers' `convert_to_rgb` gives them | [`decode`] |
//! | its size, its orientation | [`size`], [`orientation`]; what kind of file it is: [`crate::magic`] |
//! | a small one to look at, or to compare | [`thumbnail`] |
//! | the bytes of a file | [`to_png`], [`to_jpeg`] |
//!
//! | format | decoder | like Pillow |
//! |---|---|---|
//! | JPEG | `libjpeg-turbo-rs` ([`jpeg`] says why) | to the bit; chroma-subsampled CMYK: up to 3 levels off |
//! | PNG | `png` | to the bit, with its treatment of 16 bits and of transparent colours |
//! | GIF | `gif` | to the bit: the first frame on its canvas |
//! | WebP | `image-webp` | to the bit: the first frame on its canvas |
//! | BMP | `image`; 16 bits a pixel our own | to the bit |
//! | TIFF | `image` | to the bit where Pillow reads 8 or 16 bits a sample; the file's orientation is always applied |
//! | JPEG 2000 | `hayro-jpeg2000` | to the bit when lossless, otherwise within 1 level |
//! | AVIF, HEIC, JPEG XL and others | none kept, safe, free of C and of AGPL | rejected by name, with what to do |
//!
//! Of a JPEG only those pixels are decoded that the square is made of ([`Window`]); the others are not looked at. Colour profiles are not applied. 16-bit grey is clipped to 255 (Pillow's I;16 to RGB), other 16-bit samples keep their high byte.
//!
//! # What a file may cost
//! The size is checked before the pixels are read: at most `max_pixels`. Beyond that a decoder gets memory in proportion to
//! `max_pixels`, and a progressive JPEG work in proportion to it ([`jpeg`]). The limits count work, not time, so that a verdict
//! is the same on every machine.

mod bmp;
mod gif;
mod jpeg;
mod jpeg2000;
mod metadata;
mod png;
mod small;
mod tiff;
mod to_rgb;
mod webp;

use super::{Alpha, Orientation};
use crate::magic::{Content, Image};
use crate::untrusted::guarded;
use image::{ColorType, ImageError as DecoderError};
use std::ops::Range;

pub use metadata::orientation;
pub use small::{Small, fit_into, thumbnail, to_jpeg, to_png};

/// Why an image cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct ImageError {
    /// [`TOO_LARGE`], [`UNDECODABLE`] or [`UNSUPPORTED`].
    pub code: &'static str,
    /// In words.
    pub detail: String,
}

/// The code of an image that would cost more than `max_pixels` allows.
pub const TOO_LARGE: &str = "too-large";
/// The code of everything that is no whole image.
pub const UNDECODABLE: &str = "undecodable";
/// The code of images in a format, or of a kind, that is not read.
pub const UNSUPPORTED: &str = "unsupported";

impl ImageError {
    fn undecodable(detail: impl Into<String>) -> Self {
        Self { code: UNDECODABLE, detail: detail.into() }
    }

    fn too_large(detail: impl Into<String>) -> Self {
        Self { code: TOO_LARGE, detail: detail.into() }
    }

    fn unsupported(detail: impl Into<String>) -> Self {
        Self { code: UNSUPPORTED, detail: detail.into() }
    }
}

/// How an image is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoding {
    /// Most pixels of an encoded image.
    pub max_pixels: u64,
    pub alpha: Alpha,
    pub orientation: Orientation,
}

/// A decoded image: `pixels` holds width × height × 3 bytes, row by row.
#[derive(Debug)]
pub struct Rgb<'a> {
    pub width: u32,
    pub height: u32,
    pub pixels: &'a [u8],
}

/// The pixels of an image that somebody looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub columns: Range<u32>,
    pub rows: Range<u32>,
}

impl Window {
    /// All pixels.
    pub fn whole((width, height): (u32, u32)) -> Self {
        Self { columns: 0..width, rows: 0..height }
    }
}

/// Memory that is used again for the next image; what stands in it then is overwritten.
#[derive(Debug, Default)]
pub struct Buffers {
    raw: Vec<u8>,
    rgb: Vec<u8>,
}

impl Buffers {
    /// Gives memory back that only an exceptionally large image needed.
    pub fn trim(&mut self) {
        const KEPT: usize = 64 << 20;
        for buffer in [&mut self.raw, &mut self.rgb] {
            if buffer.capacity() > KEPT {
                *buffer = Vec::new();
            }
        }
    }
}

/// An image whose size and kind of pixels are known.
struct Opened<'a> {
    width: u32,
    height: u32,
    /// What `read` fills a buffer with.
    color: ColorType,
    /// How many 16-bit grey levels become 8 bits.
    clips_grey: bool,
    /// Fills a buffer of exactly width × height pixels of that kind; at least those of the window.
    read: ReadPixels<'a>,
}

/// Where pixels are written to.
struct Target<'a> {
    pixels: &'a mut [u8],
    window: Window,
    /// Memory of any length for what the decoder needs besides.
    scratch: &'a mut Vec<u8>,
}

type ReadPixels<'a> = Box<dyn FnOnce(Target<'_>) -> Result<(), ImageError> + 'a>;

impl<'a> Opened<'a> {
    fn new(
        (width, height): (u32, u32),
        color: ColorType,
        read: impl FnOnce(&mut [u8]) -> Result<(), ImageError> + 'a,
    ) -> Self {
        let read = |target: Target<'_>| read(target.pixels);
        Self { width, height, color, clips_grey: false, read: Box::new(read) }
    }
}

/// Decodes `bytes`; the size is checked before the pixels are read. Of what is outside the `window` of an image of that size,
/// nothing is known: a decoder may leave it out.
pub fn decode<'a>(
    bytes: &[u8],
    decoding: &Decoding,
    window: impl FnOnce((u32, u32)) -> Window,
    buffers: &'a mut Buffers,
) -> Result<Rgb<'a>, ImageError> {
    let opened = guarded(|| open(bytes, decoding.max_pixels)).ok_or_else(panicked)??;
    let Opened { width, height, color, clips_grey, read } = opened;
    let n_pixels = checked_pixels(width, height, decoding.max_pixels)?;
    let turn = match decoding.orientation {
        Orientation::Exif => metadata::orientation(bytes),
        Orientation::Stored => metadata::orientation_of_format(bytes),
    };
    let size = (width, height);
    let window = if turn <= 1 { window(size) } else { Window::whole(size) };
    let Buffers { raw, rgb } = &mut *buffers;
    let (target, scratch) =
        if color == ColorType::Rgb8 { (&mut *rgb, &mut *raw) } else { (&mut *raw, &mut *rgb) };
    let n_bytes = n_pixels.checked_mul(usize::from(color.bytes_per_pixel())).ok_or_else(no_memory)?;
    if target.len() < n_bytes {
        target.resize(n_bytes, 0);
    }
    let target = Target { pixels: &mut target[..n_bytes], window, scratch };
    guarded(|| read(target)).ok_or_else(panicked)??;
    if color != ColorType::Rgb8 {
        to_rgb::convert((color, clips_grey), &raw[..n_bytes], decoding.alpha, rgb)?;
    }
    Ok(turned(turn, size, buffers))
}

/// Width × height, when that is neither nothing nor too much.
fn checked_pixels(width: u32, height: u32, max_pixels: u64) -> Result<usize, ImageError> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(ImageError::undecodable(format!("{width} × {height} pixels")));
    }
    if pixels > max_pixels {
        let detail = format!("{width} × {height} pixels, over max_pixels = {max_pixels}");
        return Err(ImageError::too_large(detail));
    }
    usize::try_from(pixels).map_err(|_| no_memory())
}

/// The decoded image in the orientation `turn` (EXIF's 1 to 8).
fn turned(turn: u8, (width, height): (u32, u32), buffers: &mut Buffers) -> Rgb<'_> {
    let n_bytes = width as usize * height as usize * 3;
    if turn <= 1 {
        return Rgb { width, height, pixels: &buffers.rgb[..n_bytes] };
    }
    let (width, height) = metadata::turn(turn, (width, height), &buffers.rgb[..n_bytes], &mut buffers.raw);
    Rgb { width, height, pixels: &buffers.raw[..n_bytes] }
}

/// Width and height as the file's header has them, before any orientation.
pub fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    let opened = guarded(|| open(bytes, u64::MAX)).and_then(Result::ok);
    opened.map(|opened| (opened.width, opened.height))
}

fn open(bytes: &[u8], max_pixels: u64) -> Result<Opened<'_>, ImageError> {
    let content = Content::of_image(bytes);
    let Some(Content::Image(image)) = content else {
        return Err(no_image(content, bytes));
    };
    match image {
        Image::Jpeg => jpeg::open(bytes, max_pixels),
        Image::Png => png::open(bytes, max_pixels),
        Image::Gif => gif::open(bytes, max_pixels),
        Image::WebP => webp::open(bytes, max_pixels),
        Image::Bmp => bmp::open(bytes, max_pixels),
        Image::Tiff => tiff::open(bytes, max_pixels),
        Image::Jpeg2000 => jpeg2000::open(bytes, max_pixels),
        Image::Avif
        | Image::Heic
        | Image::JpegXl
        | Image::Photoshop
        | Image::OpenExr
        | Image::Radiance
        | Image::Dds
        | Image::Icon
        | Image::Svg => {
            let content = Content::Image(image);
            Err(ImageError::unsupported(format!(
                "{}, which is not read: {}",
                content.what(),
                content.advice()
            )))
        }
    }
}

/// Whether images of a format are read at all.
pub fn reads(image: Image) -> bool {
    use Image::{Bmp, Gif, Jpeg, Jpeg2000, Png, Tiff, WebP};
    matches!(image, Jpeg | Png | Gif | WebP | Bmp | Tiff | Jpeg2000)
}

fn no_image(content: Option<Content>, bytes: &[u8]) -> ImageError {
    match content {
        Some(Content::Empty) => ImageError::undecodable("there are no bytes"),
        Some(content) => ImageError::undecodable(format!("no image: {content}")),
        None => {
            let start = bytes[..bytes.len().min(16)].escape_ascii();
            ImageError::undecodable(format!(
                "neither JPEG, PNG, GIF, WebP, BMP, TIFF nor JPEG 2000: begins with `{start}`"
            ))
        }
    }
}

/// What a decoder may allocate: eight bytes is the widest pixel a decoder gives; as much again for what it needs itself.
fn memory_limit(max_pixels: u64) -> u64 {
    max_pixels.saturating_mul(16).max(64 << 20)
}

fn limits(max_pixels: u64) -> image::Limits {
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(memory_limit(max_pixels));
    limits
}

fn panicked() -> ImageError {
    ImageError::undecodable("the decoder panicked on it")
}

fn no_memory() -> ImageError {
    ImageError::too_large("the image does not fit into memory")
}

fn truncated(format: &str) -> ImageError {
    ImageError::undecodable(format!("truncated {format}: the file ends before its pixels do"))
}

/// What an error of `image` says of the image.
fn from_decoder(error: &DecoderError) -> ImageError {
    match error {
        DecoderError::Limits(_) => ImageError::too_large(error.to_string()),
        DecoderError::Unsupported(_) => ImageError::unsupported(error.to_string()),
        DecoderError::IoError(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageError::undecodable(format!("truncated: {cause}"))
        }
        _ => ImageError::undecodable(error.to_string()),
    }
}
