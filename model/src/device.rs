//! The device a model runs on, chosen at run time by name.
//!
//! In: `cpu`, `cuda`, `cuda:1`, `wgpu` or `wgpu:cpu`. Out: Burn's device, or a [`DeviceError`] that says which
//! build would have it.

use std::str::FromStr;

pub use burn::tensor::Device;

/// Why a device name names no device of this binary.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DeviceError {
    /// Not a device name at all.
    #[error("unknown device `{0}`: use cpu, cuda, cuda:N, wgpu or wgpu:cpu")]
    Unknown(String),
    /// A device name, but its backend was left out of this build.
    #[error(
        "device `{device}` needs a build with its backend: run `cargo build --release --features {feature}`"
    )]
    NotBuilt {
        /// The name asked for.
        device: String,
        /// The Cargo feature that adds it.
        feature: &'static str,
    },
}

/// A device by name; what `device = "…"` in a manifest and `--device` mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceName {
    /// The CPU: Burn's `flex` backend.
    #[default]
    Cpu,
    /// An NVIDIA GPU by index.
    Cuda(usize),
    /// The best GPU that the system's graphics API offers.
    Wgpu,
    /// The CPU adapter of the graphics API (llvmpipe): the GPU code path without a GPU.
    WgpuCpu,
}

impl DeviceName {
    /// Opens the device. The first tensor, not this call, reaches the hardware.
    pub fn open(self) -> Result<Device, DeviceError> {
        match self {
            Self::Cpu => Ok(Device::flex()),
            Self::Cuda(index) => self.cuda(index),
            Self::Wgpu | Self::WgpuCpu => self.wgpu(),
        }
    }

    /// Whether results on it are the reference: only the CPU's are.
    pub fn is_reference(self) -> bool {
        self == Self::Cpu
    }

    #[cfg(feature = "cuda")]
    #[expect(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "the build without CUDA answers with an error"
    )]
    fn cuda(self, index: usize) -> Result<Device, DeviceError> {
        Ok(Device::cuda(index))
    }

    #[cfg(not(feature = "cuda"))]
    fn cuda(self, _index: usize) -> Result<Device, DeviceError> {
        Err(DeviceError::NotBuilt { device: self.to_string(), feature: "cuda" })
    }

    #[cfg(feature = "wgpu")]
    #[expect(clippy::unnecessary_wraps, reason = "the build without wgpu answers with an error")]
    fn wgpu(self) -> Result<Device, DeviceError> {
        use burn::tensor::DeviceKind;
        Ok(Device::wgpu(if self == Self::WgpuCpu { DeviceKind::Cpu } else { DeviceKind::DefaultDevice }))
    }

    #[cfg(not(feature = "wgpu"))]
    fn wgpu(self) -> Result<Device, DeviceError> {
        Err(DeviceError::NotBuilt { device: self.to_string(), feature: "wgpu" })
    }
}

impl FromStr for DeviceName {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, DeviceError> {
        match name.split_once(':') {
            None if name == "cpu" => Ok(Self::Cpu),
            None if name == "cuda" => Ok(Self::Cuda(0)),
            None if name == "wgpu" => Ok(Self::Wgpu),
            Some(("wgpu", "cpu")) => Ok(Self::WgpuCpu),
            Some(("cuda", index)) => {
                index.parse().map(Self::Cuda).map_err(|_| DeviceError::Unknown(name.to_owned()))
            }
            _ => Err(DeviceError::Unknown(name.to_owned())),
        }
    }
}

impl std::fmt::Display for DeviceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(0) => f.write_str("cuda"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Wgpu => f.write_str("wgpu"),
            Self::WgpuCpu => f.write_str("wgpu:cpu"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_name_reads_back_as_itself() {
        for name in ["cpu", "cuda", "cuda:1", "wgpu", "wgpu:cpu"] {
            assert_eq!(name.parse::<DeviceName>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn a_name_that_is_no_device_is_refused() {
        for name in ["gpu", "cuda:x", "cuda:", "cpu:0", "wgpu:1", ""] {
            assert_eq!(name.parse::<DeviceName>(), Err(DeviceError::Unknown(name.to_owned())));
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_how_to_get_it() {
        assert_eq!(
            DeviceName::Cuda(0).open().unwrap_err().to_string(),
            "device `cuda` needs a build with its backend: run `cargo build --release --features cuda`"
        );
    }
}
