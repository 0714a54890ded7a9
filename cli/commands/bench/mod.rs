//! `llavm bench`: how fast this machine runs partitions, prepares data, trains, answers and serves.

mod engine;
mod generate;
mod keys;
mod plan;
mod preprocess;
mod scale;
mod serve;
mod train;

use crate::commands::model::failed;
use crate::ui::failure::{Failure, Outcome};
use llavm_model::bench::Size;
use llavm_model::config::Dtype;
use llavm_model::device::{Device, DeviceName};
use llavm_model::doctor::verdicts::{Verdicts, require_healthy};
use std::path::Path;

/// Time the engine, planning, preprocessing, training, answering or serving
///
/// No data: rows, or a model of the chosen size with random weights, are made up; `serve` takes a model. Ends in rows/s,
/// samples/s or tokens/s.
#[derive(clap::Args)]
#[command(after_help = "Example: llavm bench train --size small --stage align --batch 4")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Engine(engine::Args),
    Plan(plan::Args),
    Scale(scale::Args),
    Preprocess(preprocess::Args),
    Train(train::Args),
    Generate(generate::Args),
    Serve(serve::Args),
}

pub fn run(args: &Args) -> Outcome {
    match &args.what {
        What::Engine(args) => engine::run(args),
        What::Plan(args) => plan::run(args),
        What::Scale(args) => scale::run(args),
        What::Preprocess(args) => preprocess::run(args),
        What::Train(args) => train::run(args),
        What::Generate(args) => generate::run(args),
        What::Serve(args) => serve::run(args),
    }
}

/// What rows are tokenized with.
#[derive(clap::Args)]
struct Tokenizer {
    /// Folder of the tokenizer, or hub:ORG/NAME
    #[arg(long, default_value = OWN_TOKENIZER, value_name = "TOKENIZER")]
    tokenizer: String,
}

/// Qwen3's, where the program runs in the project's folder.
const OWN_TOKENIZER: &str = "data/qwen3-tokenizer";

impl Tokenizer {
    fn name(&self) -> Result<&str, Failure> {
        if self.tokenizer == OWN_TOKENIZER && !Path::new(OWN_TOKENIZER).is_dir() {
            return Err(Failure::wrong(
                format!("there is no folder {OWN_TOKENIZER} here to tokenize the rows with"),
                "Give --tokenizer FOLDER or --tokenizer hub:Qwen/Qwen3-0.6B, or run it in LLaVM's own folder.",
            ));
        }
        Ok(&self.tokenizer)
    }
}

/// What is timed, and where.
#[derive(clap::Args)]
struct Subject {
    /// tiny, small or 0.6b (Qwen3-0.6B with CLIP ViT-B/32)
    #[arg(long, default_value = "small", value_name = "SIZE")]
    size: Size,

    /// Where to compute: cpu, cuda, cuda:1 or wgpu
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: DeviceName,

    /// f32, f16 or bf16
    #[arg(long, default_value = "f32", value_name = "DTYPE")]
    dtype: Dtype,

    /// Trust a device other than the CPU without comparing it first (see llavm doctor)
    #[arg(long)]
    no_doctor: bool,
}

impl Subject {
    fn open(&self) -> Result<Device, Failure> {
        let device = self.device.open().map_err(failed)?;
        if !self.no_doctor {
            require_healthy(self.device, &[self.dtype], &Verdicts::of_user()).map_err(failed)?;
        }
        Ok(device)
    }
}
