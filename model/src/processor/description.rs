//! What a model folder says of its processor: the names of its files, and `[processor]` of `model.toml`.

use super::Settings;
use super::encode::SpecialInText;
use super::image_tokens::{Placement, line_break};
use super::render::{AnswerEnd, LossOn, Rendering};
use serde::{Deserialize, Serialize};

/// The chat template's file.
pub const TEMPLATE: &str = "chat_template.jinja";
/// The file of image preprocessing.
pub const PREPROCESSOR: &str = "preprocessor_config.json";
/// The file of the image token.
pub const PROCESSOR: &str = "processor_config.json";
/// The file of the end tokens.
pub const GENERATION: &str = "generation_config.json";
/// The tokenizer's files.
pub const TOKENIZER: [&str; 2] = ["tokenizer.json", "tokenizer_config.json"];

/// What stands for an image in a question unless a manifest says otherwise.
pub const PLACEHOLDER: &str = "<image>";
/// The image token unless a manifest says otherwise: Qwen3's.
pub const IMAGE_TOKEN: &str = "<|image_pad|>";

/// `[processor]` of `model.toml`: what Transformers has no file for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessorDescription {
    /// What stands for an image in a question.
    pub placeholder: String,
    /// Where images go that no placeholder places.
    pub placement: Placement,
    /// What stands between an image and the question that it is put beside.
    pub separator: String,
    /// Handed to the chat template.
    pub enable_thinking: bool,
    /// Which answers were trained on.
    pub loss_on: LossOn,
    /// Where a trained answer ends.
    pub answer_end: AnswerEnd,
    /// What becomes of special tokens in messages.
    pub special_in_text: SpecialInText,
}

impl Default for ProcessorDescription {
    fn default() -> Self {
        let Rendering { enable_thinking, loss_on, answer_end, .. } = Rendering::default();
        Self {
            placeholder: PLACEHOLDER.to_owned(),
            placement: Placement::default(),
            separator: line_break(),
            enable_thinking,
            loss_on,
            answer_end,
            special_in_text: SpecialInText::default(),
        }
    }
}

impl ProcessorDescription {
    /// Of a processor's settings.
    pub fn of(settings: &Settings) -> Self {
        Self {
            placeholder: settings.image_tokens.placeholder.clone(),
            placement: settings.image_tokens.placement,
            separator: settings.image_tokens.separator.clone(),
            enable_thinking: settings.rendering.enable_thinking,
            loss_on: settings.rendering.loss_on,
            answer_end: settings.rendering.answer_end,
            special_in_text: settings.special_in_text,
        }
    }
}
