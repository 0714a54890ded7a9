//! RGB to a square in planes, as `CLIPImageProcessor` does it on Pillow.
//!
//! Follows `transformers/image_transforms.py` (5.24, `get_resize_output_image_size`, `center_crop`) and `LlavaImageProcessor`'s
//! `pad_to_square`; [`Convolver`] is Pillow's resampling. Only what the crop keeps is computed.
//!
//! `fast_image_resize` computes the same sums with fewer bits, here the width before the height, as Pillow does.
//!
//! It is for what people look at (thumbnails, previews, perceptual hashes), and for training where a manifest asks for it: 0.3% of
//! its values are up to 2 levels off.

use super::codecs::{ImageError, Rgb, TOO_LARGE, Window};
use super::convolve::{Axis, Convolver, Kernels};
use super::{Crop, Filter, ImageProcessor, Resampler};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions};

/// The sizes after resizing: the short side is `resize_to`, the long side in proportion, rounded down; then the middle is kept.
fn axes(width: u32, height: u32, processor: &ImageProcessor) -> (Axis, Axis) {
    let short = u64::from(width.min(height));
    let (size, resize_to) = (processor.size, u64::from(processor.resize_to.unwrap_or(processor.size)));
    let axis = |from: u32| {
        let to = match processor.crop {
            Crop::Center | Crop::Pad => resize_to * u64::from(from) / short,
            Crop::None => resize_to,
        };
        Axis { from, to, start: to.saturating_sub(u64::from(size)) / 2, size }
    };
    (axis(width), axis(height))
}

/// Resizes images one after the other, in memory that is used again.
#[derive(Debug, Default)]
pub struct Resizer {
    convolver: Convolver,
    kernels: Kernels,
    padded: Vec<u8>,
    fast: Fast,
}

impl Resizer {
    /// The pixels of an image that its square depends on.
    pub fn window(&mut self, (width, height): (u32, u32), processor: &ImageProcessor) -> Window {
        let is_padded = processor.crop == Crop::Pad && width != height;
        if is_padded || processor.resampler == Resampler::Fast {
            return Window::whole((width, height));
        }
        let (x, y) = axes(width, height, processor);
        let mut touched = |axis| self.kernels.get(processor.filter, axis).touched();
        Window { columns: touched(x), rows: touched(y) }
    }

    /// Writes the square of `rgb` (`[height, width, 3]`) to `planes` (`[3, size, size]`).
    pub fn resize(
        &mut self,
        rgb: &Rgb<'_>,
        processor: &ImageProcessor,
        planes: &mut [u8],
    ) -> Result<(), ImageError> {
        if processor.crop == Crop::Pad && rgb.width != rgb.height {
            let mut padded = std::mem::take(&mut self.padded);
            let whole = pad(rgb, processor, &mut padded)
                .and_then(|square| self.resize_square(&square, processor, planes));
            self.padded = padded;
            return whole;
        }
        self.resize_square(rgb, processor, planes)
    }

    fn resize_square(
        &mut self,
        rgb: &Rgb<'_>,
        processor: &ImageProcessor,
        planes: &mut [u8],
    ) -> Result<(), ImageError> {
        let (x, y) = axes(rgb.width, rgb.height, processor);
        if processor.resampler == Resampler::Fast {
            return self.fast.resize(rgb, (x, y), processor.filter, planes);
        }
        let (x, y) = (self.kernels.get(processor.filter, x), self.kernels.get(processor.filter, y));
        self.convolver.resize(rgb.pixels, rgb.width as usize, &x, &y, planes);
        Ok(())
    }
}

/// The image in the middle of a square of the mean colour.
fn pad<'a>(
    rgb: &Rgb<'_>,
    processor: &ImageProcessor,
    padded: &'a mut Vec<u8>,
) -> Result<Rgb<'a>, ImageError> {
    let (width, height) = (rgb.width as usize, rgb.height as usize);
    let side = rgb.width.max(rgb.height);
    if u64::from(side).pow(2) > processor.max_pixels {
        let detail =
            format!("{side} × {side} pixels when padded, over max_pixels = {}", processor.max_pixels);
        return Err(ImageError { code: TOO_LARGE, detail });
    }
    let colour = processor.norm.mean.map(|mean| (f64::from(mean) * 255.0) as u8);
    let length = side as usize;
    padded.clear();
    padded.resize(length * length * 3, 0);
    padded.as_chunks_mut::<3>().0.fill(colour);
    let (left, top) = ((length - width) / 2, (length - height) / 2);
    let rows = padded.chunks_exact_mut(length * 3).skip(top);
    for (to, from) in rows.zip(rgb.pixels.chunks_exact(width * 3)) {
        to[left * 3..][..width * 3].copy_from_slice(from);
    }
    Ok(Rgb { width: side, height: side, pixels: padded })
}

/// `fast_image_resize`, with memory that is used again.
#[derive(Debug, Default)]
struct Fast {
    resizer: fast_image_resize::Resizer,
    narrow: Vec<u8>,
    square: Vec<u8>,
}

impl Fast {
    fn resize(
        &mut self,
        rgb: &Rgb<'_>,
        (x, y): (Axis, Axis),
        filter: Filter,
        planes: &mut [u8],
    ) -> Result<(), ImageError> {
        let narrow = ((x.size, rgb.height), 3 * x.size as usize * rgb.height as usize);
        let square = ((x.size, y.size), 3 * x.size as usize * y.size as usize);
        let (left, top, width, height) = (x.first(), y.first(), x.length(), y.length());
        self.narrow.resize(narrow.1, 0);
        self.square.resize(square.1, 0);
        let size = (rgb.width, rgb.height);
        let crop = |left, top, width, height| {
            ResizeOptions::new().resize_alg(algorithm(filter)).crop(left, top, width, height)
        };
        let rows = crop(left, 0.0, width, f64::from(rgb.height));
        pass(&mut self.resizer, (size, rgb.pixels), (narrow.0, &mut self.narrow), &rows)?;
        let columns = crop(0.0, top, f64::from(x.size), height);
        pass(&mut self.resizer, (narrow.0, &self.narrow), (square.0, &mut self.square), &columns)?;
        let (red, rest) = planes.split_at_mut(planes.len() / 3);
        let (green, blue) = rest.split_at_mut(rest.len() / 2);
        let pixels = self.square.as_chunks::<3>().0.iter();
        for (((pixel, red), green), blue) in pixels.zip(red).zip(green).zip(blue) {
            [*red, *green, *blue] = *pixel;
        }
        Ok(())
    }
}

impl Axis {
    /// Where the kept part begins in the input, in pixels.
    fn first(self) -> f64 {
        self.start as f64 * self.scale()
    }

    /// How many input pixels the kept part comes from.
    fn length(self) -> f64 {
        (f64::from(self.size) * self.scale()).min(f64::from(self.from) - self.first())
    }
}

fn algorithm(filter: Filter) -> ResizeAlg {
    match filter {
        Filter::Nearest => ResizeAlg::Nearest,
        Filter::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
        Filter::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
        Filter::Lanczos3 => ResizeAlg::Convolution(FilterType::Lanczos3),
    }
}

/// An image's size and pixels.
type Sized<T> = ((u32, u32), T);

fn pass(
    resizer: &mut fast_image_resize::Resizer,
    ((width, height), from): Sized<&[u8]>,
    ((to_width, to_height), to): Sized<&mut [u8]>,
    options: &ResizeOptions,
) -> Result<(), ImageError> {
    let wrong = |error: String| ImageError { code: super::codecs::UNDECODABLE, detail: error };
    let from =
        ImageRef::new(width, height, from, PixelType::U8x3).map_err(|error| wrong(error.to_string()))?;
    let to = Image::from_slice_u8(to_width, to_height, to, PixelType::U8x3);
    let mut to = to.map_err(|error| wrong(error.to_string()))?;
    resizer.resize(&from, &mut to, options).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processor(crop: Crop, filter: Filter) -> ImageProcessor {
        ImageProcessor { filter, crop, ..ImageProcessor::default() }
    }

    #[test]
    fn the_long_side_is_rounded_down_and_the_middle_kept() {
        let center = processor(Crop::Center, Filter::Bicubic);
        let (x, y) = axes(300, 400, &center);
        assert_eq!((x.to, x.start, y.to, y.start), (224, 0, 298, 37));
        let (x, y) = axes(1000, 7, &center);
        assert_eq!((x.to, x.start, y.to, y.start), (32_000, 15_888, 224, 0));
        let (x, y) = axes(300, 400, &processor(Crop::None, Filter::Bicubic));
        assert_eq!((x.to, y.to), (224, 224));
        let (x, y) = axes(300, 400, &ImageProcessor { resize_to: Some(256), ..center });
        assert_eq!((x.to, x.start, y.to, y.start), (256, 16, 341, 58));
    }

    /// The whole image resized, the crop at the end.
    fn plainly(rgb: &Rgb<'_>, processor: &ImageProcessor) -> Vec<u8> {
        let (x, y) = axes(rgb.width, rgb.height, processor);
        let whole_axis = |axis: Axis| Axis { start: 0, size: axis.to as u32, ..axis };
        let mut kernels = Kernels::default();
        let wide = kernels.get(processor.filter, whole_axis(x));
        let high = kernels.get(processor.filter, whole_axis(y));
        let mut whole = vec![0; 3 * (x.to * y.to) as usize];
        Convolver::default().resize(rgb.pixels, rgb.width as usize, &wide, &high, &mut whole);
        let rows = whole.chunks(x.to as usize).enumerate();
        let kept = rows.filter(|(n, _)| (y.start..y.start + u64::from(y.size)).contains(&(*n as u64 % y.to)));
        kept.flat_map(|(_, row)| row[x.start as usize..][..x.size as usize].to_vec()).collect()
    }

    fn noise(width: u64, height: u64) -> Vec<u8> {
        (0..width * height * 3).map(|n| (n.wrapping_mul(n ^ 0x9E37) >> 7) as u8).collect()
    }

    #[test]
    fn computing_only_what_is_kept_is_cropping_at_the_end() {
        let mut resizer = Resizer::default();
        for (width, height) in [(300, 400), (400, 300), (37, 91), (500, 224), (224, 224), (641, 97), (5, 140)]
        {
            let pixels = noise(width, height);
            let rgb = Rgb { width: width as u32, height: height as u32, pixels: &pixels };
            for filter in [Filter::Nearest, Filter::Bilinear, Filter::Bicubic, Filter::Lanczos3] {
                let mut planes = vec![0; 3 * 224 * 224];
                let processor = processor(Crop::Center, filter);
                resizer.resize(&rgb, &processor, &mut planes).unwrap();
                assert!(planes == plainly(&rgb, &processor), "{width} × {height}, {filter:?}");
            }
        }
    }

    #[test]
    fn the_fast_resampler_is_close_to_pillows() {
        let mut resizer = Resizer::default();
        for (width, height) in [(300, 400), (400, 300), (90, 37), (224, 224)] {
            // Smooth, as photos are.
            let wave = |n: u64| (127.0 + 90.0 * (n as f64 / 37.0).sin()) as u8;
            let pixels: Vec<u8> = (0..width * height * 3).map(wave).collect();
            let rgb = Rgb { width: width as u32, height: height as u32, pixels: &pixels };
            let squares = [Resampler::Pillow, Resampler::Fast].map(|resampler| {
                let mut planes = vec![0; 3 * 224 * 224];
                let processor = ImageProcessor { resampler, ..ImageProcessor::default() };
                resizer.resize(&rgb, &processor, &mut planes).unwrap();
                planes
            });
            let apart = squares[0].iter().zip(&squares[1]).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(apart <= Some(2), "{width} × {height}: {apart:?}");
        }
    }

    #[test]
    fn a_padded_image_that_is_too_large_is_refused() {
        let pixels = noise(1000, 2);
        let rgb = Rgb { width: 1000, height: 2, pixels: &pixels };
        let processor = ImageProcessor { max_pixels: 999_999, ..processor(Crop::Pad, Filter::Bicubic) };
        let refused = Resizer::default().resize(&rgb, &processor, &mut vec![0; 3 * 224 * 224]);
        assert_eq!(refused.unwrap_err().code, TOO_LARGE);
    }
}
