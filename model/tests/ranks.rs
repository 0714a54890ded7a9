//! Several ranks train what one does: here on one CPU, which sums in another order, not on another device.

#![expect(clippy::unwrap_used, reason = "a fixture that does not read is a failed test")]

mod common;
#[path = "common/torch.rs"]
mod torch;

use burn::tensor::Device;
use common::difference;
use llavm_model::config::{Dtype, PixelNorm};
use llavm_model::train::{Images, Part, TrainError, Trainer};
use torch::{STEPS, Torch, assert_continues, bits, dropping, mode, model, run, trainer, weights};

/// How far ten steps of several ranks may end from those of one: losses and norms of them, weights of a tensor's largest. Seen: losses
/// 2e-7, norms 1e-5, weights 8e-7.
const LOSSES: f64 = 1e-6;
const NORMS: f32 = 3e-5;
const WEIGHTS: f32 = 5e-6;

/// With dropout, where there are adapters: masks follow a micro-batch, whoever takes it.
fn with_dropout(name: &str) -> Trainer {
    let (arguments, parts) = mode(name);
    let model = dropping(model(name, Dtype::F32));
    Trainer::new(model, PixelNorm::default(), arguments, &parts, STEPS).unwrap()
}

fn on(world: usize, trainer: Trainer) -> Trainer {
    trainer.across(&vec![Device::flex(); world - 1])
}

#[test]
fn two_and_three_ranks_train_what_one_does() {
    let torch = Torch::open();
    for name in ["align", "lora", "full"] {
        // Four micro-batches a step: two ranks take two each; of three, the first takes two.
        let of = |world| {
            let mut trainer = on(world, with_dropout(name));
            let reports = run(&mut trainer, &torch, 0..10, 2);
            (reports, weights(&trainer))
        };
        let (one, weights_of_one) = of(1);
        for world in [2, 3] {
            let (several, weights) = of(world);
            for (a, b) in several.iter().zip(&one) {
                let apart = (a.loss / b.loss - 1.0).abs();
                assert!(apart < LOSSES, "{name}, {world}: losses {apart:e} apart at {a:?}");
                let apart = (a.grad_norm / b.grad_norm - 1.0).abs();
                assert!(apart < NORMS, "{name}, {world}: norms {apart:e} apart at {a:?}");
                let counts = |report: &llavm_model::train::StepReport| {
                    (report.step, report.answer_tokens, report.tokens, report.learning_rate.to_bits())
                };
                assert_eq!(counts(a), counts(b));
            }
            for key in weights.keys().filter(|key| !key.ends_with("k_proj.bias")) {
                let apart = difference(&weights[key], &weights_of_one[key]);
                assert!(apart < WEIGHTS, "{name}, {world}: {key} {apart:e} apart");
            }
        }
    }
}

#[test]
fn as_many_ranks_train_the_same_bits_each_time() {
    let torch = Torch::open();
    let of = || {
        let mut trainer = on(3, with_dropout("lora"));
        let reports = run(&mut trainer, &torch, 0..6, 1);
        (reports, bits(weights(&trainer)))
    };
    assert_eq!(of(), of());
}

#[test]
fn ranks_restored_go_on_bit_for_bit() {
    assert_continues(|| on(2, with_dropout("lora")), 4, 8);
    assert_continues(|| on(3, trainer("full")), 3, 6);
}

#[test]
fn a_rank_with_nothing_to_do_moves_with_the_others() {
    let torch = Torch::open();
    let of = |world| {
        let mut trainer = on(world, trainer("align"));
        let reports = run(&mut trainer, &torch, 0..3, 8);
        (reports, bits(weights(&trainer)))
    };
    // One micro-batch a step: nothing is added to it.
    assert_eq!(of(3), of(1));
}

/// Rows without images teach the projector nothing: their rank has no gradient, the other has.
#[test]
fn what_only_one_rank_learned_all_learn() {
    let torch = Torch::open();
    let of = |world| {
        let mut trainer = on(world, trainer("align"));
        for rows in [[9, 0], [19, 1], [2, 9]] {
            trainer.step(rows.map(|row| torch.micro_batch(&[row])).to_vec()).unwrap();
        }
        bits(weights(&trainer))
    };
    assert_eq!(of(2), of(1));
}

#[test]
fn the_first_micro_batch_at_fault_is_named_and_nothing_changes() {
    let torch = Torch::open();
    let mut trainer = on(2, trainer("align"));
    run(&mut trainer, &torch, 0..2, 4);
    let before = bits(weights(&trainer));
    let mut batches = torch.step(2, 2);
    batches[3].images = Images::Pixels(vec![0; 7]);
    batches[2].input_ids.pop();
    let error = trainer.step(batches).unwrap_err();
    assert!(matches!(error, TrainError::Batch { step: 3, micro_batch: 2, .. }), "{error}");
    assert_eq!((bits(weights(&trainer)), trainer.steps()), (before, 2));

    // And then it goes on as if that had not been.
    let mut undisturbed = on(2, torch::trainer("align"));
    run(&mut undisturbed, &torch, 0..2, 4);
    let next = |trainer: &mut Trainer| (run(trainer, &torch, 2..4, 2), bits(weights(trainer)));
    assert_eq!(next(&mut trainer), next(&mut undisturbed));
}

#[test]
fn bf16_ranks_keep_one_master() {
    let torch = Torch::open();
    let of = |world| {
        let (arguments, _) = mode("lora");
        let parts = [Part::Projector, Part::Lora];
        let model = model("lora", Dtype::Bf16);
        let mut trainer =
            on(world, Trainer::new(model, PixelNorm::default(), arguments, &parts, STEPS).unwrap());
        run(&mut trainer, &torch, 0..4, 8);
        bits(weights(&trainer))
    };
    assert_eq!(of(2), of(1));
}
