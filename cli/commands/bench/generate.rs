//! `llavm bench generate`.

use super::Subject;
use crate::commands::model::failed;
use crate::ui::failure::Outcome;
use crate::ui::output::print;
use llavm_model::bench::time_generate;
use llavm_pipeline::peak_rss_mib;
use llavm_pipeline::units::mebibytes;
use std::num::NonZeroUsize;

/// Time reading a prompt and answering it, greedily
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    subject: Subject,

    /// Prompts answered together
    #[arg(long, default_value = "1", value_name = "N")]
    batch: NonZeroUsize,

    /// Tokens of a prompt
    #[arg(long, default_value = "128", value_name = "N")]
    prompt: NonZeroUsize,

    /// Tokens of an answer
    #[arg(long = "new", default_value = "32", value_name = "N")]
    answer: NonZeroUsize,

    /// Runs, of which the median counts; one more comes first for warmth
    #[arg(long, default_value = "3", value_name = "N")]
    runs: NonZeroUsize,
}

pub fn run(args: &Args) -> Outcome {
    let Subject { size, device: name, dtype, .. } = args.subject;
    let device = args.subject.open()?;
    let (batch, prompt, answer) = (args.batch.get(), args.prompt.get(), args.answer.get());
    let time = time_generate(size, batch, prompt, answer, args.runs.get(), &device, dtype).map_err(failed)?;
    print(&format!(
        "generate {size} {dtype} on {name}, {batch} x {prompt} + {answer} tokens, peak memory {}: prefill {:.1} tokens/s, decode {:.2} tokens/s\n",
        mebibytes(peak_rss_mib()),
        time.prefill,
        time.decode,
    ))?;
    Ok(())
}
