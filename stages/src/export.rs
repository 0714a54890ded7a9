//! `export`: a trained model as Transformers and PEFT load it.
//!
//! In: a model folder (of `train`). Out, by `format`:
//!
//! | format | folder | loaded by |
//! |---|---|---|
//! | `llava` | the whole model with its processor; the adapter in its weights | `LlavaForConditionalGeneration.from_pretrained(FOLDER)`; `llavm chat FOLDER` |
//! | `merged` | the language model with the adapter in its weights; tokenizer, chat template, generation settings | `AutoModelForCausalLM.from_pretrained(FOLDER)` |
//! | `peft` | the adapter; `base/` when the model folder holds the language model; tokenizer and chat template | `AutoPeftModelForCausalLM.from_pretrained(FOLDER)`, in FOLDER when there is a `base/` |
//! | `projector` | only what all have | `load_file`, two `torch.nn.Linear` |
//!
//! Each has `README.md`, a card (`model_card.rs`); further names in `from` are evaluations whose scores stand in it. All but `llava` have `projector.safetensors` (`dense1.weight` [out, in], `dense1.bias`, `dense2.*`): an adapter without the
//! projector it was trained with answers nonsense. The chat template is the trained one behind a prologue that renders
//! conversations as in training (`llavm_model::processor::llava`). `tests/export/check_formats.py` loads each and compares.

use crate::model_card::{self, CARD, Loaded};
use crate::train::copy_folder;
use llavm_model::config::Dtype;
use llavm_model::device::Device;
use llavm_model::folder::{ModelFolder, PROJECTOR, QWEN};
use llavm_model::hub::HUB;
use llavm_model::peft::{self, BaseModel};
use llavm_model::processor::Processor;
use llavm_model::processor::files::{self, PREPROCESSOR, PROCESSOR, Sources};
use llavm_model::processor::llava;
use llavm_model::projector::Projector;
use llavm_model::qwen3::Qwen3;
use llavm_model::vlm::Vlm;
use llavm_model::{load, save};
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{JobContext, JobStage, Parameters, StageKind};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The numbers' file of an evaluation.
pub const REPORT: &str = "report.json";

/// Where the language model lies in an exported adapter's folder.
const BASE: &str = "base";

/// What older tokenizers have beside `tokenizer.json`.
const TOKENIZER_PARTS: [&str; 4] =
    ["vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"];

/// Parameters of `export`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// `llava`, `merged`, `peft` or `projector`.
    pub format: Format,
    /// `f32`, `bf16` or `f16`, of what is written. Default: f32 for projector and adapter, for whole models the model folder's.
    /// Merging itself is done in f32.
    #[serde(default)]
    pub dtype: Option<Dtype>,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Llava,
    Merged,
    Peft,
    Projector,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Llava, Self::Merged, Self::Peft, Self::Projector];

    /// As a manifest and a command line name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llava => "llava",
            Self::Merged => "merged",
            Self::Peft => "peft",
            Self::Projector => "projector",
        }
    }

    /// How the folder is loaded.
    fn loaded(self) -> Loaded {
        let (what, library, python) = match self {
            Self::Llava => (
                "the whole model with its processor",
                "transformers",
                "from transformers import AutoProcessor, LlavaForConditionalGeneration\n\n\
                 model = LlavaForConditionalGeneration.from_pretrained(FOLDER)\n\
                 processor = AutoProcessor.from_pretrained(FOLDER)",
            ),
            Self::Merged => (
                "the language model with the adapter in its weights, and the projector in a file of its own",
                "transformers",
                "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
                 model = AutoModelForCausalLM.from_pretrained(FOLDER)\n\
                 tokenizer = AutoTokenizer.from_pretrained(FOLDER)",
            ),
            Self::Peft => (
                "the adapter, and the projector in a file of its own",
                "peft",
                "from peft import AutoPeftModelForCausalLM\n\n\
                 model = AutoPeftModelForCausalLM.from_pretrained(FOLDER)  # in FOLDER, as \".\", where it has a folder base/",
            ),
            Self::Projector => (
                "the projector: two linear layers, `dense1` and `dense2`, with SiLU between them",
                "safetensors",
                "from safetensors.torch import load_file\n\nweights = load_file(\"projector.safetensors\")",
            ),
        };
        Loaded { what, library, python }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|format| format.name() == text);
        found.ok_or_else(|| format!("`{text}` is no format; {} are", Self::ALL.map(Self::name).join(", ")))
    }
}

impl StageKind for Export {
    const KIND: &'static str = "export";
    const VERSION: u32 = 3;
    const ABOUT: &'static str = "write a trained model for Transformers and PEFT";
}

impl Parameters for Export {}

impl JobStage for Export {
    fn run(&self, context: &dyn JobContext) -> Result<(), StageError> {
        let mut folders = Vec::new();
        for (n, input) in context.inputs().iter().enumerate() {
            let missing = || StageError::new(format!("`{input}` gave no folder"));
            folders.push((input.clone(), context.folder(n, 0)?.ok_or_else(missing)?));
        }
        let [(_, folder), reports @ ..] = folders.as_slice() else {
            return Err(StageError::new("export takes a model").help("Name a train stage in `from`."));
        };
        if let Some((name, _)) = reports.iter().find(|(_, folder)| !folder.join(REPORT).is_file()) {
            let text = format!("`{name}` is no evaluation, whose scores could stand in the model's card");
            return Err(StageError::new(text).help(
                "Name the train stage first in `from`, then `evaluate` and `benchmark` stages that asked its model.",
            ));
        }
        self.export(folder, context.output())?;
        self.card(folder, reports, context.output())
    }

    fn ephemeral(&self) -> &'static [&'static str] {
        &[CARD]
    }
}

fn failed<E: std::error::Error + Send + Sync + 'static>(error: E) -> StageError {
    StageError::new(error.to_string()).because(error)
}

/// A model folder on its way out.
struct Model {
    folder: ModelFolder,
    qwen: PathBuf,
    /// Of whole models.
    dtype: Dtype,
    /// Of projector and adapter.
    small: Dtype,
    device: Device,
}

impl Export {
    /// Writes the model in the folder `from` into the folder `to`, with a card that has no scores.
    #[tracing::instrument(level = "debug", skip_all, fields(from = %from.display(), format = ?self.format))]
    pub fn export(&self, from: &Path, to: &Path) -> Result<(), StageError> {
        self.write(from, to)?;
        self.card(from, &[], to)
    }

    /// Writes the card of the model in the folder `from` into the folder `to`; `reports`: evaluations of it, by name.
    pub fn card(&self, from: &Path, reports: &[(String, PathBuf)], to: &Path) -> Result<(), StageError> {
        let folder = ModelFolder::open(&from.display().to_string()).map_err(failed)?;
        model_card::write(&folder, self.format.loaded(), reports, to)
    }

    fn write(&self, from: &Path, to: &Path) -> Result<(), StageError> {
        let folder = ModelFolder::open(&from.display().to_string()).map_err(failed)?;
        folder.check_towers().map_err(failed)?;
        let model = Model {
            qwen: folder.qwen().map_err(failed)?,
            dtype: self.dtype.unwrap_or(folder.description.dtype),
            small: self.dtype.unwrap_or(Dtype::F32),
            device: Device::flex(),
            folder,
        };
        match self.format {
            Format::Llava => return model.llava(to),
            Format::Merged => model.merged(to)?,
            Format::Peft => model.adapter(to)?,
            Format::Projector => {}
        }
        save::projector(&mut model.projector()?, &to.join(PROJECTOR), model.small).map_err(failed)
    }
}

impl Model {
    /// The language model in f32, with its adapter if it has one.
    fn language(&self) -> Result<Qwen3, StageError> {
        let mut qwen = load::qwen3(&self.qwen, &self.device, Dtype::F32).map_err(failed)?;
        if let Some(adapter) = self.folder.adapter() {
            load::adapter(&mut qwen, &self.qwen, &adapter, &self.device, Dtype::F32).map_err(failed)?;
        }
        Ok(qwen)
    }

    fn adapter(&self, to: &Path) -> Result<(), StageError> {
        let Some(adapter) = self.folder.adapter() else {
            let text = format!("{} has no adapter", self.folder.path.display());
            return Err(StageError::new(text).help(
                "Train with trainable = [\"lora\", \"projector\"], or export with format = \"merged\" or \"projector\".",
            ));
        };
        let config = peft::read_config(&adapter).map_err(failed)?;
        let locator = self.folder.description.qwen.as_str();
        let is_own = self.folder.inside(QWEN).is_some();
        if is_own {
            copy_folder(&self.qwen, &to.join(BASE))?;
        }
        let base = if locator.starts_with(HUB) {
            BaseModel::of(locator)
        } else if is_own {
            BaseModel::of(BASE)
        } else {
            // A way from the model folder would lead elsewhere from wherever Python looks.
            let folder = self.qwen.canonicalize().unwrap_or_else(|_| self.qwen.clone());
            BaseModel::of(&folder.display().to_string())
        };
        save::adapter(&mut self.language()?, &config, &base, to, self.small).map_err(failed)?;
        self.text_files(to)
    }

    fn merged(&self, to: &Path) -> Result<(), StageError> {
        let mut qwen = self.language()?;
        qwen.merge_lora();
        save::qwen3(&mut qwen, to, self.dtype, Some(&self.qwen)).map_err(failed)?;
        self.text_files(to)?;
        self.drop_other_tokenizer(to)
    }

    /// Beside the trained tokenizer no files of another one stay that came with the language model: loaders that find them mix
    /// the two.
    fn drop_other_tokenizer(&self, to: &Path) -> Result<(), StageError> {
        let read = |folder: &Path, name: &str| fs::read(folder.join(name)).ok();
        if files::TOKENIZER.iter().all(|name| read(to, name) == read(&self.qwen, name)) {
            return Ok(());
        }
        for path in TOKENIZER_PARTS.map(|name| to.join(name)).iter().filter(|path| path.is_file()) {
            fs::remove_file(path).map_err(|cause| StageError::io(path, cause))?;
        }
        Ok(())
    }

    fn llava(&self, to: &Path) -> Result<(), StageError> {
        let processor = Processor::load(&self.folder).map_err(failed)?;
        let clip = load::clip(&self.folder.clip().map_err(failed)?, &self.device, Dtype::F32);
        let mut qwen = self.language()?;
        qwen.merge_lora();
        let clip = clip.map_err(failed)?;
        let mut model = Vlm::new(Some(clip), self.projector()?, qwen, processor.image_token_id);
        save::llava(&mut model, to, self.dtype, Some(&self.qwen)).map_err(failed)?;
        self.processor_files(&processor, to)
    }

    /// Tokenizer, chat template, image preprocessing and generation settings, as transformers reads them.
    fn processor_files(&self, processor: &Processor, to: &Path) -> Result<(), StageError> {
        let clip = self.folder.clip().map_err(failed)?;
        let settings = processor.settings();
        let sources = Sources {
            tokenizer: &self.folder.tokenizer().map_err(failed)?,
            template: &llava::template(&settings, processor.template().source()),
            qwen: &self.qwen,
            patch_size: load::clip_config(&clip).map_err(failed)?.patch_size,
        };
        files::write(to, &settings, &sources).map_err(failed)
    }

    /// As [`Model::processor_files`], without what is about images.
    fn text_files(&self, to: &Path) -> Result<(), StageError> {
        self.processor_files(&Processor::load(&self.folder).map_err(failed)?, to)?;
        for name in [PREPROCESSOR, PROCESSOR] {
            let path = to.join(name);
            fs::remove_file(&path).map_err(|cause| StageError::io(&path, cause))?;
        }
        Ok(())
    }

    fn projector(&self) -> Result<Projector, StageError> {
        let (qwen, clip) = (load::qwen3_config(&self.qwen), self.folder.clip().map_err(failed)?);
        let (hidden, vision) =
            (qwen.map_err(failed)?.hidden_size, load::clip_config(&clip).map_err(failed)?.hidden_size);
        let file = self.folder.projector().map_err(failed)?;
        load::projector(&file, vision, hidden, &self.device, Dtype::F32).map_err(failed)
    }
}
