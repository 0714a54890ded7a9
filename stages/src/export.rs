//! `export`: a trained model as Transformers and PEFT load it.
//!
//! In: a model folder (of `train`). Out, by `format`:
//!
//! | format | folder | loaded by |
//! |---|---|---|
//! | `peft` | `adapter_config.json`, `adapter_model.safetensors`; `base/` when training changed the language model below | `PeftModel.from_pretrained(base, FOLDER)` |
//! | `merged` | `config.json`, `model.safetensors`, generation and tokenizer files: Qwen3 with the adapter in its weights | `AutoModelForCausalLM.from_pretrained(FOLDER)` |
//! | `projector` | only what all have | `load_file`, two `torch.nn.Linear` |
//!
//! All have `projector.safetensors` (`dense1.weight` [out, in], `dense1.bias`, `dense2.*`): an adapter without the projector it
//! was trained with answers nonsense. `examples/loss_in_python.py` loads each and computes the loss of this project.

use crate::train::copy_folder;
use llavm_model::config::Dtype;
use llavm_model::device::Device;
use llavm_model::folder::{ModelFolder, PROJECTOR};
use llavm_model::hub::HUB;
use llavm_model::qwen3::Qwen3;
use llavm_model::{load, peft, save};
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{JobContext, JobStage, Parameters, StageKind};
use serde::{Deserialize, Serialize};
use std::path::{Component, Path, PathBuf};

/// Where the language model lies in an exported adapter's folder.
const BASE: &str = "base";

/// Parameters of `export`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// `peft`, `merged` or `projector`.
    pub format: Format,
    /// `f32`, `bf16` or `f16`, of what is written. Default: the model folder's. Merging itself is done in f32.
    #[serde(default)]
    pub dtype: Option<Dtype>,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Peft,
    Merged,
    Projector,
}

impl StageKind for Export {
    const KIND: &'static str = "export";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "write a trained model for Transformers and PEFT";
    const PARAMS: &'static [&'static str] = &["format", "dtype"];
}

impl Parameters for Export {}

impl JobStage for Export {
    fn run(&self, context: &dyn JobContext) -> Result<(), StageError> {
        let [input] = context.inputs() else {
            return Err(StageError::new("export takes one model").help("Name one train stage in `from`."));
        };
        let missing = || StageError::new(format!("`{input}` gave no folder"));
        let folder = context.folder(0, 0)?.ok_or_else(missing)?;
        self.export(&folder, context.output())
    }
}

fn failed<E: std::error::Error + Send + Sync + 'static>(error: E) -> StageError {
    StageError::new(error.to_string()).because(error)
}

/// A model folder on its way out.
struct Model {
    folder: ModelFolder,
    qwen: PathBuf,
    dtype: Dtype,
    device: Device,
}

impl Export {
    /// Writes the model in the folder `from` into the folder `to`.
    pub fn export(&self, from: &Path, to: &Path) -> Result<(), StageError> {
        let folder = ModelFolder::open(&from.display().to_string()).map_err(failed)?;
        let model = Model {
            qwen: folder.qwen().map_err(failed)?,
            dtype: self.dtype.unwrap_or(folder.description.dtype),
            device: Device::flex(),
            folder,
        };
        match self.format {
            Format::Peft => model.adapter(to)?,
            Format::Merged => model.merged(to)?,
            Format::Projector => {}
        }
        model.projector(to)
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
        let is_inside = |part| matches!(part, Component::Normal(_));
        let is_own = !locator.starts_with(HUB) && Path::new(locator).components().all(is_inside);
        if is_own {
            copy_folder(&self.qwen, &to.join(BASE))?;
        }
        let base = match locator.strip_prefix(HUB) {
            Some(published) => published.to_owned(),
            None if is_own => BASE.to_owned(),
            // A way from the model folder would lead elsewhere from wherever Python looks.
            None => self.qwen.canonicalize().unwrap_or_else(|_| self.qwen.clone()).display().to_string(),
        };
        save::adapter(&mut self.language()?, &config, &base, to, self.dtype).map_err(failed)
    }

    fn merged(&self, to: &Path) -> Result<(), StageError> {
        let mut qwen = self.language()?;
        qwen.merge_lora();
        save::qwen3(&mut qwen, to, self.dtype, Some(&self.qwen)).map_err(failed)
    }

    fn projector(&self, to: &Path) -> Result<(), StageError> {
        let (qwen, clip) = (load::qwen3_config(&self.qwen), self.folder.clip().map_err(failed)?);
        let (hidden, vision) =
            (qwen.map_err(failed)?.hidden_size, load::clip_config(&clip).map_err(failed)?.hidden_size);
        let file = self.folder.projector().map_err(failed)?;
        let projector = load::projector(&file, vision, hidden, &self.device, Dtype::F32);
        save::projector(&mut projector.map_err(failed)?, &to.join(PROJECTOR), self.dtype).map_err(failed)
    }
}
