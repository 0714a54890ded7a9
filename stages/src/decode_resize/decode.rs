//! Encoded picture to 8-bit RGB, as Pillow's `Image.open(…).convert("RGB")` gives it.
//!
//! Alpha is dropped, EXIF orientation and colour profiles are not applied, of an animation the first frame counts, 16-bit
//! grey is clipped to 255 (Pillow's I;16 to RGB) and other 16-bit samples keep their high byte.

use super::jpeg;
use crate::foreign::guarded;
use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use std::io::Cursor;

/// Why a picture cannot be used: code and detail.
pub type Unusable = (&'static str, String);

/// The code of a picture with more than `max_pixels` pixels.
const TOO_LARGE: &str = "too-large";
/// The code of everything that is no whole picture.
pub const UNDECODABLE: &str = "undecodable";

/// A decoded picture: `pixels` holds width × height × 3 bytes, row by row.
#[derive(Debug)]
pub struct Rgb<'a> {
    pub width: u32,
    pub height: u32,
    pub pixels: &'a [u8],
}

/// Memory that is used again for the next picture; what stands in it then is overwritten.
#[derive(Debug, Default)]
pub struct Buffers {
    raw: Vec<u8>,
    rgb: Vec<u8>,
}

impl Buffers {
    /// Gives memory back that only an exceptionally large picture needed.
    pub fn trim(&mut self) {
        const KEPT: usize = 64 << 20;
        for buffer in [&mut self.raw, &mut self.rgb] {
            if buffer.capacity() > KEPT {
                *buffer = Vec::new();
            }
        }
    }
}

/// A picture whose size and kind of pixels are known.
pub struct Opened<'a> {
    pub width: u32,
    pub height: u32,
    pub color: ColorType,
    /// Fills a buffer of exactly width × height pixels of that kind.
    pub read: ReadPixels<'a>,
}

type ReadPixels<'a> = Box<dyn FnOnce(&mut [u8]) -> Result<(), Unusable> + 'a>;

/// Decodes `bytes`; the size is checked before the pixels are read.
pub fn decode<'a>(bytes: &[u8], max_pixels: u64, buffers: &'a mut Buffers) -> Result<Rgb<'a>, Unusable> {
    let Opened { width, height, color, read } = guarded(|| open(bytes, max_pixels)).ok_or_else(gave_up)??;
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err((UNDECODABLE, format!("{width} × {height} pixels")));
    }
    if pixels > max_pixels {
        let detail = format!("{width} × {height} pixels, over max_pixels = {max_pixels}");
        return Err((TOO_LARGE, detail));
    }
    let Buffers { raw, rgb } = buffers;
    let target = if color == ColorType::Rgb8 { &mut *rgb } else { &mut *raw };
    let bytes_needed = pixels.checked_mul(u64::from(color.bytes_per_pixel()));
    let bytes_needed = bytes_needed.and_then(|bytes| usize::try_from(bytes).ok());
    let bytes_needed = bytes_needed.ok_or_else(too_large_for_memory)?;
    if target.len() < bytes_needed {
        target.resize(bytes_needed, 0);
    }
    guarded(|| read(&mut target[..bytes_needed])).ok_or_else(gave_up)??;
    if color != ColorType::Rgb8 {
        to_rgb(color, &raw[..bytes_needed], rgb)?;
    }
    Ok(Rgb { width, height, pixels: &rgb[..pixels as usize * 3] })
}

fn open(bytes: &[u8], max_pixels: u64) -> Result<Opened<'_>, Unusable> {
    let format = image::guess_format(bytes).map_err(|_| no_picture(bytes))?;
    if format == ImageFormat::Jpeg {
        return jpeg::open(bytes);
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    // Eight bytes is the widest pixel a decoder gives; as much again for what it needs itself.
    limits.max_alloc = Some(max_pixels.saturating_mul(16).max(64 << 20));
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|error| unusable(&error))?;
    let (width, height) = decoder.dimensions();
    let color = decoder.color_type();
    let read = |pixels: &mut [u8]| decoder.read_image(pixels).map_err(|error| unusable(&error));
    Ok(Opened { width, height, color, read: Box::new(read) })
}

fn no_picture(bytes: &[u8]) -> Unusable {
    if bytes.is_empty() {
        return (UNDECODABLE, "there are no bytes".to_owned());
    }
    let start = bytes[..bytes.len().min(16)].escape_ascii();
    (UNDECODABLE, format!("neither JPEG, PNG, GIF, WebP nor BMP: begins with `{start}`"))
}

fn gave_up() -> Unusable {
    (UNDECODABLE, "the decoder gave up".to_owned())
}

fn too_large_for_memory() -> Unusable {
    (TOO_LARGE, "the picture does not fit into memory".to_owned())
}

/// What an error of `image` says of the picture.
pub fn unusable(error: &ImageError) -> Unusable {
    match error {
        ImageError::Limits(_) => (TOO_LARGE, error.to_string()),
        ImageError::IoError(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => {
            (UNDECODABLE, format!("truncated: {cause}"))
        }
        _ => (UNDECODABLE, error.to_string()),
    }
}

/// Converts what the decoder gave.
fn to_rgb(color: ColorType, raw: &[u8], rgb: &mut Vec<u8>) -> Result<(), Unusable> {
    rgb.clear();
    let clipped = |bytes: &[u8; 2]| u8::try_from(u16::from_ne_bytes(*bytes)).unwrap_or(u8::MAX);
    let high = |low: u8, high: u8| u16::from_ne_bytes([low, high]).to_be_bytes()[0];
    match color {
        ColorType::L8 => rgb.extend(raw.iter().flat_map(|&grey| [grey; 3])),
        ColorType::La8 => rgb.extend(raw.as_chunks::<2>().0.iter().flat_map(|&[grey, _]| [grey; 3])),
        ColorType::Rgba8 => rgb.extend(raw.as_chunks::<4>().0.iter().flat_map(|&[r, g, b, _]| [r, g, b])),
        ColorType::L16 => rgb.extend(raw.as_chunks::<2>().0.iter().flat_map(|grey| [clipped(grey); 3])),
        ColorType::La16 => {
            rgb.extend(raw.as_chunks::<4>().0.iter().flat_map(|&[a, b, _, _]| [high(a, b); 3]));
        }
        ColorType::Rgb16 => rgb.extend(raw.as_chunks::<2>().0.iter().map(|&[a, b]| high(a, b))),
        ColorType::Rgba16 => rgb.extend(
            raw.as_chunks::<8>()
                .0
                .iter()
                .flat_map(|&[r, r1, g, g1, b, b1, _, _]| [high(r, r1), high(g, g1), high(b, b1)]),
        ),
        other => return Err((UNDECODABLE, format!("pixels of the type {other:?} are not supported"))),
    }
    Ok(())
}
