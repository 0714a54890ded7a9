//! Reading Hugging Face weights: safetensors and `pytorch_model.bin`, in one file or sharded.
//!
//! In: a folder (or one file) of weights. Out: tensors by their Hugging Face key, in the dtype asked for.
//! Files are memory-mapped and converted straight into the destination ([`convert`]), so loading needs little
//! more memory than the tensors themselves. Untrusted input is checked before use and never executed: a file that
//! is truncated, corrupt or hostile gives one [`WeightsError`].
//!
//! [`Checkpoint`] knows which tensors exist and reads them one at a time; [`CheckpointSource`] hands them to a model
//! that is being built and keeps account of what was missing, misshaped or left over.

mod convert;
mod error;
mod mapped;
mod pickle;
mod safetensors;
mod source;
#[cfg(test)]
mod tests;
mod torch;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};
use serde::Deserialize;

pub use convert::Stored;
pub use error::{Mismatch, WeightsError};
use mapped::MappedFile;
pub use source::{CheckpointSource, Layout};

/// Weights in one file, and the index of weights in several, in order of preference
/// (`transformers/utils/__init__.py`).
const NAMES: [(&str, &str); 2] = [
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
];

/// One tensor of a checkpoint.
#[derive(Debug, Clone)]
struct Entry {
    /// Index into the checkpoint's files.
    file: usize,
    stored: Stored,
    /// Sizes, outermost first.
    shape: Vec<usize>,
    place: Place,
}

/// Where a tensor's bytes are.
#[derive(Debug, Clone)]
enum Place {
    /// All elements in row-major order, at these bytes of the file.
    Contiguous(Range<usize>),
    /// A view that skips or reorders elements of its storage.
    Strided,
}

/// The tensors of a folder or file, mapped but not read.
#[derive(Debug)]
pub struct Checkpoint {
    place: PathBuf,
    files: Vec<MappedFile>,
    entries: BTreeMap<String, Entry>,
}

/// `model.safetensors.index.json`; `metadata` (sizes only) is not needed.
#[derive(Deserialize)]
struct Index {
    /// Tensor name to file name.
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens the weights in `folder`: safetensors before `.bin`, one file before shards.
    pub fn open(folder: &Path) -> Result<Self, WeightsError> {
        for (single, index) in NAMES {
            let (single, index) = (folder.join(single), folder.join(index));
            if single.is_file() {
                return Self::of_files(folder, &[single]);
            }
            if index.is_file() {
                return Self::open_sharded(folder, &index);
            }
        }
        let looked_for =
            NAMES.iter().flat_map(|(single, index)| [*single, *index]).collect::<Vec<_>>().join(", ");
        Err(WeightsError::NoWeights { folder: folder.to_owned(), looked_for })
    }

    /// Opens one weights file; a name ending in `.safetensors` says its format, anything else is `torch.save`.
    pub fn open_file(path: &Path) -> Result<Self, WeightsError> {
        Self::of_files(path, &[path.to_owned()])
    }

    /// Opens every file that `index` names and checks that each holds the tensors it is said to hold.
    fn open_sharded(folder: &Path, index: &Path) -> Result<Self, WeightsError> {
        let text = fs::read(index).map_err(|source| WeightsError::Io { path: index.to_owned(), source })?;
        let map = serde_json::from_slice::<Index>(&text)
            .map_err(|error| WeightsError::corrupt(index, format!("is no index of shards: {error}.")))?
            .weight_map;
        let mut names: Vec<&String> = map.values().collect();
        names.sort();
        names.dedup();
        if let Some(name) = names.iter().find(|name| name.contains(['/', '\\'])) {
            return Err(WeightsError::corrupt(
                index,
                format!("names the shard `{name}` outside its folder."),
            ));
        }
        let paths: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
        let checkpoint = Self::of_files(folder, &paths)?;
        let astray = map.iter().filter(|(key, name)| checkpoint.file_name(key) != Some(name));
        let astray: Vec<String> = astray.map(|(key, name)| format!("`{key}` is not in {name}")).collect();
        if astray.is_empty() {
            return Ok(checkpoint);
        }
        Err(WeightsError::corrupt(index, format!("does not fit its shards: {}.", astray.join(", "))))
    }

    fn of_files(place: &Path, paths: &[PathBuf]) -> Result<Self, WeightsError> {
        let mut checkpoint = Self { place: place.to_owned(), files: Vec::new(), entries: BTreeMap::new() };
        for (number, path) in paths.iter().enumerate() {
            let file = MappedFile::open(path)?;
            let is_safetensors = path.extension().is_some_and(|extension| extension == "safetensors");
            let entries = if is_safetensors {
                safetensors::entries(&file, number)
            } else {
                torch::entries(&file, number)
            }?;
            for (key, entry) in entries {
                if checkpoint.entries.contains_key(&key) {
                    return Err(WeightsError::corrupt(path, format!("holds `{key}` a second time.")));
                }
                checkpoint.entries.insert(key, entry);
            }
            checkpoint.files.push(file);
        }
        Ok(checkpoint)
    }

    /// The folder or file that was opened.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// The files, in the order of their names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(MappedFile::path)
    }

    /// The keys, in byte order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Sizes of the tensor `key`, as PyTorch has them (Linear weights `[out, in]`).
    pub fn shape(&self, key: &str) -> Option<&[usize]> {
        self.entries.get(key).map(|entry| entry.shape.as_slice())
    }

    /// Element type of the tensor `key`.
    pub fn stored(&self, key: &str) -> Option<&Stored> {
        self.entries.get(key).map(|entry| &entry.stored)
    }

    /// Reads the tensor `key` as `dtype` (f32, f16 or bf16); `None` when there is no such key.
    ///
    /// Values go through f32, which holds every stored type but f64 exactly, and are rounded to nearest even.
    pub fn read(&self, key: &str, dtype: DType) -> Option<Result<TensorData, WeightsError>> {
        let entry = self.entries.get(key)?;
        let file = self.files.get(entry.file)?;
        let fault =
            |why: String| WeightsError::Tensor { path: file.path().to_owned(), key: key.to_owned(), why };
        let Place::Contiguous(range) = &entry.place else {
            let why = "is stored with gaps or transposed (strides are not contiguous). Save it again after `.contiguous()`, or as safetensors.";
            return Some(Err(fault(why.to_owned())));
        };
        let data = convert::convert(file, range.clone(), &entry.stored, &entry.shape, dtype);
        Some(data.ok_or_else(|| {
            let Stored::Other(name) = &entry.stored else {
                return fault(format!("cannot be read as {}.", dtype.name()));
            };
            fault(format!("is stored as {name}; a parameter needs f64, f32, f16 or bf16."))
        }))
    }

    /// Whether the tensors `a` and `b` hold the same values; `None` when one of them is not there.
    pub fn are_equal(&self, a: &str, b: &str) -> Result<Option<bool>, WeightsError> {
        if let (Some(a), Some(b)) = (self.bytes(a), self.bytes(b))
            && a.0 == b.0
        {
            return Ok(Some(a == b));
        }
        let Some(a) = self.read(a, DType::F32) else { return Ok(None) };
        let Some(b) = self.read(b, DType::F32) else { return Ok(None) };
        Ok(Some(a? == b?))
    }

    /// Element type, shape and bytes of a tensor that is stored as its values one after the other.
    fn bytes(&self, key: &str) -> Option<(&Stored, &[usize], &[u8])> {
        let entry = self.entries.get(key)?;
        let Place::Contiguous(range) = &entry.place else { return None };
        let bytes = self.files.get(entry.file)?.bytes().get(range.clone())?;
        Some((&entry.stored, &entry.shape, bytes))
    }

    fn file_name(&self, key: &str) -> Option<&str> {
        let file = self.files.get(self.entries.get(key)?.file)?;
        file.path().file_name()?.to_str()
    }
}
