//! The processor (Hugging Face's word): what stands between a conversation with images and the model, in training and
//! ever after. Whatever renders a prompt or prepares an image asks here.
//!
//! | step | file | the stage that asks for it alone |
//! |---|---|---|
//! | encoded image to pixels | `image.rs` | `decode-resize` |
//! | messages to segments | `render.rs`, `marks.rs` | `chat-template` |
//! | image tokens among them | `image_tokens.rs` | `image-pads` |
//! | segments to token ids | `encode.rs` | `tokenize` |
//! | the files of a model folder | `description.rs`, `files.rs` | `train` writes them |
//! | the chat template of a LLaVA | `llava.rs` | `export` writes it |
//!
//! Inference asks for all of it at once: [`Processor::prompt`].

pub mod description;
pub mod encode;
pub mod files;
pub mod image;
pub mod image_tokens;
pub mod llava;
mod marks;
pub mod render;
pub mod segment;

use serde::{Deserialize, Serialize};

use crate::chat_template::{ChatTemplate, Message, TemplateError};
use crate::tokenizer::{Tokenizer, TokenizerError};
use encode::{EncodeError, Encoded, Encoder, SpecialInText};
use image::ImageProcessor;
use image_tokens::{ImageTokens, PlaceError};
use render::{Conversation, Refusal, Renderer, Rendering};
use segment::Segments;

/// A processor but for its tokenizer and its chat template, which are files of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// How conversations are rendered.
    pub rendering: Rendering,
    /// How images become tokens.
    pub image_tokens: ImageTokens,
    /// What becomes of special tokens in messages.
    pub special_in_text: SpecialInText,
    /// How images become pixels.
    pub image: ImageProcessor,
}

/// Everything that makes a model's input of a conversation and its images.
#[derive(Debug)]
pub struct Processor {
    /// Image preprocessing.
    pub image: ImageProcessor,
    /// The id of the image token.
    pub image_token_id: u32,
    /// Tokens that end an answer.
    pub eos: Vec<u32>,
    renderer: Renderer,
    image_tokens: ImageTokens,
    /// The tokens of one image, as text.
    image_text: String,
    encoder: Encoder,
}

/// A conversation that makes no prompt.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// It cannot be rendered.
    #[error("{0}")]
    Rendering(Refusal),
    /// Its images cannot be placed.
    #[error(transparent)]
    Images(#[from] PlaceError),
    /// It has no token ids.
    #[error("{0}. Write it in other words.")]
    Encode(#[from] EncodeError),
}

impl From<Refusal> for PromptError {
    fn from(refusal: Refusal) -> Self {
        Self::Rendering(refusal)
    }
}

impl PromptError {
    /// A name for the reason.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Rendering(refusal) => refusal.code,
            Self::Images(_) => "image-count",
            Self::Encode(_) => "special-token",
        }
    }
}

/// Parts that make no processor.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorError {
    /// The chat template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The tokenizer does not say what ends an answer.
    #[error(
        "the tokenizer names no eos token, so the end of an answer cannot be found; add \"eos_token\" to its tokenizer_config.json"
    )]
    NoEos,
    /// The image token is none of the tokenizer's.
    #[error("the tokenizer has no special token `{0}`, which stands for images")]
    NoImageToken(String),
}

/// The tokens of a row as training sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRow {
    /// Token ids.
    pub ids: Vec<u32>,
    /// For each, whether it is trained on.
    pub train: Vec<bool>,
}

impl Processor {
    /// Of its parts. `eos`: tokens that end an answer beside the tokenizer's own.
    pub fn new(
        settings: Settings,
        template: ChatTemplate,
        tokenizer: Tokenizer,
        eos: &[u32],
    ) -> Result<Self, ProcessorError> {
        let Settings { rendering, image_tokens, special_in_text, image } = settings;
        let end = template.eos_token().ok_or(ProcessorError::NoEos)?;
        let special = tokenizer.special_tokens().iter().find(|token| token.text == image_tokens.token);
        let image_token_id =
            special.ok_or_else(|| ProcessorError::NoImageToken(image_tokens.token.clone()))?.id;
        // The end that was trained, the tokenizer's, and whatever else the model may end with.
        let mut ends: Vec<u32> = tokenizer.token_id(&end).into_iter().collect();
        ends.extend(tokenizer.eos().map(|token| token.id));
        ends.extend(eos);
        ends.sort_unstable();
        ends.dedup();
        Ok(Self {
            image,
            image_token_id,
            eos: ends,
            renderer: Renderer::new(template, rendering, end)?,
            image_text: image_tokens.text(),
            image_tokens,
            encoder: Encoder::new(tokenizer, special_in_text),
        })
    }

    /// The prompt for the next answer of a conversation about `images` images. `system` comes first, unless the
    /// messages begin with a system message of their own; see [`Processor::system`].
    pub fn prompt(
        &self,
        messages: &[Message<'_>],
        system: Option<&str>,
        images: usize,
    ) -> Result<Vec<u32>, PromptError> {
        let system = system.filter(|text| !text.is_empty());
        let segments = self.place(&self.renderer.prompt(messages, system)?, images)?;
        Ok(self.encoder.prompt(segments.iter())?)
    }

    /// A conversation with its answer, as training sees it.
    pub fn row(&self, messages: &[Message<'_>], images: usize) -> Result<TokenRow, PromptError> {
        let segments = self.place(&self.renderer.conversation(messages)?, images)?;
        let mut encoded = Encoded::default();
        self.encoder.encode(segments.iter(), None, &mut encoded)?;
        Ok(TokenRow { ids: encoded.ids, train: encoded.train })
    }

    fn place(&self, conversation: &Conversation, images: usize) -> Result<Segments, PlaceError> {
        let (mut rendered, mut placed) = (Segments::default(), Segments::default());
        conversation.write(&mut rendered);
        if images == 0 {
            // Without images a placeholder is ordinary text.
            return Ok(rendered);
        }
        self.image_tokens.place(rendered.iter(), images, &self.image_text, &mut placed)?;
        Ok(placed)
    }

    /// The system prompt that training put before conversations without one.
    pub fn system(&self) -> Option<&str> {
        self.renderer.rendering().system.as_deref()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.encoder.tokenizer
    }

    /// The chat template.
    pub fn template(&self) -> &ChatTemplate {
        self.renderer.template()
    }

    /// How images become tokens.
    pub fn image_tokens(&self) -> &ImageTokens {
        &self.image_tokens
    }

    /// The processor's settings.
    pub fn settings(&self) -> Settings {
        Settings {
            rendering: self.renderer.rendering().clone(),
            image_tokens: self.image_tokens.clone(),
            special_in_text: self.encoder.special_in_text,
            image: self.image.clone(),
        }
    }

    /// The text of an answer, without its control tokens.
    pub fn text(&self, answer: &[u32]) -> Result<String, TokenizerError> {
        self.tokenizer().decode(answer, true)
    }
}
