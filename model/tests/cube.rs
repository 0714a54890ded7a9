//! Burn's `CubeCL` kernels on a machine without a GPU: `CubeCL`'s CPU runtime. Built with the feature `cube-cpu`.
#![cfg(feature = "cube-cpu")]

use llavm_model::config::Dtype;
use llavm_model::device::DeviceName;
use llavm_model::doctor::{DeviceUnderTest, run_checks};

#[test]
fn cubecl_computes_what_the_cpu_computes() -> Result<(), Box<dyn std::error::Error>> {
    let report = run_checks(&DeviceUnderTest::open(DeviceName::CubeCpu)?, &[Dtype::F32, Dtype::Bf16]);
    assert!(report.passed(), "{report}");
    Ok(())
}
