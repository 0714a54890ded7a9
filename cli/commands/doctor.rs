//! `llavm doctor`: does a device compute what the CPU computes?

use crate::commands::model::failed;
use crate::ui::failure::{Failure, Outcome};
use crate::ui::output::print;
use llavm_model::config::Dtype;
use llavm_model::device::DeviceName;
use llavm_model::doctor::verdicts::{Verdicts, fingerprint};
use llavm_model::doctor::{DeviceUnderTest, run_checks};

/// Compare a device with the CPU on a small fixed model
///
/// Forward pass, loss, gradients with frozen parts, cached and full decoding. Takes seconds; on a device that compiles its
/// kernels first, minutes. Every job on a device other than the CPU does this once by itself. For CUDA what it needs of the machine comes first:
/// driver, devices, compiler, headers, NCCL, and what to do where one is missing.
#[derive(clap::Args)]
#[command(
    after_help = "Example: llavm doctor --device cuda --dtype bf16\n\nExit status: 0 the device is right, 1 it is not."
)]
pub struct Args {
    /// cpu, cuda, cuda:1 or wgpu
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: DeviceName,

    /// f32, f16 or bf16; may be repeated [default: f32 and bf16]
    #[arg(long, value_name = "DTYPE")]
    dtype: Vec<Dtype>,
}

pub fn run(args: &Args) -> Outcome {
    let dtypes = if args.dtype.is_empty() { &[Dtype::F32, Dtype::Bf16] } else { args.dtype.as_slice() };
    for needed in args.device.requirements() {
        print(&format!("{needed}\n"))?;
    }
    let subject = DeviceUnderTest::open(args.device).map_err(failed)?;
    let report = run_checks(&subject, dtypes);
    print(&format!("{report}\n"))?;
    if report.failure.is_none() {
        // What is found now replaces what jobs remember; without a cache to write to, they look again.
        let _ = Verdicts::of_user().remember(&fingerprint(&subject.identity(), dtypes), &report);
    }
    if report.passed() {
        return Ok(());
    }
    let message = format!("{} does not compute what the CPU computes", args.device);
    let advice = "use another device, driver or dtype; jobs refuse this one unless --no-doctor is given";
    Err(Failure::failed(message, Some(advice.to_owned())))
}
