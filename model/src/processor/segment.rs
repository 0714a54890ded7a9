//! A rendered conversation in segments, each with who wrote it and whether it is trained on.
//!
//! `role` is `system`, `user`, `assistant` or `tool` for text from the data, `template` for what the chat template wrote
//! around it, `image` for the tokens of one image. It is what keeps an `<image>` in an answer from becoming an image, and
//! a `<|im_end|>` typed by a user from ending a turn.

/// The role of text that the chat template wrote.
pub const TEMPLATE: &str = "template";
/// The role of the tokens of one image.
pub const IMAGE: &str = "image";
/// The role of a question, the only text in which a placeholder is looked for.
pub const USER: &str = "user";
/// The role of an answer.
pub const ASSISTANT: &str = "assistant";

/// One segment of a rendered conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Its text.
    pub text: &'a str,
    /// Whether its tokens carry loss.
    pub train: bool,
    /// Who wrote it.
    pub role: &'a str,
}

impl Segment<'_> {
    /// Whether the text comes from the data set: neither from the template nor put in for an image.
    pub fn is_data(&self) -> bool {
        self.role != TEMPLATE && self.role != IMAGE
    }
}

/// Takes segments one after the other.
pub trait Sink {
    /// Takes the next segment.
    fn push(&mut self, segment: Segment<'_>);
}

/// Segments in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    text: String,
    /// Where each segment ends in `text`, whether it is trained on, and its role.
    ends: Vec<(usize, bool, String)>,
}

impl Sink for Segments {
    fn push(&mut self, segment: Segment<'_>) {
        self.text.push_str(segment.text);
        self.ends.push((self.text.len(), segment.train, segment.role.to_owned()));
    }
}

impl Segments {
    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Segment<'_>> + Clone {
        let mut start = 0;
        self.ends.iter().map(move |(end, train, role)| {
            let text = &self.text[std::mem::replace(&mut start, *end)..*end];
            Segment { text, train: *train, role }
        })
    }

    /// Their texts, joined.
    pub fn text(&self) -> &str {
        &self.text
    }
}
