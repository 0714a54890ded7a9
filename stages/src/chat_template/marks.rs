//! Who wrote which part of a rendered conversation.
//!
//! A chat template is a program; what it does to a message cannot be read off its output. So each message is put between
//! two noncharacters (Unicode 23.7: U+FDD0 to U+FDEF never stand in text), the template is rendered, and the marks that
//! come out tell where the messages went. A template may look at a message's ends (`trim`, `startswith`, Qwen3's
//! `split('</think>')`); the caller compares with a rendering without marks, and tries marks further inside if they differ.

use llavm_model::chat_template::{GENERATION_END, GENERATION_START, Message};
use std::ops::Range;

/// The roles a message can have; [`START`] holds the marks in the same order. Whatever else the data calls a turn is
/// treated as the last.
const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];
const START: [char; 4] = ['\u{FDD0}', '\u{FDD1}', '\u{FDD2}', '\u{FDD3}'];
const END: char = '\u{FDD4}';

/// Whether `c` is one of the noncharacters used as marks.
pub fn is_mark(c: char) -> bool {
    ('\u{FDD0}'..='\u{FDEF}').contains(&c)
}

/// A stretch of rendered text that comes from a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub role: &'static str,
    /// In bytes of the rendered text.
    pub range: Range<usize>,
}

/// A rendered conversation and where its parts come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    pub text: String,
    /// In order, without overlap.
    pub pieces: Vec<Piece>,
    /// The `{% generation %}` blocks, in order.
    pub generated: Vec<Range<usize>>,
}

/// Where in a message the marks are put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Around the whole message.
    Whole,
    /// Inside its surrounding whitespace, and behind its last `</think>`.
    Core,
}

/// A message with its marks.
pub fn mark(message: &Message<'_>, placement: Placement) -> String {
    let core = match placement {
        Placement::Whole => 0..message.content.len(),
        Placement::Core => core(message.content),
    };
    let content = message.content;
    let role = ROLES.iter().position(|role| *role == message.role).unwrap_or(ROLES.len() - 1);
    let mut marked = String::with_capacity(content.len() + 2 * END.len_utf8());
    marked.push_str(&content[..core.start]);
    marked.push(START[role]);
    marked.push_str(&content[core.clone()]);
    marked.push(END);
    marked.push_str(&content[core.end..]);
    marked
}

/// After a rendering with [`Placement::Core`]: what stands before the last `</think>` of a message is reasoning, which a
/// template may leave out or print. Where it is printed, its piece is widened to it; `None` where it went elsewhere.
pub fn widen_to_reasoning(mut rendered: Rendered, messages: &[Message<'_>]) -> Option<Rendered> {
    if rendered.pieces.len() != messages.len() {
        return None;
    }
    for (piece, message) in rendered.pieces.iter_mut().zip(messages) {
        let head = &message.content[..core(message.content).start];
        let thought = head.trim().trim_start_matches("<think>").trim_end_matches("</think>").trim();
        if rendered.text[..piece.range.start].ends_with(head) {
            piece.range.start -= head.len();
        } else if !thought.is_empty() && rendered.text.contains(thought) {
            return None;
        }
    }
    Some(rendered)
}

fn core(content: &str) -> Range<usize> {
    let head = content.rfind("</think>").map_or(0, |at| at + "</think>".len());
    let start = content.len() - content[head..].trim_start().len();
    start..start.max(content.trim_end().len())
}

/// Takes the marks out of a rendering; `None` if they do not pair up.
pub fn unmark(marked: &str) -> Option<Rendered> {
    let mut rendered = Rendered { text: String::with_capacity(marked.len()), ..Rendered::default() };
    let (mut message, mut generation) = (None, None);
    let mut rest = marked;
    while let Some(at) = rest.find(is_mark) {
        let mark = rest[at..].chars().next()?;
        rendered.text.push_str(&rest[..at]);
        rest = &rest[at + mark.len_utf8()..];
        let here = rendered.text.len();
        match mark {
            END => {
                let (role, start) = message.take()?;
                rendered.pieces.push(Piece { role, range: start..here });
            }
            GENERATION_START => generation = Some(here),
            GENERATION_END => rendered.generated.push(generation.take()?..here),
            mark if message.is_none() => {
                let role = START.iter().position(|start| *start == mark)?;
                message = Some((ROLES[role], here));
            }
            _ => return None,
        }
    }
    rendered.text.push_str(rest);
    (message.is_none() && generation.is_none()).then_some(rendered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(content: &str, placement: Placement) -> Rendered {
        unmark(&mark(&Message { role: "assistant", content }, placement)).unwrap()
    }

    #[test]
    fn marks_come_out_where_they_went_in() {
        let whole = marked(" 猫 \n", Placement::Whole);
        assert_eq!((whole.text.as_str(), whole.pieces[0].range.clone()), (" 猫 \n", 0..6));
        let core = marked(" 猫 \n", Placement::Core);
        assert_eq!((core.text.as_str(), core.pieces[0].range.clone()), (" 猫 \n", 1..4));
        let thought = marked("<think>a</think>\n\nb ", Placement::Core);
        assert_eq!(&thought.text[thought.pieces[0].range.clone()], "b");
    }

    #[test]
    fn empty_and_blank_messages_keep_their_place() {
        for content in ["", " ", "\n\n", "</think>", "x</think> "] {
            for placement in [Placement::Whole, Placement::Core] {
                let rendered = marked(content, placement);
                assert_eq!((rendered.text.as_str(), rendered.pieces.len()), (content, 1), "{content:?}");
            }
        }
    }

    #[test]
    fn half_a_pair_of_marks_is_noticed() {
        assert_eq!(unmark("a\u{FDD1}b"), None);
        assert_eq!(unmark("a\u{FDD4}b"), None);
        assert_eq!(unmark("\u{FDD1}a\u{FDD2}b\u{FDD4}\u{FDD4}"), None);
    }
}
