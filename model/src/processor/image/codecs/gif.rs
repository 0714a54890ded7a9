//! GIF: the first frame on its canvas, as Pillow composes it. What the frame leaves free has the transparent colour, or colour 0.

use super::{ImageError, Opened, memory_limit, truncated};
use gif::{ColorOutput, DecodeOptions, Decoder, DecodingError, MemoryLimit};
use image::ColorType;
use std::io::{Cursor, ErrorKind};
use std::num::NonZeroU64;

type GifDecoder<'a> = Decoder<Cursor<&'a [u8]>>;

/// The first frame's place on the canvas, and what its numbers mean.
struct Frame {
    left: usize,
    top: usize,
    width: usize,
    canvas_width: usize,
    palette: Vec<u8>,
    transparent: Option<u8>,
}

/// Reads the headers up to the first frame.
pub fn open(bytes: &[u8], max_pixels: u64) -> Result<Opened<'_>, ImageError> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(
        NonZeroU64::new(memory_limit(max_pixels)).map_or(MemoryLimit::Unlimited, MemoryLimit::Bytes),
    );
    let mut decoder = options.read_info(Cursor::new(bytes)).map_err(|error| undecodable(&error))?;
    let screen = (decoder.width(), decoder.height());
    let global = decoder.global_palette().map(<[u8]>::to_vec);
    let frame = decoder.next_frame_info().map_err(|error| undecodable(&error))?;
    let frame = frame.ok_or_else(|| ImageError::undecodable("GIF: there is no image in it"))?;
    let size = (
        u32::from(screen.0).max(u32::from(frame.left) + u32::from(frame.width)),
        u32::from(screen.1).max(u32::from(frame.top) + u32::from(frame.height)),
    );
    let place = Frame {
        left: usize::from(frame.left),
        top: usize::from(frame.top),
        width: usize::from(frame.width),
        canvas_width: size.0 as usize,
        palette: frame.palette.clone().or(global).unwrap_or_default(),
        transparent: frame.transparent,
    };
    let color = if place.transparent.is_some() { ColorType::Rgba8 } else { ColorType::Rgb8 };
    Ok(Opened::new(size, color, move |pixels| read(decoder, &place, color, pixels)))
}

fn read(
    mut decoder: GifDecoder<'_>,
    frame: &Frame,
    color: ColorType,
    pixels: &mut [u8],
) -> Result<(), ImageError> {
    let mut indexes = vec![0; decoder.buffer_size()];
    decoder.read_into_buffer(&mut indexes).map_err(|error| undecodable(&error))?;
    let n_bytes = usize::from(color.bytes_per_pixel());
    let free = frame.colour(frame.transparent.unwrap_or(0));
    pixels.chunks_exact_mut(n_bytes).for_each(|pixel| pixel.copy_from_slice(&free[..n_bytes]));
    if frame.width == 0 {
        return Ok(());
    }
    let rows = pixels.chunks_exact_mut(frame.canvas_width * n_bytes).skip(frame.top);
    for (row, indexes) in rows.zip(indexes.chunks_exact(frame.width)) {
        let places = row.chunks_exact_mut(n_bytes).skip(frame.left);
        places
            .zip(indexes)
            .for_each(|(pixel, index)| pixel.copy_from_slice(&frame.colour(*index)[..n_bytes]));
    }
    Ok(())
}

impl Frame {
    /// The colour and opacity of a number. Pillow's palettes begin as a ramp of greys.
    fn colour(&self, index: u8) -> [u8; 4] {
        let start = 3 * usize::from(index);
        let colour = self.palette.get(start..).and_then(<[u8]>::first_chunk);
        let [red, green, blue] = colour.copied().unwrap_or([index; 3]);
        [red, green, blue, if self.transparent == Some(index) { 0 } else { u8::MAX }]
    }
}

fn undecodable(error: &DecodingError) -> ImageError {
    match error {
        DecodingError::Io(cause) if cause.kind() == ErrorKind::UnexpectedEof => truncated("GIF"),
        DecodingError::OutOfMemory => {
            ImageError::too_large("GIF: it needs more memory than max_pixels allows")
        }
        _ => ImageError::undecodable(format!("GIF: {error}")),
    }
}
