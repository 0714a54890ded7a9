//! Answers of random models to random prompts.

use std::ops::ControlFlow;
use std::time::Instant;

use burn::tensor::Device;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{IMAGE_PAD, SEED, Size, median};
use crate::config::Dtype;
use crate::generate::{GenerateError, Options, Prompt, generate};
use crate::sampler::Sampling;

/// How fast a model answers; tokens of all rows together per second, the median of the runs.
#[derive(Clone, Copy, Debug)]
pub struct Answering {
    /// Tokens of the prompt, the choice of the first token included.
    pub prefill: f64,
    /// Tokens of the answer.
    pub decode: f64,
}

/// Answers `batch` prompts of `prompt` random tokens with `new` tokens each, greedily, `runs` times after one for warmth.
pub fn time_generate(
    size: Size,
    batch: usize,
    prompt: usize,
    new: usize,
    runs: usize,
    device: &Device,
    dtype: Dtype,
) -> Result<Answering, GenerateError> {
    let model = size.model(device, dtype);
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let words = size.qwen3().vocab_size as u32 - IMAGE_PAD - 1;
    let mut ids = || (0..prompt).map(|_| IMAGE_PAD + 1 + rng.next_u32() % words).collect();
    let prompts: Vec<Prompt> = (0..batch).map(|_| Prompt { ids: ids(), features: None }).collect();
    // One token more than is timed: the first belongs to the prefill.
    let options = Options { max_new_tokens: new + 1, sampling: Sampling::default(), eos: Vec::new() };
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    for run in 0..=runs {
        let start = Instant::now();
        let mut first = None;
        generate(&model, &prompts, 0, &options, &mut |_, _| {
            first.get_or_insert_with(|| start.elapsed().as_secs_f64());
            ControlFlow::Continue(())
        })?;
        let (first, all) = (first.unwrap_or_default(), start.elapsed().as_secs_f64());
        if run > 0 {
            prefill.push((batch * prompt) as f64 / first);
            decode.push((batch * new) as f64 / (all - first));
        }
    }
    Ok(Answering { prefill: median(prefill), decode: median(decode) })
}
