//! JPEG, most pictures of most data sets, to the bit as Pillow decodes it (`scripts/check_pictures.py`).
//!
//! `libjpeg-turbo-rs` gives the bytes of libjpeg-turbo, which Pillow uses; `image` has another decoder, whose colours are up to
//! 10 grey levels off. Damaged scan data is decoded as far as it goes, as libjpeg does it; a JPEG without its end marker is truncated.

use super::decode::{Opened, UNDECODABLE, Unusable, unusable};
use image::codecs::jpeg::JpegDecoder;
use image::{ColorType, ImageDecoder};
use libjpeg_turbo_rs::common::types::FrameHeader;
use libjpeg_turbo_rs::{ColorSpace, Decoder, JpegError, PixelFormat};
use std::io::Cursor;

/// Reads the headers.
pub fn open(bytes: &[u8]) -> Result<Opened<'_>, Unusable> {
    let decoder = Decoder::new(bytes).map_err(|error| undecodable(&error))?.with_lenient(true);
    let header = decoder.header();
    if header.precision != 8 {
        return Err((UNDECODABLE, format!("JPEG: {} bits a sample, only 8 are supported", header.precision)));
    }
    let (width, height) = (u32::from(header.width), u32::from(header.height));
    let (color, format) = match decoder.jpeg_color_space() {
        ColorSpace::Grayscale => (ColorType::L8, PixelFormat::Grayscale),
        ColorSpace::Cmyk | ColorSpace::Ycck if is_subsampled(header) => return open_subsampled_inks(bytes),
        ColorSpace::Cmyk | ColorSpace::Ycck => (ColorType::Rgb8, PixelFormat::Cmyk),
        ColorSpace::YCbCr | ColorSpace::Rgb => (ColorType::Rgb8, PixelFormat::Rgb),
        ColorSpace::Unknown => {
            return Err((UNDECODABLE, format!("JPEG: {} colours", header.components.len())));
        }
    };
    let read = move |pixels: &mut [u8]| {
        let decoder = decoder.with_output_format(format);
        if format == PixelFormat::Cmyk {
            cmyk_to_rgb(&decoder.decode_image().map_err(|error| undecodable(&error))?.data, pixels);
        } else {
            decoder.decode_image_into(pixels).map_err(|error| undecodable(&error))?;
        }
        is_complete(bytes).then_some(()).ok_or_else(truncated)
    };
    Ok(Opened { width, height, color, read: Box::new(read) })
}

fn is_subsampled(header: &FrameHeader) -> bool {
    let sampling = header.components.iter().map(|each| (each.horizontal_sampling, each.vertical_sampling));
    sampling.clone().min() != sampling.max()
}

/// `libjpeg-turbo-rs` 0.9.0 panics on four colours of which some have fewer samples. The other decoder gives them as RGB; its
/// colours are a little different from Pillow's.
fn open_subsampled_inks(bytes: &[u8]) -> Result<Opened<'_>, Unusable> {
    let decoder = JpegDecoder::new(Cursor::new(bytes)).map_err(|error| unusable(&error))?;
    let ((width, height), color) = (decoder.dimensions(), decoder.color_type());
    let read = move |pixels: &mut [u8]| {
        decoder.read_image(pixels).map_err(|error| unusable(&error))?;
        is_complete(bytes).then_some(()).ok_or_else(truncated)
    };
    Ok(Opened { width, height, color, read: Box::new(read) })
}

fn undecodable(error: &JpegError) -> Unusable {
    match error {
        JpegError::UnexpectedEof => truncated(),
        _ => (UNDECODABLE, format!("JPEG: {error}")),
    }
}

fn truncated() -> Unusable {
    (UNDECODABLE, "truncated: the JPEG ends before its end marker".to_owned())
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

/// Whether the end marker (FF D9) follows the picture's data. The decoder fills what is missing with grey and says nothing.
fn is_complete(bytes: &[u8]) -> bool {
    bytes.ends_with(&[0xFF, 0xD9]) || end(bytes).is_some()
}

/// Walks over the markers up to the end marker (ITU T.81, annex B).
fn end(bytes: &[u8]) -> Option<usize> {
    let mut at = 2;
    loop {
        // In a scan, FF 00 is data and FF D0 to FF D7 are restarts; a marker may be preceded by any number of FF.
        at += bytes.get(at..)?.iter().position(|&byte| byte == 0xFF)?;
        at += bytes[at..].iter().position(|&byte| byte != 0xFF)?;
        match bytes[at] {
            0x00 | 0x01 | 0xD0..=0xD8 => at += 1,
            0xD9 => return Some(at + 1),
            _ => {
                let length = bytes.get(at + 1..at + 3)?;
                at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
        }
    }
}
