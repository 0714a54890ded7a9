//! RGB to a square in planes, as `CLIPImageProcessor` does it on Pillow.
//!
//! Follows `transformers/image_transforms.py` (5.23, `get_resize_output_image_size`, `center_crop`) and Pillow's
//! `src/libImaging/Resample.c`: antialiased, 8 bits, and in two passes, the width first. `fast_image_resize` in one call takes
//! the height first, which gives other roundings. Only what the crop keeps is computed.

use super::{Crop, Filter};
use fast_image_resize as fir;
use fir::images::{Image, ImageRef};
use fir::{FilterType, PixelType, ResizeAlg, ResizeError, ResizeOptions};

/// Resizes pictures one after the other, in memory that is used again.
#[derive(Default)]
pub struct Resizer {
    inner: fir::Resizer,
    narrow: Vec<u8>,
    square: Vec<u8>,
}

/// One axis: `from` pixels become `to`, of which `size` from `start` on are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Axis {
    from: u32,
    to: u64,
    start: u64,
    size: u32,
}

impl Axis {
    fn scale(self) -> f64 {
        f64::from(self.from) / self.to as f64
    }

    /// First source pixel of the part that is kept, and its extent. Rounded once: a short side is exactly all of `from`.
    fn kept(self) -> (f64, f64) {
        let source = |pixels: u64| (pixels * u64::from(self.from)) as f64 / self.to as f64;
        (source(self.start), source(u64::from(self.size)))
    }

    /// The source pixels that a kernel of the given support touches: first and one past the last.
    fn touched(self, support: f64) -> (u32, u32) {
        let (first, extent) = self.kept();
        let reach = support * self.scale().max(1.0) + 2.0;
        let from = (first - reach).floor().max(0.0);
        let to = (first + extent + reach).ceil().min(f64::from(self.from));
        (from as u32, to as u32)
    }
}

/// The sizes after resizing: the short side is `size`, the long side in proportion, rounded down; then the middle is kept.
fn axes(width: u32, height: u32, size: u32, crop: Crop) -> (Axis, Axis) {
    let short = u64::from(width.min(height));
    let axis = |from: u32| {
        let to = match crop {
            Crop::Center => u64::from(size) * u64::from(from) / short,
            Crop::None => u64::from(size),
        };
        Axis { from, to, start: (to - u64::from(size)) / 2, size }
    };
    (axis(width), axis(height))
}

fn algorithm(filter: Filter) -> (ResizeAlg, f64) {
    match filter {
        Filter::Nearest => (ResizeAlg::Nearest, 1.0),
        Filter::Bilinear => (ResizeAlg::Convolution(FilterType::Bilinear), 1.0),
        Filter::Bicubic => (ResizeAlg::Convolution(FilterType::CatmullRom), 2.0),
        Filter::Lanczos3 => (ResizeAlg::Convolution(FilterType::Lanczos3), 3.0),
    }
}

impl Resizer {
    /// Writes the square of `rgb` (`[height, width, 3]`) to `planes` (`[3, size, size]`).
    pub fn resize(
        &mut self,
        rgb: &super::decode::Rgb<'_>,
        (size, filter, crop): (u32, Filter, Crop),
        planes: &mut [u8],
    ) -> Result<(), ResizeError> {
        let (algorithm, support) = algorithm(filter);
        let (x, y) = axes(rgb.width, rgb.height, size, crop);
        let (top, bottom) = y.touched(support);
        let rows = bottom - top;
        let row_bytes = rgb.width as usize * 3;
        let source = &rgb.pixels[top as usize * row_bytes..bottom as usize * row_bytes];

        let (left, width) = x.kept();
        self.narrow.resize(size as usize * rows as usize * 3, 0);
        let options = ResizeOptions::new()
            .resize_alg(algorithm)
            .crop(left, 0.0, width, f64::from(rows))
            .use_alpha(false);
        let from = ImageRef::new(rgb.width, rows, source, PixelType::U8x3).map_err(invalid)?;
        let mut to = Image::from_slice_u8(size, rows, &mut self.narrow, PixelType::U8x3).map_err(invalid)?;
        self.inner.resize(&from, &mut to, &options)?;

        let (first, height) = y.kept();
        self.square.resize((size * size * 3) as usize, 0);
        let options = ResizeOptions::new()
            .resize_alg(algorithm)
            .crop(0.0, first - f64::from(top), f64::from(size), height)
            .use_alpha(false);
        let from = ImageRef::new(size, rows, &self.narrow, PixelType::U8x3).map_err(invalid)?;
        let mut to = Image::from_slice_u8(size, size, &mut self.square, PixelType::U8x3).map_err(invalid)?;
        self.inner.resize(&from, &mut to, &options)?;
        to_planes(&self.square, planes);
        Ok(())
    }
}

fn invalid<E>(_: E) -> ResizeError {
    ResizeError::ImageError(fir::ImageError::UnsupportedPixelType)
}

/// `[size, size, 3]` to `[3, size, size]`.
fn to_planes(pixels: &[u8], planes: &mut [u8]) {
    let (red, rest) = planes.split_at_mut(pixels.len() / 3);
    let (green, blue) = rest.split_at_mut(pixels.len() / 3);
    for (((&[r, g, b], red), green), blue) in pixels.as_chunks::<3>().0.iter().zip(red).zip(green).zip(blue) {
        (*red, *green, *blue) = (r, g, b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_side_is_rounded_down_and_the_middle_kept() {
        let (x, y) = axes(300, 400, 224, Crop::Center);
        assert_eq!((x.to, x.start, y.to, y.start), (224, 0, 298, 37));
        let (x, y) = axes(1000, 7, 224, Crop::Center);
        assert_eq!((x.to, x.start, y.to, y.start), (32_000, 15_888, 224, 0));
        let (x, y) = axes(300, 400, 224, Crop::None);
        assert_eq!((x.to, y.to), (224, 224));
    }

    /// Both passes over the whole picture, the crop at the end.
    fn plainly(rgb: &super::super::decode::Rgb<'_>, size: u32, filter: Filter) -> Vec<u8> {
        let (x, y) = axes(rgb.width, rgb.height, size, Crop::Center);
        let options = ResizeOptions::new().resize_alg(algorithm(filter).0).use_alpha(false);
        let mut narrow = Image::new(x.to as u32, rgb.height, PixelType::U8x3);
        let source = ImageRef::new(rgb.width, rgb.height, rgb.pixels, PixelType::U8x3).unwrap();
        fir::Resizer::new().resize(&source, &mut narrow, &options).unwrap();
        let mut whole = Image::new(x.to as u32, y.to as u32, PixelType::U8x3);
        fir::Resizer::new().resize(&narrow, &mut whole, &options).unwrap();
        let rows = whole.buffer().chunks(x.to as usize * 3).skip(y.start as usize).take(size as usize);
        let kept = rows.flat_map(|row| &row[x.start as usize * 3..][..size as usize * 3]).copied();
        let mut planes = vec![0; (3 * size * size) as usize];
        to_planes(&kept.collect::<Vec<u8>>(), &mut planes);
        planes
    }

    #[test]
    fn computing_only_what_is_kept_is_cropping_at_the_end_but_for_single_levels() {
        let mut resizer = Resizer::default();
        for (width, height) in
            [(300, 400), (400, 300), (37, 91), (500, 224), (224, 224), (641, 97), (5, 1400)]
        {
            let noise = (0_u64..width * height * 3).map(|n| (n.wrapping_mul(n ^ 0x9E37) >> 7) as u8);
            let pixels: Vec<u8> = noise.collect();
            let rgb =
                super::super::decode::Rgb { width: width as u32, height: height as u32, pixels: &pixels };
            for filter in [Filter::Nearest, Filter::Bilinear, Filter::Bicubic, Filter::Lanczos3] {
                let mut planes = vec![0; 3 * 224 * 224];
                resizer.resize(&rgb, (224, filter, Crop::Center), &mut planes).unwrap();
                // The kernel's fixed-point precision follows its largest weight, which a crop may leave out.
                let whole = plainly(&rgb, 224, filter);
                let apart = planes.iter().zip(&whole).filter(|(a, b)| a != b);
                assert!(apart.clone().all(|(a, b)| a.abs_diff(*b) == 1), "{width} × {height}, {filter:?}");
                assert!(apart.count() < whole.len() / 100, "{width} × {height}, {filter:?}");
            }
        }
    }

    #[test]
    fn of_a_short_side_of_any_length_all_is_kept() {
        for from in 1..=5000 {
            let (short, long) = axes(from, from + 250, 224, Crop::Center);
            assert_eq!(short.kept(), (0.0, f64::from(from)));
            let (first, extent) = long.kept();
            assert!(first + extent <= f64::from(from + 250), "{from}");
        }
    }

    #[test]
    fn planes_hold_one_colour_each() {
        let mut planes = [0; 6];
        to_planes(&[1, 2, 3, 4, 5, 6], &mut planes);
        assert_eq!(planes, [1, 4, 2, 5, 3, 6]);
    }
}
