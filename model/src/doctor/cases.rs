//! What doctor looks at besides the plain passes: everything that a training or an answer does in a way of its own.

use burn::tensor::{DType, Device, Gradients, Tensor, TensorData};

use super::fixed_model::{Collect, VOCAB, batch_inputs, features, gradients, values};
use crate::attention::TokenMask;
use crate::cache::KvCache;
use crate::lora::LoraAdapter;
use crate::loss::answer_loss_in_runs;
use crate::train::{AdamW, Part, TrainingArguments};
use crate::vlm::{Batch, BatchError, Vlm};

/// Values of one case.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// What the report calls it.
    pub name: &'static str,
    /// The device's values.
    pub values: Vec<f32>,
    /// Whether they came through a backward pass.
    pub backward: bool,
}

/// All cases of `model`, and of the same with adapters.
pub(super) fn run(model: &Vlm, adapted: &Vlm, images: &Tensor<3>) -> Result<Vec<Case>, BatchError> {
    let case = |name, values, backward| Case { name, values, backward };
    let (runs, run_gradients) = loss_in_runs(model, images)?;
    Ok(vec![
        case(
            "language gradients",
            flat(gradients(model.clone(), images, |key| Part::of(key) == Part::Language)?),
            true,
        ),
        case("vision gradients", vision_gradients(model.clone())?, true),
        case("loss in several runs", runs, false),
        case("its gradients", run_gradients, true),
        case("gradients behind a prefix", behind_prefix(model.clone(), images)?, true),
        case("gradients with checkpoints", with_checkpoints(adapted.clone(), images)?, true),
        case("cache past a block", past_a_block(model)?, false),
        case("left-padded decoding", left_padded(model)?, false),
        case("dropout", dropout(&model.qwen.embed_tokens.device()), false),
        case("AdamW", optimizer(&model.qwen.embed_tokens.device()), false),
    ])
}

fn flat(by_key: Vec<(String, Vec<f32>)>) -> Vec<f32> {
    by_key.into_iter().flat_map(|(_, values)| values).collect()
}

/// The gradients of the model's parameters in `all`.
fn collected(model: &mut Vlm, all: &Gradients) -> Vec<f32> {
    let mut collect = Collect { all, by_key: Vec::new() };
    model.visit(&mut collect);
    flat(collect.by_key)
}

fn vision_gradients(mut model: Vlm) -> Result<Vec<f32>, BatchError> {
    model.train_only(|key| Part::of(key) == Part::Vision);
    let (ids, mask, labels) = batch_inputs();
    let batch = Batch { input_ids: &ids, mask: &mask, features: Some(features(&model)) };
    let gradients = model.loss(&batch, &labels)?.sum.backward();
    Ok(collected(&mut model, &gradients))
}

/// Losses of seven tokens, three at a time, and the gradients of their hidden states and of the head.
fn loss_in_runs(model: &Vlm, images: &Tensor<3>) -> Result<(Vec<f32>, Vec<f32>), BatchError> {
    let (ids, mask, _) = batch_inputs();
    let hidden = model.hidden(&Batch { input_ids: &ids, mask: &mask, features: Some(images.clone()) })?;
    let hidden = hidden.flatten::<2>(0, 1).narrow(0, 0, 7).autodiff().require_grad();
    let head = model.qwen.head().clone().autodiff().require_grad();
    let loss = answer_loss_in_runs(hidden.clone(), &head, &[1, 5, 9, 2, 80, 41, 5], 3);
    let gradients = loss.sum.backward();
    let of = |tensor: &Tensor<2>| tensor.grad(&gradients).map(values).unwrap_or_default();
    Ok((values(loss.per_token), [of(&hidden), of(&head)].concat()))
}

/// Of the projector, from rows that follow one that is computed once.
fn behind_prefix(mut model: Vlm, images: &Tensor<3>) -> Result<Vec<f32>, BatchError> {
    let mut prefix = KvCache::new();
    let first = [1, 2, 3, 4, 5];
    let row = Batch { input_ids: &first, mask: &TokenMask::full(1, first.len()), features: None };
    model.hidden_cached(&row, &mut prefix)?;
    model.train_only(|key| Part::of(key) == Part::Projector);
    let (ids, mask, labels) = batch_inputs();
    let batch = Batch { input_ids: &ids, mask: &mask, features: Some(images.clone()) };
    let gradients = model.loss_after(&prefix, &batch, &labels)?.sum.backward();
    Ok(collected(&mut model, &gradients))
}

/// Of projector and adapters, every layer computed again.
fn with_checkpoints(mut model: Vlm, images: &Tensor<3>) -> Result<Vec<f32>, BatchError> {
    model.train_only(|key| [Part::Projector, Part::Lora].contains(&Part::of(key)));
    let (ids, mask, labels) = batch_inputs();
    let batch = Batch { input_ids: &ids, mask: &mask, features: Some(images.clone()) };
    let mut visited = model.clone();
    let mut found: Vec<(String, Vec<f32>)> = Vec::new();
    model.learn(None, &batch, &labels, 8, &mut |gradients| {
        let mut collect = Collect { all: &gradients, by_key: Vec::new() };
        visited.visit(&mut collect);
        found.extend(collect.by_key.into_iter().filter(|(_, values)| !values.is_empty()));
    })?;
    found.sort_by(|one, two| one.0.cmp(&two.0));
    Ok(flat(found))
}

/// Logits of the tokens around the end of a cache's first block.
fn past_a_block(model: &Vlm) -> Result<Vec<f32>, BatchError> {
    let block = KvCache::capacity(1);
    let ids: Vec<u32> = (0..block as u32 + 3).map(|at| at * 7 % (VOCAB - 6)).collect();
    let mut cache = KvCache::new();
    let mut logits = Vec::new();
    for piece in std::iter::once(&ids[..block - 2]).chain(ids[block - 2..].chunks(1)) {
        let mask = TokenMask::full(1, piece.len());
        let hidden =
            model.hidden_cached(&Batch { input_ids: piece, mask: &mask, features: None }, &mut cache)?;
        logits.extend(values(model.logits_at(hidden, &[piece.len() - 1])));
    }
    Ok(logits)
}

/// Logits behind two prompts of different lengths, and of two tokens more.
fn left_padded(model: &Vlm) -> Result<Vec<f32>, BatchError> {
    let ids: Vec<u32> = (0..18).map(|at| at * 17 % 90).collect();
    let mut cache = KvCache::new();
    let mask = TokenMask::left_padded(&[9, 5], 9);
    let prompt = Batch { input_ids: &ids, mask: &mask, features: None };
    let mut logits = values(model.qwen.logits(model.last_hidden_cached(&prompt, &mut cache)?));
    for next in [[3, 7], [60, 1]] {
        let batch = Batch { input_ids: &next, mask: &TokenMask::full(2, 1), features: None };
        logits.extend(values(model.qwen.logits(model.last_hidden_cached(&batch, &mut cache)?)));
    }
    Ok(logits)
}

/// Whether one number draws one mask, and about half of 1,024 ones are dropped and the rest doubled: devices draw differently.
fn dropout(device: &Device) -> Vec<f32> {
    let ones = |shape: [usize; 2]| Tensor::<2>::ones(shape, (device, DType::F32));
    let adapter = LoraAdapter {
        lora_a: ones([1, 1024]),
        lora_b: ones([1, 1]),
        scaling: 1.0 / 1024.0,
        dropout: 0.5,
        draw: Some(7),
        merged: false,
    };
    let mean = || values(adapter.add_to(ones([1, 1]) * 0.0, ones([1, 1024])));
    let (one, two) = (mean(), mean());
    let half = one.first().is_some_and(|mean| (mean - 1.0).abs() < 0.2);
    vec![f32::from(one == two), f32::from(half)]
}

/// A few weights after two updates.
fn optimizer(device: &Device) -> Vec<f32> {
    let tensor = |values: Vec<f32>| {
        let count = values.len();
        Tensor::<1>::from_data(TensorData::new(values, [count]), (device, DType::F32))
    };
    let some = |by: f32| tensor((0..64).map(|n| ((n * 37 % 64) as f32 - 31.5) * by).collect());
    let arguments = TrainingArguments { weight_decay: 0.1, ..TrainingArguments::default() };
    values(AdamW::new(&arguments).after(&some(0.1), &[some(0.01), some(-0.003)], 0.05))
}
