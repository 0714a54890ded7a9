//! Pixels of any kind to RGB, as Pillow and Transformers convert them.

use super::{Alpha, ImageError};
use image::ColorType;

/// Converts `raw` to RGB; 16-bit grey is clipped to 8 bits or, as all other 16-bit samples, loses its low byte.
pub fn convert(
    (color, clips_grey): (ColorType, bool),
    raw: &[u8],
    alpha: Alpha,
    rgb: &mut Vec<u8>,
) -> Result<(), ImageError> {
    rgb.clear();
    let clipped = |bytes: &[u8; 2]| u8::try_from(u16::from_ne_bytes(*bytes)).unwrap_or(u8::MAX);
    let high = |low: u8, high: u8| u16::from_ne_bytes([low, high]).to_be_bytes()[0];
    let mut with_alpha = |colours: [u8; 3], opacity: u8| {
        rgb.extend(match alpha {
            Alpha::White => colours.map(|colour| over_white(colour, opacity)),
            Alpha::Drop => colours,
        });
    };
    match color {
        ColorType::L8 => rgb.extend(raw.iter().flat_map(|&grey| [grey; 3])),
        ColorType::La8 => raw.as_chunks().0.iter().for_each(|&[grey, alpha]| with_alpha([grey; 3], alpha)),
        ColorType::Rgba8 => {
            raw.as_chunks().0.iter().for_each(|&[r, g, b, alpha]| with_alpha([r, g, b], alpha));
        }
        ColorType::L16 if clips_grey => {
            rgb.extend(raw.as_chunks::<2>().0.iter().flat_map(|grey| [clipped(grey); 3]));
        }
        ColorType::L16 => {
            rgb.extend(raw.as_chunks::<2>().0.iter().flat_map(|&[a, b]| [high(a, b); 3]));
        }
        ColorType::La16 => raw.as_chunks().0.iter().for_each(|&[a, b, alpha, alpha2]| {
            with_alpha([high(a, b); 3], high(alpha, alpha2));
        }),
        ColorType::Rgb16 => rgb.extend(raw.as_chunks::<2>().0.iter().map(|&[a, b]| high(a, b))),
        ColorType::Rgba16 => raw.as_chunks().0.iter().for_each(|&[r, r1, g, g1, b, b1, alpha, alpha1]| {
            with_alpha([high(r, r1), high(g, g1), high(b, b1)], high(alpha, alpha1));
        }),
        other => return Err(ImageError::unsupported(format!("pixels of the type {other:?} are not read"))),
    }
    Ok(())
}

/// A colour on white, as Pillow's `alpha_composite` has it (`AlphaComposite.c`, whose 7 extra bits cancel out on white).
fn over_white(colour: u8, alpha: u8) -> u8 {
    let (colour, alpha) = (u32::from(colour), u32::from(alpha));
    let sum = ((colour * alpha + 255 * (255 - alpha)) << 7) + (0x80 << 7);
    ((((sum >> 8) + sum) >> 8) >> 7) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_white_and_everything_is_itself() {
        for colour in 0..=255 {
            assert_eq!((over_white(colour, 0), over_white(colour, 255)), (255, colour));
        }
        assert_eq!([(20, 128), (100, 254), (5, 64)].map(|(c, a)| over_white(c, a)), [137, 101, 192]);
    }
}
