//! A row as the page shows it: its pictures small, its texts shortened.

use crate::decode_resize::decode::{Buffers, decode};
use crate::filter::measure::Turn;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::thumbnail;
use image::{ExtendedColorType, RgbImage};
use serde::Serialize;

/// Longest side of a picture on the page, in pixels.
const SIDE: u32 = 160;
/// Pictures of a row that are shown.
const PICTURES: usize = 4;
/// Characters of a text that are shown.
const CHARS: usize = 600;
/// Larger pictures are not decoded for the page.
const MAX_PIXELS: u64 = 100_000_000;
const QUALITY: u8 = 80;

/// A row on the page.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Shown {
    pub id: String,
    /// Pictures as `data:` addresses.
    pub pictures: Vec<String>,
    /// Pictures of the row that cannot be shown.
    pub unseen: usize,
    pub turns: Vec<ShownTurn>,
    /// Language, source, tokens and the like: name and value.
    pub facts: Vec<(&'static str, String)>,
    /// Why the row cannot be used.
    pub reject: Option<String>,
}

/// One turn of a conversation.
#[derive(Clone, Debug, Serialize)]
pub struct ShownTurn {
    pub role: String,
    pub content: String,
}

impl ShownTurn {
    pub fn of(turn: &Turn<'_>) -> Self {
        Self { role: clean(turn.role), content: clean(turn.content) }
    }
}

/// The first pictures of a row, and how many of those cannot be decoded.
pub fn pictures(encoded: &[&[u8]]) -> (Vec<String>, usize) {
    let tried = encoded.iter().take(PICTURES);
    let shown: Vec<String> = tried.clone().filter_map(|bytes| picture(bytes)).collect();
    let unseen = tried.len() - shown.len();
    (shown, unseen)
}

/// A small JPEG of an encoded picture as a `data:` address.
fn picture(encoded: &[u8]) -> Option<String> {
    let mut buffers = Buffers::default();
    let rgb = decode(encoded, MAX_PIXELS, &mut buffers).ok()?;
    let whole = RgbImage::from_raw(rgb.width, rgb.height, rgb.pixels.to_vec())?;
    let scale = (f64::from(SIDE) / f64::from(rgb.width.max(rgb.height))).min(1.0);
    let side = |pixels: u32| ((f64::from(pixels) * scale).round() as u32).max(1);
    let small = thumbnail(&whole, side(rgb.width), side(rgb.height));
    let mut jpeg = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, QUALITY);
    encoder.encode(small.as_raw(), small.width(), small.height(), ExtendedColorType::Rgb8).ok()?;
    Some(format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg)))
}

/// Text without what HTML does not allow, shortened. Markup is escaped by the template.
pub fn clean(text: &str) -> String {
    let allowed = |c: char| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{FFFD}' } else { c };
    let mut out: String = text.chars().take(CHARS).map(allowed).collect();
    if text.chars().nth(CHARS).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_made_small_and_keeps_its_shape() {
        let photo = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../data/photos/rocket.jpg")).unwrap();
        let (shown, unseen) = pictures(&[&photo, b"<html>"]);
        assert_eq!((shown.len(), unseen), (1, 1));
        let jpeg = STANDARD.decode(shown[0].strip_prefix("data:image/jpeg;base64,").unwrap()).unwrap();
        let (small, large) =
            (image::load_from_memory(&jpeg).unwrap(), image::load_from_memory(&photo).unwrap());
        assert_eq!(small.width().max(small.height()), SIDE);
        let shape = |picture: &image::DynamicImage| f64::from(picture.width()) / f64::from(picture.height());
        assert!((shape(&small) - shape(&large)).abs() < 0.02);
    }

    #[test]
    fn texts_are_shortened_between_characters() {
        assert_eq!(clean("a\0b\n图"), "a\u{FFFD}b\n图");
        let long = clean(&"图".repeat(CHARS + 1));
        assert_eq!(long.chars().count(), CHARS + 1);
        assert!(long.ends_with('…'));
        assert_eq!(clean(&"图".repeat(CHARS)).chars().count(), CHARS);
    }
}
