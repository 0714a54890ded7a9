//! What CUDA needs of a machine: asked before Burn is, whose first tensor panics where a library is missing.
//!
//! In: nothing but the machine. Out: [`requirements`], a list of what was looked for, where it was found and, if it was not, what to do.
//! Where cubecl 0.11 looks: the driver and NVRTC by the dynamic linker, headers and `libdevice.10.bc` in `CUDA_PATH`, `/usr/local/cuda`,
//! `/opt/cuda` or beside `/usr/bin/nvcc`.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use cubecl::cuda::compiler::CudaBackend;
use cubecl::cuda::install::cuda_path;
use cudarc::driver::result as driver;

use super::{DeviceError, DeviceName, Requirement};

/// Opens the GPU `index`, or says what is missing.
pub(super) fn open(index: usize) -> Result<Device, DeviceError> {
    let device = DeviceName::Cuda(index).to_string();
    for needed in requirements().into_iter().filter(|needed| !needed.optional) {
        if let Err(reason) = needed.found {
            return Err(DeviceError::Missing { device, reason, cure: needed.cure.to_owned() });
        }
    }
    match devices() {
        Ok(names) if index < names.len() => Ok(Device::cuda(index)),
        names => {
            let names = names.unwrap_or_default();
            let reason = format!("this machine has {} CUDA device(s)", names.len());
            let last = names.len().saturating_sub(1);
            Err(DeviceError::Missing { device, reason, cure: format!("use one of cuda:0 to cuda:{last}") })
        }
    }
}

/// Everything CUDA needs, in the order in which it is needed.
pub(super) fn requirements() -> Vec<Requirement> {
    let mut list = vec![library_of_driver(), any_device()];
    match CudaBackend::default() {
        CudaBackend::Cpp => list.extend([nvrtc(), headers()]),
        CudaBackend::Llvm => list.push(libdevice()),
    }
    list.push(nccl());
    list
}

fn library_of_driver() -> Requirement {
    // SAFETY: loads a library by the names that the driver's own has.
    let present = unsafe { cudarc::driver::sys::is_culib_present() };
    Requirement {
        name: "driver",
        found: found(present, "libcuda"),
        cure: "install NVIDIA's driver (`nvidia-smi` must work); start a container with `--gpus all`",
        optional: false,
    }
}

fn any_device() -> Requirement {
    let found = devices().and_then(|names| match names.as_slice() {
        [] => Err("the driver knows no CUDA device".to_owned()),
        names => Ok(names.join(", ")),
    });
    let cure = "look at `nvidia-smi` and CUDA_VISIBLE_DEVICES";
    Requirement { name: "devices", found, cure, optional: false }
}

fn nvrtc() -> Requirement {
    // SAFETY: as above.
    let present = unsafe { cudarc::nvrtc::sys::is_culib_present() };
    Requirement {
        name: "NVRTC",
        found: found(present, "libnvrtc"),
        cure: "install CUDA's libnvrtc and let LD_LIBRARY_PATH name its folder, or build with the feature `cuda-llvm`",
        optional: false,
    }
}

fn headers() -> Requirement {
    Requirement {
        name: "headers",
        found: of_toolkit(Path::new("include").join("cuda_fp16.h")),
        cure: "let CUDA_PATH name a CUDA toolkit with the folder `include`, or build with the feature `cuda-llvm`",
        optional: false,
    }
}

fn libdevice() -> Requirement {
    Requirement {
        name: "libdevice",
        found: of_toolkit(["nvvm", "libdevice", "libdevice.10.bc"].iter().collect()),
        cure: "let CUDA_PATH name a CUDA toolkit with nvvm/libdevice/libdevice.10.bc, or build with the feature `cuda`",
        optional: false,
    }
}

fn nccl() -> Requirement {
    // SAFETY: as above.
    let present = unsafe { cudarc::nccl::sys::is_culib_present() };
    Requirement {
        name: "NCCL",
        found: found(present, "libnccl"),
        cure: "only needed to train on several GPUs: install NVIDIA's libnccl2",
        optional: true,
    }
}

fn found(present: bool, library: &str) -> Result<String, String> {
    if present { Ok(library.to_owned()) } else { Err(format!("the library {library} can't be loaded")) }
}

/// A file of the CUDA toolkit.
fn of_toolkit(file: PathBuf) -> Result<String, String> {
    let Some(toolkit) = cuda_path() else {
        return Err("no CUDA toolkit was found in CUDA_PATH, /usr/local/cuda or /opt/cuda".to_owned());
    };
    let path = toolkit.join(file);
    if path.is_file() {
        Ok(path.display().to_string())
    } else {
        Err(format!("there is no {}", path.display()))
    }
}

/// The names of the devices that the driver lists.
fn devices() -> Result<Vec<String>, String> {
    // SAFETY: loads a library by the names that the driver's own has. Without it the calls below would panic.
    if !unsafe { cudarc::driver::sys::is_culib_present() } {
        return Err("the library libcuda can't be loaded".to_owned());
    }
    let list = || -> Result<Vec<String>, driver::DriverError> {
        driver::init()?;
        let count = driver::device::get_count()?;
        (0..count).map(|index| driver::device::get(index).and_then(driver::device::get_name)).collect()
    };
    list().map_err(|error| format!("the driver says {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_is_an_error_that_says_what_is_missing() {
        let missing = requirements().into_iter().find(|needed| needed.found.is_err() && !needed.optional);
        match (open(999), missing) {
            (Err(DeviceError::Missing { reason, cure, .. }), Some(needed)) => {
                assert_eq!(Err(reason), needed.found);
                assert_eq!(cure, needed.cure);
            }
            (Err(DeviceError::Missing { cure, .. }), None) => assert!(cure.contains("cuda:0"), "{cure}"),
            (opened, _) => panic!("{:?}", opened.err()),
        }
    }
}
