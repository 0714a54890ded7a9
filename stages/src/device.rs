//! Devices in manifests: in keys, and of several the first.

use llavm_model::device::{DeviceError, DeviceName};
use llavm_model::devices::DeviceNames;
use serde::Serializer;

/// The device that a stage computes on which uses one: of several (`cuda:0,1`) the first.
pub fn first(device: &str) -> Result<DeviceName, DeviceError> {
    Ok(device.parse::<DeviceNames>()?.names().first().copied().unwrap_or_default())
}

/// Writes a device without its number: another kind may round otherwise, another device of the same kind (`cuda:1`) does not.
pub fn family<S: Serializer>(device: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(family_of(device))
}

/// As [`family`], of a stage that uses all devices it names. On several GPUs its bits are others, as those of any two runs on a
/// GPU may be: the steps are the same, gradients are summed in another order. Bits are promised on the CPU, so there the ranks
/// (`cpu:0,1`) are part of the key.
pub fn family_of_all<S: Serializer>(device: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let family = family_of(device);
    serializer.serialize_str(if family == "cpu" { device } else { family })
}

/// A device without its number, or several without theirs.
pub fn family_of(device: &str) -> &str {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match device.split_once(':') {
        Some((family, numbers)) if numbers.split(',').all(|number| is_number(number.trim())) => family,
        _ => device,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_gpus_are_no_part_of_a_key_and_ranks_of_the_cpu_are() {
        let families = ["cuda", "cuda:1", "cuda:0,1", "cuda:0, 1", "wgpu", "wgpu:cpu", "cpu", "cpu:0,1"];
        assert_eq!(
            families.map(family_of),
            ["cuda", "cuda", "cuda", "cuda", "wgpu", "wgpu:cpu", "cpu", "cpu"]
        );
        let all = |device| family_of_all(device, serde_json::value::Serializer).unwrap();
        assert_eq!(["cuda:1", "cuda:0,1", "cpu", "cpu:0,1"].map(all), ["cuda", "cuda", "cpu", "cpu:0,1"]);
    }

    #[test]
    fn where_one_device_is_used_it_is_the_first() {
        assert_eq!(
            ["cpu", "cuda:2,0"].map(|text| first(text).unwrap()),
            [DeviceName::Cpu, DeviceName::Cuda(2)]
        );
        assert!(first("cuda:0,0").is_err());
    }
}
