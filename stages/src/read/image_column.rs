//! How the image column of a row becomes images: names are completed, images that stand for "none" are left out.
//!
//! In: a raw row. Out: its images, as [`image_cell`](super::image_cell) finds them.

use super::image_cell::{Image, images};
use super::value::Value;
use llavm_model::processor::image::codecs::{size, thumbnail};
use llavm_pipeline::rejects::Reject;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Stands for the cell's value in `image_name`.
pub const NAME: &str = "{}";

/// Side in pixels up to which a black image counts as a placeholder.
const PLACEHOLDER_SIDE: u32 = 8;

/// Largest channel value that is black: JPEG may miss 0 by a little.
const BLACK: u8 = 8;

/// What to do with a black image of at most 8 × 8 pixels, which stands for "no image" in sets whose column may not be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlaceholderImages {
    #[default]
    Keep,
    /// The row has one image less, often none.
    Drop,
}

/// The column and what is done to its cells.
#[derive(Clone, Debug, Serialize)]
pub struct ImageColumn {
    pub column: String,
    pub name: Option<String>,
    pub placeholders: PlaceholderImages,
}

impl ImageColumn {
    /// Whether counting the images needs their bytes.
    pub fn needs_image_bytes(&self) -> bool {
        self.placeholders == PlaceholderImages::Drop
    }

    /// All that decides which images a cell gives, as text.
    pub fn identity(&self) -> String {
        format!("{}/{:?}/{:?}", self.column, self.name, self.placeholders)
    }

    /// The images of a row.
    pub fn images<'a>(&self, row: &'a Value<'_>) -> Result<Vec<Image<'a>>, Reject> {
        let cell = row.get(&self.column).unwrap_or(&Value::Null);
        let mut found = match &self.name {
            Some(pattern) if is_name(cell) => names(pattern, cell),
            _ => images(cell)?,
        };
        if self.needs_image_bytes() {
            found.retain(|image| !is_placeholder(image));
        }
        Ok(found)
    }
}

/// A text or number, or a list of them; nulls in it name nothing.
fn is_name(cell: &Value<'_>) -> bool {
    let is_one = |cell: &Value<'_>| {
        matches!(cell, Value::Text(_) | Value::Int(_) | Value::Float(_) | Value::Number(_))
    };
    match cell {
        Value::List(items) => {
            items.iter().any(is_one) && items.iter().all(|item| is_one(item) || *item == Value::Null)
        }
        one => is_one(one),
    }
}

fn names(pattern: &str, cell: &Value<'_>) -> Vec<Image<'static>> {
    let cells = if let Value::List(items) = cell { items.as_slice() } else { std::slice::from_ref(cell) };
    let texts = cells.iter().filter_map(Value::as_name);
    let named = texts.filter(|text| !text.trim().is_empty());
    named.map(|text| Image::Path(Cow::Owned(pattern.replace(NAME, without_number(text.trim()))))).collect()
}

/// `COCO_val2014_000000217153#0` names a caption: the image's name is what stands before the number.
fn without_number(name: &str) -> &str {
    match name.rsplit_once('#') {
        Some((name, number)) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            name
        }
        _ => name,
    }
}

/// Only images that lie in the row itself are looked at.
fn is_placeholder(image: &Image<'_>) -> bool {
    let Image::Bytes(bytes) = image else { return false };
    if size(bytes).is_none_or(|(width, height)| width.max(height) > PLACEHOLDER_SIDE) {
        return false;
    }
    let decoded = thumbnail(bytes, |width, height| (width, height));
    decoded.is_some_and(|image| image.rgb.iter().all(|value| *value <= BLACK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, Rgb, RgbImage};
    use std::io::Cursor;

    fn column(name: Option<&str>, placeholders: PlaceholderImages) -> ImageColumn {
        ImageColumn { column: "image".to_owned(), name: name.map(str::to_owned), placeholders }
    }

    fn row(json: &str) -> Value<'_> {
        serde_json::from_str(json).unwrap()
    }

    fn paths(name: &str, json: &str) -> Vec<String> {
        let path = |image| match image {
            Image::Path(path) => path.into_owned(),
            Image::Bytes(_) => panic!("bytes"),
        };
        column(Some(name), PlaceholderImages::Keep)
            .images(&row(json))
            .unwrap()
            .into_iter()
            .map(path)
            .collect()
    }

    #[test]
    fn a_name_is_completed_by_the_pattern() {
        assert_eq!(
            paths("{}.jpg", r#"{"image": "COCO_val2014_000000217153#0"}"#),
            ["COCO_val2014_000000217153.jpg"]
        );
        assert_eq!(paths("flickr/{}.jpg", r#"{"image": 6228559981}"#), ["flickr/6228559981.jpg"]);
        assert_eq!(paths("{}", r#"{"image": [7, "8"]}"#), ["7", "8"]);
        assert_eq!(
            paths("{}.jpg", r#"{"image": [7.0, null, 18446744073709551615]}"#),
            ["7.jpg", "18446744073709551615.jpg"]
        );
        assert_eq!(paths("{}", r#"{"image": "a#b"}"#), ["a#b"]);
        assert_eq!(paths("{}.jpg", r#"{"image": " "}"#), [""; 0]);
        assert_eq!(paths("{}.jpg", r#"{"image": null}"#), [""; 0]);
    }

    fn image(side: u32, colour: u8, format: ImageFormat) -> Value<'static> {
        let mut bytes = Cursor::new(Vec::new());
        RgbImage::from_pixel(side, side, Rgb([colour; 3])).write_to(&mut bytes, format).unwrap();
        Value::Object(vec![("image".into(), Value::Bytes(Cow::Owned(bytes.into_inner())))])
    }

    #[test]
    fn only_small_black_images_are_placeholders() {
        let left = |row: &Value<'_>| column(None, PlaceholderImages::Drop).images(row).unwrap().len();
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            assert_eq!(left(&image(8, 0, format)), 0);
            assert_eq!(left(&image(8, 40, format)), 1);
            assert_eq!(left(&image(9, 0, format)), 1);
        }
        assert_eq!(
            column(None, PlaceholderImages::Keep).images(&image(8, 0, ImageFormat::Png)).unwrap().len(),
            1
        );
        let broken = Value::Object(vec![("image".into(), Value::Bytes(Cow::Borrowed(b"no image")))]);
        assert_eq!(left(&broken), 1);
    }
}
