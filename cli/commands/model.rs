//! What `generate`, `chat` and `serve` share: which model, how it answers, and images from files.

use crate::commands::locate;
use crate::ui::failure::Failure;
use llavm_model::config::Dtype;
use llavm_model::device::DeviceName;
use llavm_model::doctor::verdicts::{Verdicts, require_healthy};
use llavm_model::folder::ModelFolder;
use llavm_model::generate::Options;
use llavm_model::generate::assistant::Assistant;
use llavm_model::hub::is_repository;
use llavm_model::processor::Processor;
use llavm_model::sampler::Sampling;
use std::fs;
use std::path::Path;
use std::time::Instant;

/// Which model, and where it runs.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// A model folder, `hub:ORG/NAME`, or a manifest, whose last run trained it: MANIFEST or MANIFEST:STAGE
    #[arg(value_name = "MODEL", required_unless_present = "model")]
    place: Option<String>,

    /// The same as MODEL
    #[arg(long, value_name = "MODEL", conflicts_with = "place")]
    model: Option<String>,

    /// Where to compute: cpu, cuda, cuda:1 or wgpu
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: DeviceName,

    /// f32, f16 or bf16 [default: f32 on the CPU, elsewhere what model.toml says]
    #[arg(long, value_name = "DTYPE")]
    pub dtype: Option<Dtype>,

    /// Trust a device other than the CPU without comparing it first (see llavm doctor)
    #[arg(long)]
    pub no_doctor: bool,

    /// The system prompt; "" for none [default: the one the model was trained with]
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
}

/// How the model answers.
#[derive(clap::Args)]
pub struct AnswerArgs {
    /// End an answer after this many tokens
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub max_new_tokens: usize,

    /// Draw with this temperature; 0 always takes the likeliest token
    #[arg(long, default_value_t = 0.0, value_name = "T")]
    pub temperature: f32,

    /// Draw from the K likeliest tokens only; 0 for all
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub top_k: usize,

    /// Draw from the likeliest tokens that together have this probability
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    pub top_p: f32,

    /// Make tokens that were used before less likely; 1 changes nothing
    #[arg(long, default_value_t = 1.0, value_name = "R")]
    pub repetition_penalty: f32,

    /// Seed of the draws
    #[arg(long, default_value_t = 42, value_name = "SEED")]
    pub seed: u64,
}

impl AnswerArgs {
    /// As options of a model whose answers end with `eos`; out-of-range settings are a wrong command line.
    pub fn options(&self, eos: &[u32]) -> Options {
        Options { max_new_tokens: self.max_new_tokens, sampling: self.sampling(), eos: eos.to_vec() }
    }

    /// Checks the ranges before anything is loaded.
    pub fn check(&self) -> Result<(), Failure> {
        self.sampling().validate().map_err(|error| {
            Failure::wrong(
                format!("--{error}").replace('_', "-"),
                "`llavm generate --help` explains the settings",
            )
        })
    }

    /// How tokens are chosen.
    pub fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        }
    }
}

impl ModelArgs {
    /// A short name for the model: of a manifest or folder the last part of its path, of a repository `ORG/NAME`.
    pub fn name(&self) -> String {
        let named = self.named();
        if let Some((_, repository)) = named.split_once(':').filter(|_| is_repository(named)) {
            return repository.to_owned();
        }
        let last = Path::new(named).file_name().map_or(named.into(), |name| name.to_string_lossy());
        last.replacen(".toml", "", 1)
    }

    fn named(&self) -> &str {
        self.place.as_ref().or(self.model.as_ref()).map_or("", String::as_str)
    }

    /// The folder's description, and what makes the model's input.
    pub fn open(&self) -> Result<(ModelFolder, Processor), Failure> {
        let folder = ModelFolder::open(&locate::model(self.named())?).map_err(failed)?;
        let processor = Processor::load(&folder).map_err(failed)?;
        Ok((folder, processor))
    }

    /// The whole model, ready to answer.
    pub fn load(&self, folder: &ModelFolder, processor: Processor) -> Result<Assistant, Failure> {
        let device = self.device.open().map_err(failed)?;
        let own = if self.device.is_reference() { Dtype::F32 } else { folder.description.dtype };
        let dtype = self.dtype.unwrap_or(own);
        if !self.no_doctor {
            require_healthy(self.device, &[dtype], &Verdicts::of_user()).map_err(failed)?;
        }
        let start = Instant::now();
        let mut assistant = Assistant::with_processor(processor, folder, &device, dtype).map_err(failed)?;
        if let Some(system) = &self.system {
            assistant.system = Some(system.clone()).filter(|text| !text.is_empty());
        }
        tracing::info!("{} loaded in {:.2} s", folder.path.display(), start.elapsed().as_secs_f64());
        Ok(assistant)
    }
}

/// The image in the file `path`: `[3, size, size]` bytes of RGB.
pub fn read_image(processor: &Processor, path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = fs::read(path).map_err(|error| failed(format!("{}: {error}", path.display())))?;
    let no_image = |error| failed(format!("{} is no image that can be decoded: {error}", path.display()));
    processor.image.prepare(&bytes).map_err(no_image)
}

/// A failed run in the words of `error`.
pub fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error.to_string(), None)
}
