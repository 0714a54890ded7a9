//! The kernels beside the plain composition of Burn's operations: values, and the gradients of every input.

use burn::tensor::activation::{sigmoid, silu, softmax};
use burn::tensor::{DType, Device, Distribution, FloatDType, IndexingUpdateOp, Int, Tensor, TensorData};

use super::{attention, cross_entropy, layer_norm, linear, product, quick_gelu, rms_norm, rotate, swiglu};
use crate::attention::TokenMask;

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
}

/// Largest difference, as a share of the largest value.
fn difference<const D: usize>(found: Tensor<D>, expected: Tensor<D>) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    let largest = |x: Tensor<D>| x.inner().abs().max().into_scalar::<f32>();
    largest(found - expected.clone()) / largest(expected).max(1e-3)
}

/// Asserts that two functions of `inputs` have the same value, and the same gradient of a weighted sum of it.
fn same<const N: usize, const D: usize, const E: usize>(
    name: &str,
    inputs: [Tensor<D>; N],
    found: impl Fn([Tensor<D>; N]) -> Tensor<E>,
    expected: impl Fn([Tensor<D>; N]) -> Tensor<E>,
) {
    let plain = found(inputs.clone());
    let inputs = inputs.map(|input| input.autodiff().require_grad());
    let (one, two) = (found(inputs.clone()), expected(inputs.clone()));
    assert!(difference(plain, one.clone().inner()) <= 0.0, "{name}: with and without a graph");
    let weights = random(one.dims());
    assert!(difference(one.clone().inner(), two.clone().inner()) < 3e-6, "{name}");
    let (one, two) = ((one * weights.clone()).sum().backward(), (two * weights).sum().backward());
    for (nth, input) in inputs.iter().enumerate() {
        let difference = difference(input.grad(&one).unwrap(), input.grad(&two).unwrap());
        assert!(difference < 1e-5, "{name}: gradient of input {nth} differs by {difference}");
    }
}

#[test]
fn products_equal_burns_for_few_and_many_rows() {
    Device::flex().seed(1);
    for (rows, inputs, outputs) in
        [(1, 40, 24), (3, 17, 9), (6, 64, 130), (7, 64, 130), (50, 96, 300), (170, 513, 131)]
    {
        let bias: Tensor<1> = random([outputs]);
        let name = format!("{rows} x {inputs} by {outputs}");
        let weight: Tensor<2> = random([outputs, inputs]);
        let x: Tensor<2> = random([rows, inputs]);
        let of = |x: Tensor<2>| x.clone().matmul(weight.clone().transpose()) + bias.clone().unsqueeze();
        same(&name, [x.clone()], |[x]| linear(x, &weight, Some(&bias)), |[x]| of(x));
        same(
            &name,
            [weight.clone()],
            |[w]| linear(x.clone(), &w, None),
            |[w]| x.clone().matmul(w.transpose()),
        );
        let tracked = bias.clone().autodiff().require_grad();
        let gradient = tracked.grad(&linear(x.clone(), &weight, Some(&tracked)).sum().backward()).unwrap();
        assert!(difference(gradient, Tensor::full([outputs], rows as f32, &Device::flex())) < 1e-6);
        let back: Tensor<2> = random([rows, outputs]);
        assert!(difference(product(back.clone(), &weight), back.matmul(weight.clone())) < 3e-6);
    }
}

#[test]
fn norms_equal_their_formulas() {
    Device::flex().seed(2);
    for width in [6, 64, 300] {
        let weight: Tensor<1> = random([width]);
        let plain = |x: Tensor<2>, weight: Tensor<1>| {
            let mean = x.clone().square().mean_dim(1);
            x * (mean + 1e-5).sqrt().recip() * weight.unsqueeze()
        };
        let x: Tensor<2> = random([33, width]);
        same("rms norm", [x.clone()], |[x]| rms_norm(x, &weight, 1e-5), |[x]| plain(x, weight.clone()));
        same("its weight", [weight.clone()], |[w]| rms_norm(x.clone(), &w, 1e-5), |[w]| plain(x.clone(), w));
        let bias: Tensor<1> = random([width]);
        let expected = burn::tensor::module::layer_norm(x.clone(), weight.clone(), Some(bias.clone()), 1e-5);
        assert!(difference(layer_norm(x, &weight, &bias, 1e-5), expected) < 3e-6);
    }
}

#[test]
fn activations_and_rotations_equal_their_formulas() {
    Device::flex().seed(3);
    let pair = [(); 2].map(|()| random::<2>([70, 515]) * 4.0);
    same("swiglu", pair.clone(), |[gate, up]| swiglu(gate, up), |[gate, up]| silu(gate) * up);
    let [x, _] = pair;
    assert!(difference(quick_gelu(x.clone()), x.clone() * sigmoid(x * 1.702)) < 3e-6);

    let angles: Tensor<4> = random([2, 9, 1, 8]);
    let (cos, sin) = (angles.clone().cos(), angles.sin());
    let plain = |x: Tensor<4>| {
        let (one, two) = (x.clone().narrow(3, 0, 8), x.narrow(3, 8, 8));
        let turned =
            [one.clone() * cos.clone() - two.clone() * sin.clone(), two * cos.clone() + one * sin.clone()];
        Tensor::cat(turned.to_vec(), 3)
    };
    same("rotary", [random([2, 9, 3, 16])], |[x]| rotate(x, &cos, &sin), |[x]| plain(x));
}

/// As `crate::attention` composes it for other devices.
fn plain_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, bias: Option<&Tensor<5>>) -> Tensor<3> {
    let ([batch, tokens, heads, width], [_, kv_heads, keys, _]) = (q.dims(), k.dims());
    let groups = heads / kv_heads;
    let q =
        q.reshape([batch, tokens, kv_heads, groups, width]).permute([0, 2, 3, 1, 4]) / (width as f64).sqrt();
    let scores = q.reshape([batch, kv_heads, groups * tokens, width]).matmul(k.transpose());
    let scores = scores.reshape([batch, kv_heads, groups, tokens, keys]);
    let scores = bias.map_or(scores.clone(), |bias| scores + bias.clone());
    let mixed = softmax(scores, 4).reshape([batch, kv_heads, groups * tokens, keys]).matmul(v);
    let mixed = mixed.reshape([batch, kv_heads, groups, tokens, width]).permute([0, 3, 1, 2, 4]);
    mixed.reshape([batch, tokens, heads * width])
}

#[test]
fn attention_equals_its_composition_with_masks_groups_and_views() {
    let device = Device::flex();
    device.seed(4);
    let masks =
        [TokenMask::full(2, 12), TokenMask::right_padded(&[12, 7], 12), TokenMask::left_padded(&[12, 7], 12)];
    for (mask, new) in masks.iter().flat_map(|mask| [1, 5, 12].map(|new| (mask, new))) {
        let bias = mask.causal_bias(new, &device);
        // Keys and values as a cache gives them: the first tokens of more.
        let held = || random::<4>([2, 3, 20, 8]).narrow(2, 0, 12);
        let (q, k, v) = (random::<4>([2, new, 6, 8]), held(), held());
        // A padding token on the left sees no key at all, and what it gets is never read.
        let real: Vec<f32> =
            mask.real().chunks(12).flat_map(|row| &row[12 - new..]).map(|real| f32::from(*real)).collect();
        let real: Tensor<3> = Tensor::from_data(TensorData::new(real, [2, new, 1]), &device);
        let found = |q, k, v| attention(q, k, v, bias.as_ref()) * real.clone();
        let expected = |q, k, v| plain_attention(q, k, v, bias.as_ref()) * real.clone();
        let (one, two, three) = (q.clone(), k.clone(), v.clone());
        same(
            "queries",
            [q],
            |[q]| found(q, two.clone(), three.clone()),
            |[q]| expected(q, two.clone(), three.clone()),
        );
        same(
            "keys and values",
            [k, v],
            |[k, v]| found(one.clone(), k, v),
            |[k, v]| expected(one.clone(), k, v),
        );
        // Tokens before heads, as a projection leaves them.
        let turned = random::<4>([2, 12, 3, 8]);
        let of = |f: &dyn Fn(Tensor<4>) -> Tensor<3>, k: Tensor<4>| f(k.swap_dims(1, 2));
        same(
            "keys of a projection",
            [turned],
            |[k]| of(&|k| found(one.clone(), k, three.clone()), k),
            |[k]| of(&|k| expected(one.clone(), k, three.clone()), k),
        );
    }
}

#[test]
fn cross_entropy_equals_its_formula() {
    let device = Device::flex();
    device.seed(5);
    let logits = random::<2>([6, 700]) * 5.0;
    let targets = [3_u32, 699, 0, 17, 350, 351];
    let likeliest = logits.clone().argmax(1).into_data().convert::<i64>().try_to_vec::<i64>().unwrap();
    let mut targets = targets.to_vec();
    targets[2] = likeliest[2] as u32;
    let index: Vec<i32> = targets.iter().map(|target| *target as i32).collect();
    let index: Tensor<2, Int> = Tensor::from_data(TensorData::new(index, [6, 1]), &device);
    let expected = softmax(logits.clone(), 1);
    let losses = expected.clone().gather(1, index.clone()).log().neg().squeeze_dim::<1>(1);
    let minus_one = Tensor::full([6, 1], -1.0, &device);
    let gradient = expected.scatter(1, index, minus_one, IndexingUpdateOp::Add);

    let without = cross_entropy(logits.clone(), &targets, false);
    assert!(without.gradient.is_none());
    let found = cross_entropy(logits, &targets, true);
    assert_eq!(without.losses.into_data(), found.losses.clone().into_data());
    assert!(difference(found.losses, losses) < 1e-5);
    assert!(difference(found.gradient.unwrap(), gradient) < 3e-6);
    let correct = found.correct.into_data().convert::<i64>().try_to_vec::<i64>().unwrap();
    let expected: Vec<i64> = targets
        .iter()
        .zip(&likeliest)
        .map(|(target, likely)| i64::from(i64::from(*target) == *likely))
        .collect();
    assert_eq!(correct, expected);
    assert_eq!(correct[2], 1);
}

#[test]
fn values_that_are_no_numbers_stay_so() {
    let mut values = vec![0.5_f32; 64];
    values[9] = f32::NAN;
    let x: Tensor<2> = Tensor::from_data(TensorData::new(values, [2, 32]), &Device::flex());
    let is_nan = |x: Tensor<1>| {
        x.into_data()
            .convert::<f32>()
            .try_to_vec::<f32>()
            .unwrap()
            .iter()
            .map(|v| v.is_nan())
            .collect::<Vec<_>>()
    };
    assert_eq!(is_nan(cross_entropy(x.clone(), &[1, 1], false).losses), [true, false]);
    assert!(
        is_nan(rms_norm(x.clone(), &Tensor::ones([32], &Device::flex()), 1e-6).reshape([-1]))[..32]
            .iter()
            .all(|nan| *nan)
    );
    assert_eq!(x.dtype(), DType::F32);
    assert!(!super::takes(&x.cast(FloatDType::BF16)));
}
