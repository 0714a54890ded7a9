//! What `generate` and `chat` share: which model, how it answers, and pictures from files.

use crate::failure::Failure;
use llavm_model::config::Dtype;
use llavm_model::device::DeviceName;
use llavm_model::doctor::verdicts::{Verdicts, require_healthy};
use llavm_model::folder::ModelFolder;
use llavm_model::generate::Options;
use llavm_model::generate::assistant::Assistant;
use llavm_model::load;
use llavm_model::sampler::Sampling;
use llavm_stages::decode_resize::DecodeResize;
use std::fs;
use std::path::Path;
use std::time::Instant;

/// Which model, and where it runs.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// A model folder: model.toml, projector.safetensors, and adapter/ if LoRA was trained
    #[arg(long, value_name = "DIR")]
    pub model: String,

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

    fn sampling(&self) -> Sampling {
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
    /// The folder's description, and the pictures that its vision tower takes.
    pub fn open(&self) -> Result<(ModelFolder, Pictures), Failure> {
        let folder = ModelFolder::open(&self.model).map_err(failed)?;
        let clip = load::clip_config(&folder.clip().map_err(failed)?).map_err(failed)?;
        Ok((folder, Pictures(DecodeResize { size: clip.image_size as u32, ..DecodeResize::default() })))
    }

    /// The whole model, ready to answer.
    pub fn load(&self, folder: &ModelFolder) -> Result<Assistant, Failure> {
        let device = self.device.open().map_err(failed)?;
        let own = if self.device.is_reference() { Dtype::F32 } else { folder.description.dtype };
        let dtype = self.dtype.unwrap_or(own);
        if !self.no_doctor {
            require_healthy(self.device, &[dtype], &Verdicts::of_user()).map_err(failed)?;
        }
        let start = Instant::now();
        let mut assistant = Assistant::load(folder, &device, dtype).map_err(failed)?;
        if let Some(system) = &self.system {
            assistant.system = Some(system.clone()).filter(|text| !text.is_empty());
        }
        tracing::info!("{} loaded in {:.2} s", self.model, start.elapsed().as_secs_f64());
        Ok(assistant)
    }
}

/// Picture files to the squares of pixels that a model takes.
pub struct Pictures(DecodeResize);

impl Pictures {
    /// The picture in `path`: `[3, size, size]` bytes of RGB.
    pub fn read(&self, path: &Path) -> Result<Vec<u8>, Failure> {
        let bytes = fs::read(path).map_err(|error| failed(format!("{}: {error}", path.display())))?;
        self.0.pixels(&bytes).map_err(|(_, detail)| {
            let detail = detail.strip_prefix("picture 1: ").unwrap_or(&detail);
            failed(format!("{} is no picture that can be decoded: {detail}", path.display()))
        })
    }
}

/// A failed run in the words of `error`.
pub fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error.to_string(), None)
}
