//! `llavm bench`: how fast this machine prepares data, trains and answers.

mod generate;
mod preprocess;
mod train;

use crate::failure::{Failure, Outcome};
use crate::model::failed;
use llavm_model::bench::Size;
use llavm_model::config::Dtype;
use llavm_model::device::{Device, DeviceName};
use llavm_model::doctor::verdicts::{Verdicts, require_healthy};

/// Time preprocessing, training or answering
///
/// No data and no download: rows, or a model of the chosen size with random weights, are made up. Ends in a line with rows/s,
/// samples/s or tokens/s.
#[derive(clap::Args)]
#[command(after_help = "Example: llavm bench train --size small --stage align --batch 4")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Preprocess(preprocess::Args),
    Train(train::Args),
    Generate(generate::Args),
}

pub fn run(args: &Args) -> Outcome {
    match &args.what {
        What::Preprocess(args) => preprocess::run(args),
        What::Train(args) => train::run(args),
        What::Generate(args) => generate::run(args),
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
