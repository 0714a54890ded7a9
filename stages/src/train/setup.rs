//! The model that a training begins with, and what its folder will say of it.
//!
//! | part | comes from, the first that is there |
//! |---|---|
//! | language model, vision tower | `from_scratch`: seed; the folder of `init_from`, if it holds them in full; `qwen`, `clip` |
//! | projector | the folder of `init_from`; seed |
//! | adapter | the folder of `init_from`; `lora` and seed |
//!
//! Projector and adapter are f32 whatever `dtype` is: the trainer keeps them so, and computes with a rounded copy.

use super::parameters::Train;
use llavm_model::config::{Dtype, PixelNorm};
use llavm_model::device::Device;
use llavm_model::doctor::verdicts::{Verdicts, require_healthy};
use llavm_model::folder::{CLIP, ModelFolder, QWEN};
use llavm_model::hub;
use llavm_model::lora::LoraConfig;
use llavm_model::processor::Processor;
use llavm_model::projector::Projector;
use llavm_model::qwen3::Qwen3;
use llavm_model::source::{Loader, RandomSource};
use llavm_model::train::Part;
use llavm_model::vlm::Vlm;
use llavm_model::{clip::ClipVision, load, peft};
use llavm_pipeline::StageError;
use std::path::{Path, PathBuf};

/// Where everything comes from.
pub struct Origins {
    /// The folder of `init_from`. Towers that it made itself come before those that the manifest names.
    pub base: Option<ModelFolder>,
    pub qwen: PathBuf,
    pub clip: PathBuf,
    pub tokenizer: PathBuf,
}

/// A model ready to be trained.
pub struct Start {
    pub model: Vlm,
    pub norm: PixelNorm,
    /// The low-rank branches' settings, if the model has any.
    pub lora: Option<LoraConfig>,
    /// A token that is no image pad.
    pub pad_id: u32,
    pub vision_width: usize,
    /// Devices that train besides the model's own.
    pub others: Vec<Device>,
}

/// Any error of the model's as a stage's.
pub fn failed<E: std::error::Error + Send + Sync + 'static>(error: E) -> StageError {
    StageError::new(error.to_string()).because(error)
}

impl Origins {
    /// Finds the folders; `base` is that of `init_from`.
    pub fn find(stage: &Train, base: Option<&Path>) -> Result<Self, StageError> {
        let base = base.map(|folder| ModelFolder::open(&folder.display().to_string()));
        let base = base.transpose().map_err(failed)?;
        let own = |name: &str| base.as_ref().and_then(|base| base.own(name));
        let tower = |name: &str, locator: &str| match own(name) {
            Some(folder) => Ok(folder),
            None => hub::resolve(locator).map_err(failed),
        };
        let qwen = tower(QWEN, &stage.qwen)?;
        let tokenizer = match &stage.tokenizer {
            Some(locator) => hub::resolve(locator).map_err(failed)?,
            None => qwen.clone(),
        };
        Ok(Self { clip: tower(CLIP, &stage.clip)?, qwen, tokenizer, base })
    }
}

/// How tensors are made here.
struct Builder<'a> {
    stage: &'a Train,
    origins: &'a Origins,
    device: Device,
    dtype: Dtype,
    random: RandomSource,
}

impl Start {
    /// Checks the device, and loads or makes every part. Without `vision`, the tower stays away: features come in its place.
    pub fn new(
        stage: &Train,
        origins: &Origins,
        processor: &Processor,
        vision: bool,
        seed: u64,
    ) -> Result<Self, StageError> {
        let names = stage.devices().map_err(failed)?;
        if stage.doctor {
            for name in names.names() {
                require_healthy(*name, &[stage.dtype], &Verdicts::of_user()).map_err(failed)?;
            }
        }
        let mut others = names.open().map_err(failed)?;
        let device = others.remove(0);
        let random = RandomSource::new(seed);
        let mut builder = Builder { stage, origins, device, dtype: stage.dtype, random };
        let config = load::clip_config(&origins.clip).map_err(failed)?;
        let clip = if vision { Some(builder.clip()?) } else { None };
        let mut qwen = builder.qwen()?;
        let projector = builder.projector(config.hidden_size, qwen.config().hidden_size)?;
        let lora = builder.adapter(&mut qwen)?;
        Ok(Self {
            model: Vlm::new(clip, projector, qwen, processor.image_token_id),
            norm: processor.image.norm,
            lora,
            pad_id: u32::from(processor.image_token_id == 0),
            vision_width: config.hidden_size,
            others,
        })
    }
}

impl Builder<'_> {
    fn clip(&mut self) -> Result<ClipVision, StageError> {
        let folder = &self.origins.clip;
        if !self.stage.scratch(Part::Vision) {
            return load::clip(folder, &self.device, self.dtype).map_err(failed);
        }
        let config = load::clip_config(folder).map_err(failed)?;
        Ok(ClipVision::load(Loader::new(&mut self.random, &self.device, self.dtype), &config))
    }

    fn qwen(&mut self) -> Result<Qwen3, StageError> {
        let folder = &self.origins.qwen;
        if !self.stage.scratch(Part::Language) {
            return load::qwen3(folder, &self.device, self.dtype).map_err(failed);
        }
        let config = load::qwen3_config(folder).map_err(failed)?;
        Ok(Qwen3::load(Loader::new(&mut self.random, &self.device, self.dtype), &config))
    }

    fn projector(&mut self, vision: usize, hidden: usize) -> Result<Projector, StageError> {
        if let Some(base) = &self.origins.base {
            let file = base.projector().map_err(failed)?;
            return load::projector(&file, vision, hidden, &self.device, Dtype::F32).map_err(failed);
        }
        let mut loader = Loader::new(&mut self.random, &self.device, Dtype::F32);
        Ok(Projector::load(loader.at("projector"), vision, hidden))
    }

    /// Adds low-rank branches; answers with their settings.
    fn adapter(&mut self, qwen: &mut Qwen3) -> Result<Option<LoraConfig>, StageError> {
        let wanted =
            self.stage.trains(Part::Lora).then(|| self.stage.lora.clone().unwrap_or_default().config());
        let held = self.origins.base.as_ref().and_then(ModelFolder::adapter);
        if let Some(folder) = held {
            let config = peft::read_config(&folder).map_err(failed)?;
            if wanted.as_ref().is_some_and(|_| self.stage.lora.is_some()) && wanted.as_ref() != Some(&config)
            {
                return Err(other_adapter(&config));
            }
            load::adapter(qwen, &self.origins.qwen, &folder, &self.device, Dtype::F32).map_err(failed)?;
            return Ok(Some(config));
        }
        if let Some(config) = &wanted {
            config.validate_new(&qwen.linear_names()).map_err(failed)?;
            let loader = Loader::new(&mut self.random, &self.device, Dtype::F32);
            qwen.add_lora(loader, config).map_err(failed)?;
        }
        Ok(wanted)
    }
}

fn other_adapter(theirs: &LoraConfig) -> StageError {
    let theirs = serde_json::to_string(theirs).unwrap_or_default();
    StageError::new(format!("`init_from` brings an adapter with other settings than `lora`: {theirs}"))
        .help("Leave `lora` out to go on training that adapter.")
}
