//! A chat: turns kept, all of them rendered for every answer, only what is new computed.
//!
//! In: questions, images, a system prompt. Out: answers as text, piece by piece while they arrive. An image belongs to the
//! question that it is shown with, and stands where training put it beside a question, or where the question places it
//! with `<image>`.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use serde::Serialize;

use super::assistant::Assistant;
use super::session::Session;
use super::{GenerateError, Options};
use crate::message::{Json, Message};
use crate::processor::PromptError;
use crate::stream::TextStream;
use crate::tokenizer::TokenizerError;

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The conversation makes no prompt.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The model gave none.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The answer is no text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// One turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Turn {
    /// `user` or `assistant`.
    pub role: &'static str,
    /// What was said, with `<image>` where each of its images stands.
    pub content: String,
    /// How many images were shown with it.
    #[serde(skip_serializing_if = "is_zero")]
    pub images: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference to the field")]
fn is_zero(images: &usize) -> bool {
    *images == 0
}

/// Patch states of an image, and its number in the conversation.
type Shown = (Tensor<3>, u64);

/// A conversation with one assistant.
#[derive(Debug)]
pub struct Conversation<'a> {
    assistant: &'a Assistant,
    session: Session,
    turns: Vec<Turn>,
    system: Option<String>,
    tools: Option<Json>,
    /// The images of all turns, then those shown since the last question.
    images: Vec<Shown>,
    images_so_far: u64,
}

impl<'a> Conversation<'a> {
    /// An empty conversation with the assistant's system prompt.
    pub fn new(assistant: &'a Assistant) -> Self {
        Self {
            assistant,
            session: Session::new(),
            turns: Vec::new(),
            system: assistant.system.clone(),
            tools: None,
            images: Vec::new(),
            images_so_far: 0,
        }
    }

    /// What was said so far.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// The system prompt.
    pub fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// Sets the system prompt; an empty one is none. Counts for every turn from now on.
    pub fn set_system(&mut self, text: &str) {
        self.system = Some(text.to_owned()).filter(|text| !text.is_empty());
    }

    /// Offers tools, by a list of their definitions. Counts for every turn from now on.
    pub fn set_tools(&mut self, tools: Option<Json>) {
        self.tools = tools;
    }

    /// Shows an image, `[3, image_size, image_size]` bytes of RGB, with the next question, behind those shown before it.
    pub fn show(&mut self, pixels: Vec<u8>) {
        self.images_so_far += 1;
        let shown = self.assistant.features(pixels).map(|features| (features, self.images_so_far));
        self.images.extend(shown);
    }

    /// Images shown since the last question.
    pub fn waiting_images(&self) -> usize {
        self.images.len() - self.turns.iter().map(|turn| turn.images).sum::<usize>()
    }

    /// Forgets the turns; the images are shown with the next question, and the system prompt stays.
    pub fn reset(&mut self) {
        self.turns.clear();
    }

    /// Forgets the turns and the images.
    pub fn clear(&mut self) {
        self.turns.clear();
        self.images.clear();
    }

    /// Tokens of the last prompt and answer that need not be computed again.
    pub fn cached_tokens(&self) -> usize {
        self.session.tokens()
    }

    /// Asks; `on_text` gets the answer piece by piece and may end it with `Break`. A question that fails is not kept.
    pub fn ask(
        &mut self,
        question: &str,
        options: &Options,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<String, ChatError> {
        let turn = self.question(question)?;
        self.turns.push(turn);
        let answer = self.answer(options, on_text);
        match &answer {
            Ok(text) => {
                self.turns.push(Turn { role: "assistant", content: text.clone(), images: 0 });
            }
            Err(_) => drop(self.turns.pop()),
        }
        answer
    }

    /// A question with the images shown since the last one. Without any image in the conversation, `<image>` is text.
    fn question(&self, question: &str) -> Result<Turn, ChatError> {
        let images = self.waiting_images();
        let tokens = self.assistant.processor.image_tokens();
        let content = tokens.question(question, images, !self.images.is_empty());
        Ok(Turn { role: "user", content: content.map_err(PromptError::from)?, images })
    }

    fn answer(
        &mut self,
        options: &Options,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<String, ChatError> {
        let turns = self.turns.iter().map(|turn| Message::new(turn.role, &turn.content));
        let mut turns: Vec<Message<'_>> = turns.collect();
        turns.iter_mut().take(1).for_each(|first| first.tools.clone_from(&self.tools));
        let features: Vec<Tensor<3>> = self.images.iter().map(|(features, _)| features.clone()).collect();
        let features = (!features.is_empty()).then(|| Tensor::cat(features, 0));
        let prompt = self.assistant.prompt(&turns, self.system.as_deref(), features)?;
        let mut stream = TextStream::new(self.assistant.processor.tokenizer());
        let (mut text, mut failure) = (String::new(), None);
        let mut on_token = |_row: usize, id: u32| match stream.push(id) {
            Ok(piece) => {
                text.push_str(&piece);
                on_text(&piece)
            }
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        };
        let images: Vec<u64> = self.images.iter().map(|(_, number)| *number).collect();
        self.session.answer(&self.assistant.model, &prompt, &images, options, &mut on_token)?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        let rest = stream.finish()?;
        text.push_str(&rest);
        let _ = on_text(&rest);
        Ok(text)
    }
}
