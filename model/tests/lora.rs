//! What an adapter must do beyond computing PEFT's numbers (`parity.rs`).

#![expect(clippy::unwrap_used, reason = "a fixed model that cannot be built is a failed test")]

use burn::tensor::{DType, Device, Tensor};
use llavm_model::config::Dtype;
use llavm_model::linear::Linear;
use llavm_model::lora::{LoraAdapter, LoraConfig, LoraError, TargetModules};
use llavm_model::source::{Init, Loader, RandomSource};

const INPUTS: usize = 200;
const OUTPUTS: usize = 12;

fn linear(config: &LoraConfig) -> Linear {
    let config = LoraConfig { target_modules: TargetModules::names(&["proj"]), ..config.clone() };
    let adapter = config.matcher().unwrap().adapter("proj").unwrap();
    let device = Device::flex();
    let mut source = RandomSource::new(3).with("lora_B.weight", Init::Normal(0.5));
    let mut loader = Loader::new(&mut source, &device, Dtype::F32);
    let mut linear = Linear::without_bias(loader.at("proj"), INPUTS, OUTPUTS, Init::Normal(0.1));
    linear.adapter = Some(LoraAdapter::load(loader.at("proj"), &adapter, INPUTS, OUTPUTS));
    linear
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data_dtype(DType::F32).as_slice::<f32>().unwrap().to_vec()
}

fn ones() -> Tensor<2> {
    Tensor::ones([400, INPUTS], &Device::flex())
}

fn train(linear: &mut Linear) {
    let adapter = linear.adapter.as_mut().unwrap();
    adapter.lora_a = adapter.lora_a.clone().autodiff().require_grad();
    adapter.lora_b = adapter.lora_b.clone().autodiff().require_grad();
}

#[test]
fn dropout_acts_in_training_alone_and_keeps_the_mean() {
    let config = LoraConfig { lora_dropout: 0.3, ..LoraConfig::default() };
    let mut dropping = linear(&config);
    let still = values(dropping.forward(ones()));
    assert_eq!(still, values(linear(&LoraConfig { lora_dropout: 0.0, ..config }).forward(ones())));
    train(&mut dropping);
    assert_eq!(still, values(dropping.forward(ones())), "nobody has drawn a mask");
    let mut with = |draw| {
        dropping.adapter.as_mut().unwrap().draw = Some(draw);
        values(dropping.forward(ones()))
    };
    let dropped = with(1);
    assert_ne!(dropped, still);
    assert_ne!(dropped, with(2));
    assert_eq!(dropped, with(1), "one number, one mask");
    let mean = |values: &[f32]| values.iter().step_by(OUTPUTS).sum::<f32>() / 400.0;
    let spread = dropped.iter().step_by(OUTPUTS).map(|v| (v - mean(&dropped)).powi(2)).sum::<f32>() / 400.0;
    assert!((mean(&dropped) - mean(&still)).abs() < 4.0 * (spread / 400.0).sqrt());
}

#[test]
fn the_frozen_weight_gathers_no_gradient() {
    let mut linear = linear(&LoraConfig { lora_dropout: 0.0, ..LoraConfig::default() });
    train(&mut linear);
    let gradients = linear.forward(ones()).sum().backward();
    let adapter = linear.adapter.as_ref().unwrap();
    assert!(adapter.lora_a.grad(&gradients).is_some() && adapter.lora_b.grad(&gradients).is_some());
    assert!(linear.weight.grad(&gradients).is_none());
}

#[test]
fn rank_stabilised_scaling_divides_by_the_root_of_the_rank() {
    let scaling = |use_rslora| {
        let config = LoraConfig { r: 16, lora_alpha: 8.0, use_rslora, ..LoraConfig::default() };
        config.matcher().unwrap().adapter("model.layers.0.self_attn.q_proj").unwrap().scaling
    };
    assert_eq!((scaling(false).to_bits(), scaling(true).to_bits()), (0.5_f64.to_bits(), 2.0_f64.to_bits()));
}

#[test]
fn a_config_that_fits_no_model_says_why() {
    let names = ["model.layers.0.self_attn.q_proj".to_owned()];
    let zero = LoraConfig { r: 0, ..LoraConfig::default() };
    assert_eq!(zero.validate(&names), Err(LoraError::Rank));
    let all = LoraConfig { lora_dropout: 1.0, ..LoraConfig::default() };
    assert_eq!(all.validate(&names), Err(LoraError::Dropout(1.0)));
}
