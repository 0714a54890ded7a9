//! `llavm bench train`.

use super::Subject;
use crate::commands::model::failed;
use crate::ui::failure::Outcome;
use crate::ui::output::print;
use llavm_model::bench::{Recipe, time_train};
use llavm_pipeline::peak_rss_mib;
use llavm_pipeline::units::mebibytes;
use std::num::NonZeroUsize;

/// Time optimiser steps on rows of CC3M's lengths
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    subject: Subject,

    /// align trains the projector; lora the projector and rank-8 adapters on q, k, v and o
    #[arg(long, default_value = "align", value_name = "STAGE")]
    stage: Recipe,

    /// Rows of a step
    #[arg(long, default_value = "4", value_name = "N")]
    batch: NonZeroUsize,

    /// Steps, of which the median counts; one more comes first for warmth
    #[arg(long, default_value = "5", value_name = "N")]
    steps: NonZeroUsize,

    /// What the device could do at most in this dtype, to say what share of it the model uses (an H200 in bf16: 989)
    #[arg(long, value_name = "TFLOPS")]
    peak_tflops: Option<f64>,
}

pub fn run(args: &Args) -> Outcome {
    let Subject { size, device: name, dtype, .. } = args.subject;
    let device = args.subject.open()?;
    let (batch, steps) = (args.batch.get(), args.steps.get());
    let mut reported = Ok(());
    let run = time_train(size, args.stage, batch, steps, &device, dtype, |step| {
        let line = format!("{:.0} ms, loss {:.3}, {} tokens\n", step.seconds * 1e3, step.loss, step.tokens);
        reported = std::mem::replace(&mut reported, Ok(())).and_then(|()| print(&line));
    });
    reported?;
    let run = run.map_err(failed)?;
    let tera = run.model_flops() / 1e12;
    let share = args
        .peak_tflops
        .map_or(String::new(), |peak| format!(" ({:.1}% of the device's {peak})", 100.0 * tera / peak));
    print(&format!(
        "train {size} {} {dtype} on {name}, batch {batch}: median {:.0} ms/step, {} parameters trained, {tera:.3} model TFLOP/s{share}, peak memory {}, {:.2} samples/s, {:.0} tokens/s\n",
        args.stage,
        run.seconds_per_step() * 1e3,
        run.trained,
        mebibytes(peak_rss_mib()),
        run.samples_per_second(),
        run.tokens_per_second(),
    ))?;
    Ok(())
}
