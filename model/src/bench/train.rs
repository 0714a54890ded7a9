//! Steps of random models on random batches.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::time::Instant;

use burn::tensor::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{IMAGE_PAD, SEED, Size, median};
use crate::attention::TokenMask;
use crate::config::{Dtype, PixelNorm};
use crate::lora::LoraConfig;
use crate::source::{Loader, ParameterVisitor, RandomSource};
use crate::train::{Images, LrScheduler, MicroBatch, Part, TrainError, Trainer, TrainingArguments};

/// Tokens of the system prompt and the template with which every row begins.
const TEMPLATE: u32 = 17;

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// The projector.
    Align,
    /// The projector and rank-8 adapters on q, k, v and o, without dropout.
    Lora,
}

impl FromStr for Recipe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "align" => Ok(Self::Align),
            "lora" => Ok(Self::Lora),
            _ => Err(format!("unknown stage `{text}`: use align or lora")),
        }
    }
}

impl Display for Recipe {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Align => "align",
            Self::Lora => "lora",
        })
    }
}

/// One optimiser step.
#[derive(Clone, Copy, Debug)]
pub struct StepTime {
    pub seconds: f64,
    /// Nats per answer token.
    pub loss: f64,
    /// Tokens without padding.
    pub tokens: usize,
}

/// A timed training.
#[derive(Clone, Debug)]
pub struct Training {
    /// Rows of a step.
    pub batch: usize,
    /// Without the first, which warms up.
    pub steps: Vec<StepTime>,
    /// Parameters that move.
    pub trained: usize,
    /// Parameters of the language model's layers and projector that a token passes through.
    pub passed: usize,
}

impl Training {
    /// Of the median step.
    pub fn seconds_per_step(&self) -> f64 {
        median(self.steps.iter().map(|step| step.seconds).collect())
    }

    /// Rows per second of the median step.
    pub fn samples_per_second(&self) -> f64 {
        self.batch as f64 / self.seconds_per_step()
    }

    /// Tokens per second of the median step, padding left out.
    pub fn tokens_per_second(&self) -> f64 {
        median(self.steps.iter().map(|step| step.tokens as f64).collect()) / self.seconds_per_step()
    }

    /// Floating-point operations per second that the model itself asks for: for a token 2 per parameter on the way forward
    /// and 2 on the way back (no gradients of frozen weights), attention, vision tower and output head left out.
    pub fn model_flops(&self) -> f64 {
        4.0 * self.passed as f64 * self.tokens_per_second()
    }
}

/// Trains a random model for `steps` steps of `batch` rows after one for warmth; reports each as it is done.
pub fn time_train(
    size: Size,
    recipe: Recipe,
    batch: usize,
    steps: usize,
    device: &Device,
    dtype: Dtype,
    mut on_step: impl FnMut(StepTime),
) -> Result<Training, TrainError> {
    let mut trainer = trainer(size, recipe, batch, steps, device, dtype)?;
    let mut count = Count { trained: 0, passed: 0 };
    trainer.model().clone().visit(&mut count);
    let mut run = Training { batch, steps: Vec::new(), trained: count.trained, passed: count.passed };
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    for step in 0..=steps {
        let rows = micro_batch(size, batch, &mut rng);
        let start = Instant::now();
        let report = trainer.step(vec![rows])?;
        let seconds = start.elapsed().as_secs_f64();
        if step > 0 {
            let time = StepTime { seconds, loss: report.loss, tokens: report.tokens };
            on_step(time);
            run.steps.push(time);
        }
    }
    Ok(run)
}

fn trainer(
    size: Size,
    recipe: Recipe,
    batch: usize,
    steps: usize,
    device: &Device,
    dtype: Dtype,
) -> Result<Trainer, TrainError> {
    let mut model = size.model(device, dtype);
    let mut parts = vec![Part::Projector];
    if recipe == Recipe::Lora {
        let lora = LoraConfig { lora_dropout: 0.0, ..LoraConfig::default() };
        let mut source = RandomSource::new(SEED);
        // The targets are all there: every Qwen3 has them.
        let _ = model.qwen.add_lora(Loader::new(&mut source, device, dtype), &lora);
        parts.push(Part::Lora);
    }
    let arguments = TrainingArguments {
        learning_rate: 1e-4,
        lr_scheduler: LrScheduler::Constant,
        per_device_train_batch_size: batch,
        ..TrainingArguments::default()
    };
    let trainer = Trainer::new(model, PixelNorm::default(), arguments, &parts, steps as u64 + 1)?;
    Ok(trainer.with_shared_prefix())
}

/// Rows of CC3M's lengths, padded on the right to a multiple of 8.
fn micro_batch(size: Size, batch: usize, rng: &mut ChaCha8Rng) -> MicroBatch {
    let (clip, words) = (size.clip(), size.qwen3().vocab_size as u32 - IMAGE_PAD - 1);
    let mut rows: Vec<(Vec<u32>, usize)> = Vec::with_capacity(batch);
    for _ in 0..batch {
        let (question, answer) = (8 + rng.next_u32() as usize % 8, 10 + rng.next_u32() as usize % 16);
        let first = TEMPLATE as usize + question;
        let length = first + clip.num_patches() + 9 + answer;
        let mut ids: Vec<u32> = (0..length).map(|_| IMAGE_PAD + 1 + rng.next_u32() % words).collect();
        for (id, template) in ids.iter_mut().zip(IMAGE_PAD + 1..IMAGE_PAD + 1 + TEMPLATE) {
            *id = template;
        }
        ids[first..first + clip.num_patches()].fill(IMAGE_PAD);
        rows.push((ids, answer));
    }
    let lengths: Vec<usize> = rows.iter().map(|(ids, _)| ids.len() - 1).collect();
    let tokens = lengths.iter().max().copied().unwrap_or(0).next_multiple_of(8);
    let (mut input_ids, mut labels) = (Vec::new(), Vec::new());
    for (ids, answer) in &rows {
        let length = ids.len() - 1;
        input_ids.extend(ids[..length].iter().copied().chain((length..tokens).map(|_| 0)));
        let silent = length - answer;
        let spoken = ids[length + 1 - answer..].iter().map(|id| *id as i32);
        labels.extend((0..silent).map(|_| -100).chain(spoken).chain((length..tokens).map(|_| -100)));
    }
    let mut pixels = vec![0; batch * clip.pixels()];
    rng.fill_bytes(&mut pixels);
    let mask = TokenMask::right_padded(&lengths, tokens);
    MicroBatch { input_ids, labels, mask, images: Images::Pixels(pixels) }
}

struct Count {
    trained: usize,
    passed: usize,
}

impl ParameterVisitor for Count {
    fn visit<const D: usize>(&mut self, key: &str, parameter: &mut Tensor<D>) {
        let values = parameter.dims().iter().product::<usize>();
        self.trained += if parameter.is_require_grad() { values } else { 0 };
        let passed = key.starts_with("model.layers.") || key.starts_with("projector.");
        self.passed += if passed { values } else { 0 };
    }
}
