//! A scene as PNG bytes.
//!
//! Only additions, multiplications and comparisons in f32, which give the same bytes on every machine.

use super::scene::{Scene, Spot};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, ImageError};

/// Points per pixel and direction that are looked at to smooth a shape's edge.
const POINTS: usize = 3;

/// The encoded image, `size` × `size` pixels, RGB.
pub fn png(scene: &Scene, size: usize) -> Result<Vec<u8>, ImageError> {
    let pixels = pixels(scene, size);
    let mut bytes = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Sub);
    encoder.write_image(&pixels, size as u32, size as u32, ExtendedColorType::Rgb8)?;
    Ok(bytes)
}

/// The image's values, row by row, three channels side by side.
pub fn pixels(scene: &Scene, size: usize) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(3 * size * size);
    for row in 0..size {
        let background = graded(scene.background, (row as f32 + 0.5) / size as f32);
        pixels.extend(background.map(to_u8).into_iter().cycle().take(3 * size));
    }
    for spot in &scene.spots {
        stamp(scene, *spot, size, &mut pixels);
    }
    pixels
}

fn graded([top, bottom]: [[u8; 3]; 2], share: f32) -> [f32; 3] {
    std::array::from_fn(|channel| mix(f32::from(top[channel]), f32::from(bottom[channel]), share))
}

fn mix(from: f32, to: f32, share: f32) -> f32 {
    from + (to - from) * share
}

fn to_u8(value: f32) -> u8 {
    (value + 0.5) as u8
}

/// Paints one shape over what is there.
fn stamp(scene: &Scene, spot: Spot, size: usize, pixels: &mut [u8]) {
    let side = size as f32;
    let reach = |centre: f32| {
        let first = ((centre - spot.radius) * side).max(0.0) as usize;
        let last = ((centre + spot.radius) * side) as usize;
        first..size.min(last + 1)
    };
    for row in reach(spot.y) {
        for column in reach(spot.x) {
            let share = coverage(scene.shape, spot, row, column, side);
            let pixel = &mut pixels[3 * (row * size + column)..][..3];
            for (value, paint) in pixel.iter_mut().zip(scene.paint) {
                *value = to_u8(mix(f32::from(*value), f32::from(paint), share));
            }
        }
    }
}

/// The share of a pixel that a shape covers.
fn coverage(shape: usize, spot: Spot, row: usize, column: usize, side: f32) -> f32 {
    let at = |index: usize, point: usize, centre: f32| {
        ((index as f32 + (point as f32 + 0.5) / POINTS as f32) / side - centre) / spot.radius
    };
    let points = (0..POINTS).flat_map(|y| (0..POINTS).map(move |x| (x, y)));
    let inside = points.filter(|&(x, y)| covers(shape, at(column, x, spot.x), at(row, y, spot.y))).count();
    inside as f32 / (POINTS * POINTS) as f32
}

/// Whether shape `shape` of [`super::words::SHAPES`] covers the point, in units of its radius from its centre.
pub fn covers(shape: usize, x: f32, y: f32) -> bool {
    let (across, down) = (x.abs(), y.abs());
    match shape {
        0 => x * x + y * y <= 1.0,
        1 => across <= 0.86 && down <= 0.86,
        2 => y <= 0.75 && across * 1.75 <= y + 1.0,
        _ => (across <= 0.33 && down <= 1.0) || (down <= 0.33 && across <= 1.0),
    }
}
