//! Turns of a conversation, from any layout that data sets use: one reader for all of them.
//!
//! In: the cells of a row. Out: its turns and the images that stand in them. Whether the turns make sense is for the chat template to
//! say; here a row is rejected only when it does not end in an answer, asks nothing, or cannot be read. Texts are passed on unchanged.
//!
//! | cell | turns |
//! |---|---|
//! | list of `{role, content}` or `{from, value}` | one each; roles as [`ROLES`] has them |
//! | list of `{user, assistant}`, `{query, response}` …, or of pairs of texts (`history`) | two each |
//! | struct of lists (`datasets.Sequence`) | as the list of structs |
//! | JSON text of any of these | the same |
//! | any other text, where the column says who speaks (`prompt`, `completion`) | one |
//!
//! Content is text, or a list of parts: text, and images by [`image_cell`](super::image_cell).

mod calls;
mod keys;
mod parts;

use super::columns::{Conversation as Layout, Mapping};
use super::image_cell::{Image, short};
use super::json;
use super::marks::Marks;
use super::raw::reject;
use super::value::Value;
use llavm_pipeline::rejects::Reject;
use std::borrow::Cow;

pub use keys::unused_keys;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
}

/// The names seen in data sets.
const ROLES: [(Role, &[&str]); 4] = [
    (Role::System, &["system", "developer"]),
    (Role::User, &["user", "human", "usr", "prompter"]),
    (Role::Assistant, &["assistant", "gpt", "model", "bot", "chatgpt"]),
    (Role::Tool, &["tool", "function", "observation", "tool_response", "function_response", "ipython"]),
];

/// Turns that are calls of a tool, by the assistant.
const CALLS: [&str; 3] = ["function_call", "tool_call", "tool_calls"];

/// What questions and answers are called where one struct holds both.
const PAIRS: [(&str, &str); 7] = [
    ("user", "assistant"),
    ("human", "gpt"),
    ("query", "response"),
    ("question", "answer"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("prompt", "completion"),
];

impl Role {
    /// The name chat templates use.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase();
        ROLES.iter().find(|(_, names)| names.contains(&name.as_str())).map(|(role, _)| *role)
    }
}

/// One turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub role: Role,
    pub content: Cow<'a, str>,
    /// Calls of tools, as JSON text of a list.
    pub tool_calls: Option<String>,
    /// What else chat templates read of a turn, as JSON text of an object.
    pub extra: Option<String>,
    /// The tools on offer, as JSON text of a list; of the first turn only.
    pub tools: Option<String>,
}

impl<'a> Message<'a> {
    fn new(role: Role, content: Cow<'a, str>) -> Self {
        Self { role, content, tool_calls: None, extra: None, tools: None }
    }
}

/// A row's turns, and the images that stand in them.
#[derive(Debug, Default)]
pub struct Conversation<'a> {
    pub turns: Vec<Message<'a>>,
    pub images: Vec<Image<'static>>,
}

/// How the rows of a source hold their conversation.
pub struct Reader {
    pub mapping: Mapping,
    pub marks: Marks,
}

impl Reader {
    /// Whether the images of a row are those that its conversation holds.
    pub fn holds_images(&self) -> bool {
        self.mapping.image.is_none()
    }

    fn cell<'a>(name: Option<&str>, row: &'a Value<'_>) -> Option<&'a Value<'a>> {
        name.and_then(|name| row.get(name)).filter(|cell| **cell != Value::Null)
    }

    /// The row's conversation; `drawn` gives a prompt where it has none.
    pub fn read<'a>(
        &self,
        row: &'a Value<'_>,
        drawn: impl FnOnce() -> Option<Cow<'a, str>>,
    ) -> Result<Conversation<'a>, Reject> {
        let mapping = &self.mapping;
        let text = |index: usize| Self::cell(mapping.texts.get(index).and_then(Option::as_deref), row);
        let mut found = Builder { in_text: self.holds_images(), ..Builder::default() };
        found.system(Self::cell(mapping.system.as_deref(), row))?;
        found.add(Self::cell(mapping.history.as_deref(), row), None)?;
        found.tools = Self::cell(mapping.tools.as_deref(), row).map_or(Ok(None), calls::tools)?;
        match mapping.conversation {
            Layout::PromptAnswer => {
                let prompt = prompt(text(0), Self::cell(mapping.input.as_deref(), row))?;
                let prompt = prompt.filter(|prompt| !prompt.trim().is_empty()).or_else(drawn);
                // Without one to draw, an empty prompt stays what it is: the image may be the question.
                let prompt = prompt.or(text_cell("prompt", text(0))?);
                found.said(Role::User, prompt.ok_or_else(|| reject("no-prompt", "the prompt is null"))?)?;
                let answer = text_cell("answer", text(1))?;
                let answer = answer.ok_or_else(|| reject("no-answer", "the answer is null"))?;
                found.turns.push(Message::new(Role::Assistant, answer));
            }
            Layout::Messages | Layout::Llava => found.add(text(0), None)?,
            Layout::PromptCompletion => {
                found.add(text(0), Some(Role::User))?;
                found.add(text(1), Some(Role::Assistant))?;
            }
        }
        let Builder { mut turns, images, tools, .. } = found;
        let mut seen = None;
        for turn in turns.iter_mut().filter(|turn| turn.role == Role::User && !self.marks.is_empty()) {
            turn.content = self.marks.replaced(std::mem::take(&mut turn.content), &mut seen)?;
        }
        let may_hold_images = mapping.image.is_some() || !images.is_empty();
        let mut turns = checked(turns, may_hold_images)?;
        turns.iter_mut().take(1).for_each(|first| first.tools.clone_from(&tools));
        Ok(Conversation { turns, images })
    }
}

/// A prompt, and behind it what it is about (alpaca's `input`).
fn prompt<'a>(
    prompt: Option<&'a Value<'_>>,
    input: Option<&'a Value<'_>>,
) -> Result<Option<Cow<'a, str>>, Reject> {
    let prompt = text_cell("prompt", prompt)?;
    let input = text_cell("input", input)?.filter(|input| !input.trim().is_empty());
    Ok(match (prompt, input) {
        (Some(prompt), Some(input)) => Some(Cow::Owned(format!("{prompt}\n{input}"))),
        (prompt, input) => prompt.or(input),
    })
}

/// The text of a cell that must be one; `None` for null.
pub fn text_cell<'a>(what: &str, cell: Option<&'a Value<'_>>) -> Result<Option<Cow<'a, str>>, Reject> {
    match cell {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Float(number)) if number.is_nan() => Ok(None),
        Some(cell) => match cell.as_text() {
            Some(text) => Ok(Some(text)),
            None => Err(reject("not-text", format!("the {what} is {}, not text", cell.kind()))),
        },
    }
}

/// A conversation while it is read.
#[derive(Default)]
struct Builder<'a> {
    turns: Vec<Message<'a>>,
    images: Vec<Image<'static>>,
    tools: Option<String>,
    /// Whether images in texts are the row's images; otherwise a column holds them, and parts only say where they belong.
    in_text: bool,
}

impl<'a> Builder<'a> {
    /// The system message of a column of its own.
    fn system(&mut self, cell: Option<&'a Value<'_>>) -> Result<(), Reject> {
        if let Some(content) = text_cell("system message", cell)?.filter(|text| !text.trim().is_empty()) {
            self.turns.push(Message::new(Role::System, content));
        }
        Ok(())
    }

    /// A text that a turn consists of.
    fn said(&mut self, role: Role, content: Cow<'a, str>) -> Result<(), Reject> {
        let content = if role == Role::User { self.without_tags(content)? } else { content };
        self.turns.push(Message::new(role, content));
        Ok(())
    }

    /// All messages of a cell. `speaker` is who says a text that is no list of messages.
    fn add(&mut self, cell: Option<&Value<'_>>, speaker: Option<Role>) -> Result<(), Reject> {
        match cell {
            None | Some(Value::Null) => Ok(()),
            Some(Value::List(items)) => self.add_all(items),
            Some(cell @ Value::Object(_)) => match transposed(cell) {
                Some(items) => self.add_all(&items),
                None => self.message(1, cell),
            },
            Some(cell) => match cell.as_text() {
                Some(text) => self.text(&text, speaker),
                None => Err(reject(
                    "bad-conversation",
                    format!("expected a list of messages, found {}", cell.kind()),
                )),
            },
        }
    }

    fn add_all(&mut self, items: &[Value<'_>]) -> Result<(), Reject> {
        items.iter().enumerate().try_for_each(|(index, item)| self.message(index + 1, item))
    }

    /// A text is a list of messages when it parses as one; a completion may begin with a bracket and be a text all the same.
    fn text(&mut self, text: &str, speaker: Option<Role>) -> Result<(), Reject> {
        let parsed = text.trim_start().starts_with(['[', '{']).then(|| json::parse(text));
        match (parsed, speaker) {
            (Some(Ok(parsed)), None) => self.add(Some(&parsed), None),
            (Some(Ok(parsed)), Some(_)) if is_messages(&parsed) => self.add(Some(&parsed), None),
            (_, Some(role)) => self.said(role, Cow::Owned(text.to_owned())),
            _ if text.trim().is_empty() => Ok(()),
            (Some(Err(cause)), None) => {
                let python = text.contains("'from'") || text.contains("'role'") || text.contains("'value'");
                let hint = if python {
                    "; it is Python's way to write a list, not JSON: use json.dumps"
                } else {
                    ""
                };
                let detail = format!("neither a list nor JSON text of one ({cause}){hint}: {}", short(text));
                Err(reject("bad-conversation", detail))
            }
            (None, None) => {
                Err(reject("bad-conversation", format!("not a list of messages: {}", short(text))))
            }
        }
    }

    fn message(&mut self, number: usize, item: &Value<'_>) -> Result<(), Reject> {
        if let Value::List(pair) = item
            && let [question, answer] = pair.as_slice()
        {
            return self.pair(number, question, answer);
        }
        let Some(role) = item.first_of(&["role", "from"]) else {
            let named = PAIRS.iter().find_map(|(question, answer)| item.get(question).zip(item.get(answer)));
            let Some((question, answer)) = named else {
                let kind = item.kind();
                let detail = format!(
                    "message {number} is {kind}; expected role and content, from and value, or user and assistant"
                );
                return Err(reject("bad-conversation", detail));
            };
            return self.pair(number, question, answer);
        };
        let name = role.as_text().unwrap_or_default();
        let content = item.first_of(&["content", "value"]);
        if CALLS.contains(&name.trim().to_ascii_lowercase().as_str()) {
            let tool_calls = calls::alone(number, content)?;
            let silent = Message::new(Role::Assistant, Cow::Borrowed(""));
            self.turns.push(Message { tool_calls, extra: calls::extra(item), ..silent });
            return Ok(());
        }
        let role = Role::parse(&name).ok_or_else(|| {
            let known: Vec<_> = ROLES.iter().flat_map(|(_, names)| names.iter().copied()).collect();
            let detail = format!("message {number} is by {}; known are {}", short(&name), known.join(", "));
            reject("unknown-role", detail)
        })?;
        let tool_calls = calls::beside(number, item)?;
        if tool_calls.is_none() && ["content", "value"].iter().all(|name| item.get(name).is_none()) {
            let detail = format!("message {number} has neither `content` nor `value`");
            return Err(reject("bad-conversation", detail));
        }
        if let Some(tools) = item.first_of(&["tools"]).filter(|_| self.tools.is_none()) {
            self.tools = calls::tools(tools)?;
        }
        let mut content = Cow::Owned(self.content(number, role, content)?);
        if role == Role::User {
            content = self.beside(number, item, content)?;
        }
        self.turns.push(Message { tool_calls, extra: calls::extra(item), ..Message::new(role, content) });
        Ok(())
    }

    /// A question and its answer.
    fn pair(&mut self, number: usize, question: &Value<'_>, answer: &Value<'_>) -> Result<(), Reject> {
        for (role, cell) in [(Role::User, question), (Role::Assistant, answer)] {
            let content = Cow::Owned(self.content(number, role, Some(cell))?);
            self.turns.push(Message::new(role, content));
        }
        Ok(())
    }
}

/// Whether a parsed text is messages and not a text in brackets.
fn is_messages(parsed: &Value<'_>) -> bool {
    let is_message = |item: &Value<'_>| {
        let pair = || {
            PAIRS.iter().any(|(question, answer)| item.get(question).is_some() && item.get(answer).is_some())
        };
        matches!(item, Value::Object(_)) && (item.first_of(&["role", "from"]).is_some() || pair())
    };
    match parsed {
        Value::List(items) => !items.is_empty() && items.iter().all(is_message),
        other => is_message(other),
    }
}

/// A struct of lists as the list of structs that `datasets` made it from.
fn transposed<'a>(cell: &'a Value<'_>) -> Option<Vec<Value<'a>>> {
    let Value::Object(fields) = cell else { return None };
    let lists: Vec<(&str, &[Value<'_>])> = fields
        .iter()
        .filter_map(|(name, value)| {
            if let Value::List(items) = value { Some((name.as_ref(), items.as_slice())) } else { None }
        })
        .collect();
    let named = |name: &str| lists.iter().any(|(list, _)| *list == name);
    let speaks = named("role")
        || named("from")
        || PAIRS.iter().any(|(question, answer)| named(question) && named(answer));
    if !speaks {
        return None;
    }
    let longest = lists.iter().map(|(_, items)| items.len()).max()?;
    let item = |index: usize| {
        let fields =
            lists.iter().filter_map(|(name, items)| Some((Cow::Borrowed(*name), items.get(index)?.clone())));
        Value::Object(fields.collect())
    };
    Some((0..longest).map(item).collect())
}

/// Whether the turns can be trained on; an empty system turn (how many sets write "none") is dropped.
///
/// A user turn may be blank where the row can hold an image: then the image is the question.
fn checked(mut turns: Vec<Message<'_>>, may_hold_images: bool) -> Result<Vec<Message<'_>>, Reject> {
    if turns.first().is_some_and(|turn| turn.role == Role::System && turn.content.trim().is_empty()) {
        turns.remove(0);
    }
    for (index, turn) in turns.iter().enumerate() {
        let blank = turn.content.trim().is_empty() && turn.tool_calls.is_none();
        let number = index + 1;
        match turn.role {
            Role::Assistant if blank => {
                return Err(reject("no-answer", format!("message {number}, by assistant, is empty")));
            }
            Role::User if blank && !may_hold_images => {
                return Err(reject("no-prompt", format!("message {number}, by user, is empty")));
            }
            _ => {}
        }
    }
    match turns.last() {
        None => Err(reject("no-answer", "the conversation is empty")),
        Some(last) if last.role != Role::Assistant => {
            Err(reject("no-answer", "the conversation does not end in an assistant turn"))
        }
        Some(_) if turns.iter().all(|turn| turn.role != Role::User) => {
            Err(reject("no-prompt", "the conversation has no user turn"))
        }
        Some(_) => Ok(turns),
    }
}

#[cfg(test)]
mod tests;
