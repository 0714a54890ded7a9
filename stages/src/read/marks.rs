//! Marks that stand for an image in a text, as sets other than LLaVA's write them: `<img>`, `<image1>`, `<|image_1|>`.
//!
//! In: a user's text. Out: the text with [`IMAGE_PLACEHOLDER`] in the place of each mark that the manifest names. `{n}` in a mark stands
//! for a number; numbered marks have to come in order, since image tokens stand where the text has them.

use super::raw::reject;
use llavm_pipeline::rejects::Reject;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Stands for an image inside text; `image-pads` puts the image tokens there.
pub const IMAGE_PLACEHOLDER: &str = "<image>";

/// Stands for a number.
const NUMBER: &str = "{n}";

/// Marks that are likely to mean an image where the manifest does not name them.
const LIKELY: [&str; 14] = [
    "<image{n}>",
    "<image_{n}>",
    "<image {n}>",
    "<|image_{n}|>",
    "<img>",
    "<img_{n}>",
    "<Image>",
    "<IMAGE>",
    "[IMAGE]",
    "[image]",
    "<ImageHere>",
    "<image_placeholder>",
    "<|image|>",
    "<|image_pad|>",
];

/// `placeholders`: one mark or a list of marks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrMany", into = "Vec<String>")]
pub struct Marks(Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for Marks {
    fn from(marks: OneOrMany) -> Self {
        match marks {
            OneOrMany::One(mark) => Self(vec![mark]),
            OneOrMany::Many(marks) => Self(marks),
        }
    }
}

impl From<Marks> for Vec<String> {
    fn from(marks: Marks) -> Self {
        marks.0
    }
}

/// A mark in a text.
struct Found {
    start: usize,
    end: usize,
    number: Option<u64>,
}

impl Marks {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A mark that would match everywhere or nowhere.
    pub fn faulty(&self) -> Option<&str> {
        let is_faulty =
            |mark: &&String| mark.replace(NUMBER, "").trim().is_empty() || mark.matches(NUMBER).count() > 1;
        self.0.iter().find(is_faulty).map(String::as_str)
    }

    /// The text with placeholders. `seen` is the number of the last numbered mark of the conversation.
    pub fn replaced<'a>(&self, text: Cow<'a, str>, seen: &mut Option<u64>) -> Result<Cow<'a, str>, Reject> {
        let mut given = String::new();
        let mut done = 0;
        while let Some(found) = self.next(&text, done) {
            if let Some(number) = found.number {
                let fits = seen.map_or(number <= 1, |seen| number == seen + 1);
                if !fits {
                    let detail = format!(
                        "the mark {} comes out of order: image tokens stand where the text has them, in the order of the images",
                        &text[found.start..found.end]
                    );
                    return Err(reject("image-order", detail));
                }
                *seen = Some(number);
            }
            given.push_str(&text[done..found.start]);
            given.push_str(IMAGE_PLACEHOLDER);
            done = found.end;
        }
        if done == 0 {
            return Ok(text);
        }
        given.push_str(&text[done..]);
        Ok(Cow::Owned(given))
    }

    /// The first mark behind `from`, the longest of those that begin there.
    fn next(&self, text: &str, from: usize) -> Option<Found> {
        let marks = self.0.iter().filter_map(|mark| first(mark, text, from));
        marks.min_by_key(|found| (found.start, usize::MAX - found.end))
    }
}

fn first(mark: &str, text: &str, from: usize) -> Option<Found> {
    let Some((before, after)) = mark.split_once(NUMBER) else {
        let start = from + text.get(from..)?.find(mark)?;
        return Some(Found { start, end: start + mark.len(), number: None });
    };
    let mut at = from;
    loop {
        let start = at + text.get(at..)?.find(before)?;
        let digits = start + before.len();
        let rest = &text[digits..];
        let length = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if let (Ok(number), true) = (rest[..length].parse(), rest[length..].starts_with(after)) {
            return Some(Found { start, end: digits + length + after.len(), number: Some(number) });
        }
        at = start + text[start..].chars().next().map_or(1, char::len_utf8);
    }
}

/// Marks in a text that are likely to mean an image and are not among those named.
pub fn likely(text: &str, named: &Marks) -> Option<&'static str> {
    let mut unnamed = LIKELY.into_iter().filter(|mark| !named.0.iter().any(|named| named == mark));
    unnamed.find(|mark| first(mark, text, 0).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(marks: &[&str], text: &str) -> Result<String, &'static str> {
        let marks = Marks(marks.iter().map(|&mark| mark.to_owned()).collect());
        marks.replaced(text.into(), &mut None).map(Cow::into_owned).map_err(|reject| reject.code)
    }

    #[test]
    fn marks_become_placeholders_in_order() {
        assert_eq!(replaced(&["<img>"], "<img>\nWhat is <img>?").unwrap(), "<image>\nWhat is <image>?");
        assert_eq!(replaced(&["<image{n}>"], "图<image1>和<image2>").unwrap(), "图<image>和<image>");
        assert_eq!(
            replaced(&["<|image_{n}|>"], "<|image_0|><|image_1|> <|image_x|>").unwrap(),
            "<image><image> <|image_x|>"
        );
        assert_eq!(replaced(&["<image{n}>"], "<image2> or <image1>?"), Err("image-order"));
        assert_eq!(replaced(&["<image{n}>"], "<image1>, and <image1> again"), Err("image-order"));
        assert_eq!(replaced(&[], "<img>").unwrap(), "<img>");
    }

    #[test]
    fn likely_marks_are_named_unless_they_are_used() {
        assert_eq!(likely("what is <image3>?", &Marks::default()), Some("<image{n}>"));
        assert_eq!(likely("what is <image3>?", &Marks(vec!["<image{n}>".into()])), None);
        assert_eq!(likely("what is <image>?", &Marks::default()), None);
    }
}
