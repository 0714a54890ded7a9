//! `pytorch_model.bin`: which tensor is where in a file of `torch.save`.
//!
//! Two layouts exist (`torch/serialization.py`): since PyTorch 1.6 a zip archive of uncompressed members,
//! `NAME/data.pkl` and one `NAME/data/KEY` per storage; before that three small pickles, the object's pickle, a
//! pickled list of storage keys, and for each key an i64 count followed by that many numbers. Both are
//! little-endian here.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use super::convert::Stored;
use super::error::WeightsError;
use super::mapped::MappedFile;
use super::pickle::{self, Pickle, Storage, Tensor, Value};
use super::{Entry, Place};

/// First bytes of the layout before PyTorch 1.6: a pickle of `MAGIC_NUMBER`.
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// Bytes of each storage in the file, by key.
type Storages = BTreeMap<String, Range<usize>>;

/// The tensors of `file`, which is number `number` of its checkpoint.
pub(super) fn entries(file: &MappedFile, number: usize) -> Result<Vec<(String, Entry)>, WeightsError> {
    let parsed = match file.bytes() {
        bytes if bytes.starts_with(LEGACY_MAGIC) => read_legacy(bytes),
        bytes if bytes.starts_with(b"PK") => read_zip(bytes),
        _ => Err("is no file of torch.save".to_owned()),
    };
    parsed
        .and_then(|(pickle, storages)| state_dict(&pickle, &storages, number))
        .map_err(|why| WeightsError::corrupt(file.path(), format!("{why}.")))
}

/// Entries of a flat dict of tensors; values of other types are attributes that no parameter needs.
fn state_dict(pickle: &Pickle, storages: &Storages, number: usize) -> Result<Vec<(String, Entry)>, String> {
    let Value::Dict(pairs) = pickle.root() else {
        return Err("holds no state dict (a dict of tensors by name)".to_owned());
    };
    let mut entries = Vec::new();
    for (key, value) in pairs {
        if let (Value::Text(key), Value::Tensor(tensor)) = (pickle.get(*key), pickle.get(*value)) {
            entries.push((
                key.clone(),
                entry(tensor, storages, number).map_err(|why| format!("`{key}` {why}"))?,
            ));
        }
    }
    if entries.is_empty() {
        return Err("holds a dict without tensors; a state dict (name -> tensor) is needed".to_owned());
    }
    Ok(entries)
}

/// Where `tensor` lies in the file.
fn entry(tensor: &Tensor, storages: &Storages, number: usize) -> Result<Entry, String> {
    let stored = stored(&tensor.storage);
    let range = storages
        .get(&tensor.storage.key)
        .ok_or("lies in a storage that the file lacks; the file is truncated")?;
    let sizes =
        |values: &[i64]| -> Option<Vec<usize>> { values.iter().map(|n| usize::try_from(*n).ok()).collect() };
    let (shape, stride) = sizes(&tensor.shape)
        .zip(sizes(&tensor.stride))
        .filter(|(shape, stride)| shape.len() == stride.len())
        .ok_or("has a negative size")?;
    let place = match stored.width() {
        None => Place::Contiguous(range.clone()), // never read: its type is refused first
        Some(_) if !is_contiguous(&shape, &stride) => Place::Strided,
        Some(width) => Place::Contiguous(
            within(range, tensor.offset, &shape, width)
                .ok_or("reaches beyond its storage; the file is truncated or corrupt")?,
        ),
    };
    Ok(Entry { file: number, stored, shape, place })
}

fn stored(storage: &Storage) -> Stored {
    match storage.class.as_str() {
        "DoubleStorage" => Stored::F64,
        "FloatStorage" => Stored::F32,
        "HalfStorage" => Stored::F16,
        "BFloat16Storage" => Stored::Bf16,
        other => Stored::Other(other.trim_end_matches("Storage").to_owned()),
    }
}

/// Row-major without gaps, as `torch.Tensor.is_contiguous` decides it.
fn is_contiguous(shape: &[usize], stride: &[usize]) -> bool {
    let mut expected = 1_usize;
    for (size, stride) in shape.iter().zip(stride).rev() {
        if *size != 1 && *stride != expected {
            return shape.contains(&0);
        }
        expected = expected.saturating_mul(*size);
    }
    true
}

/// The bytes of `shape` elements of `width` bytes, `offset` elements into `storage`.
fn within(storage: &Range<usize>, offset: i64, shape: &[usize], width: usize) -> Option<Range<usize>> {
    let elements = shape.iter().try_fold(1_usize, |n, size| n.checked_mul(*size))?;
    let start = usize::try_from(offset).ok()?.checked_mul(width)?.checked_add(storage.start)?;
    let end = elements.checked_mul(width)?.checked_add(start)?;
    (end <= storage.end).then_some(start..end)
}

fn read_zip(bytes: &[u8]) -> Result<(Pickle, Storages), String> {
    let broken = |error| format!("is a truncated or corrupt torch.save archive ({error}). Download it again");
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
    let mut members = BTreeMap::new();
    for index in 0..archive.len() {
        let member = archive.by_index_raw(index).map_err(broken)?;
        let name = member.name().map_err(broken)?.into_owned();
        if member.compression() != CompressionMethod::Stored {
            return Err(format!("has the compressed member `{name}`; torch.save writes none"));
        }
        let start = member.data_start().and_then(|start| usize::try_from(start).ok());
        let range = start
            .and_then(|start| Some(start..start.checked_add(usize::try_from(member.size()).ok()?)?))
            .filter(|range| range.end <= bytes.len())
            .ok_or_else(|| {
                format!("is truncated: its member `{name}` ends beyond the file. Download it again")
            })?;
        members.insert(name, range);
    }
    let prefix = members
        .keys()
        .find_map(|name| name.strip_suffix("data.pkl"))
        .ok_or("is a zip archive without data.pkl, so no file of torch.save")?
        .to_owned();
    let member =
        |name: &str| members.get(&format!("{prefix}{name}")).and_then(|range| bytes.get(range.clone()));
    if member("byteorder").is_some_and(|order| order != b"little") {
        return Err("was written on a big-endian machine; save it again as safetensors".to_owned());
    }
    let pickle = pickle::read(member("data.pkl").unwrap_or_default())?;
    let data = format!("{prefix}data/");
    let storages = members
        .iter()
        .filter_map(|(name, range)| Some((name.strip_prefix(&data)?.to_owned(), range.clone())));
    Ok((pickle, storages.collect()))
}

fn read_legacy(bytes: &[u8]) -> Result<(Pickle, Storages), String> {
    let mut at = LEGACY_MAGIC.len();
    let mut next = || -> Result<Pickle, String> {
        let pickle = pickle::read(bytes.get(at..).unwrap_or_default())?;
        at += pickle.consumed;
        Ok(pickle)
    };
    let (_version, _system, object, keys) = (next()?, next()?, next()?, next()?);
    let widths = storage_widths(&object);
    let Value::Sequence(ids) = keys.root() else {
        return Err("has no list of storages, so it is truncated or no file of torch.save".to_owned());
    };
    let mut storages = Storages::new();
    for id in ids {
        let Value::Text(key) = keys.get(*id) else {
            return Err("names a storage by something that is no text".to_owned());
        };
        let width =
            *widths.get(key).ok_or_else(|| format!("holds the storage `{key}` of an unknown type"))?;
        let range = legacy_storage(bytes, at, width).ok_or_else(|| {
            format!("is truncated: storage `{key}` ends beyond the file. Download it again")
        })?;
        at = range.end;
        storages.insert(key.clone(), range);
    }
    Ok((object, storages))
}

/// The storage whose i64 count of elements stands at `at`.
fn legacy_storage(bytes: &[u8], at: usize, width: usize) -> Option<Range<usize>> {
    let start = at.checked_add(8)?;
    let count = u64::from_le_bytes(bytes.get(at..start)?.try_into().ok()?);
    let end = usize::try_from(count).ok()?.checked_mul(width)?.checked_add(start)?;
    (end <= bytes.len()).then_some(start..end)
}

/// Bytes per element of every storage that the tensors of `object` lie in.
fn storage_widths(object: &Pickle) -> BTreeMap<String, usize> {
    let Value::Dict(pairs) = object.root() else { return BTreeMap::new() };
    let width = |class: &str| match class {
        "DoubleStorage" | "LongStorage" => Some(8),
        "FloatStorage" | "IntStorage" => Some(4),
        "HalfStorage" | "BFloat16Storage" | "ShortStorage" => Some(2),
        "ByteStorage" | "CharStorage" | "BoolStorage" => Some(1),
        _ => None,
    };
    let tensors = pairs.iter().filter_map(|(_, value)| match object.get(*value) {
        Value::Tensor(tensor) => Some(&tensor.storage),
        _ => None,
    });
    tensors.filter_map(|storage| Some((storage.key.clone(), width(&storage.class)?))).collect()
}
