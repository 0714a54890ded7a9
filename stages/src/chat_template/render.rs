//! From messages to segments: render, find out who wrote what, decide what is trained on.
//!
//! **`loss_on = "last"`**: prompt = everything before the last answer, rendered with the generation prompt; the answer is
//! what the whole conversation's rendering adds to it. A template may render an answer otherwise than the model would write
//! it after the prompt (Qwen3 drops leading line breaks, and takes everything before `</think>` for reasoning); then the
//! prompt is no prefix of the whole, or the answer does not follow it, and the row is rejected.
//!
//! **`loss_on = "all-assistant"`**: the whole conversation; trained on is what `{% generation %}` encloses or, where the
//! template has none, each assistant turn from behind its generation prompt to its end. With Qwen3's own template, earlier
//! turns lack the empty think block that inference always emits before an answer; a template with generation blocks
//! (such as TRL's) avoids that.

use super::marks::{Piece, Placement, Rendered, is_mark, mark, unmark, widen_to_reasoning};
use super::{AnswerEnd, ChatTemplate, LossOn};
use crate::segments::{Segment, SegmentsBuilder, TEMPLATE, USER};
use llavm_model::chat_template::{self as hf, Message, TemplateError};
use std::collections::BTreeMap;
use std::ops::Range;

/// Why a row cannot be used: code and detail.
pub type Unusable = (&'static str, String);

/// The template and what the parameters make of it.
pub struct Renderer {
    pub template: hf::ChatTemplate,
    pub stage: ChatTemplate,
    /// What ends an answer.
    pub eos: String,
    /// What the template adds for `add_generation_prompt`.
    pub generation_prompt: String,
}

/// A rendered row: its text up to where training needs it, and the trained stretches.
pub struct Conversation {
    rendered: Rendered,
    trained: Vec<Range<usize>>,
}

const CHANGED: &str = "answer-changes-prompt";

impl Renderer {
    pub fn new(template: hf::ChatTemplate, stage: ChatTemplate, eos: String) -> Result<Self, TemplateError> {
        let question = [Message { role: "user", content: "x" }];
        let thinking = Some(stage.enable_thinking);
        let without = template.render(&question, false, thinking, &BTreeMap::new())?;
        let with = template.render(&question, true, thinking, &BTreeMap::new())?;
        let generation_prompt = with.strip_prefix(&without).unwrap_or_default().to_owned();
        Ok(Self { template, stage, eos, generation_prompt })
    }

    /// One row.
    pub fn conversation(&self, messages: &[Message<'_>]) -> Result<Conversation, Unusable> {
        if let Some(n) = messages.iter().position(|message| message.content.contains(is_mark)) {
            let detail = format!("message {} holds a Unicode noncharacter (U+FDD0 to U+FDEF)", n + 1);
            return Err(("noncharacter", detail));
        }
        let system = self.stage.system.as_deref().map(|content| Message { role: "system", content });
        let brings_its_own = messages.first().is_some_and(|message| message.role == "system");
        let messages: Vec<_> =
            system.filter(|_| !brings_its_own).into_iter().chain(messages.iter().cloned()).collect();
        let conversation = match self.stage.loss_on {
            LossOn::Last => self.last(&messages)?,
            LossOn::AllAssistant => self.all_assistant(&messages)?,
        };
        conversation.check_borders()?;
        Ok(conversation)
    }

    fn last(&self, messages: &[Message<'_>]) -> Result<Conversation, Unusable> {
        let Some((answer, before)) = messages.split_last().filter(|(last, _)| last.role == "assistant")
        else {
            return Err(("no-answer", "the conversation does not end with an assistant turn".to_owned()));
        };
        let whole = self.render(messages, false)?;
        let mut rendered = self.locate(before, true, &whole)?;
        let start = rendered.text.len();
        if whole[start..].starts_with(answer.content) {
            let range = start..start + answer.content.len();
            rendered.pieces.push(Piece { role: "assistant", range });
        } else {
            rendered.pieces = self.answer_behind(start, answer, messages, &whole)?;
        }
        let answer_end = rendered.pieces.last().map_or(start, |piece| piece.range.end);
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
    ) -> Result<Vec<Piece>, Unusable> {
        let rendered = self.locate(messages, false, whole)?;
        let piece = rendered.pieces.last().filter(|piece| piece.range.start >= start);
        let text = piece.map_or("", |piece| &rendered.text[piece.range.clone()]);
        if text.trim() == answer.content.trim() && !begins_with_line_break(answer.content) {
            return Ok(rendered.pieces);
        }
        let detail = "the template renders the answer otherwise than the model would write it after the prompt; \
                      an answer may not begin with a line break or hold `</think>`";
        Err((CHANGED, detail.to_owned()))
    }

    fn all_assistant(&self, messages: &[Message<'_>]) -> Result<Conversation, Unusable> {
        let whole = self.render(messages, false)?;
        let rendered = self.locate(messages, false, &whole)?;
        let trained = if self.template.marks_generation() {
            rendered.generated.clone()
        } else {
            self.assistant_turns(&rendered)?
        };
        if trained.is_empty() {
            return Err(("no-answer", "the conversation has no assistant turn".to_owned()));
        }
        Ok(Conversation { rendered, trained })
    }

    /// From behind the generation prompt (as much of it as the turn has) to the end of the turn.
    fn assistant_turns(&self, rendered: &Rendered) -> Result<Vec<Range<usize>>, Unusable> {
        let mut trained = Vec::new();
        let mut before = 0;
        for (n, piece) in rendered.pieces.iter().enumerate() {
            if piece.role == "assistant" {
                let header = &rendered.text[before..piece.range.start];
                let prompt =
                    header.rfind(&self.generation_prompt).map(|at| at + self.generation_prompt.len());
                let next = rendered.pieces.get(n + 1).map_or(rendered.text.len(), |next| next.range.start);
                let end = self.turn_end(&rendered.text[piece.range.end..next])?;
                trained.push(before + prompt.unwrap_or(header.len())..piece.range.end + end);
            }
            before = piece.range.end;
        }
        Ok(trained)
    }

    /// How much of what follows an answer belongs to it.
    fn turn_end(&self, tail: &str) -> Result<usize, Unusable> {
        let Some(at) = tail.find(&self.eos) else {
            let detail =
                format!("the template does not end the answer with the tokenizer's eos token `{}`", self.eos);
            return Err(("no-eos", detail));
        };
        let eos = at + self.eos.len();
        Ok(match self.stage.answer_end() {
            AnswerEnd::Eos => eos,
            AnswerEnd::Turn => eos + tail[eos..].len() - tail[eos..].trim_start().len(),
        })
    }

    /// Renders `messages` with marks such that `whole` begins with the result.
    fn locate(&self, messages: &[Message<'_>], prompt: bool, whole: &str) -> Result<Rendered, Unusable> {
        for placement in [Placement::Whole, Placement::Core] {
            let marked: Vec<String> = messages.iter().map(|message| mark(message, placement)).collect();
            let marked = marked.iter().zip(messages);
            let marked: Vec<_> = marked.map(|(content, from)| Message { role: from.role, content }).collect();
            let thinking = Some(self.stage.enable_thinking);
            let text = self.template.render_marked(&marked, prompt, thinking, &BTreeMap::new());
            let rendered = text.ok().and_then(|text| unmark(&text));
            let Some(rendered) = rendered.filter(|rendered| whole.starts_with(&rendered.text)) else {
                continue;
            };
            return match placement {
                Placement::Whole => Ok(rendered),
                Placement::Core => widen_to_reasoning(rendered, messages).ok_or_else(edited),
            };
        }
        if whole.starts_with(&self.render(messages, prompt)?) {
            return Err(edited());
        }
        let detail = "the prompt is not how the rendering of the whole conversation begins; \
                      an answer may not begin with a line break or hold `</think>`";
        Err((CHANGED, detail.to_owned()))
    }

    fn render(&self, messages: &[Message<'_>], prompt: bool) -> Result<String, Unusable> {
        let thinking = Some(self.stage.enable_thinking);
        let rendered = self.template.render(&messages, prompt, thinking, &BTreeMap::new());
        rendered.map_err(|error| ("template-refuses", error.to_string()))
    }
}

fn edited() -> Unusable {
    ("template-edits-text", "the template changes a message in a way that cannot be followed".to_owned())
}

/// Whether the whitespace before the first word holds a line break.
fn begins_with_line_break(text: &str) -> bool {
    text[..text.len() - text.trim_start().len()].contains(['\n', '\r'])
}

impl Conversation {
    /// A trained stretch is tokenised apart from what is before it. Where a line break would meet whitespace there, the
    /// tokens would be others than those of the text in one go.
    fn check_borders(&self) -> Result<(), Unusable> {
        let text = &self.rendered.text;
        for start in self.trained.iter().map(|trained| trained.start) {
            if begins_with_line_break(&text[start..]) && text[..start].ends_with(char::is_whitespace) {
                let detail = "an answer begins with a line break, which the tokenizer would join with the one before it";
                return Err((CHANGED, detail.to_owned()));
            }
        }
        Ok(())
    }

    /// Writes the row.
    pub fn write(&self, out: &mut SegmentsBuilder) {
        let mut before = 0;
        for Piece { role, range } in &self.rendered.pieces {
            self.write_range(before..range.start, TEMPLATE, out);
            self.write_range(range.clone(), role, out);
            before = range.end;
        }
        self.write_range(before..self.rendered.text.len(), TEMPLATE, out);
        out.end_row();
    }

    /// Writes a stretch of one role, cut where training begins or ends. An empty question keeps its place, for
    /// `image-pads` may put a picture there.
    fn write_range(&self, range: Range<usize>, role: &str, out: &mut SegmentsBuilder) {
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
