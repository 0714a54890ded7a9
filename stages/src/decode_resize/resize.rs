//! RGB to a square in planes, as `CLIPImageProcessor` does it on Pillow.
//!
//! Follows `transformers/image_transforms.py` (5.23, `get_resize_output_image_size`, `center_crop`); [`Convolver`] is
//! Pillow's resampling. Only what the crop keeps is computed.

use super::convolve::{Convolver, Kernel};
use super::{Crop, Filter};

/// One axis: `from` pixels become `to`, of which `size` from `start` on are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Axis {
    from: u32,
    to: u64,
    start: u64,
    size: u32,
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

/// Resizes pictures one after the other, in memory that is used again.
#[derive(Debug, Default)]
pub struct Resizer {
    convolver: Convolver,
    x: Kernel,
    y: Kernel,
}

impl Resizer {
    /// Writes the square of `rgb` (`[height, width, 3]`) to `planes` (`[3, size, size]`).
    pub fn resize(
        &mut self,
        rgb: &super::decode::Rgb<'_>,
        (size, filter, crop): (u32, Filter, Crop),
        planes: &mut [u8],
    ) {
        let (x, y) = axes(rgb.width, rgb.height, size, crop);
        self.x.set(filter, x.from, x.to, x.start, x.size);
        self.y.set(filter, y.from, y.to, y.start, y.size);
        self.convolver.resize(rgb.pixels, rgb.width as usize, &self.x, &self.y, planes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode::Rgb;
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

    /// The whole picture resized, the crop at the end.
    fn plainly(rgb: &Rgb<'_>, size: u32, filter: Filter) -> Vec<u8> {
        let (x, y) = axes(rgb.width, rgb.height, size, Crop::Center);
        let [mut wide, mut high] = [(); 2].map(|()| Kernel::default());
        wide.set(filter, x.from, x.to, 0, x.to as u32);
        high.set(filter, y.from, y.to, 0, y.to as u32);
        let mut whole = vec![0; 3 * (x.to * y.to) as usize];
        Convolver::default().resize(rgb.pixels, rgb.width as usize, &wide, &high, &mut whole);
        let rows = whole.chunks(x.to as usize).enumerate();
        let kept = rows.filter(|(n, _)| (y.start..y.start + u64::from(size)).contains(&(*n as u64 % y.to)));
        kept.flat_map(|(_, row)| row[x.start as usize..][..size as usize].to_vec()).collect()
    }

    #[test]
    fn computing_only_what_is_kept_is_cropping_at_the_end() {
        let mut resizer = Resizer::default();
        for (width, height) in [(300, 400), (400, 300), (37, 91), (500, 224), (224, 224), (641, 97), (5, 140)]
        {
            let noise = (0_u64..width * height * 3).map(|n| (n.wrapping_mul(n ^ 0x9E37) >> 7) as u8);
            let pixels: Vec<u8> = noise.collect();
            let rgb = Rgb { width: width as u32, height: height as u32, pixels: &pixels };
            for filter in [Filter::Nearest, Filter::Bilinear, Filter::Bicubic, Filter::Lanczos3] {
                let mut planes = vec![0; 3 * 224 * 224];
                resizer.resize(&rgb, (224, filter, Crop::Center), &mut planes);
                assert!(planes == plainly(&rgb, 224, filter), "{width} × {height}, {filter:?}");
            }
        }
    }
}
