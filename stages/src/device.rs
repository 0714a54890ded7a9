//! Devices in keys.

use serde::Serializer;

/// Writes a device without its number: another kind may round otherwise, another device of the same kind (`cuda:1`) does not.
pub fn family<S: Serializer>(device: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(family_of(device))
}

/// A device without its number.
pub fn family_of(device: &str) -> &str {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match device.split_once(':') {
        Some((family, number)) if is_number(number) => family,
        _ => device,
    }
}
