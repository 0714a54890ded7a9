//! JPEG 2000 of 8 bits a sample, grey or colour.

use super::{ImageError, Opened, checked_pixels};
use hayro_jpeg2000::{ColorSpace, DecodeSettings, Image};
use image::ColorType;

/// Reads the headers.
pub fn open(bytes: &[u8], max_pixels: u64) -> Result<Opened<'_>, ImageError> {
    // Strict: what is damaged is rejected, not guessed.
    let settings = DecodeSettings { strict: true, ..DecodeSettings::default() };
    let image = Image::new(bytes, &settings).map_err(|error| undecodable(&error))?;
    let size = (image.width(), image.height());
    checked_pixels(size.0, size.1, max_pixels)?;
    if image.original_bit_depth() > 8 {
        let bits = image.original_bit_depth();
        return Err(ImageError::unsupported(format!("JPEG 2000: {bits} bits a sample, only 8 are read")));
    }
    let colours = match image.color_space() {
        ColorSpace::Gray => 1,
        ColorSpace::RGB => 3,
        ColorSpace::Icc { num_channels, .. } => *num_channels,
        _ => 0,
    };
    let color = match (colours, image.has_alpha()) {
        (1, false) => ColorType::L8,
        (1, true) => ColorType::La8,
        (3, false) => ColorType::Rgb8,
        (3, true) => ColorType::Rgba8,
        _ => return Err(ImageError::unsupported("JPEG 2000: neither grey nor RGB")),
    };
    Ok(Opened::new(size, color, move |pixels| {
        let decoded = image.decode().map_err(|error| undecodable(&error))?;
        let wrong = || ImageError::undecodable("JPEG 2000: another size than its header says");
        (decoded.len() == pixels.len()).then(|| pixels.copy_from_slice(&decoded)).ok_or_else(wrong)
    }))
}

fn undecodable(error: &hayro_jpeg2000::DecodeError) -> ImageError {
    ImageError::undecodable(format!("JPEG 2000: {error}"))
}
