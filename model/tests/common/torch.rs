//! What torch, transformers and PEFT trained: `fixtures/make_training_fixtures.py`; and the trainers that are held to it.

#![allow(dead_code, reason = "each test file uses its share")]
#![allow(clippy::panic, reason = "a fixture that does not read is a failed test")]

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use llavm_model::attention::TokenMask;
use llavm_model::config::{Dtype, PixelNorm};
use llavm_model::source::ParameterVisitor;
use llavm_model::train::{Images, LrScheduler, MicroBatch, Part, StepReport, Trainer, TrainingArguments};
use llavm_model::vlm::Vlm;
use safetensors::SafeTensors;

use crate::common::{Fixture, values};

pub const STEPS: u64 = 50;
/// `fixtures/training.safetensors`.
pub struct Torch(Vec<u8>);

impl Torch {
    pub fn open() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        Self(std::fs::read(folder.join("training.safetensors")).unwrap())
    }

    pub fn bytes(&self, key: &str) -> (Vec<usize>, Vec<u8>) {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(key).unwrap_or_else(|_| panic!("{key} is not in the fixture"));
        (view.shape().to_vec(), view.data().to_vec())
    }

    pub fn ints(&self, key: &str) -> Vec<i32> {
        self.bytes(key).1.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    pub fn floats(&self, key: &str) -> Vec<f32> {
        self.bytes(key).1.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    pub fn doubles(&self, key: &str) -> Vec<f64> {
        self.bytes(key).1.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// Keys of the weights after `mode`'s last step.
    pub fn weights(&self, mode: &str) -> Vec<String> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let prefix = format!("{mode}.weight.");
        let names = file.names();
        names.iter().filter_map(|name| name.strip_prefix(&prefix)).map(str::to_owned).collect()
    }

    /// The micro-batches of step `step`, of `size` rows each.
    pub fn step(&self, step: u64, size: usize) -> Vec<MicroBatch> {
        let order = self.ints("order");
        let rows = order.chunks(8).nth(step as usize).unwrap();
        rows.chunks(size).map(|rows| self.micro_batch(rows)).collect()
    }

    pub fn micro_batch(&self, rows: &[i32]) -> MicroBatch {
        let (ids, labels) = (self.ints("ids"), self.ints("labels"));
        let (shape, pixels) = self.bytes("pixels");
        let (stride, image) = (ids.len() / self.ints("lengths").len(), shape[1..].iter().product::<usize>());
        let (all_lengths, images) = (self.ints("lengths"), self.ints("picture"));
        let lengths: Vec<usize> = rows.iter().map(|row| all_lengths[*row as usize] as usize).collect();
        let width = *lengths.iter().max().unwrap();
        let cut = |values: &[i32]| -> Vec<i32> {
            rows.iter().flat_map(|row| values[*row as usize * stride..][..width].to_vec()).collect()
        };
        let shown = rows.iter().filter_map(|row| usize::try_from(images[*row as usize]).ok());
        let shown: Vec<u8> = shown.flat_map(|n| pixels[n * image..][..image].to_vec()).collect();
        MicroBatch {
            input_ids: cut(&ids).into_iter().map(|id| id as u32).collect(),
            labels: cut(&labels),
            mask: TokenMask::right_padded(&lengths, width),
            images: if shown.is_empty() { Images::None } else { Images::Pixels(shown) },
        }
    }
}

/// The hyper-parameters and parts of a mode of the fixture's script.
pub fn mode(name: &str) -> (TrainingArguments, Vec<Part>) {
    let (learning_rate, weight_decay, max_grad_norm, lr_scheduler, parts) = match name {
        "align" => (1e-2, 0.05, 1.0, LrScheduler::Cosine, vec![Part::Projector]),
        "lora" => (3e-3, 0.05, 0.0, LrScheduler::Linear, vec![Part::Projector, Part::Lora]),
        _ => {
            let parts = vec![Part::Projector, Part::Language, Part::Vision];
            (1e-3, 0.1, 6.0, LrScheduler::ConstantWithWarmup, parts)
        }
    };
    let arguments = TrainingArguments {
        learning_rate,
        weight_decay,
        max_grad_norm,
        lr_scheduler,
        warmup_ratio: 0.05,
        per_device_train_batch_size: 4,
        gradient_accumulation_steps: 2,
        max_steps: Some(STEPS),
        ..TrainingArguments::default()
    };
    (arguments, parts)
}

pub fn model(mode: &str, dtype: Dtype) -> Vlm {
    let fixture = Fixture::open("gqa");
    if mode == "lora" {
        fixture.adapted(&Device::flex(), dtype)
    } else {
        fixture.model(&Device::flex(), dtype)
    }
}

pub fn trainer(name: &str) -> Trainer {
    let (arguments, parts) = mode(name);
    Trainer::new(model(name, Dtype::F32), PixelNorm::default(), arguments, &parts, STEPS).unwrap()
}

pub fn run(
    trainer: &mut Trainer,
    torch: &Torch,
    steps: std::ops::Range<u64>,
    size: usize,
) -> Vec<StepReport> {
    steps.map(|step| trainer.step(torch.step(step, size)).unwrap()).collect()
}

/// The trained weights by key.
pub struct Weights(pub BTreeMap<String, Vec<f32>>);

impl ParameterVisitor for Weights {
    fn visit<const D: usize>(&mut self, key: &str, parameter: &mut Tensor<D>) {
        if parameter.is_require_grad() {
            self.0.insert(key.to_owned(), values(parameter.clone().inner()));
        }
    }
}

pub fn weights(trainer: &Trainer) -> BTreeMap<String, Vec<f32>> {
    let mut all = Weights(BTreeMap::new());
    trainer.model().clone().visit(&mut all);
    all.0
}

pub fn bits(weights: BTreeMap<String, Vec<f32>>) -> BTreeMap<String, Vec<u32>> {
    weights
        .into_iter()
        .map(|(key, values)| (key, values.iter().map(|value| value.to_bits()).collect()))
        .collect()
}

/// Trains `of()` for `before` steps, saves, restores into another and trains on to `after`; compares with a training
/// of `after` steps at one go.
pub fn assert_continues(of: impl Fn() -> Trainer, before: u64, after: u64) {
    let torch = Torch::open();
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("checkpoint");
    let mut undisturbed = of();
    let whole = run(&mut undisturbed, &torch, 0..after, 4);

    let mut first = of();
    run(&mut first, &torch, 0..before, 4);
    first.save(&checkpoint).unwrap();
    drop(first);
    let mut second = of();
    second.restore(&checkpoint).unwrap();
    assert_eq!(second.steps(), before);
    let rest = run(&mut second, &torch, before..after, 4);
    assert_eq!(rest, whole[before as usize..]);
    assert_eq!(bits(weights(&second)), bits(weights(&undisturbed)));
    assert_eq!(second.answer_tokens(), undisturbed.answer_tokens());
}

/// With dropout in its adapters, where it has any.
pub fn dropping(mut model: Vlm) -> Vlm {
    model.qwen.for_each_adapter(|_, adapter| adapter.dropout = 0.25);
    model
}
