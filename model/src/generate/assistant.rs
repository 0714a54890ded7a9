//! From words and images to words: a model folder ready to answer.
//!
//! In: a conversation and the images it speaks of. Out: a [`Prompt`], rendered exactly as in training by the model's
//! own [`Processor`].

use std::sync::Arc;

use burn::tensor::{Device, Tensor};

use super::Prompt;
use crate::chat_template::Message;
use crate::config::Dtype;
use crate::folder::ModelFolder;
use crate::load::{self, LoadError};
use crate::processor::{Processor, PromptError};
use crate::tokenizer::TokenizerError;
use crate::vlm::Vlm;

/// A loaded model folder.
#[derive(Debug)]
pub struct Assistant {
    /// The model, adapters merged.
    pub model: Vlm,
    /// What makes its input; shared with threads that render prompts while this one answers.
    pub processor: Arc<Processor>,
    /// The system prompt; at first the one that the model was trained with.
    pub system: Option<String>,
}

impl Assistant {
    /// Loads everything that `folder` names.
    pub fn load(folder: &ModelFolder, device: &Device, dtype: Dtype) -> Result<Self, LoadError> {
        Self::with_processor(Processor::load(folder)?, folder, device, dtype)
    }

    /// As [`Assistant::load`], for a processor that is loaded already.
    pub fn with_processor(
        processor: impl Into<Arc<Processor>>,
        folder: &ModelFolder,
        device: &Device,
        dtype: Dtype,
    ) -> Result<Self, LoadError> {
        let processor = processor.into();
        folder.check_towers()?;
        let (qwen_folder, clip_folder) = (folder.qwen()?, folder.clip()?);
        let clip = load::clip(&clip_folder, device, dtype)?;
        let mut qwen = load::qwen3(&qwen_folder, device, dtype)?;
        let (vision, hidden) = (clip.config().hidden_size, qwen.config().hidden_size);
        let projector = load::projector(&folder.projector()?, vision, hidden, device, dtype)?;
        if let Some(adapter) = folder.adapter() {
            // In f32, to be rounded once; merged, so that an answer costs nothing extra.
            load::adapter(&mut qwen, &qwen_folder, &adapter, device, Dtype::F32)?;
            qwen.merge_lora();
        }
        Ok(Self {
            model: Vlm::new(Some(clip), projector, qwen, processor.image_token_id),
            system: processor.system().map(str::to_owned),
            processor,
        })
    }

    /// Tokens that end an answer.
    pub fn eos(&self) -> &[u32] {
        &self.processor.eos
    }

    /// Side of the images that [`Assistant::features`] takes, in pixels.
    pub fn image_size(&self) -> u32 {
        self.processor.image.size
    }

    /// Patch states `[images, patches, vision hidden]` of RGB images, `[3, image_size, image_size]` bytes each;
    /// `None` when there are none.
    pub fn features(&self, pixels: Vec<u8>) -> Option<Tensor<3>> {
        let clip = self.model.clip.as_ref().filter(|_| !pixels.is_empty())?;
        Some(clip.forward(clip.normalise(pixels, &self.processor.image.norm)))
    }

    /// The patch states of the images in `rows` of `features`, in that order; `None` when there are none.
    pub fn pick(features: &Tensor<3>, rows: &[usize]) -> Option<Tensor<3>> {
        let picked: Vec<Tensor<3>> = rows.iter().map(|row| features.clone().narrow(0, *row, 1)).collect();
        (!picked.is_empty()).then(|| Tensor::cat(picked, 0))
    }

    /// The prompt that asks for the next answer of a conversation about the images in `features`. `system` is put
    /// before a conversation without a system message.
    pub fn prompt(
        &self,
        messages: &[Message<'_>],
        system: Option<&str>,
        features: Option<Tensor<3>>,
    ) -> Result<Prompt, PromptError> {
        let images = features.as_ref().map_or(0, |features| features.dims()[0]);
        Ok(Prompt { ids: self.processor.prompt(messages, system, images)?, features })
    }

    /// The text of an answer, without its control tokens.
    pub fn text(&self, answer: &[u32]) -> Result<String, TokenizerError> {
        self.processor.text(answer)
    }
}
