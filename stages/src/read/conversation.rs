//! Turns of a conversation from the layouts data sets use.
//!
//! In: the cells of a row. Out: turns that alternate user, assistant, after at most one system turn, and end in an answer;
//! anything else is a reject that says which message breaks the rule. Texts are passed on unchanged.

use super::image_cell::short;
use super::raw::reject;
use super::value::Value;
use llavm_pipeline::rejects::Reject;
use std::borrow::Cow;

/// Stands for a picture inside text; `image-pads` puts the image tokens there.
pub const IMAGE_PLACEHOLDER: &str = "<image>";

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    System,
    User,
    Assistant,
}

impl Role {
    /// The name chat templates use.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }

    /// The names seen in data sets: LLaVA's `human`/`gpt`, chat templates' `user`/`assistant`.
    fn parse(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "system" => Some(Self::System),
            "user" | "human" => Some(Self::User),
            "assistant" | "gpt" | "model" | "bot" | "chatgpt" => Some(Self::Assistant),
            _ => None,
        }
    }
}

/// One turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub role: Role,
    pub content: Cow<'a, str>,
}

/// A question and its answer.
pub fn from_prompt_answer<'a>(
    prompt: Cow<'a, str>,
    answer: Option<&'a Value<'_>>,
) -> Result<Vec<Message<'a>>, Reject> {
    let answer = text_cell("answer", answer)?.ok_or_else(|| reject("no-answer", "the answer is null"))?;
    Ok(vec![
        Message { role: Role::User, content: prompt },
        Message { role: Role::Assistant, content: answer },
    ])
}

/// The text of a cell that must be one; `None` for null.
pub fn text_cell<'a>(what: &str, cell: Option<&'a Value<'_>>) -> Result<Option<Cow<'a, str>>, Reject> {
    match cell {
        None | Some(Value::Null) => Ok(None),
        Some(cell) => match cell.as_text() {
            Some(text) => Ok(Some(text)),
            None => Err(reject("not-text", format!("the {what} is {}, not text", cell.kind()))),
        },
    }
}

/// The messages of a cell.
pub fn messages(cell: Option<&Value<'_>>) -> Result<Vec<Message<'static>>, Reject> {
    let mut turns = Vec::new();
    append_messages(cell, &mut turns)?;
    Ok(turns)
}

/// The prompt-completion layout: messages up to the answer, then the answer; plain text is one turn.
pub fn prompt_and_completion(
    prompt: Option<&Value<'_>>,
    completion: Option<&Value<'_>>,
) -> Result<Vec<Message<'static>>, Reject> {
    let mut turns = Vec::new();
    append_side(prompt, Role::User, &mut turns)?;
    append_side(completion, Role::Assistant, &mut turns)?;
    Ok(turns)
}

/// A list of messages, in any of: `{role, content}`, `{from, value}`, `{user, assistant}` (two turns in one), or JSON text of
/// such a list. Appended to `turns`.
fn append_messages(cell: Option<&Value<'_>>, turns: &mut Vec<Message<'static>>) -> Result<(), Reject> {
    match cell {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Text(text)) if text.trim().is_empty() => Ok(()),
        Some(Value::Text(text)) => {
            let parsed = serde_json::from_str::<Value<'_>>(text).map_err(|cause| {
                reject(
                    "bad-conversation",
                    format!("neither a list nor JSON text of one ({cause}): {}", short(text)),
                )
            })?;
            if matches!(parsed, Value::Text(_)) {
                return Err(reject("bad-conversation", format!("not a list of messages: {}", short(text))));
            }
            append_messages(Some(&parsed), turns)
        }
        Some(Value::List(items)) => {
            items.iter().enumerate().try_for_each(|(index, item)| append_message(index, item, turns))
        }
        Some(message @ Value::Object(_)) => append_message(0, message, turns),
        Some(other) => {
            Err(reject("bad-conversation", format!("expected a list of messages, found {}", other.kind())))
        }
    }
}

/// A list of messages, or plain text said by `role`.
fn append_side(
    cell: Option<&Value<'_>>,
    role: Role,
    turns: &mut Vec<Message<'static>>,
) -> Result<(), Reject> {
    match cell {
        Some(Value::Text(text)) if !text.trim_start().starts_with('[') => {
            turns.push(Message { role, content: Cow::Owned(text.clone().into_owned()) });
            Ok(())
        }
        other => append_messages(other, turns),
    }
}

fn append_message(index: usize, item: &Value<'_>, turns: &mut Vec<Message<'static>>) -> Result<(), Reject> {
    let number = index + 1;
    let role = item.get("role").or_else(|| item.get("from")).filter(|role| **role != Value::Null);
    let Some(role) = role else {
        return append_pair(number, item, turns);
    };
    let name = role.as_text().unwrap_or_default();
    let role = Role::parse(&name).ok_or_else(|| {
        reject(
            "unknown-role",
            format!("message {number} is by {}; known are user, human, assistant, gpt, system", short(&name)),
        )
    })?;
    let content = item.get("content").or_else(|| item.get("value"));
    let content = content_text(number, content)?;
    turns.push(Message { role, content: Cow::Owned(content) });
    Ok(())
}

/// `{user, assistant}`, as in `the_cauldron`'s `texts`.
fn append_pair(number: usize, item: &Value<'_>, turns: &mut Vec<Message<'static>>) -> Result<(), Reject> {
    let (Some(user), Some(assistant)) = (item.get("user"), item.get("assistant")) else {
        let detail = format!(
            "message {number} is {}; expected role and content, from and value, or user and assistant",
            item.kind()
        );
        return Err(reject("bad-conversation", detail));
    };
    for (role, cell) in [(Role::User, user), (Role::Assistant, assistant)] {
        turns.push(Message { role, content: Cow::Owned(content_text(number, Some(cell))?) });
    }
    Ok(())
}

/// Content as text: a string, or a list of parts of which pictures become [`IMAGE_PLACEHOLDER`].
fn content_text(number: usize, content: Option<&Value<'_>>) -> Result<String, Reject> {
    match content {
        None => {
            Err(reject("bad-conversation", format!("message {number} has neither `content` nor `value`")))
        }
        Some(Value::Null) => Ok(String::new()),
        Some(Value::List(parts)) => joined_parts(number, parts),
        Some(cell) => match cell.as_text() {
            Some(text) => Ok(text.into_owned()),
            None => Err(reject(
                "bad-conversation",
                format!("message {number}: content is {}, not text", cell.kind()),
            )),
        },
    }
}

/// Parts in order; a picture stands on a line of its own, as LLaVA writes it, unless the text already breaks there.
fn joined_parts(number: usize, parts: &[Value<'_>]) -> Result<String, Reject> {
    let mut joined = String::new();
    let mut after_image = false;
    for part in parts {
        let (text, is_image) = part_text(number, part)?;
        let breaks =
            joined.is_empty() || text.is_empty() || joined.ends_with('\n') || text.starts_with(['\n', '\r']);
        if (is_image || after_image) && !breaks {
            joined.push('\n');
        }
        joined.push_str(&text);
        after_image = is_image;
    }
    Ok(joined)
}

fn part_text<'a>(number: usize, part: &'a Value<'_>) -> Result<(Cow<'a, str>, bool), Reject> {
    if let Value::Text(text) = part {
        return Ok((Cow::Borrowed(text), false));
    }
    match part.get("type").and_then(Value::as_text).as_deref() {
        Some("image" | "image_url" | "input_image") => Ok((Cow::Borrowed(IMAGE_PLACEHOLDER), true)),
        Some("text" | "input_text") => {
            let text = part.get("text").or_else(|| part.get("content")).and_then(Value::as_text);
            Ok((text.unwrap_or_default(), false))
        }
        Some(other) => {
            Err(reject("bad-conversation", format!("message {number} holds a part of type {}", short(other))))
        }
        None => Err(reject("bad-conversation", format!("message {number} holds a part without `type`"))),
    }
}

/// Whether the turns can be trained on; an empty system turn (how many sets write "none") is dropped.
///
/// A user turn may be blank where the row can hold a picture: then the picture is the question.
pub fn checked(mut turns: Vec<Message<'_>>, may_hold_images: bool) -> Result<Vec<Message<'_>>, Reject> {
    if turns.first().is_some_and(|turn| turn.role == Role::System && turn.content.trim().is_empty()) {
        turns.remove(0);
    }
    if turns.is_empty() {
        return Err(reject("no-answer", "the conversation is empty"));
    }
    let offset = usize::from(turns[0].role == Role::System);
    for (index, turn) in turns.iter().enumerate().skip(offset) {
        let expected = if (index - offset) % 2 == 0 { Role::User } else { Role::Assistant };
        check_turn(index + 1, turn, expected, may_hold_images)?;
    }
    match turns.last() {
        Some(last) if last.role == Role::Assistant => Ok(turns),
        _ => Err(reject("no-answer", "the conversation does not end in an assistant turn")),
    }
}

fn check_turn(
    number: usize,
    turn: &Message<'_>,
    expected: Role,
    may_hold_images: bool,
) -> Result<(), Reject> {
    if turn.role != expected {
        let detail = format!("message {number} is by {}, expected {}", turn.role.name(), expected.name());
        return Err(reject("turn-order", detail));
    }
    let blank = turn.content.trim().is_empty();
    match turn.role {
        Role::Assistant if blank => {
            Err(reject("no-answer", format!("message {number}, by assistant, is empty")))
        }
        Role::User if blank && !may_hold_images => {
            Err(reject("no-prompt", format!("message {number}, by user, is empty")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(json: &str) -> Result<Vec<(&'static str, String)>, Reject> {
        let cell: Value<'_> = serde_json::from_str(json).unwrap();
        let turns = checked(messages(Some(&cell))?, true)?;
        Ok(turns.into_iter().map(|turn| (turn.role.name(), turn.content.into_owned())).collect())
    }

    fn code(json: &str) -> &'static str {
        turns(json).unwrap_err().code
    }

    #[test]
    fn all_layouts_of_the_same_conversation_give_the_same_turns() {
        let expected = vec![("user", "What?\n<image>".to_owned()), ("assistant", "A cat。😺".to_owned())];
        for layout in [
            r#"[{"role": "user", "content": "What?\n<image>"}, {"role": "assistant", "content": "A cat。😺"}]"#,
            r#"[{"from": "human", "value": "What?\n<image>"}, {"from": "gpt", "value": "A cat。😺"}]"#,
            r#"[{"content": [{"index": null, "text": "What?\n", "type": "text"}, {"index": 0, "text": null, "type": "image"}], "role": "user"},
                {"content": [{"index": null, "text": "A cat。😺", "type": "text"}], "role": "assistant"}]"#,
            r#"[{"content": [{"text": "What?", "type": "text"}, {"type": "image"}], "role": "user"}, {"role": "assistant", "content": "A cat。😺"}]"#,
            r#"[{"user": "What?\n<image>", "assistant": "A cat。😺", "source": "vqa"}]"#,
            r#""[{\"role\": \"user\", \"content\": \"What?\\n<image>\"}, {\"role\": \"assistant\", \"content\": \"A cat。😺\"}]""#,
            r#"[{"role": "system", "content": ""}, {"from": "Human", "value": "What?\n<image>"}, {"from": "gpt", "value": "A cat。😺"}]"#,
        ] {
            assert_eq!(turns(layout).unwrap(), expected, "{layout}");
        }
    }

    #[test]
    fn a_picture_among_parts_stands_on_a_line_of_its_own() {
        let joined = |before: &str, after: &str| {
            let part = |text: &str| serde_json::json!({"type": "text", "text": text});
            let content = serde_json::json!([part(before), {"type": "image"}, part(after)]).to_string();
            turns(&format!(
                r#"[{{"role": "user", "content": {content}}}, {{"role": "assistant", "content": "a"}}]"#
            ))
            .unwrap()[0]
                .1
                .clone()
        };
        assert_eq!(joined("Look at ", " and say."), "Look at \n<image>\n and say.");
        assert_eq!(joined("Look.\n", "\nSay."), "Look.\n<image>\nSay.");
        assert_eq!(joined("Look.\r\n", "\r\nSay."), "Look.\r\n<image>\r\nSay.");
        assert_eq!(joined("", ""), "<image>");
    }

    #[test]
    fn three_turns_and_a_system_turn_stay_in_order() {
        let turns = turns(
            r#"[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1"}, {"role": "assistant", "content": "2"},
                {"role": "user", "content": "3"}, {"role": "assistant", "content": "4"}, {"role": "user", "content": "5"},
                {"role": "assistant", "content": "6"}]"#,
        );
        let turns = turns.unwrap();
        assert_eq!(turns.len(), 7);
        assert_eq!(turns[0], ("system", "Be brief.".to_owned()));
        assert_eq!(turns[6], ("assistant", "6".to_owned()));
    }

    #[test]
    fn what_is_no_training_conversation_is_rejected_by_name() {
        assert_eq!(code("[]"), "no-answer");
        assert_eq!(code(r#"[{"role": "assistant", "content": "a"}]"#), "turn-order");
        assert_eq!(
            code(r#"[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]"#),
            "turn-order"
        );
        assert_eq!(code(r#"[{"role": "user", "content": "a"}]"#), "no-answer");
        assert_eq!(
            code(r#"[{"role": "user", "content": "a"}, {"role": "assistant", "content": " \n"}]"#),
            "no-answer"
        );
        assert_eq!(code(r#"[{"role": "tool", "content": "a"}]"#), "unknown-role");
        assert_eq!(code(r#"[{"role": "user"}]"#), "bad-conversation");
        assert_eq!(code(r#"[{"role": "user", "content": [{"type": "video"}]}]"#), "bad-conversation");
        assert_eq!(code(r#""not json""#), "bad-conversation");
        assert_eq!(code("7"), "bad-conversation");
    }

    #[test]
    fn a_blank_question_needs_a_picture() {
        let turns =
            || from_prompt_answer("".into(), Some(&Value::Text("A cat".into()))).map(|turns| turns.len());
        assert_eq!(turns(), Ok(2));
        let question = Value::Text("A cat".into());
        let pair = || from_prompt_answer("".into(), Some(&question)).unwrap();
        assert!(checked(pair(), true).is_ok());
        assert_eq!(checked(pair(), false).unwrap_err().code, "no-prompt");
    }
}
