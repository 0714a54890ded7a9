//! From messages to segments: render, find out who wrote what, decide what is trained on.
//!
//! **`loss_on = "last"`**: prompt = everything before the last answer, rendered with the generation prompt; the answer is
//! what the whole conversation's rendering adds to it. A template may render an answer otherwise than the model would write
//! it after the prompt (Qwen3 drops leading line breaks, and takes everything before `</think>` for reasoning); then the
//! prompt is no prefix of the whole, or the answer does not follow it, and the row is refused.
//!
//! **`loss_on = "all-assistant"`**: the whole conversation; trained on is what `{% generation %}` encloses or, where the
//! template has none, each assistant turn from behind its generation prompt to its end. With Qwen3's own template, earlier
//! turns lack the empty think block that inference always emits before an answer; a template with generation blocks
//! (such as TRL's) avoids that.
//!
//! A prompt for inference ([`Renderer::prompt`]) is the same rendering up to the answer that is asked for.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::marks::{
    Enclosed, Rendered, Span, empty_mark, is_mark, is_silent, mark, mark_beside, unmark, widen_to_reasoning,
};
use super::segment::{ASSISTANT, Segment, Sink, TEMPLATE, USER};
use crate::chat_template::{ChatTemplate, TemplateError};
use crate::message::{self, Message};

/// How conversations are rendered, besides the template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rendering {
    /// The system message put before conversations that have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Handed to the template as `enable_thinking`.
    pub enable_thinking: bool,
    /// Which answers are trained on.
    pub loss_on: LossOn,
    /// Where a trained answer ends.
    pub answer_end: AnswerEnd,
}

impl Default for Rendering {
    fn default() -> Self {
        Self { system: None, enable_thinking: false, loss_on: LossOn::Last, answer_end: AnswerEnd::Eos }
    }
}

/// Which answers are trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossOn {
    /// The last one.
    #[default]
    Last,
    /// Every assistant turn: all that `{% generation %}` encloses, if the template has it.
    AllAssistant,
}

/// Where a trained answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerEnd {
    /// With the eos token.
    Eos,
    /// With the whitespace the template puts behind the eos token (Qwen3: a line break).
    Turn,
}

/// A conversation that cannot be rendered as training needs it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// A name for the reason.
    pub code: &'static str,
    /// What is wrong.
    pub detail: String,
}

fn refusal(code: &'static str, detail: impl Into<String>) -> Refusal {
    Refusal { code, detail: detail.into() }
}

/// A template and what the settings make of it.
#[derive(Debug)]
pub struct Renderer {
    template: ChatTemplate,
    rendering: Rendering,
    /// What ends an answer.
    eos: String,
    /// What the template adds for `add_generation_prompt`.
    generation_prompt: String,
}

/// A rendered row: its text up to where training needs it, and the trained stretches.
pub struct Conversation {
    rendered: Rendered,
    trained: Vec<Range<usize>>,
}

const CHANGED: &str = "answer-changes-prompt";
const CHANGED_DETAIL: &str = "the prompt is not how the rendering of the whole conversation begins; \
                              an answer may not begin with a line break or hold `</think>`";

const THINKS: &str = "the answer thinks (`reasoning_content`, or text before `</think>`), but its prompt ends in an empty \
                      think block; set enable_thinking = true, or take the thoughts out of the data";

impl Renderer {
    /// Settings at work; `eos` is what ends an answer.
    pub fn new(template: ChatTemplate, rendering: Rendering, eos: String) -> Result<Self, TemplateError> {
        let question = [Message::new(USER, "x")];
        let thinking = Some(rendering.enable_thinking);
        let without = template.render(&question, false, thinking, None)?;
        let with = template.render(&question, true, thinking, None)?;
        let generation_prompt = with.strip_prefix(&without).unwrap_or_default().to_owned();
        Ok(Self { template, rendering, eos, generation_prompt })
    }

    /// The chat template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// The settings.
    pub fn rendering(&self) -> &Rendering {
        &self.rendering
    }

    /// What ends an answer.
    pub fn eos(&self) -> &str {
        &self.eos
    }

    /// Why no row is trained as inference asks: the answer to a plain question must follow its prompt. `None` when it does,
    /// or when the template refuses a plain question, which each row then reports.
    pub fn unaskable(&self) -> Option<String> {
        let question = Message::new(USER, "x");
        let answer = Message::new(ASSISTANT, "y");
        let row = self.conversation(&[question.clone(), answer]).ok()?;
        let prompt = self.prompt(&[question], self.rendering.system.as_deref()).ok()?;
        let (row_text, prompt) = (&row.rendered.text, &prompt.rendered.text);
        let start = row.trained.last()?.start;
        let asked = row_text.starts_with(prompt.as_str()) && prompt.len() >= start;
        (!asked).then(|| {
            format!(
                "trains answers behind `{}`, but a question ends in `{}`; a template must write the same with and \
                 without add_generation_prompt",
                tail(&row_text[..start]),
                tail(prompt)
            )
        })
    }

    /// A row for training.
    pub fn conversation(&self, messages: &[Message<'_>]) -> Result<Conversation, Refusal> {
        let messages = with_system(messages, self.rendering.system.as_deref())?;
        let conversation = match self.rendering.loss_on {
            LossOn::Last => self.last(&messages),
            LossOn::AllAssistant => self.all_assistant(&messages),
        };
        let conversation = conversation.map_err(|refused| self.explained(refused, &messages))?;
        conversation.check_borders()?;
        Ok(conversation)
    }

    /// The prompt for the next answer of `messages`, in which `system` comes first unless they have a system message of
    /// their own. Its text is what [`Renderer::conversation`] has before that answer, in segments that end where those do.
    pub fn prompt(&self, messages: &[Message<'_>], system: Option<&str>) -> Result<Conversation, Refusal> {
        let messages = with_system(messages, system)?;
        let whole = self.render(&messages, true)?;
        let mut rendered = self.locate(&messages, true, &whole)?;
        let trained = match self.rendering.loss_on {
            LossOn::Last => Vec::new(),
            LossOn::AllAssistant => self.trained(&mut rendered)?,
        };
        Ok(Conversation { rendered, trained })
    }

    fn last(&self, messages: &[Message<'_>]) -> Result<Conversation, Refusal> {
        let Some((answer, before)) = messages.split_last().filter(|(last, _)| last.role == ASSISTANT) else {
            return Err(refusal("no-answer", "the conversation does not end with an assistant turn"));
        };
        let whole = self.render(messages, false)?;
        let mut rendered = self.locate(before, true, &whole)?;
        let start = rendered.text.len();
        if answer.tool_calls.is_some() {
            (rendered.spans, rendered.beside) = self.answer_with_calls(start, messages, &whole)?;
        } else if whole[start..].starts_with(answer.content) {
            let range = start..start + answer.content.len();
            rendered.spans.push(Span { role: ASSISTANT, range });
        } else {
            (rendered.spans, rendered.beside) = self.answer_behind(start, answer, messages, &whole)?;
        }
        let answer_end = rendered.spans.last().map_or(start, |span| span.range.end);
        let end = answer_end + self.turn_end(&whole[answer_end..])?;
        rendered.text = whole;
        rendered.text.truncate(end);
        Ok(Conversation { rendered, trained: std::iter::once(start..end).collect() })
    }

    /// Finds an answer that does not directly follow the prompt, because the template puts something before it (Qwen3 with
    /// `enable_thinking`: an empty think block, which is then learnt) or takes whitespace off it.
    fn answer_behind(
        &self,
        start: usize,
        answer: &Message<'_>,
        messages: &[Message<'_>],
        whole: &str,
    ) -> Result<(Vec<Span>, Vec<Span>), Refusal> {
        let rendered = self.locate(messages, false, whole)?;
        let span = rendered.spans.last().filter(|span| span.range.start >= start);
        let text = span.map_or("", |span| &rendered.text[span.range.clone()]);
        if text.trim() == answer.content.trim() && !begins_with_line_break(answer.content) {
            return Ok((rendered.spans, rendered.beside));
        }
        let detail = "the template renders the answer otherwise than the model would write it after the prompt; \
                      an answer may not begin with a line break or hold `</think>`";
        Err(refusal(CHANGED, detail))
    }

    /// Finds an answer that calls tools, and what its calls say.
    fn answer_with_calls(
        &self,
        start: usize,
        messages: &[Message<'_>],
        whole: &str,
    ) -> Result<(Vec<Span>, Vec<Span>), Refusal> {
        let Rendered { spans, beside, .. } = self.locate(messages, false, whole)?;
        let is_there = spans.last().is_some_and(|span| span.role == ASSISTANT && span.range.start >= start);
        if is_there { Ok((spans, beside)) } else { Err(refusal(CHANGED, CHANGED_DETAIL)) }
    }

    fn all_assistant(&self, messages: &[Message<'_>]) -> Result<Conversation, Refusal> {
        let whole = self.render(messages, false)?;
        let mut rendered = self.locate(messages, false, &whole)?;
        let trained = self.trained(&mut rendered)?;
        let Some(last) = trained.last() else {
            return Err(refusal("no-answer", "the conversation has no assistant turn"));
        };
        if let Some((answer, before)) = messages.split_last()
            && answer.role == ASSISTANT
        {
            let prompt = self.render(before, true)?;
            if !(whole.starts_with(&prompt) && (last.start..last.end).contains(&prompt.len())) {
                return Err(refusal(CHANGED, CHANGED_DETAIL));
            }
        }
        Ok(Conversation { rendered, trained })
    }

    /// The stretches that are trained on when all assistant turns are.
    fn trained(&self, rendered: &mut Rendered) -> Result<Vec<Range<usize>>, Refusal> {
        if self.template.marks_generation() {
            Ok(rendered.generated.clone())
        } else {
            self.assistant_turns(rendered)
        }
    }

    /// From behind the generation prompt (as much of it as the turn has) to the end of the turn. What a message repeats of its
    /// generation prompt, as an empty think block, belongs to the prompt.
    fn assistant_turns(&self, rendered: &mut Rendered) -> Result<Vec<Range<usize>>, Refusal> {
        let mut trained = Vec::new();
        let mut before = 0;
        for n in 0..rendered.spans.len() {
            let Span { role, range } = rendered.spans[n].clone();
            if role == ASSISTANT {
                let next = rendered.spans.get(n + 1).map_or(rendered.text.len(), |next| next.range.start);
                let end = range.end + self.turn_end(&rendered.text[range.end..next])?;
                let start = self.behind_prompt(&rendered.text[before..end], range.start - before);
                let start = start.map_or(range.start, |start| before + start);
                rendered.spans[n].range.start = range.start.max(start);
                trained.push(start..end);
            }
            before = range.end;
        }
        Ok(trained)
    }

    /// Where the last generation prompt of a text ends that begins before `message`.
    fn behind_prompt(&self, text: &str, message: usize) -> Option<usize> {
        let prompts = text.match_indices(&self.generation_prompt).map(|(at, _)| at);
        prompts.take_while(|at| *at < message).last().map(|at| at + self.generation_prompt.len())
    }

    /// How much of what follows an answer belongs to it.
    fn turn_end(&self, tail: &str) -> Result<usize, Refusal> {
        let Some(at) = tail.find(&self.eos) else {
            let detail =
                format!("the template does not end the answer with the tokenizer's eos token `{}`", self.eos);
            return Err(refusal("no-eos", detail));
        };
        let eos = at + self.eos.len();
        Ok(match self.rendering.answer_end {
            AnswerEnd::Eos => eos,
            AnswerEnd::Turn => eos + tail[eos..].len() - tail[eos..].trim_start().len(),
        })
    }

    /// Renders `messages` with marks such that `whole` begins with the result. Marks enclose all of a message where they can,
    /// so that what stands in one message does not decide where another begins.
    fn locate(&self, messages: &[Message<'_>], prompt: bool, whole: &str) -> Result<Rendered, Refusal> {
        if let Some(rendered) = self.marked(messages, &vec![Enclosed::Whole; messages.len()], prompt, whole) {
            return Ok(rendered);
        }
        let mut enclosed = vec![Enclosed::Core; messages.len()];
        let Some(mut rendered) = self.marked(messages, &enclosed, prompt, whole) else {
            return Err(self.unlike(messages, prompt, whole));
        };
        for n in (0..messages.len())
            .filter(|n| mark(&messages[*n], Enclosed::Whole) != mark(&messages[*n], Enclosed::Core))
        {
            enclosed[n] = Enclosed::Whole;
            match self.marked(messages, &enclosed, prompt, whole) {
                Some(wider) => rendered = wider,
                None => enclosed[n] = Enclosed::Core,
            }
        }
        widen_to_reasoning(rendered, messages, &enclosed).ok_or_else(edited)
    }

    /// The rendering with these marks, if `whole` begins with it.
    fn marked(
        &self,
        messages: &[Message<'_>],
        enclosed: &[Enclosed],
        prompt: bool,
        whole: &str,
    ) -> Option<Rendered> {
        let marked: Vec<String> =
            messages.iter().zip(enclosed).map(|(message, enclosed)| mark(message, *enclosed)).collect();
        let rendered = self.unmarked(messages, &marked, prompt)?;
        let rendered = Some(rendered).filter(|rendered| whole.starts_with(&rendered.text))?;
        self.with_silent_turns(rendered, messages, marked, prompt)
    }

    /// The rendering of messages with these contents, its marks taken out.
    fn unmarked(&self, messages: &[Message<'_>], contents: &[String], prompt: bool) -> Option<Rendered> {
        let marked: Vec<_> =
            contents.iter().zip(messages).map(|(content, from)| mark_beside(from, content)).collect();
        let thinking = Some(self.rendering.enable_thinking);
        unmark(&self.template.render_marked(&marked, prompt, thinking, message::tools(&marked)).ok()?)
    }

    /// Finds where turns begin that say nothing but call tools: where the marks of a message would stand, if it said something.
    fn with_silent_turns(
        &self,
        mut rendered: Rendered,
        messages: &[Message<'_>],
        mut contents: Vec<String>,
        prompt: bool,
    ) -> Option<Rendered> {
        for n in (0..messages.len()).filter(|n| is_silent(&messages[*n])) {
            let silent = std::mem::replace(&mut contents[n], empty_mark(&messages[n]));
            let start = self.unmarked(messages, &contents, prompt)?.spans.get(n)?.range.start;
            contents[n] = silent;
            let name = rendered.spans.get(n)?.range.clone();
            if start > name.start {
                return None;
            }
            rendered.spans[n].range = start..start;
            rendered.beside.push(Span { role: ASSISTANT, range: name });
        }
        Some(rendered)
    }

    /// What a person can do about an answer that thinks, where the prompt says that it does not.
    fn explained(&self, refused: Refusal, messages: &[Message<'_>]) -> Refusal {
        let thinks = |answer: &Message<'_>| answer.thinks() || answer.content.contains("</think>");
        if refused.code == CHANGED && !self.rendering.enable_thinking && messages.last().is_some_and(thinks) {
            return refusal(CHANGED, THINKS);
        }
        refused
    }

    /// Why no marks can be set.
    fn unlike(&self, messages: &[Message<'_>], prompt: bool, whole: &str) -> Refusal {
        match self.render(messages, prompt) {
            Err(refused) => refused,
            Ok(text) if whole.starts_with(&text) => edited(),
            Ok(_) => refusal(CHANGED, CHANGED_DETAIL),
        }
    }

    fn render(&self, messages: &[Message<'_>], prompt: bool) -> Result<String, Refusal> {
        let thinking = Some(self.rendering.enable_thinking);
        let rendered = self.template.render(&messages, prompt, thinking, message::tools(messages));
        rendered.map_err(|error| refusal("template-refuses", error.to_string()))
    }
}

/// The end of a text, on one line.
fn tail(text: &str) -> String {
    let start = text.char_indices().rev().nth(39).map_or(0, |(at, _)| at);
    text[start..].escape_debug().to_string()
}

fn edited() -> Refusal {
    refusal("template-edits-text", "the template changes a message in a way that cannot be followed")
}

/// The messages, `system` before them unless they have a system message of their own.
fn with_system<'a>(messages: &[Message<'a>], system: Option<&'a str>) -> Result<Vec<Message<'a>>, Refusal> {
    if let Some(n) = messages.iter().position(|message| message.contains(is_mark)) {
        let detail = format!("message {} holds a Unicode noncharacter (U+FDD0 to U+FDEF)", n + 1);
        return Err(refusal("noncharacter", detail));
    }
    let brings_its_own = messages.first().is_some_and(|message| message.role == "system");
    let system = system.filter(|_| !brings_its_own).map(|content| Message::new("system", content));
    Ok(system.into_iter().chain(messages.iter().cloned()).collect())
}

/// Whether the whitespace before the first word holds a line break.
fn begins_with_line_break(text: &str) -> bool {
    text[..text.len() - text.trim_start().len()].contains(['\n', '\r'])
}

impl Conversation {
    /// A trained stretch is tokenised apart from what is before it, and an answer apart from the prompt that asks for it. Where
    /// a line break would meet whitespace there, the tokens would be others than those of the text in one go.
    fn check_borders(&self) -> Result<(), Refusal> {
        let text = &self.rendered.text;
        let is_trained = |at: usize| self.trained.iter().any(|trained| trained.contains(&at));
        let answers = self.rendered.spans.iter().filter(|span| span.role == ASSISTANT);
        let answers = answers.map(|span| span.range.start).filter(|start| is_trained(*start));
        for start in self.trained.iter().map(|trained| trained.start).chain(answers) {
            if begins_with_line_break(&text[start..]) && text[..start].ends_with(char::is_whitespace) {
                let detail = "an answer begins with a line break, which the tokenizer would join with the one before it";
                return Err(refusal(CHANGED, detail));
            }
        }
        Ok(())
    }

    /// Writes the row.
    pub fn write(&self, out: &mut impl Sink) {
        let mut before = 0;
        let Rendered { spans, beside, .. } = &self.rendered;
        let mut spans: Vec<Span> = spans.iter().chain(beside).cloned().collect();
        spans.sort_by_key(|span| span.range.start);
        for Span { role, range } in spans {
            self.write_range(before..range.start, TEMPLATE, out);
            self.write_range(range.clone(), role, out);
            before = range.end;
        }
        self.write_range(before..self.rendered.text.len(), TEMPLATE, out);
    }

    /// Writes a stretch of one role, cut where training begins or ends. An empty question keeps its place, for
    /// an image may be put there.
    fn write_range(&self, range: Range<usize>, role: &str, out: &mut impl Sink) {
        let borders = self.trained.iter().flat_map(|trained| [trained.start, trained.end]);
        let mut start = range.start;
        for cut in borders.filter(|cut| range.contains(cut)).chain([range.end]) {
            if cut > start || (role == USER && range.is_empty()) {
                let train = self.trained.iter().any(|trained| trained.contains(&start));
                out.push(Segment { text: &self.rendered.text[start..cut], train, role });
            }
            start = cut;
        }
    }
}
