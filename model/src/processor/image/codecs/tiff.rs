//! TIFF. Of several pages the first counts.

use super::{ImageError, Opened, from_decoder, limits};
use image::{ColorType, ImageDecoder, codecs::tiff::TiffDecoder};
use std::io::Cursor;

/// Reads the headers.
pub fn open(bytes: &[u8], max_pixels: u64) -> Result<Opened<'_>, ImageError> {
    let mut decoder = TiffDecoder::new(Cursor::new(bytes)).map_err(|error| from_decoder(&error))?;
    decoder.set_limits(limits(max_pixels)).map_err(|error| from_decoder(&error))?;
    let (size, color) = (decoder.dimensions(), decoder.color_type());
    let read = move |pixels: &mut [u8]| decoder.read_image(pixels).map_err(|error| from_decoder(&error));
    Ok(Opened { clips_grey: color == ColorType::L16, ..Opened::new(size, color, read) })
}
