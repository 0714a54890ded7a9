//! BMP. Of 16 bits a pixel, Pillow stretches each colour by a division, `image` by a table that is up to 2 levels off.

use super::{ImageError, Opened, from_decoder, limits, truncated};
use image::{ColorType, ImageDecoder, codecs::bmp::BmpDecoder};
use std::io::Cursor;

/// Reads the headers.
pub fn open(bytes: &[u8], max_pixels: u64) -> Result<Opened<'_>, ImageError> {
    if let Some(rows) = Rows16::of(bytes)? {
        let size = (rows.width as u32, rows.height as u32);
        return Ok(Opened::new(size, ColorType::Rgb8, move |pixels| rows.read(pixels)));
    }
    let mut decoder = BmpDecoder::new(Cursor::new(bytes)).map_err(|error| from_decoder(&error))?;
    decoder.set_limits(limits(max_pixels)).map_err(|error| from_decoder(&error))?;
    let (size, color) = (decoder.dimensions(), decoder.color_type());
    Ok(Opened::new(size, color, move |pixels| {
        decoder.read_image(pixels).map_err(|error| from_decoder(&error))
    }))
}

/// Rows of 16 bits a pixel.
struct Rows16<'a> {
    width: usize,
    height: usize,
    bottom_up: bool,
    data: &'a [u8],
    /// Bits of green: 6 of 5-6-5, 5 of 5-5-5.
    green_bits: u32,
}

impl<'a> Rows16<'a> {
    /// `None` for other BMPs.
    fn of(bytes: &'a [u8]) -> Result<Option<Self>, ImageError> {
        const BITFIELDS: u32 = 3;
        let number =
            |at: usize| bytes.get(at..at + 4).and_then(<[u8]>::first_chunk).map(|n| u32::from_le_bytes(*n));
        let header =
            || Some((number(10)?, number(14)?, number(18)?, number(22)?, number(26)? >> 16, number(30)?));
        let Some((offset, header, width, height, 16, compression)) = header() else { return Ok(None) };
        if header < 40 || compression != 0 && compression != BITFIELDS {
            return Ok(None);
        }
        let masks = (number(54), number(58), number(62));
        let green_bits = match masks {
            _ if compression == 0 => 5,
            (Some(0x7C00), Some(0x3E0), Some(0x1F)) => 5,
            (Some(0xF800), Some(0x7E0), Some(0x1F)) => 6,
            _ => return Err(ImageError::unsupported("BMP: 16 bits a pixel, neither 5-5-5 nor 5-6-5")),
        };
        let (bottom_up, height) = (height.cast_signed() >= 0, height.cast_signed().unsigned_abs());
        let data = bytes.get(offset as usize..).ok_or_else(|| truncated("BMP"))?;
        Ok(Some(Self { width: width as usize, height: height as usize, bottom_up, data, green_bits }))
    }

    fn read(&self, pixels: &mut [u8]) -> Result<(), ImageError> {
        let stride = (2 * self.width).next_multiple_of(4);
        for (n, out) in pixels.chunks_exact_mut(3 * self.width).enumerate() {
            let row = if self.bottom_up { self.height - 1 - n } else { n };
            let row = self.data.get(row * stride..).and_then(|rest| rest.get(..2 * self.width));
            let row = row.ok_or_else(|| truncated("BMP"))?;
            for (pair, pixel) in row.as_chunks::<2>().0.iter().zip(out.as_chunks_mut::<3>().0) {
                let value = u32::from(u16::from_le_bytes(*pair));
                let stretched = |shift: u32, bits: u32| {
                    let most = (1 << bits) - 1;
                    ((value >> shift & most) * 255 / most) as u8
                };
                *pixel = [stretched(5 + self.green_bits, 5), stretched(5, self.green_bits), stretched(0, 5)];
            }
        }
        Ok(())
    }
}
