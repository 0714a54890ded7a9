//! The GPU code path on a machine without a GPU: Mesa's llvmpipe through wgpu. Built with the feature `wgpu`.
#![cfg(feature = "wgpu")]

use llavm_model::config::Dtype;
use llavm_model::device::DeviceName;
use llavm_model::doctor::{DeviceUnderTest, run_checks};

#[test]
fn the_graphics_path_computes_what_the_cpu_computes() -> Result<(), Box<dyn std::error::Error>> {
    let report = run_checks(&DeviceUnderTest::open(DeviceName::WgpuCpu)?, &[Dtype::F32]);
    assert!(report.passed(), "{report}");
    Ok(())
}
