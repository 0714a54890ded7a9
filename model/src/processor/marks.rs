//! Who wrote which part of a rendered conversation.
//!
//! A chat template is a program; what it does to a message cannot be read off its output. So each message is put between
//! two noncharacters (Unicode 23.7: U+FDD0 to U+FDEF never stand in text), the template is rendered, and the marks that
//! come out say where the messages went. A template may look at a message's ends (`trim`, `startswith`, Qwen3's
//! `split('</think>')`); the caller compares with a rendering without marks, and tries marks further inside if they differ.

use std::ops::Range;

use super::segment::ASSISTANT;
use crate::chat_template::{GENERATION_END, GENERATION_START};
use crate::message::{Json, Message, THOUGHTS};
use minijinja::value::{Value, ValueKind};

/// The roles a message can have; [`START`] holds the marks in the same order. Whatever else the data calls a turn is
/// treated as the last.
const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];
const START: [char; 4] = ['\u{FDD0}', '\u{FDD1}', '\u{FDD2}', '\u{FDD3}'];
const END: char = '\u{FDD4}';
/// Stands before a text that an assistant writes beside its words: thoughts, and what calls of tools say.
const CALL: char = '\u{FDD5}';
/// Stands before any other text from beside the words: of the tools on offer, of names and ids.
const OTHER: char = '\u{FDD6}';
/// Who those are taken to be by.
const SYSTEM: &str = ROLES[0];

/// Whether `c` is one of the noncharacters used as marks.
pub fn is_mark(c: char) -> bool {
    ('\u{FDD0}'..='\u{FDEF}').contains(&c)
}

/// A stretch of rendered text that comes from a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub role: &'static str,
    /// In bytes of the rendered text.
    pub range: Range<usize>,
}

/// A rendered conversation and where its parts come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    pub text: String,
    /// In order, without overlap.
    pub spans: Vec<Span>,
    /// The `{% generation %}` blocks, in order.
    pub generated: Vec<Range<usize>>,
    /// What stands beside the words: tools on offer, thoughts, calls of tools. Where a turn says nothing but calls tools, the name of
    /// the first has the mark of the turn.
    pub beside: Vec<Span>,
}

/// Which part of a message the marks enclose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enclosed {
    /// The whole message.
    Whole,
    /// What is inside its surrounding whitespace, and behind its last `</think>`.
    Core,
}

/// A message with its marks.
pub fn mark(message: &Message<'_>, enclosed: Enclosed) -> String {
    let core = match enclosed {
        Enclosed::Whole => 0..message.content.len(),
        Enclosed::Core => core(message.content),
    };
    let content = message.content;
    if is_silent(message) {
        // A template may ask whether there is any content.
        return String::new();
    }
    let mut marked = String::with_capacity(content.len() + 2 * END.len_utf8());
    marked.push_str(&content[..core.start]);
    marked.push(start_of(message));
    marked.push_str(&content[core.clone()]);
    marked.push(END);
    marked.push_str(&content[core.end..]);
    marked
}

/// Whether a turn says nothing but calls tools.
pub fn is_silent(message: &Message<'_>) -> bool {
    message.content.is_empty() && message.tool_calls.is_some()
}

/// The marks of a message with nothing between them.
pub fn empty_mark(message: &Message<'_>) -> String {
    [start_of(message), END].into_iter().collect()
}

/// The mark that stands before a message.
fn start_of(message: &Message<'_>) -> char {
    let role = ROLES.iter().position(|role| *role == message.role).unwrap_or(ROLES.len() - 1);
    START[role]
}

/// A message with these words, and with marks around every text beside them that could hold a control token.
pub fn mark_beside<'a>(message: &Message<'a>, content: &'a str) -> Message<'a> {
    let mut first = is_silent(message).then(|| start_of(message));
    let calls = |Json(calls): &Json| {
        let calls = calls.try_iter().ok()?.map(|call| mark_call(&call, &mut first));
        Some(Json(calls.collect::<Vec<Value>>().into()))
    };
    Message {
        role: message.role,
        content,
        tool_calls: message.tool_calls.as_ref().and_then(calls),
        extra: message.extra.as_ref().map(mark_extra),
        tools: message.tools.as_ref().map(|Json(tools)| Json(mark_odd(tools))),
    }
}

/// A call, or the function in it: its name and all in its arguments with marks; `first` is the mark of the name, if not [`CALL`].
fn mark_call(call: &Value, first: &mut Option<char>) -> Value {
    let call = Json(call.clone());
    let fields = call.fields();
    let has_function = fields.iter().any(|(key, _)| key.as_str() == Some("function"));
    let pair = |(key, value): (Value, Value)| {
        let marked = match key.as_str() {
            Some("function") => mark_call(&value, first),
            Some("name") if !has_function => enclosed(&value, first.take().unwrap_or(CALL)),
            Some("arguments") if !has_function => mark_all(&value),
            _ => mark_odd(&value),
        };
        (key, marked)
    };
    if fields.is_empty() {
        call.0
    } else {
        Value::from_pairs(fields.into_iter().map(pair).collect::<Vec<_>>())
    }
}

/// What else a turn has. Thoughts are the assistant's own words, whatever they are; templates take the whitespace off them.
fn mark_extra(extra: &Json) -> Json {
    let pair = |(key, value): (Value, Value)| {
        let thought = key.as_str().is_some_and(|key| THOUGHTS.contains(&key));
        let marked = if thought { core_enclosed(&value, CALL) } else { mark_odd(&value) };
        (key, marked)
    };
    Json(Value::from_pairs(extra.fields().into_iter().map(pair).collect::<Vec<_>>()))
}

/// Every text in a value, changed.
fn each_text(value: &Value, change: &impl Fn(&Value) -> Value) -> Value {
    let items = || value.try_iter().into_iter().flatten();
    match value.kind() {
        ValueKind::String => change(value),
        ValueKind::Seq => items().map(|item| each_text(&item, change)).collect::<Vec<Value>>().into(),
        ValueKind::Map => {
            let pair =
                |key: Value| (change(&key), each_text(&value.get_item(&key).unwrap_or_default(), change));
            Value::from_pairs(items().map(pair).collect::<Vec<_>>())
        }
        _ => value.clone(),
    }
}

/// Every text in a value with marks, keys too.
fn mark_all(value: &Value) -> Value {
    each_text(value, &|text| enclosed(text, CALL))
}

/// As [`mark_all`], but for words of letters and the like, of which no control token consists: a template may ask whether
/// the type of a parameter is "array".
fn mark_odd(value: &Value) -> Value {
    let plain = |c: char| c.is_alphanumeric() || " _-.,:;'()/".contains(c);
    each_text(value, &|text| match text.as_str() {
        Some(words) if !words.chars().all(plain) => core_enclosed(text, OTHER),
        _ => text.clone(),
    })
}

/// A text between marks.
fn enclosed(text: &Value, start: char) -> Value {
    text.as_str().map_or_else(|| text.clone(), |text| format!("{start}{text}{END}").into())
}

/// A text with what is inside its surrounding whitespace between marks.
fn core_enclosed(text: &Value, start: char) -> Value {
    let Some(whole) = text.as_str().filter(|text| !text.trim().is_empty()) else { return text.clone() };
    let from = whole.len() - whole.trim_start().len();
    let to = whole.trim_end().len();
    format!("{}{start}{}{END}{}", &whole[..from], &whole[from..to], &whole[to..]).into()
}

/// After a rendering with marks that enclose only the core of some messages: what stands before the last `</think>` of such
/// a message is reasoning, which a template may leave out or print. Where it is printed, its span is widened to it; `None`
/// where it went elsewhere. Blank text before the core is the template's if it stands there: all of the message could not be
/// enclosed because its ends are cut off.
pub fn widen_to_reasoning(
    mut rendered: Rendered,
    messages: &[Message<'_>],
    enclosed: &[Enclosed],
) -> Option<Rendered> {
    if rendered.spans.len() != messages.len() {
        return None;
    }
    for ((span, message), enclosed) in rendered.spans.iter_mut().zip(messages).zip(enclosed) {
        let head = &message.content[..core(message.content).start];
        if *enclosed == Enclosed::Whole || head.trim().is_empty() {
            continue;
        }
        let thought = head.trim().trim_start_matches("<think>").trim_end_matches("</think>").trim();
        if rendered.text[..span.range.start].ends_with(head) {
            span.range.start -= head.len();
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
            END => match message.take()? {
                (false, role, start) => rendered.spans.push(Span { role, range: start..here }),
                (true, role, start) => rendered.beside.push(Span { role, range: start..here }),
            },
            CALL if message.is_none() => message = Some((true, ASSISTANT, here)),
            OTHER if message.is_none() => message = Some((true, SYSTEM, here)),
            GENERATION_START => generation = Some(here),
            GENERATION_END => rendered.generated.push(generation.take()?..here),
            mark if message.is_none() => {
                let role = START.iter().position(|start| *start == mark)?;
                message = Some((false, ROLES[role], here));
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

    fn marked(content: &str, enclosed: Enclosed) -> Rendered {
        unmark(&mark(&Message::new("assistant", content), enclosed)).unwrap()
    }

    #[test]
    fn marks_come_out_where_they_went_in() {
        let whole = marked(" 猫 \n", Enclosed::Whole);
        assert_eq!((whole.text.as_str(), whole.spans[0].range.clone()), (" 猫 \n", 0..6));
        let core = marked(" 猫 \n", Enclosed::Core);
        assert_eq!((core.text.as_str(), core.spans[0].range.clone()), (" 猫 \n", 1..4));
        let thought = marked("<think>a</think>\n\nb ", Enclosed::Core);
        assert_eq!(&thought.text[thought.spans[0].range.clone()], "b");
    }

    #[test]
    fn empty_and_blank_messages_keep_their_place() {
        for content in ["", " ", "\n\n", "</think>", "x</think> "] {
            for enclosed in [Enclosed::Whole, Enclosed::Core] {
                let rendered = marked(content, enclosed);
                assert_eq!((rendered.text.as_str(), rendered.spans.len()), (content, 1), "{content:?}");
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
