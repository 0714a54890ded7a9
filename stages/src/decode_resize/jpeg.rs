//! JPEG: most pictures of most data sets.
//!
//! zune-jpeg itself: `image`, which is built on it, copies the bytes and builds every Huffman table twice. A JPEG without its end
//! marker is truncated, as it is for libjpeg.

use super::decode::{Opened, UNDECODABLE, Unusable};
use image::ColorType;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Reads the headers.
pub fn open(bytes: &[u8]) -> Result<Opened<'_>, Unusable> {
    // Lenient, as libjpeg is; the caller limits sizes.
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| undecodable(&error))?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    let grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    if grey {
        decoder.set_options(options.jpeg_set_out_colorspace(ColorSpace::Luma));
    }
    Ok(Opened {
        width: u32::try_from(width).unwrap_or(u32::MAX),
        height: u32::try_from(height).unwrap_or(u32::MAX),
        color: if grey { ColorType::L8 } else { ColorType::Rgb8 },
        read: Box::new(move |pixels| {
            decoder.decode_into(pixels).map_err(|error| undecodable(&error))?;
            is_complete(bytes).then_some(()).ok_or_else(truncated)
        }),
    })
}

fn undecodable(error: &DecodeErrors) -> Unusable {
    (UNDECODABLE, format!("JPEG: {error}"))
}

fn truncated() -> Unusable {
    (UNDECODABLE, "truncated: the JPEG ends before its end marker".to_owned())
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
