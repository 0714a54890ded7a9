//! The devices of a training, chosen by one name.
//!
//! In: what [`DeviceName`] reads, or one kind with several numbers: `cuda:0,1`. `cpu:0,1` are two ranks on the one CPU: it trains
//! nothing faster, and shows without a GPU what several would do.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use burn::tensor::Device;

use crate::device::{DeviceError, DeviceName};

/// One device or several of one kind, in the order of ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNames {
    names: Vec<DeviceName>,
    text: String,
}

impl DeviceNames {
    /// All of them; one at least.
    pub fn names(&self) -> &[DeviceName] {
        &self.names
    }

    /// How many there are.
    pub fn world(&self) -> usize {
        self.names.len()
    }

    /// Opens all of them.
    pub fn open(&self) -> Result<Vec<Device>, DeviceError> {
        self.names.iter().map(|name| name.open()).collect()
    }
}

impl FromStr for DeviceNames {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let names = match text.split_once(':') {
            Some((kind, numbers)) if numbers.contains(',') => several(text, kind, numbers)?,
            _ => vec![text.parse()?],
        };
        Ok(Self { names, text: text.to_owned() })
    }
}

impl Display for DeviceNames {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn several(text: &str, kind: &str, numbers: &str) -> Result<Vec<DeviceName>, DeviceError> {
    let unknown = || DeviceError::Unknown(text.to_owned());
    let numbers: Result<Vec<usize>, _> = numbers.split(',').map(|number| number.trim().parse()).collect();
    let numbers: Vec<usize> = numbers.map_err(|_| unknown())?;
    if numbers.iter().enumerate().any(|(at, number)| numbers[..at].contains(number)) {
        return Err(DeviceError::Twice(text.to_owned()));
    }
    let name = |number: usize| match kind {
        "cpu" => Ok(DeviceName::Cpu),
        "cuda" => Ok(DeviceName::Cuda(number)),
        _ => Err(unknown()),
    };
    numbers.into_iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_one_device_and_numbers_are_several() {
        let of = |text: &str| text.parse::<DeviceNames>().map(|names| names.names().to_vec());
        assert_eq!(of("cpu"), Ok(vec![DeviceName::Cpu]));
        assert_eq!(of("cuda:1"), Ok(vec![DeviceName::Cuda(1)]));
        assert_eq!(of("cuda:1,0"), Ok(vec![DeviceName::Cuda(1), DeviceName::Cuda(0)]));
        assert_eq!(of("cpu:0,1,2").map(|names| names.len()), Ok(3));
        for text in ["cuda:0,", "cuda:,1", "cuda:0,x", "wgpu:0,1", "cuda,cuda", "cuda:0,-1"] {
            assert_eq!(of(text), Err(DeviceError::Unknown(text.to_owned())));
        }
        assert_eq!(of("cuda:0,1,0"), Err(DeviceError::Twice("cuda:0,1,0".to_owned())));
    }
}
