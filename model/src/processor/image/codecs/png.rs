//! PNG as Pillow reads it: what follows the last row may be missing, and transparent colours are compared in 8 bits.

use super::{ImageError, Opened, memory_limit, truncated};
use image::ColorType;
use png::{BitDepth, ColorType as PngColor, Decoder, DecodingError, Limits, Reader};
use std::io::{Cursor, ErrorKind};

type PngReader<'a> = Reader<Cursor<&'a [u8]>>;

/// Reads the headers.
pub fn open(bytes: &[u8], max_pixels: u64) -> Result<Opened<'_>, ImageError> {
    let limit = usize::try_from(memory_limit(max_pixels)).unwrap_or(usize::MAX);
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: limit });
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let reader = decoder.read_info().map_err(|error| undecodable(&error))?;
    let info = reader.info();
    let samples = Samples {
        kind: info.color_type,
        depth: info.bit_depth,
        palette: info.palette.as_deref().unwrap_or_default().to_vec(),
        transparent: info.trns.as_deref().map(<[u8]>::to_vec),
    };
    let (size, color) = (info.size(), samples.color());
    Ok(Opened::new(size, color, move |pixels| read(reader, &samples, pixels)))
}

/// Fills `pixels` row by row.
fn read(mut reader: PngReader<'_>, samples: &Samples, pixels: &mut [u8]) -> Result<(), ImageError> {
    let (width, interlaced) = (reader.info().width as usize, reader.info().interlaced);
    if interlaced {
        let size = reader.output_buffer_size().ok_or_else(super::no_memory)?;
        let mut raw = vec![0; size];
        reader.next_frame(&mut raw).map_err(|error| undecodable(&error))?;
        let stride = raw.len() / reader.info().height as usize;
        let rows = raw.chunks_exact(stride).zip(pixels.chunks_exact_mut(width * samples.n_bytes()));
        rows.for_each(|(row, out)| samples.convert(row, out));
        return Ok(());
    }
    for out in pixels.chunks_exact_mut(width * samples.n_bytes()) {
        let row = reader.next_row().map_err(|error| undecodable(&error))?;
        samples.convert(row.ok_or_else(|| truncated("PNG"))?.data(), out);
    }
    match reader.finish() {
        Err(DecodingError::IoError(cause)) if cause.kind() == ErrorKind::UnexpectedEof => Ok(()),
        Err(error) => Err(undecodable(&error)),
        Ok(()) => Ok(()),
    }
}

fn undecodable(error: &DecodingError) -> ImageError {
    match error {
        DecodingError::IoError(cause) if cause.kind() == ErrorKind::UnexpectedEof => truncated("PNG"),
        DecodingError::LimitsExceeded => {
            ImageError::too_large("PNG: it needs more memory than max_pixels allows")
        }
        _ => ImageError::undecodable(format!("PNG: {error}")),
    }
}

/// What the samples of a PNG mean.
struct Samples {
    kind: PngColor,
    depth: BitDepth,
    palette: Vec<u8>,
    /// The chunk `tRNS`.
    transparent: Option<Vec<u8>>,
}

impl Samples {
    /// What [`Samples::convert`] gives.
    fn color(&self) -> ColorType {
        match (self.kind, self.transparent.is_some()) {
            (PngColor::Grayscale, false) => ColorType::L8,
            (PngColor::Grayscale, true) | (PngColor::GrayscaleAlpha, _) => ColorType::La8,
            (PngColor::Rgb | PngColor::Indexed, false) => ColorType::Rgb8,
            (PngColor::Rgb | PngColor::Indexed, true) | (PngColor::Rgba, _) => ColorType::Rgba8,
        }
    }

    fn n_bytes(&self) -> usize {
        usize::from(self.color().bytes_per_pixel())
    }

    /// A row of the file to 8-bit pixels.
    fn convert(&self, row: &[u8], out: &mut [u8]) {
        match self.kind {
            PngColor::Indexed => self.convert_indexed(row, out),
            PngColor::Grayscale => {
                let values = self.greys(row).zip(out.chunks_exact_mut(self.n_bytes()));
                let transparent = self.transparent_grey();
                for (grey, pixel) in values {
                    pixel[0] = grey;
                    if let Some(alpha) = pixel.get_mut(1) {
                        *alpha = opacity(Some(grey) == transparent);
                    }
                }
            }
            PngColor::Rgb if self.transparent.is_some() => {
                let transparent = self.transparent_colour();
                let colours = self.high_bytes(row).collect::<Vec<u8>>();
                for (colour, pixel) in colours.as_chunks::<3>().0.iter().zip(out.as_chunks_mut::<4>().0) {
                    let [r, g, b] = *colour;
                    *pixel = [r, g, b, opacity(Some(*colour) == transparent)];
                }
            }
            _ => self.high_bytes(row).zip(out).for_each(|(value, out)| *out = value),
        }
    }

    fn convert_indexed(&self, row: &[u8], out: &mut [u8]) {
        let alphas = self.transparent.as_deref();
        for (index, pixel) in self.packed(row).zip(out.chunks_exact_mut(self.n_bytes())) {
            let index = usize::from(index);
            // Pillow's palettes begin as a ramp of greys.
            let colour = self.palette.get(3 * index..3 * index + 3);
            pixel[..3].copy_from_slice(colour.unwrap_or(&[index as u8; 3]));
            if let Some(alpha) = pixel.get_mut(3) {
                *alpha = alphas.and_then(|alphas| alphas.get(index)).copied().unwrap_or(u8::MAX);
            }
        }
    }

    /// Grey values: fewer bits are stretched, 16 bits are clipped.
    fn greys<'a>(&self, row: &'a [u8]) -> Box<dyn Iterator<Item = u8> + 'a> {
        let scale = match self.depth {
            BitDepth::One => 255,
            BitDepth::Two => 85,
            BitDepth::Four => 17,
            BitDepth::Eight => 1,
            BitDepth::Sixteen => {
                let clipped = |grey: &[u8; 2]| u16::from_be_bytes(*grey).min(255) as u8;
                return Box::new(row.as_chunks().0.iter().map(clipped));
            }
        };
        Box::new(self.packed(row).map(move |value| value * scale))
    }

    /// Samples of up to 8 bits.
    fn packed<'a>(&self, row: &'a [u8]) -> impl Iterator<Item = u8> + 'a + use<'a> {
        let bits = (self.depth as u8).min(8);
        let mask = u8::MAX >> (8 - bits);
        row.iter().flat_map(move |byte| (1..=8 / bits).map(move |n| (byte >> (8 - n * bits)) & mask))
    }

    /// Samples of 8 bits, or the upper bytes of those of 16.
    fn high_bytes<'a>(&self, row: &'a [u8]) -> impl Iterator<Item = u8> + 'a + use<'a> {
        row.iter().copied().step_by(if self.depth == BitDepth::Sixteen { 2 } else { 1 })
    }

    /// The number in `tRNS` as Pillow compares it with converted pixels: its low byte, of one bit 0 or 255.
    fn transparent_grey(&self) -> Option<u8> {
        let low = *self.transparent.as_deref()?.last()?;
        Some(if self.depth == BitDepth::One { 255 * (low & 1) } else { low })
    }

    /// The low bytes of the three numbers; of 8 bits, the decoder has taken them already.
    fn transparent_colour(&self) -> Option<[u8; 3]> {
        match *self.transparent.as_deref()? {
            [r, g, b] | [_, r, _, g, _, b] => Some([r, g, b]),
            _ => None,
        }
    }
}

fn opacity(transparent: bool) -> u8 {
    if transparent { 0 } else { u8::MAX }
}
