//! JPEG, most images of most data sets, to the bit as Pillow decodes it (`scripts/check_images.py`).
//!
//! `libjpeg-turbo-rs` gives the bytes of libjpeg-turbo, which Pillow uses; `image` has another decoder, whose colours are up to
//! 10 grey levels off. Damaged scan data is decoded as far as it goes, as libjpeg does it; a JPEG without its end marker is truncated.
//!
//! # What a file may cost
//! A progressive JPEG goes over its image once for each scan, and a scan of a huge image can be a few bytes. Encoders write about ten;
//! more than [`MAX_SCANS`], or more than [`WORK`] × `max_pixels` pixels gone over, is too much.
//!
//! # Why this decoder
//! Speed does not decide: 659 µs an image, C's libjpeg-turbo (Debian's 2.1.5 with SIMD) 634 to 677 on the same 2,048 CC3M-like
//! files; `mozjpeg-sys` or `turbojpeg` would ask every user for nasm or cmake. C has years of fuzzing, the port has not and promises no
//! memory safety: a panic of it costs one row, scans and work are limited, `fuzz/run` covers it. Should a memory fault be reported
//! that reaches its safe interface, the switch is this file.
//!
//! # Only what the crop keeps
//! The port's `set_crop` still makes every block's IDCT, and `set_crop_y` copies the image once more: 670 to 810 µs instead of 659. C's skips
//! blocks and is 5 to 8% faster. [`sequential`] reads the scan data itself, in safe code compiled for BMI2, and hands the port the blocks
//! that the crop needs: 13 to 19% less time than the whole image (medians of 9 interleaved runs over 2,000 CC3M-like files, of whose pixels
//! it needs 77%; 9 to 12% where it needs all). Tables of 12 bits instead of the port's 10 were slower.

mod bits;
mod sequential;

use super::{ImageError, Opened, Target, from_decoder, truncated};
use image::codecs::jpeg::JpegDecoder;
use image::{ColorType, ImageDecoder};
use libjpeg_turbo_rs::common::types::FrameHeader;
use libjpeg_turbo_rs::{ColorSpace, DecodeLimits, Decoder, JpegError, PixelFormat};
use sequential::Sequential;
use std::io::Cursor;

/// Most scans of a file.
const MAX_SCANS: usize = 500;
/// How often the pixels of the largest image may be gone over.
const WORK: u64 = 16;

/// Reads the headers.
pub fn open(bytes: &[u8], max_pixels: u64) -> Result<Opened<'_>, ImageError> {
    let Some(sequential) = Sequential::open(bytes) else { return open_any(bytes, max_pixels) };
    let (width, height) = sequential.size();
    let read = move |target: Target<'_>| {
        let Target { pixels, window, scratch } = target;
        if sequential.decode(bytes, &window, pixels, scratch).is_none() {
            let whole = open_any(bytes, max_pixels)?;
            return (whole.read)(Target { pixels, window, scratch });
        }
        is_complete(bytes).then_some(()).ok_or_else(|| truncated("JPEG"))
    };
    Ok(Opened { width, height, color: ColorType::Rgb8, clips_grey: false, read: Box::new(read) })
}

fn open_any(bytes: &[u8], max_pixels: u64) -> Result<Opened<'_>, ImageError> {
    let limits = DecodeLimits { max_scans: MAX_SCANS, ..DecodeLimits::default() };
    let mut decoder = Decoder::new_with_limits(bytes, limits).map_err(|error| undecodable(&error))?;
    decoder.set_lenient(true);
    let header = decoder.header();
    if header.precision != 8 {
        let bits = header.precision;
        return Err(ImageError::unsupported(format!("JPEG: {bits} bits a sample, only 8 are read")));
    }
    let size = (u32::from(header.width), u32::from(header.height));
    check_work(bytes, size, header.is_progressive, max_pixels)?;
    let (color, format) = match decoder.jpeg_color_space() {
        ColorSpace::Grayscale => (ColorType::L8, PixelFormat::Grayscale),
        ColorSpace::Cmyk | ColorSpace::Ycck if is_subsampled(header) => return open_subsampled_cmyk(bytes),
        ColorSpace::Cmyk | ColorSpace::Ycck => (ColorType::Rgb8, PixelFormat::Cmyk),
        ColorSpace::YCbCr | ColorSpace::Rgb => (ColorType::Rgb8, PixelFormat::Rgb),
        ColorSpace::Unknown => {
            let colours = header.components.len();
            return Err(ImageError::unsupported(format!("JPEG: {colours} colours")));
        }
    };
    Ok(Opened::new(size, color, move |pixels| {
        let decoder = decoder.with_output_format(format);
        if format == PixelFormat::Cmyk {
            cmyk_to_rgb(&decoder.decode_image().map_err(|error| undecodable(&error))?.data, pixels);
        } else {
            decoder.decode_image_into(pixels).map_err(|error| undecodable(&error))?;
        }
        is_complete(bytes).then_some(()).ok_or_else(|| truncated("JPEG"))
    }))
}

/// Refuses what would go over too many pixels.
fn check_work(bytes: &[u8], size: (u32, u32), progressive: bool, max_pixels: u64) -> Result<(), ImageError> {
    if !progressive {
        return Ok(());
    }
    let (scans, pixels) = (
        Markers::new(bytes).filter(|marker| *marker == SCAN).count() as u64,
        u64::from(size.0) * u64::from(size.1),
    );
    if scans.saturating_mul(pixels) > max_pixels.saturating_mul(WORK) {
        let (width, height) = size;
        let detail = format!(
            "JPEG: {scans} scans of {width} × {height} pixels, over {WORK} × max_pixels = {max_pixels}"
        );
        return Err(ImageError::too_large(detail));
    }
    Ok(())
}

fn is_subsampled(header: &FrameHeader) -> bool {
    let sampling = header.components.iter().map(|each| (each.horizontal_sampling, each.vertical_sampling));
    sampling.clone().min() != sampling.max()
}

/// `libjpeg-turbo-rs` 0.9.0 panics on four colours of which some have fewer samples. The other decoder gives them as RGB; its
/// colours are a little different from Pillow's.
fn open_subsampled_cmyk(bytes: &[u8]) -> Result<Opened<'_>, ImageError> {
    let decoder = JpegDecoder::new(Cursor::new(bytes)).map_err(|error| from_decoder(&error))?;
    let (size, color) = (decoder.dimensions(), decoder.color_type());
    Ok(Opened::new(size, color, move |pixels| {
        decoder.read_image(pixels).map_err(|error| from_decoder(&error))?;
        is_complete(bytes).then_some(()).ok_or_else(|| truncated("JPEG"))
    }))
}

fn undecodable(error: &JpegError) -> ImageError {
    match error {
        JpegError::UnexpectedEof => truncated("JPEG"),
        JpegError::LimitExceeded { .. } => ImageError::too_large(format!("JPEG: {error}")),
        _ => ImageError::undecodable(format!("JPEG: {error}")),
    }
}

/// As Pillow has it: files hold the inverse of each ink (`JpegImagePlugin`, `CMYK;I`), of which `cmyk2rgb` (`Convert.c`) takes
/// the share that black leaves.
fn cmyk_to_rgb(cmyk: &[u8], rgb: &mut [u8]) {
    for ([inks @ .., black], rgb) in cmyk.as_chunks::<4>().0.iter().zip(rgb.as_chunks_mut::<3>().0) {
        for (ink, value) in inks.iter().zip(rgb) {
            let product = u32::from(255 - ink) * u32::from(*black) + 128;
            *value = black.saturating_sub(((product + (product >> 8)) >> 8) as u8);
        }
    }
}

/// Begins a scan.
const SCAN: u8 = 0xDA;
/// Ends the image.
const END: u8 = 0xD9;

/// Whether the end marker (FF D9) follows the image's data. The decoder fills what is missing with grey and says nothing.
fn is_complete(bytes: &[u8]) -> bool {
    bytes.ends_with(&[0xFF, END]) || Markers::new(bytes).any(|marker| marker == END)
}

/// The markers of a file (ITU T.81, annex B), up to its end.
struct Markers<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Markers<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 2 }
    }
}

impl Iterator for Markers<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        loop {
            // In a scan, FF 00 is data and FF D0 to FF D7 are restarts; a marker may be preceded by any number of FF.
            self.at += memchr::memchr(0xFF, self.bytes.get(self.at..)?)?;
            self.at += self.bytes[self.at..].iter().position(|&byte| byte != 0xFF)?;
            let marker = self.bytes[self.at];
            match marker {
                0x00 | 0x01 | 0xD0..=0xD8 => self.at += 1,
                END => {
                    self.at = self.bytes.len();
                    return Some(END);
                }
                _ => {
                    let length = self.bytes.get(self.at + 1..self.at + 3)?;
                    self.at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]]));
                    return Some(marker);
                }
            }
        }
    }
}
