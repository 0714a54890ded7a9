//! A chat: turns kept, all of them rendered for every answer, only what is new computed.
//!
//! In: questions, pictures, a system prompt. Out: answers as text, piece by piece while they arrive. The pictures
//! belong to the conversation and stand where training put them, behind its first question, unless a question places
//! them with `<image>`.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use serde::Serialize;

use super::assistant::{Assistant, PromptError};
use super::session::Session;
use super::{GenerateError, Options};
use crate::chat_template::Message;
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
    /// What was said.
    pub content: String,
}

/// A conversation with one assistant.
#[derive(Debug)]
pub struct Conversation<'a> {
    assistant: &'a Assistant,
    session: Session,
    turns: Vec<Turn>,
    system: Option<String>,
    /// Patch states of the picture, and its number.
    picture: Option<(Tensor<3>, u64)>,
    pictures_so_far: u64,
}

impl<'a> Conversation<'a> {
    /// An empty conversation with the system prompt that the model was trained with.
    pub fn new(assistant: &'a Assistant) -> Self {
        Self {
            assistant,
            session: Session::new(),
            turns: Vec::new(),
            system: assistant.system.clone(),
            picture: None,
            pictures_so_far: 0,
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

    /// Shows a picture, `[3, image_size, image_size]` bytes of RGB, in place of the one before.
    pub fn set_picture(&mut self, pixels: Vec<u8>) {
        self.pictures_so_far += 1;
        self.picture = self.assistant.features(pixels).map(|features| (features, self.pictures_so_far));
    }

    /// Forgets the turns; picture and system prompt stay.
    pub fn reset(&mut self) {
        self.turns.clear();
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
        self.turns.push(Turn { role: "user", content: question.to_owned() });
        let answer = self.answer(options, on_text);
        match &answer {
            Ok(text) => self.turns.push(Turn { role: "assistant", content: text.clone() }),
            Err(_) => drop(self.turns.pop()),
        }
        answer
    }

    fn answer(
        &mut self,
        options: &Options,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<String, ChatError> {
        let turns = self.turns.iter().map(|turn| Message { role: turn.role, content: &turn.content });
        let (features, number) = self.picture.clone().unzip();
        let turns: Vec<Message<'_>> = turns.collect();
        let prompt = self.assistant.prompt(&turns, self.system.as_deref(), features)?;
        let mut stream = TextStream::new(&self.assistant.tokenizer);
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
        let images: Vec<u64> = number.into_iter().collect();
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
