//! Training moves weights as torch, transformers and PEFT do: `fixtures/make_training_fixtures.py` made the numbers.
//! And a training that was interrupted is the training that was not.

#![expect(clippy::unwrap_used, reason = "a fixture that does not read is a failed test")]

mod common;
#[path = "common/torch.rs"]
mod torch;

use std::collections::BTreeMap;

use burn::tensor::{DType, Tensor};
use common::{difference, values};
use llavm_model::attention::TokenMask;
use llavm_model::config::{Dtype, PixelNorm};
use llavm_model::source::ParameterVisitor;
use llavm_model::train::{
    CheckpointError, Images, LrScheduler, MicroBatch, Part, TrainError, Trainer, TrainingArguments,
};
use llavm_model::vlm::Vlm;
use safetensors::SafeTensors;
use torch::{STEPS, Torch, Weights, assert_continues, bits, dropping, mode, model, run, trainer, weights};

/// How far 50 steps may end from torch's. Seen: losses 4e-6, norms 7e-5, weights 6e-6.
const BOUND: f32 = 2e-4;

/// Fifty steps beside torch: losses and gradient norms within [`BOUND`] relative, weights within it of each tensor's
/// largest, learning rates equal but for the last bit.
fn assert_follows_torch(name: &str) {
    let torch = Torch::open();
    let mut trainer = trainer(name);
    let reports = run(&mut trainer, &torch, 0..STEPS, 4);
    let column = |what: &str| torch.floats(&format!("{name}.{what}"));
    let rates = torch.doubles(&format!("{name}.lr"));
    let (mut loss_apart, mut norm_apart) = (0.0_f64, 0.0_f32);
    for (n, report) in reports.iter().enumerate() {
        let (loss, norm) = (f64::from(column("loss")[n]), column("grad_norm")[n]);
        loss_apart = loss_apart.max((report.loss / loss - 1.0).abs());
        norm_apart = norm_apart.max((report.grad_norm / norm - 1.0).abs());
        assert!((report.learning_rate - rates[n]).abs() <= f64::EPSILON * rates[n], "step {n}: {report:?}");
    }
    let ours = weights(&trainer);
    let mut keys = torch.weights(name);
    keys.sort();
    assert_eq!(ours.keys().cloned().collect::<Vec<_>>(), keys);
    // A key's bias shifts all scores of a query alike: its gradient is zero, and AdamW turns the rounding that is
    // left of it into steps of full length. It has no effect on any output.
    let compared = keys.iter().filter(|key| !key.ends_with("k_proj.bias"));
    let apart = compared.map(|key| (difference(&ours[key], &column(&format!("weight.{key}"))), key));
    let (apart, key) = apart.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    assert!(loss_apart < f64::from(BOUND), "{name}: losses {loss_apart:e} apart");
    assert!(norm_apart < BOUND, "{name}: norms {norm_apart:e} apart");
    assert!(apart < BOUND, "{name}: {key} {apart:e} apart");
}

#[test]
fn fifty_steps_of_align_equal_torch() {
    assert_follows_torch("align");
}

#[test]
fn fifty_steps_of_lora_equal_peft() {
    assert_follows_torch("lora");
}

#[test]
fn fifty_steps_of_full_training_equal_transformers() {
    assert_follows_torch("full");
}

#[test]
fn only_the_parts_named_move() {
    let torch = Torch::open();
    let mut trainer = trainer("lora");
    run(&mut trainer, &torch, 0..2, 4);
    let frozen = |mut model: Vlm| {
        model.train_only(|key| matches!(Part::of(key), Part::Language | Part::Vision));
        let mut all = Weights(BTreeMap::new());
        model.visit(&mut all);
        bits(all.0)
    };
    assert!(weights(&trainer).keys().all(|key| matches!(Part::of(key), Part::Projector | Part::Lora)));
    assert_eq!(frozen(trainer.into_model()), frozen(model("lora", Dtype::F32)));
}

#[test]
fn four_micro_batches_of_two_equal_one_batch_of_eight() {
    let torch = Torch::open();
    for name in ["align", "lora", "full"] {
        let (mut small, mut large) = (trainer(name), trainer(name));
        for (a, b) in run(&mut small, &torch, 0..10, 2).iter().zip(run(&mut large, &torch, 0..10, 8)) {
            assert!((a.loss / b.loss - 1.0).abs() < 1e-5, "{name}: {a:?} {b:?}");
            assert_eq!((a.answer_tokens, a.tokens), (b.answer_tokens, b.tokens));
        }
        let (small, large) = (weights(&small), weights(&large));
        for key in small.keys().filter(|key| !key.ends_with("k_proj.bias")) {
            let apart = difference(&small[key], &large[key]);
            assert!(apart < 1e-3, "{name} {key}: {apart:e}");
        }
    }
}

#[test]
fn features_computed_beforehand_train_as_pixels_do() {
    let torch = Torch::open();
    let (mut pixels, mut features) = (trainer("align"), trainer("align"));
    for step in 0..5 {
        let batches = torch.step(step, 4);
        let computed = batches.iter().cloned().map(|batch| {
            let states = batch.images.clone().features(features.model(), &PixelNorm::default()).unwrap();
            MicroBatch { images: Images::Features(states.unwrap().into_data()), ..batch }
        });
        let computed: Vec<MicroBatch> = computed.collect();
        assert_eq!(pixels.step(batches).unwrap(), features.step(computed).unwrap());
    }
    assert_eq!(bits(weights(&pixels)), bits(weights(&features)));
}

#[test]
fn restored_at_step_25_a_training_equals_the_undisturbed_one_bit_for_bit() {
    for name in ["align", "full"] {
        assert_continues(|| trainer(name), 25, STEPS);
    }
}

#[test]
fn dropout_and_bf16_masters_survive_a_restore_bit_for_bit() {
    let of = || {
        let (arguments, parts) = mode("lora");
        let model = dropping(model("lora", Dtype::Bf16));
        Trainer::new(model, PixelNorm::default(), arguments, &parts, STEPS).unwrap()
    };
    assert_continues(of, 5, 10);
}

#[test]
fn steps_below_the_resolution_of_bf16_add_up_in_the_master() {
    let torch = Torch::open();
    let at = |dtype| {
        let (arguments, parts) = mode("align");
        let arguments = TrainingArguments {
            learning_rate: 2e-4,
            lr_scheduler: LrScheduler::Constant,
            weight_decay: 0.0,
            ..arguments
        };
        Trainer::new(model("align", dtype), PixelNorm::default(), arguments, &parts, STEPS).unwrap()
    };
    let (mut low, mut full) = (at(Dtype::Bf16), at(Dtype::F32));
    let (start_low, start_full) = (weights(&low), weights(&full));
    run(&mut low, &torch, 0..20, 4);
    run(&mut full, &torch, 0..20, 4);
    let key = "projector.dense2.weight";
    let moved = |start: &[f32], end: &[f32]| start.iter().zip(end).map(|(a, b)| b - a).collect::<Vec<f32>>();
    let low = moved(&start_low[key], &weights(&low)[key]);
    let full = moved(&start_full[key], &weights(&full)[key]);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    // Without masters most updates of 2e-4 would be lost on weights near 0.25, whose neighbours are 1e-3 away.
    let slope = dot(&low, &full) / dot(&full, &full);
    assert!((slope - 1.0).abs() < 0.1, "{slope}");
}

/// Every parameter of the projector and the adapters, by key.
fn small_parts(mut model: Vlm) -> BTreeMap<String, (DType, Vec<f32>)> {
    struct Small(BTreeMap<String, (DType, Vec<f32>)>);
    impl ParameterVisitor for Small {
        fn visit<const D: usize>(&mut self, key: &str, parameter: &mut Tensor<D>) {
            if matches!(Part::of(key), Part::Projector | Part::Lora) {
                self.0.insert(key.to_owned(), (parameter.dtype(), values(parameter.clone().inner())));
            }
        }
    }
    let mut small = Small(BTreeMap::new());
    model.visit(&mut small);
    small.0
}

#[test]
fn projector_and_adapters_are_trained_from_f32_masters_and_kept_so() {
    let torch = Torch::open();
    let full = model("lora", Dtype::F32);
    let mut given = model("lora", Dtype::Bf16);
    given.projector = full.projector.clone();
    let mut adapters = Vec::new();
    full.clone().qwen.for_each_adapter(|_, adapter| adapters.push(adapter.clone()));
    let mut rest = adapters.into_iter();
    given.qwen.for_each_adapter(|_, adapter| *adapter = rest.next().unwrap());

    let (arguments, _) = mode("lora");
    let train = |parts: &[Part]| {
        Trainer::new(given.clone(), PixelNorm::default(), arguments.clone(), parts, STEPS).unwrap()
    };
    let mut trainer = train(&[Part::Lora]);
    run(&mut trainer, &torch, 0..3, 4);
    let computed = trainer.model().clone();
    assert_eq!(computed.projector.dense1.weight.dtype(), DType::BF16, "computes in the model's own type");
    let (before, after) = (small_parts(full.clone()), small_parts(trainer.into_model()));
    for (key, (dtype, values)) in after {
        assert_eq!(dtype, DType::F32, "{key}");
        let is_as_before = before[&key].1 == values;
        assert_eq!(
            is_as_before,
            Part::of(&key) == Part::Projector,
            "{key}: what is frozen is not rounded either"
        );
        let rounded = values.iter().all(|value| value.to_bits().trailing_zeros() >= 16);
        assert!(!rounded, "{key} has more than bf16 holds");
    }
    let same = || train(&[Part::Projector, Part::Lora]);
    assert_continues(same, 2, 4);
}

#[test]
fn rows_without_images_teach_a_projector_alone_nothing_and_stop_nothing() {
    let torch = Torch::open();
    let mut trainer = trainer("align");
    let before = bits(weights(&trainer));
    // Every tenth row of the fixture has no image. The rate of the first step is 0, that of the second is not.
    for _ in 0..2 {
        let report = trainer.step(vec![torch.micro_batch(&[9, 19])]).unwrap();
        assert!(report.loss > 0.0 && report.grad_norm == 0.0, "{report:?}");
    }
    assert_eq!(bits(weights(&trainer)), before);
    let report = trainer.step(vec![torch.micro_batch(&[9]), torch.micro_batch(&[0])]).unwrap();
    assert!(report.grad_norm > 0.0, "{report:?}");
    assert_ne!(bits(weights(&trainer)), before);
}

#[test]
fn a_loss_that_is_no_number_names_step_and_micro_batch_and_changes_nothing() {
    let torch = Torch::open();
    let mut trainer = trainer("align");
    run(&mut trainer, &torch, 0..2, 4);
    let before = bits(weights(&trainer));
    let mut batches = torch.step(2, 4);
    let mut states =
        batches[1].images.clone().features(trainer.model(), &PixelNorm::default()).unwrap().unwrap();
    states = states * f32::NAN;
    batches[1].images = Images::Features(states.into_data());
    let error = trainer.step(batches).unwrap_err();
    assert!(matches!(error, TrainError::Loss { step: 3, micro_batch: 1, .. }), "{error}");
    insta::assert_snapshot!(error, @"step 3, micro-batch 1: the loss is NaN; the weights are those of step 2. Lower learning_rate, set max_grad_norm, or train in f32");
    assert_eq!((bits(weights(&trainer)), trainer.steps()), (before, 2));
    trainer.step(torch.step(2, 4)).unwrap();
}

#[test]
fn what_cannot_be_trained_is_refused_by_name() {
    let new = |parts: &[Part], model: Vlm| {
        let refused = Trainer::new(model, PixelNorm::default(), mode("align").0, parts, STEPS);
        refused.map(|_| ()).unwrap_err().to_string()
    };
    insta::assert_snapshot!(new(&[], model("align", Dtype::F32)), @"train: trainable is empty; name at least one of projector, language, vision, lora");
    insta::assert_snapshot!(new(&[Part::Lora], model("align", Dtype::F32)), @"train: trainable names `lora`, but the model has none; give `lora` its settings");
    let blind = Vlm { clip: None, ..model("align", Dtype::F32) };
    insta::assert_snapshot!(new(&[Part::Projector, Part::Vision], blind.clone()), @"train: trainable names `vision`, but the model has none: features were computed beforehand");

    let (arguments, parts) = mode("align");
    let mut trainer = Trainer::new(blind, PixelNorm::default(), arguments, &parts, STEPS).unwrap();
    let torch = Torch::open();
    insta::assert_snapshot!(trainer.step(torch.step(0, 4)).unwrap_err(), @"step 1, micro-batch 0: holds pixels, but the model has no vision tower");
    let mut batches = torch.step(0, 8);
    batches[0].labels.fill(-100);
    insta::assert_snapshot!(trainer.step(batches).unwrap_err(), @"step 1: no label is a token, so there is nothing to learn");
}

#[test]
fn a_checkpoint_of_another_run_is_refused_by_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("checkpoint");
    let torch = Torch::open();
    let mut first = trainer("align");
    run(&mut first, &torch, 0..1, 4);
    first.save(&checkpoint).unwrap();

    let (arguments, parts) = mode("align");
    let arguments = TrainingArguments { learning_rate: 0.5, ..arguments };
    let mut other =
        Trainer::new(model("align", Dtype::F32), PixelNorm::default(), arguments, &parts, STEPS).unwrap();
    let error = other.restore(&checkpoint).unwrap_err();
    assert!(matches!(&error, CheckpointError::OtherRun { field, .. } if field == "learning_rate"), "{error}");
    assert!(matches!(trainer("lora").restore(&checkpoint), Err(CheckpointError::OtherRun { .. })));

    std::fs::write(checkpoint.join("trainer.json"), "{}").unwrap();
    let error = trainer("align").restore(&checkpoint).unwrap_err();
    assert!(matches!(error, CheckpointError::Description { .. }), "{error}");
}

/// Losses and gradient norms of ten steps within rounding of each other.
fn assert_same_course(
    name: &str,
    mut one: Trainer,
    mut other: Trainer,
    step: impl Fn(u64) -> Vec<MicroBatch>,
) {
    for n in 0..10 {
        let (a, b) = (one.step(step(n)).unwrap(), other.step(step(n)).unwrap());
        assert!((a.loss / b.loss - 1.0).abs() < 1e-5, "{name}: {a:?} {b:?}");
        assert!((a.grad_norm / b.grad_norm - 1.0).abs() < 1e-4, "{name}: {a:?} {b:?}");
    }
}

/// The rows, each after the same twelve tokens.
fn with_system(batch: MicroBatch) -> MicroBatch {
    let system: Vec<u32> = (1..=12).collect();
    let (rows, tokens) = (batch.mask.batch(), batch.mask.tokens());
    let front = |row: &[u32]| [&system[..], row].concat();
    let mask = TokenMask::full(rows, system.len()).followed_by(&batch.mask);
    MicroBatch {
        input_ids: batch.input_ids.chunks(tokens).flat_map(front).collect(),
        labels: batch.labels.chunks(tokens).flat_map(|row| [&[-100; 12], row].concat()).collect(),
        mask,
        images: batch.images,
    }
}

#[test]
fn a_beginning_computed_once_gives_the_losses_of_one_computed_each_time() {
    let torch = Torch::open();
    let step = |n| torch.step(n, 4).into_iter().map(with_system).collect();
    assert_same_course("align", trainer("align").with_shared_prefix(), trainer("align"), step);
}

#[test]
fn layers_computed_again_in_the_backward_pass_give_the_same_losses_and_gradients() {
    let torch = Torch::open();
    for name in ["align", "lora", "full"] {
        for (track_input, prefix) in [(false, false), (true, false), (false, true)] {
            let trainer = |gradient_checkpointing| {
                let (arguments, parts) = mode(name);
                let arguments = TrainingArguments { gradient_checkpointing, ..arguments };
                let mut model = dropping(model(name, Dtype::F32));
                // As on a GPU, where the decoder's input is tracked besides.
                model.track_input |= track_input;
                let new = Trainer::new(model, PixelNorm::default(), arguments, &parts, STEPS).unwrap();
                if prefix { new.with_shared_prefix() } else { new }
            };
            let step = |n| torch.step(n, 4).into_iter().map(with_system).collect::<Vec<_>>();
            for n in 0..4 {
                let (mut again, mut plain) = (trainer(true), trainer(false));
                let (a, b) = (again.step(step(n)).unwrap(), plain.step(step(n)).unwrap());
                assert_eq!(a.loss.to_bits(), b.loss.to_bits(), "{name}");
                let (again, plain) = (gradients(&mut again), gradients(&mut plain));
                assert_eq!(again.len(), plain.len());
                for (key, gradient) in &plain {
                    let apart = difference(&again[key], gradient);
                    assert!(apart < 1e-6, "{name} {key}: {apart:e}");
                }
            }
            assert_same_course(name, trainer(true), trainer(false), step);
        }
    }
}

/// What the optimiser remembers after one step, by key: a tenth of each gradient.
fn gradients(trainer: &mut Trainer) -> BTreeMap<String, Vec<f32>> {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("checkpoint");
    trainer.save(&checkpoint).unwrap();
    let bytes = std::fs::read(checkpoint.join("trainer.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter().filter(|(key, _)| key.starts_with("exp_avg."));
    let floats = |data: &[u8]| {
        data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect::<Vec<f32>>()
    };
    tensors.map(|(key, view)| (key, floats(view.data()))).collect()
}
