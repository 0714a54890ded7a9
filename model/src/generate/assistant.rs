//! From words and pictures to words: a model folder ready to answer.
//!
//! In: a conversation and the pictures it speaks of. Out: a [`Prompt`] rendered exactly as in training: the
//! tokenizer's chat template, the system prompt of `model.toml`, `"\n<image>"` appended to the first question that does
//! not place its picture itself, one image pad per patch, and the generation prompt without thinking.

use std::collections::BTreeMap;
use std::fs;

use burn::tensor::{Device, Tensor};

use super::Prompt;
use crate::chat_template::{ChatTemplate, Message, TemplateError};
use crate::config::{Dtype, PixelNorm};
use crate::folder::{DESCRIPTION, ModelFolder};
use crate::load::{self, LoadError};
use crate::tokenizer::{Tokenizer, TokenizerError};
use crate::vlm::Vlm;

/// What stands for a picture in a question.
pub const PLACEHOLDER: &str = "<image>";
/// The token that a patch replaces.
pub const IMAGE_PAD: &str = "<|image_pad|>";

/// A conversation that makes no prompt.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// Typed text would become a control token.
    #[error(
        "the {role} text holds `{token}`, which the tokenizer would take for a control token. Write it in other words."
    )]
    ControlToken {
        /// Who wrote it.
        role: String,
        /// The token.
        token: String,
    },
    /// Placeholders and pictures differ in number.
    #[error("the questions place {placeholders} pictures with `<image>`, but {images} are given")]
    Pictures {
        /// `<image>` in user turns.
        placeholders: usize,
        /// Pictures.
        images: usize,
    },
    /// The chat template refused.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The tokenizer refused.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// A loaded model folder.
#[derive(Debug)]
pub struct Assistant {
    /// The model.
    pub model: Vlm,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Tokens that end an answer.
    pub eos: Vec<u32>,
    /// The system prompt it was trained with.
    pub system: Option<String>,
    template: ChatTemplate,
    norm: PixelNorm,
    /// Image pads per picture.
    pads: usize,
}

impl Assistant {
    /// Loads everything that `folder` names.
    pub fn load(folder: &ModelFolder, device: &Device, dtype: Dtype) -> Result<Self, LoadError> {
        let (qwen_folder, clip_folder) = (folder.qwen()?, folder.clip()?);
        let tokenizer_folder = folder.tokenizer()?;
        let content = |path, why| LoadError::Content { path, why };
        let template = match folder.template() {
            Some(path) => {
                let source = fs::read_to_string(&path).map_err(|source| LoadError::Io { path, source })?;
                ChatTemplate::with_source(&tokenizer_folder, source)
            }
            None => ChatTemplate::from_folder(&tokenizer_folder),
        };
        let template = template.map_err(|error| content(tokenizer_folder.clone(), error.to_string()))?;
        let tokenizer = Tokenizer::from_folder(&tokenizer_folder)
            .map_err(|error| content(tokenizer_folder.clone(), error.to_string()))?;
        let image_pad_id = tokenizer
            .token_id(IMAGE_PAD)
            .ok_or_else(|| content(tokenizer_folder, format!("the tokenizer has no token {IMAGE_PAD}.")))?;
        let pads = image_pads(folder)?;
        let clip = load::clip(&clip_folder, device, dtype)?;
        let mut qwen = load::qwen3(&qwen_folder, device, dtype)?;
        let (vision, hidden) = (clip.config().hidden_size, qwen.config().hidden_size);
        let projector = load::projector(&folder.projector()?, vision, hidden, device, dtype)?;
        if let Some(adapter) = folder.adapter() {
            load::adapter(&mut qwen, &qwen_folder, &adapter, device, dtype)?;
        }
        let mut eos = load::eos_ids(&qwen_folder)?;
        if eos.is_empty() {
            eos.extend(tokenizer.eos().map(|token| token.id));
        }
        Ok(Self {
            model: Vlm::new(Some(clip), projector, qwen, image_pad_id),
            tokenizer,
            eos,
            system: folder.description.system.clone(),
            template,
            norm: load::pixel_norm(&clip_folder)?,
            pads,
        })
    }

    /// Side of the pictures that [`Assistant::features`] takes, in pixels.
    pub fn image_size(&self) -> u32 {
        self.model.clip.as_ref().map_or(0, |clip| clip.config().image_size as u32)
    }

    /// Patch states `[images, patches, vision hidden]` of RGB pictures, `[3, image_size, image_size]` bytes each;
    /// `None` when there are none.
    pub fn features(&self, pixels: Vec<u8>) -> Option<Tensor<3>> {
        let clip = self.model.clip.as_ref().filter(|_| !pixels.is_empty())?;
        Some(clip.forward(clip.normalise(pixels, &self.norm)))
    }

    /// The patch states of the pictures in `rows` of `features`, in that order; `None` when there are none.
    pub fn pick(features: &Tensor<3>, rows: &[usize]) -> Option<Tensor<3>> {
        let picked: Vec<Tensor<3>> = rows.iter().map(|row| features.clone().narrow(0, *row, 1)).collect();
        (!picked.is_empty()).then(|| Tensor::cat(picked, 0))
    }

    /// The prompt that asks for the next answer of a conversation (without system turn) about the pictures in
    /// `features`.
    pub fn prompt(
        &self,
        turns: &[Message<'_>],
        system: Option<&str>,
        features: Option<Tensor<3>>,
    ) -> Result<Prompt, PromptError> {
        let images = features.as_ref().map_or(0, |features| features.dims()[0]);
        let mut turns: Vec<(&str, String)> =
            turns.iter().map(|turn| (turn.role, turn.content.to_owned())).collect();
        self.refuse_control_tokens(&turns, system)?;
        place_pictures(&mut turns, images, &IMAGE_PAD.repeat(self.pads))?;
        let system =
            system.filter(|text| !text.is_empty()).map(|content| Message { role: "system", content });
        let turns = turns.iter().map(|(role, content)| Message { role, content: content.as_str() });
        let messages: Vec<Message<'_>> = system.into_iter().chain(turns).collect();
        let text = self.template.render(&messages, true, Some(false), &BTreeMap::new())?;
        Ok(Prompt { ids: self.tokenizer.encode(&text)?, features })
    }

    /// The text of an answer, without its control tokens.
    pub fn text(&self, answer: &[u32]) -> Result<String, TokenizerError> {
        self.tokenizer.decode(answer, true)
    }

    /// Answers of the model are exempt: they are text already.
    fn refuse_control_tokens(
        &self,
        turns: &[(&str, String)],
        system: Option<&str>,
    ) -> Result<(), PromptError> {
        let typed =
            turns.iter().filter(|(role, _)| *role != "assistant").map(|(role, text)| (*role, text.as_str()));
        for (role, text) in system.map(|text| ("system", text)).into_iter().chain(typed) {
            if let Some(token) = self.tokenizer.special_in(text) {
                return Err(PromptError::ControlToken { role: role.to_owned(), token: token.text.clone() });
            }
        }
        Ok(())
    }
}

/// The pads per picture, which must be the patches of the tower.
fn image_pads(folder: &ModelFolder) -> Result<usize, LoadError> {
    let patches = load::clip_config(&folder.clip()?)?.num_patches();
    match folder.description.image_pad_num {
        Some(pads) if pads != patches => Err(LoadError::Content {
            path: folder.path.join(DESCRIPTION),
            why: format!(
                "image_pad_num = {pads}, but the vision tower makes {patches} patches of a picture."
            ),
        }),
        _ => Ok(patches),
    }
}

/// Puts the pads of `images` pictures where the questions say, or behind the first question, as `image-pads` does in
/// training. Without pictures, `<image>` is ordinary text.
fn place_pictures(turns: &mut [(&str, String)], images: usize, pads: &str) -> Result<(), PromptError> {
    let mut questions: Vec<&mut String> =
        turns.iter_mut().filter(|(role, _)| *role == "user").map(|(_, text)| text).collect();
    let placeholders: usize = questions.iter().map(|text| text.matches(PLACEHOLDER).count()).sum();
    match (images, placeholders) {
        (0, _) => return Ok(()),
        (_, 0) => {
            let first = questions.first_mut().ok_or(PromptError::Pictures { placeholders, images })?;
            first.push_str(&format!("\n{PLACEHOLDER}").repeat(images));
        }
        _ if images != placeholders => return Err(PromptError::Pictures { placeholders, images }),
        _ => {}
    }
    for text in questions {
        *text = text.replace(PLACEHOLDER, pads);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(turns: &[(&'static str, &str)], images: usize) -> Result<Vec<String>, String> {
        let mut turns: Vec<_> = turns.iter().map(|(role, text)| (*role, (*text).to_owned())).collect();
        place_pictures(&mut turns, images, "PP").map_err(|error| error.to_string())?;
        Ok(turns.into_iter().map(|(_, text)| text).collect())
    }

    #[test]
    fn a_picture_follows_the_first_question_unless_it_is_placed() {
        assert_eq!(
            placed(&[("user", "What?"), ("assistant", "A"), ("user", "And?")], 1).unwrap(),
            ["What?\nPP", "A", "And?"]
        );
        assert_eq!(
            placed(&[("user", "What?"), ("assistant", "A"), ("user", "<image> And?")], 1).unwrap(),
            ["What?", "A", "PP And?"]
        );
        assert_eq!(placed(&[("user", "Compare")], 2).unwrap(), ["Compare\nPP\nPP"]);
    }

    #[test]
    fn a_placeholder_is_a_picture_only_in_questions_about_pictures() {
        assert_eq!(
            placed(&[("user", "Q"), ("assistant", "<image>"), ("user", "R")], 1).unwrap(),
            ["Q\nPP", "<image>", "R"]
        );
        assert_eq!(placed(&[("user", "What is <image> in HTML?")], 0).unwrap(), ["What is <image> in HTML?"]);
    }

    #[test]
    fn placeholders_and_pictures_must_be_as_many() {
        let error = placed(&[("user", "<image> and <image>")], 1).unwrap_err();
        assert_eq!(error, "the questions place 2 pictures with `<image>`, but 1 are given");
    }
}
