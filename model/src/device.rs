//! The device a model runs on, chosen at run time by name.
//!
//! In: `cpu`, `cuda`, `cuda:1`, `wgpu`, `wgpu:cpu` or `cube:cpu`. Out: Burn's device, or a [`DeviceError`] that says which
//! build would have it, or what the machine lacks.

#[cfg(feature = "cuda-llvm")]
mod cuda;

use std::fmt;
use std::str::FromStr;

pub use burn::tensor::Device;

/// Why a device name names no device of this binary.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DeviceError {
    /// Not a device name at all.
    #[error("unknown device `{0}`: use cpu, cuda, cuda:N, wgpu or wgpu:cpu")]
    Unknown(String),
    /// Several devices where one is taken.
    #[error("device `{0}` names several, and one is wanted: cuda:N")]
    Several(String),
    /// A device named more than once.
    #[error("device `{0}` names a device twice")]
    Twice(String),
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
    /// This build has its backend, but this machine has not what that needs.
    #[error("device `{device}` can't be used: {reason}; {cure}")]
    Missing {
        /// The name asked for.
        device: String,
        /// What is missing.
        reason: String,
        /// What to do.
        cure: String,
    },
}

/// Something that a device needs of the machine, and whether it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// What it is, in a word.
    pub name: &'static str,
    /// Where or what was found, or why nothing was.
    pub found: Result<String, String>,
    /// What to do if it is missing.
    pub cure: &'static str,
    /// Whether one device computes without it.
    pub optional: bool,
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, cure, .. } = self;
        match &self.found {
            Ok(found) => write!(f, "{name:<10} ok: {found}"),
            Err(reason) if self.optional => write!(f, "{name:<10} not found: {reason}; {cure}"),
            Err(reason) => write!(f, "{name:<10} MISSING: {reason}; {cure}"),
        }
    }
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
    /// The CPU behind `CubeCL`, which CUDA's kernels are written in: they can be tried out without a GPU.
    CubeCpu,
}

impl DeviceName {
    /// Opens the device. The first tensor, not this call, reaches the hardware.
    pub fn open(self) -> Result<Device, DeviceError> {
        match self {
            Self::Cpu => Ok(Device::flex()),
            Self::Cuda(index) => self.cuda(index),
            Self::Wgpu | Self::WgpuCpu => self.wgpu(),
            Self::CubeCpu => self.cube(),
        }
    }

    /// Whether results on it are the reference: only the CPU's are.
    pub fn is_reference(self) -> bool {
        self == Self::Cpu
    }

    /// What the device needs of this machine, in the order in which it is needed; empty where nothing is known to be needed.
    pub fn requirements(self) -> Vec<Requirement> {
        #[cfg(feature = "cuda-llvm")]
        if let Self::Cuda(_) = self {
            return cuda::requirements();
        }
        Vec::new()
    }

    #[cfg(feature = "cuda-llvm")]
    #[expect(clippy::unused_self, reason = "the build without CUDA names the device")]
    fn cuda(self, index: usize) -> Result<Device, DeviceError> {
        cuda::open(index)
    }

    #[cfg(not(feature = "cuda-llvm"))]
    fn cuda(self, _index: usize) -> Result<Device, DeviceError> {
        Err(DeviceError::NotBuilt { device: self.to_string(), feature: "cuda" })
    }

    #[cfg(feature = "cube-cpu")]
    #[expect(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "the build without it answers with an error"
    )]
    fn cube(self) -> Result<Device, DeviceError> {
        Ok(Device::cpu())
    }

    #[cfg(not(feature = "cube-cpu"))]
    fn cube(self) -> Result<Device, DeviceError> {
        Err(DeviceError::NotBuilt { device: self.to_string(), feature: "cube-cpu" })
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
            Some((_, numbers)) if numbers.contains(',') => Err(DeviceError::Several(name.to_owned())),
            Some(("cube", "cpu")) => Ok(Self::CubeCpu),
            Some(("cuda", index)) => {
                index.parse().map(Self::Cuda).map_err(|_| DeviceError::Unknown(name.to_owned()))
            }
            _ => Err(DeviceError::Unknown(name.to_owned())),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(0) => f.write_str("cuda"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Wgpu => f.write_str("wgpu"),
            Self::WgpuCpu => f.write_str("wgpu:cpu"),
            Self::CubeCpu => f.write_str("cube:cpu"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_name_reads_back_as_itself() {
        for name in ["cpu", "cuda", "cuda:1", "wgpu", "wgpu:cpu", "cube:cpu"] {
            assert_eq!(name.parse::<DeviceName>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn a_name_that_is_no_device_is_refused() {
        for name in ["gpu", "cuda:x", "cuda:", "cpu:0", "wgpu:1", ""] {
            assert_eq!(name.parse::<DeviceName>(), Err(DeviceError::Unknown(name.to_owned())));
        }
        let several = "cuda:0,1".parse::<DeviceName>().unwrap_err().to_string();
        assert_eq!(several, "device `cuda:0,1` names several, and one is wanted: cuda:N");
    }

    #[test]
    fn a_missing_requirement_says_what_to_do() {
        let mut needed = Requirement {
            name: "driver",
            found: Err("libcuda can't be loaded".to_owned()),
            cure: "install it",
            optional: false,
        };
        assert_eq!(needed.to_string(), "driver     MISSING: libcuda can't be loaded; install it");
        needed.optional = true;
        assert_eq!(needed.to_string(), "driver     not found: libcuda can't be loaded; install it");
        needed.found = Ok("libcuda".to_owned());
        assert_eq!(needed.to_string(), "driver     ok: libcuda");
    }

    #[cfg(not(feature = "cuda-llvm"))]
    #[test]
    fn a_build_without_cuda_says_how_to_get_it() {
        assert_eq!(
            DeviceName::Cuda(0).open().unwrap_err().to_string(),
            "device `cuda` needs a build with its backend: run `cargo build --release --features cuda`"
        );
    }
}
