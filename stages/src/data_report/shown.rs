//! A row as the page shows it: its images small, its texts shortened.

use crate::filter::measure::Turn;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use llavm_model::processor::image::codecs::{fit_into, thumbnail, to_jpeg};
use serde::Serialize;

/// Longest side of an image on the page, in pixels.
const SIDE: u32 = 160;
/// Images of a row that are shown.
const IMAGES: usize = 4;
/// Characters of a text that are shown.
const CHARS: usize = 600;
const QUALITY: u8 = 80;

/// A row on the page.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Shown {
    pub id: String,
    /// Images as `data:` addresses.
    pub images: Vec<String>,
    /// Images of the row that cannot be shown.
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
        // What stands beside the words is trained on or asked with as well.
        let texts: Vec<&str> = turn.texts().skip(1).filter(|text| !text.is_empty()).collect();
        Self { role: clean(turn.role), content: clean(&texts.join("\n")) }
    }
}

/// The first images of a row, and how many of those cannot be decoded.
pub fn images(encoded: &[&[u8]]) -> (Vec<String>, usize) {
    let tried = encoded.iter().take(IMAGES);
    let shown: Vec<String> = tried.clone().filter_map(|bytes| image(bytes)).collect();
    let unseen = tried.len() - shown.len();
    (shown, unseen)
}

/// A small JPEG of an encoded image as a `data:` address.
fn image(encoded: &[u8]) -> Option<String> {
    let small = thumbnail(encoded, |width, height| fit_into(SIDE, width, height))?;
    let jpeg = to_jpeg(&small.rgb, (small.width, small.height), QUALITY)?;
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
    fn an_image_is_made_small_and_keeps_its_shape() {
        let photo = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../data/photos/rocket.jpg")).unwrap();
        let (shown, unseen) = images(&[&photo, b"<html>"]);
        assert_eq!((shown.len(), unseen), (1, 1));
        let jpeg = STANDARD.decode(shown[0].strip_prefix("data:image/jpeg;base64,").unwrap()).unwrap();
        let (small, large) =
            (image::load_from_memory(&jpeg).unwrap(), image::load_from_memory(&photo).unwrap());
        assert_eq!(small.width().max(small.height()), SIDE);
        let shape = |image: &image::DynamicImage| f64::from(image.width()) / f64::from(image.height());
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
