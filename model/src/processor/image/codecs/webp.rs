//! WebP: the image, or the first frame of an animation on its canvas, as libwebp's `WebPAnimDecoder` gives it to Pillow. A first
//! frame is copied there, not blended, onto nothing.

use super::{ImageError, Opened, memory_limit};
use image::ColorType;
use image_webp::{DecodingError, WebPDecoder};
use std::io::Cursor;

/// Reads the headers.
pub fn open(bytes: &[u8], max_pixels: u64) -> Result<Opened<'_>, ImageError> {
    let decoder = decoder(bytes, max_pixels)?;
    let color = if decoder.has_alpha() { ColorType::Rgba8 } else { ColorType::Rgb8 };
    let size = decoder.dimensions();
    if decoder.is_animated() {
        let read = move |pixels: &mut [u8]| read_frame(bytes, max_pixels, (size.0, color), pixels);
        return Ok(Opened::new(size, color, read));
    }
    let mut decoder = decoder;
    Ok(Opened::new(size, color, move |pixels| {
        decoder.read_image(pixels).map_err(|error| undecodable(&error))
    }))
}

fn decoder<T: AsRef<[u8]>>(bytes: T, max_pixels: u64) -> Result<WebPDecoder<Cursor<T>>, ImageError> {
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|error| undecodable(&error))?;
    decoder.set_memory_limit(usize::try_from(memory_limit(max_pixels)).unwrap_or(usize::MAX));
    Ok(decoder)
}

/// The first frame of an animation.
struct Frame<'a> {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
    /// Its chunks: `ALPH` and `VP8 `, or `VP8L`.
    chunks: &'a [u8],
}

fn read_frame(
    bytes: &[u8],
    max_pixels: u64,
    (canvas_width, color): (u32, ColorType),
    pixels: &mut [u8],
) -> Result<(), ImageError> {
    let wrong = || ImageError::undecodable("WebP: the animation has no whole frame");
    let frame = Frame::first(bytes).ok_or_else(wrong)?;
    let mut decoder = decoder(frame.as_file(), max_pixels)?;
    let (width, from) = (frame.width, if decoder.has_alpha() { 4 } else { 3 });
    if decoder.dimensions() != (width as u32, frame.height as u32)
        || frame.left + width > canvas_width as usize
    {
        return Err(wrong());
    }
    let mut image = vec![0; width * frame.height * from];
    decoder.read_image(&mut image).map_err(|error| undecodable(&error))?;
    let to = usize::from(color.bytes_per_pixel());
    pixels.fill(0);
    let rows = pixels.chunks_exact_mut(canvas_width as usize * to).skip(frame.top);
    for (row, image) in rows.zip(image.chunks_exact(width * from)) {
        let places = row.chunks_exact_mut(to).skip(frame.left);
        for (place, pixel) in places.zip(image.chunks_exact(from)) {
            place[..3].copy_from_slice(&pixel[..3]);
            if let Some(alpha) = place.get_mut(3) {
                *alpha = pixel.get(3).copied().unwrap_or(u8::MAX);
            }
        }
    }
    Ok(())
}

impl<'a> Frame<'a> {
    /// Walks over the chunks of the file to the first `ANMF`.
    fn first(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes.get(12..)?;
        loop {
            let (head, after) = rest.split_at_checked(8)?;
            let length = u32::from_le_bytes(*head[4..].first_chunk()?) as usize;
            if head.starts_with(b"ANMF") {
                let data = after.get(..length.min(after.len()))?;
                let three = |at: usize| {
                    Some(u32::from_le_bytes([*data.get(at)?, *data.get(at + 1)?, *data.get(at + 2)?, 0])
                        as usize)
                };
                return Some(Self {
                    left: 2 * three(0)?,
                    top: 2 * three(3)?,
                    width: three(6)? + 1,
                    height: three(9)? + 1,
                    chunks: data.get(16..)?,
                });
            }
            rest = after.get(length + length % 2..)?;
        }
    }

    /// The frame as a WebP file of its own.
    fn as_file(&self) -> Vec<u8> {
        let mut chunks = Vec::new();
        if self.chunks.starts_with(b"ALPH") {
            let three = |value: usize| (value as u32 - 1).to_le_bytes().into_iter().take(3);
            chunks.extend(b"VP8X\x0A\0\0\0\x10\0\0\0");
            chunks.extend(three(self.width).chain(three(self.height)));
        }
        chunks.extend_from_slice(self.chunks);
        let length = (4 + chunks.len() as u32).to_le_bytes();
        [b"RIFF".as_slice(), &length, b"WEBP", &chunks].concat()
    }
}

fn undecodable(error: &DecodingError) -> ImageError {
    match error {
        DecodingError::MemoryLimitExceeded | DecodingError::ImageTooLarge => {
            ImageError::too_large("WebP: it needs more memory than max_pixels allows")
        }
        DecodingError::IoError(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => {
            super::truncated("WebP")
        }
        _ => ImageError::undecodable(format!("WebP: {error}")),
    }
}
