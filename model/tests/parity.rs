//! The model computes what transformers and PEFT compute: `fixtures/make_fixtures.py` made the numbers.

#![expect(clippy::unwrap_used, reason = "a fixture that does not read is a failed test")]

mod common;

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use common::{Fixture, SHAPES, difference, rows, values};
use llavm_model::attention::TokenMask;
use llavm_model::cache::KvCache;
use llavm_model::config::{Dtype, PixelNorm};
use llavm_model::source::ParameterVisitor;
use llavm_model::vlm::{Batch, Vlm};

/// Bound of every f32 comparison with torch, relative to the largest value.
const F32: f32 = 1e-4;
/// Bound of a loss in f32, relative.
const LOSS: f32 = 1e-5;

fn assert_close(name: &str, ours: &[f32], theirs: &[f32], bound: f32) {
    let apart = difference(ours, theirs);
    assert!(apart <= bound, "{name}: {apart:e} apart, over {bound:e}");
}

#[test]
fn vision_states_equal_transformers() {
    for name in SHAPES {
        let fixture = Fixture::open(name);
        let model = fixture.model(&Device::flex(), Dtype::F32);
        let clip = model.clip.as_ref().unwrap();
        let pixels = clip.normalise(fixture.pixels(0, 3), &PixelNorm::default());
        for (n, state) in clip.hidden_states(pixels.clone()).into_iter().enumerate() {
            let key = format!("clip.{n}");
            assert_close(&format!("{name} {key}"), &values(state), &fixture.floats(&key), F32);
        }
        let features = clip.forward(pixels);
        assert_close(name, &values(features.clone()), &fixture.floats("clip.features"), F32);
        let projected = values(model.projector.forward(features));
        assert_close(&format!("{name} projected"), &projected, &fixture.floats("projected"), F32);
    }
}

#[test]
fn every_decoder_layer_equals_transformers() {
    for name in SHAPES {
        let fixture = Fixture::open(name);
        let model = fixture.model(&Device::flex(), Dtype::F32);
        let (inputs, width) = (fixture.inputs(), model.qwen.config().hidden_size);
        let real = inputs.real();
        let compare = |key: String, ours: Tensor<3>| {
            let theirs = rows(&fixture.floats(&key), width, &real);
            assert_close(&format!("{name} {key}"), &rows(&values(ours), width, &real), &theirs, F32);
        };
        let batch = inputs.batch(fixture.features(&model, 0, 3));
        let embedded = model.embed(&batch).unwrap();
        for (n, state) in model.qwen.hidden_states(embedded, &inputs.mask).into_iter().enumerate() {
            compare(format!("hidden.{n}"), state);
        }
        compare("hidden.final".to_owned(), model.hidden(&batch).unwrap());
    }
}

/// The model as it is, with its adapter beside, merged and unmerged again; each with its name and the prefix
/// of its keys in the fixture (an unmerged adapter stays in effect beside the weights).
fn variants(fixture: &Fixture) -> Vec<(&'static str, &'static str, Vlm)> {
    let adapted = fixture.adapted(&Device::flex(), Dtype::F32);
    let mut merged = adapted.clone();
    merged.qwen.merge_lora();
    let mut unmerged = merged.clone();
    unmerged.qwen.unmerge_lora();
    let plain = fixture.model(&Device::flex(), Dtype::F32);
    vec![
        ("plain", "", plain),
        ("adapted", "lora.", adapted),
        ("merged", "lora.", merged),
        ("unmerged", "lora.", unmerged),
    ]
}

#[test]
fn logits_and_loss_equal_transformers_with_and_without_adapter() {
    for name in SHAPES {
        let fixture = Fixture::open(name);
        for (what, key, model) in variants(&fixture) {
            let inputs = fixture.inputs();
            let (real, vocab) = (inputs.real(), model.qwen.config().vocab_size);
            let batch = inputs.batch(fixture.features(&model, 0, 3));
            let logits = values(model.logits_at(model.hidden(&batch).unwrap(), &real));
            let theirs = rows(&fixture.floats(&format!("{key}logits")), vocab, &real);
            assert_close(&format!("{name} {what} logits"), &logits, &theirs, F32);

            let loss = model.loss(&batch, &inputs.labels).unwrap();
            let mean = loss.per_token.clone().mean().into_scalar::<f32>();
            assert_close(
                &format!("{name} {what} loss"),
                &[mean],
                &fixture.floats(&format!("{key}loss")),
                LOSS,
            );
        }
    }
}

/// Gathers every parameter's gradient by its key.
struct Gradients<'a> {
    all: &'a burn::tensor::Gradients,
    by_key: BTreeMap<String, Vec<f32>>,
}

impl ParameterVisitor for Gradients<'_> {
    fn visit<const D: usize>(&mut self, key: &str, parameter: &mut Tensor<D>) {
        if let Some(gradient) = parameter.grad(self.all) {
            self.by_key.insert(key.to_owned(), values(gradient));
        }
    }
}

/// Gradients of the mean loss of the fixture's batch with respect to what `chosen` names.
fn gradients(fixture: &Fixture, mut model: Vlm, chosen: impl Fn(&str) -> bool) -> BTreeMap<String, Vec<f32>> {
    model.train_only(chosen);
    let inputs = fixture.inputs();
    let batch = inputs.batch(fixture.features(&model, 0, 3));
    let loss = model.loss(&batch, &inputs.labels).unwrap();
    let tokens = loss.per_token.dims()[0] as f64;
    let all = (loss.sum / tokens).backward();
    let mut gradients = Gradients { all: &all, by_key: BTreeMap::new() };
    model.visit(&mut gradients);
    gradients.by_key
}

#[test]
fn gradients_of_projector_and_adapter_equal_torch() {
    for name in SHAPES {
        let fixture = Fixture::open(name);
        let plain = gradients(&fixture, fixture.model(&Device::flex(), Dtype::F32), |key| {
            key.starts_with("projector.")
        });
        assert_eq!(plain.len(), 4);
        for (key, ours) in plain {
            assert_close(&format!("{name} {key}"), &ours, &fixture.floats(&format!("grad.{key}")), F32);
        }
        let adapted = fixture.adapted(&Device::flex(), Dtype::F32);
        let ours =
            gradients(&fixture, adapted, |key| key.starts_with("projector.") || key.contains(".lora_"));
        assert_eq!(ours.keys().cloned().collect::<Vec<_>>(), fixture.keys("lora.grad."));
        for (key, ours) in ours {
            assert_close(&format!("{name} {key}"), &ours, &fixture.floats(&format!("lora.grad.{key}")), F32);
        }
    }
}

#[test]
fn tracking_the_input_changes_no_gradient() {
    let fixture = Fixture::open("gqa");
    let adapted = fixture.adapted(&Device::flex(), Dtype::F32);
    assert!(!adapted.track_input, "the CPU needs no workaround");
    let tracked = Vlm { track_input: true, ..adapted.clone() };
    let chosen = |key: &str| key.contains(".lora_");
    assert_eq!(gradients(&fixture, tracked, chosen), gradients(&fixture, adapted, chosen));
}

#[test]
fn gradients_of_the_whole_model_equal_torch() {
    let fixture = Fixture::open("gqa");
    let ours = gradients(&fixture, fixture.model(&Device::flex(), Dtype::F32), |_| true);
    for part in ["qwen", "clip"] {
        for key in fixture.keys(&format!("grad.{part}.")) {
            let theirs = fixture.floats(&format!("grad.{part}.{key}"));
            if key.ends_with("k_proj.bias") {
                // It shifts all scores of a query alike: the gradient is zero, and what is left is rounding.
                assert!(ours[&key].iter().chain(&theirs).all(|gradient| gradient.abs() < 1e-6), "{key}");
            } else {
                assert_close(&key, &ours[&key], &theirs, F32);
            }
        }
    }
}

/// The next `new` ids of each row, greedily. Never an image pad, as in the fixture's script.
fn greedy(
    model: &Vlm,
    prompts: &[Vec<u32>],
    features: &Tensor<3>,
    new: usize,
    cached: bool,
) -> Vec<Vec<u32>> {
    let tokens = prompts.iter().map(Vec::len).max().unwrap();
    let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
    let mut mask = TokenMask::left_padded(&lengths, tokens);
    let mut rows: Vec<Vec<u32>> =
        prompts.iter().map(|prompt| [vec![0; tokens - prompt.len()], prompt.clone()].concat()).collect();
    let mut cache = KvCache::new();
    let one = TokenMask::full(prompts.len(), 1);
    for step in 0..new {
        let first = step == 0;
        let hidden = if cached && !first {
            let last: Vec<u32> = rows.iter().map(|row| *row.last().unwrap()).collect();
            model.hidden_cached(&Batch { input_ids: &last, mask: &one, features: None }, &mut cache).unwrap()
        } else {
            let batch = Batch { input_ids: &rows.concat(), mask: &mask, features: Some(features.clone()) };
            if cached {
                model.hidden_cached(&batch, &mut cache).unwrap()
            } else {
                model.hidden(&batch).unwrap()
            }
        };
        let width = hidden.dims()[1];
        let last: Vec<usize> = (1..=rows.len()).map(|row| row * width - 1).collect();
        let mut logits = values(model.logits_at(hidden, &last));
        let vocab = model.qwen.config().vocab_size;
        for (row, logits) in rows.iter_mut().zip(logits.chunks_mut(vocab)) {
            logits[model.image_pad_id as usize] = f32::NEG_INFINITY;
            let best = (0..vocab).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
            row.push(best as u32);
        }
        mask = mask.followed_by(&one);
    }
    rows.into_iter().map(|row| row[tokens..].to_vec()).collect()
}

#[test]
fn greedy_ids_equal_transformers_alone_and_in_a_left_padded_batch() {
    for name in SHAPES {
        let fixture = Fixture::open(name);
        let prompts: Vec<Vec<u32>> = (0..2).map(|n| fixture.ids(&format!("prompt.{n}"))).collect();
        for (what, key, model) in variants(&fixture) {
            let expected: Vec<Vec<u32>> = (0..2).map(|n| fixture.ids(&format!("{key}greedy.{n}"))).collect();
            let together = greedy(&model, &prompts, &fixture.features(&model, 0, 2), 64, true);
            assert_eq!(together, expected, "{name} {what} batched");
            for n in 0..2 {
                let features = fixture.features(&model, n, n + 1);
                let alone = greedy(&model, &prompts[n..=n], &features, 64, true);
                assert_eq!(alone[0], expected[n], "{name} {what} alone");
            }
        }
    }
}

#[test]
fn cached_decoding_equals_full_forward() {
    for name in SHAPES {
        let fixture = Fixture::open(name);
        let model = fixture.model(&Device::flex(), Dtype::F32);
        let prompts: Vec<Vec<u32>> = (0..2).map(|n| fixture.ids(&format!("prompt.{n}"))).collect();
        let features = fixture.features(&model, 0, 2);
        let cached = greedy(&model, &prompts, &features, 24, true);
        assert_eq!(cached, greedy(&model, &prompts, &features, 24, false), "{name}");
    }
}

#[test]
fn a_cache_cut_back_to_a_prefix_continues_as_if_the_rest_had_never_been() {
    let fixture = Fixture::open("gqa");
    let model = fixture.model(&Device::flex(), Dtype::F32);
    let ids: Vec<u32> = (0..40).collect();
    let feed = |ids: &[u32], cache: &mut KvCache| {
        let mask = TokenMask::full(1, ids.len());
        let hidden =
            model.hidden_cached(&Batch { input_ids: ids, mask: &mask, features: None }, cache).unwrap();
        let last = hidden.dims()[1] - 1;
        values(hidden.narrow(1, last, 1))
    };
    let mut cache = KvCache::new();
    feed(&ids, &mut cache);
    cache.truncate(10);
    assert_eq!(cache.tokens(), 10);
    let again = feed(&[7, 8, 9], &mut cache);
    let mut fresh = KvCache::new();
    feed(&ids[..10], &mut fresh);
    assert_close("after the cut", &again, &feed(&[7, 8, 9], &mut fresh), 1e-6);
}

#[test]
fn a_cache_that_grows_past_its_block_equals_full_forward() {
    let fixture = Fixture::open("untied");
    let model = fixture.model(&Device::flex(), Dtype::F32);
    let ids: Vec<u32> = (0..300).map(|n| n * 7 % 256).collect();
    let mask = TokenMask::full(1, ids.len());
    let whole = values(model.hidden(&Batch { input_ids: &ids, mask: &mask, features: None }).unwrap());
    let mut cache = KvCache::new();
    let mut pieces = Vec::new();
    for piece in ids.chunks(90) {
        let mask = TokenMask::full(1, piece.len());
        let batch = Batch { input_ids: piece, mask: &mask, features: None };
        pieces.extend(values(model.hidden_cached(&batch, &mut cache).unwrap()));
    }
    assert_close("in pieces", &pieces, &whole, 1e-5);
}

#[test]
fn padding_never_changes_a_result() {
    for name in SHAPES {
        let fixture = Fixture::open(name);
        let model = fixture.model(&Device::flex(), Dtype::F32);
        let prompt = fixture.ids("prompt.0");
        let features = fixture.features(&model, 0, 1);
        let hidden = |mask: &TokenMask, ids: &[u32]| {
            let batch = Batch { input_ids: ids, mask, features: Some(features.clone()) };
            let width = model.qwen.config().hidden_size;
            let real: Vec<usize> = (0..ids.len()).filter(|n| mask.real()[*n]).collect();
            rows(&values(model.hidden(&batch).unwrap()), width, &real)
        };
        let n = prompt.len();
        let bare = hidden(&TokenMask::full(1, n), &prompt);
        // Two different fillers: what stands in the padding must not matter either.
        for filler in [0, 200] {
            let left =
                hidden(&TokenMask::left_padded(&[n], n + 5), &[vec![filler; 5], prompt.clone()].concat());
            assert_close(&format!("{name} left"), &left, &bare, 1e-5);
            let right =
                hidden(&TokenMask::right_padded(&[n], n + 5), &[prompt.clone(), vec![filler; 5]].concat());
            assert_close(&format!("{name} right"), &right, &bare, 1e-5);
        }
    }
}

#[test]
fn a_shared_prefix_gives_the_loss_and_gradients_of_whole_prompts() {
    let fixture = Fixture::open("gqa");
    let mut model = fixture.model(&Device::flex(), Dtype::F32);
    model.train_only(|key| key.starts_with("projector."));
    let features = fixture.features(&model, 0, 2);
    let start = [5, 90, 17, 250, 33];
    // Two rows that go on differently, the second padded.
    let rows: Vec<Vec<u32>> = (0..2).map(|n| fixture.ids(&format!("prompt.{n}"))).collect();
    let width = rows.iter().map(Vec::len).max().unwrap();
    let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
    let padded = |before: &[u32]| -> Vec<u32> {
        rows.iter().flat_map(|row| [before, row, &vec![0; width - row.len()][..]].concat()).collect()
    };
    let labels = |before: usize| -> Vec<i32> {
        let answer = |length: &usize| {
            [vec![-100; before + length - 2], vec![7, 8], vec![-100; width - length]].concat()
        };
        lengths.iter().flat_map(answer).collect()
    };
    let gradient = |loss: llavm_model::loss::AnswerLoss| {
        let value = values(loss.sum.clone());
        let all = loss.sum.backward();
        (value, values(model.projector.dense1.weight.grad(&all).unwrap()))
    };

    let whole: Vec<usize> = lengths.iter().map(|length| length + start.len()).collect();
    let mask = TokenMask::right_padded(&whole, width + start.len());
    let ids = padded(&start);
    let batch = Batch { input_ids: &ids, mask: &mask, features: Some(features.clone()) };
    let (loss, grad) = gradient(model.loss(&batch, &labels(start.len())).unwrap());

    let mut prefix = KvCache::new();
    let start = Batch { input_ids: &start, mask: &TokenMask::full(1, start.len()), features: None };
    model.for_inference().hidden_cached(&start, &mut prefix).unwrap();
    let mask = TokenMask::right_padded(&lengths, width);
    let ids = padded(&[]);
    let batch = Batch { input_ids: &ids, mask: &mask, features: Some(features) };
    let (shared_loss, shared_grad) = gradient(model.loss_after(&prefix, &batch, &labels(0)).unwrap());
    assert_close("loss", &shared_loss, &loss, LOSS);
    assert_close("gradient", &shared_grad, &grad, 1e-5);
}

/// With 8 bits of mantissa, torch itself is `theirs` away from its f32 logits; we may be as far, and half
/// as far again, since the order of additions differs.
#[test]
fn bf16_is_as_close_to_f32_as_torchs_own_bf16() {
    for name in SHAPES {
        let fixture = Fixture::open(name);
        let model = fixture.model(&Device::flex(), Dtype::Bf16);
        let inputs = fixture.inputs();
        let (real, vocab) = (inputs.real(), model.qwen.config().vocab_size);
        let batch = inputs.batch(fixture.features(&model, 0, 3));
        let exact = rows(&fixture.floats("logits"), vocab, &real);
        let theirs = difference(&rows(&fixture.floats("bf16.logits"), vocab, &real), &exact);
        let logits = values(model.logits_at(model.hidden(&batch).unwrap(), &real));
        assert_close(&format!("{name} bf16 logits"), &logits, &exact, 1.5 * theirs);
        let loss = model.loss(&batch, &inputs.labels).unwrap().per_token.mean().into_scalar::<f32>();
        assert_close(&format!("{name} bf16 loss"), &[loss], &fixture.floats("loss"), 0.02);
    }
}
