//! Image preprocessing: an encoded image to the square of pixels that a vision tower takes.
//!
//! In: a file's bytes. Out: `[3, size, size]` u8, channels first, as `CLIPImageProcessor` on Pillow has them before it rescales and
//! normalises (the model does that, on the device). The settings are the same in training, in inference and, as
//! `preprocessor_config.json` ([`config`]), in Transformers.
//!
//! | file | what |
//! |---|---|
//! | [`settings`] | [`ImageProcessor`] and what it holds |
//! | [`codecs`] | every question about encoded images: decoding, sizes, kinds, thumbnails |
//! | [`resize`] | RGB to the square, with one of two resamplers |
//! | [`convolve`] | Pillow's resampling, to the bit |

pub mod codecs;
mod config;
mod convolve;
mod resize;
mod settings;

use std::cell::RefCell;

pub use codecs::ImageError;
use codecs::{Buffers, Decoding, decode};
pub use config::UnsupportedImage;
use resize::Resizer;
pub use settings::{Alpha, Crop, Filter, ImageProcessor, Orientation, Resampler};

thread_local! {
    /// Buffers of a thread, so that an image costs no allocation.
    static WORK: RefCell<(Buffers, Resizer)> = RefCell::default();
}

impl ImageProcessor {
    /// Bytes of one square.
    pub fn n_bytes(&self) -> usize {
        3 * self.size as usize * self.size as usize
    }

    /// One encoded image to `[3, size, size]`, u8.
    pub fn prepare(&self, encoded: &[u8]) -> Result<Vec<u8>, ImageError> {
        let mut pixels = vec![0; self.n_bytes()];
        self.prepare_into(encoded, &mut pixels)?;
        Ok(pixels)
    }

    /// As [`ImageProcessor::prepare`], into memory of exactly [`ImageProcessor::n_bytes`]. What it wrote is of no use after an error.
    pub fn prepare_into(&self, encoded: &[u8], pixels: &mut [u8]) -> Result<(), ImageError> {
        WORK.with_borrow_mut(|(buffers, resizer)| {
            let window = |size| resizer.window(size, self);
            let rgb = decode(encoded, &self.decoding(), window, buffers)?;
            resizer.resize(&rgb, self, pixels)?;
            buffers.trim();
            Ok(())
        })
    }

    /// How an image is decoded.
    pub fn decoding(&self) -> Decoding {
        Decoding { max_pixels: self.max_pixels, alpha: self.alpha, orientation: self.orientation }
    }
}
