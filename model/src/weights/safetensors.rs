//! The header of a safetensors file: which tensor is where.
//!
//! Follows the format of huggingface/safetensors (README "Format"): 8 bytes of header length, a JSON header of
//! at most 100 MB, then the tensors one after the other without gaps or overlap. The `safetensors` crate checks
//! all of that; this module turns its verdicts into texts that say what to do.

use safetensors::{Dtype, SafeTensorError, SafeTensors};

use super::convert::Stored;
use super::error::WeightsError;
use super::mapped::MappedFile;
use super::{Entry, Place};

/// The tensors of `file`, which is number `number` of its checkpoint.
pub(super) fn entries(file: &MappedFile, number: usize) -> Result<Vec<(String, Entry)>, WeightsError> {
    let bytes = file.bytes();
    let (header, metadata) = SafeTensors::read_metadata(bytes)
        .map_err(|error| WeightsError::corrupt(file.path(), explain(bytes, &error)))?;
    let data = header + 8;
    let names = metadata.offset_keys();
    let infos = names.into_iter().filter_map(|name| metadata.info(&name).map(|info| (name.clone(), info)));
    Ok(infos
        .map(|(name, info)| {
            let (start, end) = info.data_offsets;
            let entry = Entry {
                file: number,
                stored: stored(info.dtype),
                shape: info.shape.clone(),
                place: Place::Contiguous(data + start..data + end),
            };
            (name, entry)
        })
        .collect())
}

fn stored(dtype: Dtype) -> Stored {
    match dtype {
        Dtype::F64 => Stored::F64,
        Dtype::F32 => Stored::F32,
        Dtype::F16 => Stored::F16,
        Dtype::BF16 => Stored::Bf16,
        other => Stored::Other(format!("{other:?}")),
    }
}

/// What is wrong with a file that is no safetensors file, in words of its reader.
fn explain(bytes: &[u8], error: &SafeTensorError) -> String {
    let size = bytes.len();
    match error {
        SafeTensorError::HeaderTooSmall | SafeTensorError::InvalidHeaderLength => {
            format!("is truncated: {size} bytes do not hold the header. Download it again.")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            format!(
                "is truncated or has bytes appended: its header describes another length than {size} bytes. Download it again."
            )
        }
        SafeTensorError::HeaderTooLarge => {
            "is no safetensors file: its first 8 bytes claim a header of over 100 MB.".to_owned()
        }
        SafeTensorError::InvalidOffset(name) => {
            format!("is corrupt: the bytes of `{name}` overlap another tensor's or leave a gap.")
        }
        other => format!("is no usable safetensors file: {other}."),
    }
}
