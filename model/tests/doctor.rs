//! Doctor passes the CPU and fails devices that are wrong in the ways Burn's issues report.

#![expect(clippy::unwrap_used, reason = "a fixed model that cannot be built is a failed test")]

use burn::tensor::{Device, TensorData};
use llavm_model::config::Dtype;
use llavm_model::doctor::{DeviceUnderTest, Outputs, Report, Subject, run_checks, run_model};
use llavm_model::source::{RandomSource, TensorSource, TensorSpec};

/// A device that spoils what the CPU computed.
struct Wrong<F: Fn(&mut Outputs)>(F);

impl<F: Fn(&mut Outputs)> Subject for Wrong<F> {
    fn name(&self) -> String {
        "double".to_owned()
    }

    fn outputs(&self, dtype: Dtype) -> Result<Outputs, String> {
        let mut outputs = DeviceUnderTest::cpu().outputs(dtype)?;
        (self.0)(&mut outputs);
        Ok(outputs)
    }
}

/// A device whose product with one weight is off by a factor.
struct WrongMatmul(f32);

struct Off(RandomSource, f32);

impl TensorSource for Off {
    fn take(&mut self, wanted: &TensorSpec<'_>) -> TensorData {
        let data = self.0.take(wanted);
        if wanted.key != "model.layers.1.self_attn.v_proj.weight" {
            return data;
        }
        let values = data.as_slice::<f32>().unwrap().iter().map(|value| value * self.1).collect::<Vec<_>>();
        TensorData::new(values, wanted.shape.to_vec())
    }
}

impl Subject for WrongMatmul {
    fn name(&self) -> String {
        "matmul".to_owned()
    }

    fn outputs(&self, dtype: Dtype) -> Result<Outputs, String> {
        let mut source = Off(RandomSource::new(2024), self.0);
        run_model(&mut source, &Device::flex(), dtype).map_err(|error| error.to_string())
    }
}

fn wrong_checks(report: &Report) -> Vec<&str> {
    report.checks.iter().filter(|check| !check.passed()).map(|check| check.name.as_str()).collect()
}

#[test]
fn the_cpu_passes_in_f32_and_bf16() {
    let report = run_checks(&DeviceUnderTest::cpu(), &[Dtype::F32, Dtype::Bf16]);
    assert!(report.passed(), "{report}");
    assert_eq!(report.checks.len(), 34);
    assert!(
        report.checks.iter().filter(|check| check.dtype == Dtype::F32).all(|check| check.difference < 1e-5)
    );
}

#[test]
fn a_device_whose_matmul_is_one_percent_off_fails_from_the_hidden_states_on() {
    let report = run_checks(&WrongMatmul(1.01), &[Dtype::F32]);
    assert!(!report.passed());
    let wrong = wrong_checks(&report);
    assert!(!wrong.contains(&"image features"), "{report}");
    for name in ["hidden states", "projector gradients", "full decoding", "cached decoding"] {
        assert!(wrong.contains(&name), "{report}");
    }
    assert!(run_checks(&WrongMatmul(1.0), &[Dtype::F32]).passed());
}

#[test]
fn zero_gradients_of_a_frozen_model_fail() {
    let zero = Wrong(|outputs| outputs.lora.iter_mut().for_each(|(_, gradient)| gradient.fill(0.0)));
    assert_eq!(wrong_checks(&run_checks(&zero, &[Dtype::F32])), ["projector and LoRA gradients"]);
}

#[test]
fn a_gradient_that_is_not_a_number_or_missing_fails() {
    let nan = Wrong(|outputs| outputs.projector[0].1[0] = f32::NAN);
    assert_eq!(wrong_checks(&run_checks(&nan, &[Dtype::F32])), ["projector gradients"]);
    let missing = Wrong(|outputs| drop(outputs.projector.pop()));
    assert_eq!(wrong_checks(&run_checks(&missing, &[Dtype::F32])), ["projector gradients"]);
}

#[test]
fn decoding_that_goes_astray_with_a_cache_fails() {
    let stale = Wrong(|outputs| {
        let first = outputs.cached[..96].to_vec();
        outputs.cached[96..192].copy_from_slice(&first);
    });
    assert_eq!(wrong_checks(&run_checks(&stale, &[Dtype::F32])), ["cached decoding"]);
}

#[test]
fn every_case_that_goes_wrong_fails_by_its_name() {
    let names: Vec<&str> =
        DeviceUnderTest::cpu().outputs(Dtype::F32).unwrap().cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), 10);
    for name in names {
        let wrong = Wrong(|outputs| {
            let case = outputs.cases.iter_mut().find(|case| case.name == name).unwrap();
            case.values.iter_mut().for_each(|value| *value *= 1.01);
        });
        assert_eq!(wrong_checks(&run_checks(&wrong, &[Dtype::F32])), [name]);
        let gone = Wrong(|outputs| outputs.cases.retain(|case| case.name != name));
        assert_eq!(wrong_checks(&run_checks(&gone, &[Dtype::F32])), [name]);
    }
}

#[test]
fn the_report_is_a_table_with_a_verdict() {
    let mut report = run_checks(&Wrong(|outputs| outputs.loss *= 1.5), &[Dtype::F32]);
    for check in report.checks.iter_mut().filter(|check| check.name != "loss") {
        check.difference = 2e-7; // the CPU's own, which no snapshot should hold on to
    }
    insta::assert_snapshot!(report, @r"
    double against the CPU in f32
      check                          dtype difference  tolerance
      image features                 f32       2.0e-7     1.0e-4  ok
      hidden states                  f32       2.0e-7     1.0e-4  ok
      loss                           f32       5.0e-1     1.0e-4  WRONG
      projector gradients            f32       2.0e-7     1.0e-4  ok
      projector and LoRA gradients   f32       2.0e-7     1.0e-4  ok
      full decoding                  f32       2.0e-7     1.0e-4  ok
      cached decoding                f32       2.0e-7     1.0e-4  ok
      language gradients             f32       2.0e-7     1.0e-4  ok
      vision gradients               f32       2.0e-7     1.0e-4  ok
      loss in several runs           f32       2.0e-7     1.0e-4  ok
      its gradients                  f32       2.0e-7     1.0e-4  ok
      gradients behind a prefix      f32       2.0e-7     1.0e-4  ok
      gradients with checkpoints     f32       2.0e-7     1.0e-4  ok
      cache past a block             f32       2.0e-7     1.0e-4  ok
      left-padded decoding           f32       2.0e-7     1.0e-4  ok
      dropout                        f32       2.0e-7     1.0e-4  ok
      AdamW                          f32       2.0e-7     1.0e-4  ok
    verdict: WRONG: do not trust its results
    ");
}
