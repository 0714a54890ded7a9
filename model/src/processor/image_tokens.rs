//! Image tokens: where the images of a conversation stand among its words, and how many tokens each takes.
//!
//! In: the segments of a conversation and how many images it has. Out: the same with one segment of role `image` for each
//! image: where the questions have the placeholder, or, where no question has it, beside the first question. A placeholder
//! in any other turn is ordinary text.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::segment::{IMAGE, Segment, Sink, USER};

/// How images become tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageTokens {
    /// The special token that is repeated, one for each patch of the vision tower.
    pub token: String,
    /// Tokens of one image.
    pub count: usize,
    /// What stands for an image in a question.
    pub placeholder: String,
    /// Where images go that no placeholder places.
    pub placement: Placement,
    /// What stands between an image and the question that it is put beside.
    #[serde(default = "line_break")]
    pub separator: String,
}

/// Where the images of a conversation without placeholder go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// Behind the first question, each after a line break, as the reference recipe has it.
    #[default]
    Append,
    /// Before the first question, each with a line break behind it.
    Prepend,
    /// Nowhere: a conversation has its placeholders as it is written.
    #[serde(alias = "reject")]
    AsWritten,
}

/// The separator of the reference recipe.
pub fn line_break() -> String {
    "\n".to_owned()
}

/// Images that cannot be placed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// Placeholders and images differ in number.
    #[error("the questions place {placeholders} image(s) with `{placeholder}`, but {images} are given")]
    Count {
        /// Images given.
        images: usize,
        /// Placeholders in questions.
        placeholders: usize,
        /// What a placeholder looks like.
        placeholder: String,
    },
    /// There is no question to put images beside.
    #[error("{images} image(s) are given, but there is no question")]
    NoQuestion {
        /// Images given.
        images: usize,
    },
    /// The images must be placed by hand.
    #[error(
        "{images} image(s) are given; write `{placeholder}` in the question where each belongs, as in training"
    )]
    NoPlaceholder {
        /// Images given.
        images: usize,
        /// What a placeholder looks like.
        placeholder: String,
    },
}

/// Where the images of one conversation go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Where the placeholders are; there may be none at all.
    AtPlaceholders,
    BeforeFirstQuestion,
    AfterFirstQuestion,
}

impl ImageTokens {
    /// The tokens of one image, as text.
    pub fn text(&self) -> String {
        self.token.repeat(self.count)
    }

    /// Writes `segments` to `out` with the tokens `image` (see [`ImageTokens::text`]) of `images` images put in.
    pub fn place<'a>(
        &self,
        segments: impl Iterator<Item = Segment<'a>> + Clone,
        images: usize,
        image: &str,
        out: &mut impl Sink,
    ) -> Result<(), PlaceError> {
        let place = self.find_place(segments.clone(), images)?;
        let mut first_question = true;
        for segment in segments {
            let question = segment.role == USER;
            let here = question && std::mem::replace(&mut first_question, false);
            let token = Segment { text: image, role: IMAGE, ..segment };
            let separator = Segment { text: &self.separator, ..segment };
            if here && place == Place::BeforeFirstQuestion {
                (0..images).flat_map(|_| [token, separator]).for_each(|segment| push(segment, out));
            }
            if question && place == Place::AtPlaceholders {
                self.replace_placeholders(segment, token, out);
            } else {
                push(segment, out);
            }
            if here && place == Place::AfterFirstQuestion {
                (0..images).flat_map(|_| [separator, token]).for_each(|segment| push(segment, out));
            }
        }
        Ok(())
    }

    fn find_place<'a>(
        &self,
        mut segments: impl Iterator<Item = Segment<'a>> + Clone,
        images: usize,
    ) -> Result<Place, PlaceError> {
        let questions = segments.clone().filter(|segment| segment.role == USER);
        let placeholders: usize =
            questions.map(|segment| segment.text.matches(&self.placeholder).count()).sum();
        if placeholders == images {
            return Ok(Place::AtPlaceholders);
        }
        let placeholder = self.placeholder.clone();
        if placeholders > 0 {
            return Err(PlaceError::Count { images, placeholders, placeholder });
        }
        if !segments.any(|segment| segment.role == USER) {
            return Err(PlaceError::NoQuestion { images });
        }
        match self.placement {
            Placement::Append => Ok(Place::AfterFirstQuestion),
            Placement::Prepend => Ok(Place::BeforeFirstQuestion),
            Placement::AsWritten => Err(PlaceError::NoPlaceholder { images, placeholder }),
        }
    }

    fn replace_placeholders(&self, segment: Segment<'_>, token: Segment<'_>, out: &mut impl Sink) {
        for (n, text) in segment.text.split(&self.placeholder).enumerate() {
            if n > 0 {
                out.push(token);
            }
            push(Segment { text, ..segment }, out);
        }
    }

    /// Where questions that all place their images themselves have them: before or behind the text, and what stands between.
    /// The more frequent of the two; `None` when a question has none of it, for then `placement` decided in training.
    pub fn observed<'a>(&self, questions: impl Iterator<Item = &'a str>) -> Option<(Placement, String)> {
        let mut seen: BTreeMap<(bool, &str), usize> = BTreeMap::new();
        for question in questions {
            if !question.contains(&self.placeholder) {
                return None;
            }
            if let Some(rest) = question.strip_prefix(self.placeholder.as_str()) {
                let separator = &rest[..rest.len() - rest.trim_start().len()];
                *seen.entry((true, separator)).or_default() += 1;
            } else if let Some(rest) = question.strip_suffix(self.placeholder.as_str()) {
                *seen.entry((false, &rest[rest.trim_end().len()..])).or_default() += 1;
            }
        }
        let ((before, separator), _) = seen.into_iter().rev().max_by_key(|(_, count)| *count)?;
        let placement = if before { Placement::Prepend } else { Placement::Append };
        Some((placement, separator.to_owned()))
    }

    /// The words of a turn given in parts, of which `None` is an image. An image stays where it is among them only if training
    /// had images anywhere, as they were written; otherwise [`ImageTokens::written`] puts it where training put images.
    pub fn of_parts(&self, parts: &[Option<&str>]) -> String {
        let typed = parts.iter().flatten().any(|text| text.contains(&self.placeholder));
        let stays = self.placement == Placement::AsWritten && !typed;
        let (mut words, mut before): (String, Option<bool>) = (String::new(), None);
        for part in parts.iter().filter(|part| part.is_some() || stays) {
            // An image has the separator of training beside it, texts stand on lines of their own.
            let texts = before == Some(true) && part.is_some();
            words.push_str(before.map_or("", |_| if texts { "\n" } else { &self.separator }));
            words.push_str(part.unwrap_or(&self.placeholder));
            before = Some(part.is_some());
        }
        words
    }

    /// A question of a chat that shows `images` images of its own: [`ImageTokens::written`], once it is clear where each belongs.
    /// Where no turn so far has an image (`any_images`), `<image>` is text.
    pub fn question(&self, text: &str, images: usize, any_images: bool) -> Result<String, PlaceError> {
        let content = self.written(text, images);
        let placeholders = content.matches(&self.placeholder).count();
        if placeholders == images || !any_images {
            return Ok(content);
        }
        let placeholder = self.placeholder.clone();
        Err(if placeholders == 0 {
            PlaceError::NoPlaceholder { images, placeholder }
        } else {
            PlaceError::Count { images, placeholders, placeholder }
        })
    }

    /// A question that shows `images` images of its own, placeholders written where training puts them. A question that
    /// has placeholders already stays as it is.
    pub fn written(&self, question: &str, images: usize) -> String {
        if question.contains(&self.placeholder) {
            return question.to_owned();
        }
        match self.placement {
            Placement::Append => {
                format!("{question}{}", format!("{}{}", self.separator, self.placeholder).repeat(images))
            }
            Placement::Prepend => {
                format!("{}{question}", format!("{}{}", self.placeholder, self.separator).repeat(images))
            }
            Placement::AsWritten => question.to_owned(),
        }
    }
}

fn push(segment: Segment<'_>, out: &mut impl Sink) {
    if !segment.text.is_empty() {
        out.push(segment);
    }
}

#[cfg(test)]
mod tests {
    use super::super::segment::{ASSISTANT, Segments};
    use super::*;

    fn tokens() -> ImageTokens {
        ImageTokens {
            token: "P".to_owned(),
            count: 1,
            placeholder: "<image>".to_owned(),
            placement: Placement::Append,
            separator: line_break(),
        }
    }

    fn placed(placement: Placement, turns: &[(&str, &str)], images: usize) -> Result<String, PlaceError> {
        let tokens = ImageTokens { count: 2, placement, ..tokens() };
        let mut out = Segments::default();
        let segments = turns.iter().map(|(role, text)| Segment { text, train: false, role });
        tokens.place(segments, images, &tokens.text(), &mut out)?;
        let texts = out.iter().map(|segment| segment.text.replace('\n', "/"));
        Ok(texts.collect::<Vec<_>>().join("|"))
    }

    #[test]
    fn parts_leave_an_image_where_it_is_only_if_training_had_them_anywhere() {
        let parts = [Some("a"), None, Some("b"), Some("c")];
        let words = |placement, parts: &[Option<&str>]| {
            ImageTokens { placement, separator: " ".to_owned(), ..tokens() }.of_parts(parts)
        };
        assert_eq!(words(Placement::Append, &parts), "a\nb\nc");
        assert_eq!(words(Placement::AsWritten, &parts), "a <image> b\nc");
        assert_eq!(words(Placement::AsWritten, &[None, Some("is <image>?")]), "is <image>?");
        assert_eq!(words(Placement::Prepend, &[]), "");
    }

    #[test]
    fn an_image_stands_where_it_is_written_or_beside_the_first_question() {
        let turns = [(USER, "What?"), (ASSISTANT, "<image>"), (USER, "And?")];
        assert_eq!(placed(Placement::Append, &turns, 1).unwrap(), "What?|/|PP|<image>|And?");
        assert_eq!(placed(Placement::Prepend, &turns, 2).unwrap(), "PP|/|PP|/|What?|<image>|And?");
        let written = [(USER, "What?"), (ASSISTANT, "A"), (USER, "a<image>b")];
        for placement in [Placement::Append, Placement::Prepend, Placement::AsWritten] {
            assert_eq!(placed(placement, &written, 1).unwrap(), "What?|A|a|PP|b");
        }
    }

    #[test]
    fn questions_that_place_their_images_say_where_the_next_one_goes() {
        let tokens = tokens();
        let observed = |questions: &[&str]| tokens.observed(questions.iter().copied());
        let before = ["<image>\nA?", "B?\n<image>", "<image>\nC?", "see <image> here"];
        assert_eq!(observed(&before), Some((Placement::Prepend, "\n".to_owned())));
        assert_eq!(observed(&["A? <image>", "B? <image>"]), Some((Placement::Append, " ".to_owned())));
        assert_eq!(observed(&["<image>\nA?", "B?"]), None, "the second was placed by the parameter");
        assert_eq!(observed(&["see <image> here"]), None);
        assert_eq!(observed(&[]), None);
    }

    #[test]
    fn images_and_placeholders_must_be_as_many() {
        let count = placed(Placement::Append, &[(USER, "<image> <image>")], 1).unwrap_err();
        assert_eq!(count.to_string(), "the questions place 2 image(s) with `<image>`, but 1 are given");
        let none = placed(Placement::AsWritten, &[(USER, "What?")], 1);
        assert!(matches!(none, Err(PlaceError::NoPlaceholder { images: 1, .. })));
        let nobody = placed(Placement::Append, &[(ASSISTANT, "A")], 1);
        assert_eq!(nobody, Err(PlaceError::NoQuestion { images: 1 }));
    }

    #[test]
    fn a_written_question_is_placed_as_the_same_question_without_placeholder() {
        for placement in [Placement::Append, Placement::Prepend] {
            let tokens = ImageTokens { placement, ..tokens() };
            let join = |text: String| text.replace('|', "");
            let written = tokens.written("What?", 2);
            assert_eq!(
                placed(placement, &[(USER, &written)], 2).map(join),
                placed(placement, &[(USER, "What?")], 2).map(join)
            );
        }
    }
}
