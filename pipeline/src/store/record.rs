//! Commit records: what a finished file or folder holds, and which key gave it. Written after it.

use super::Store;
use super::files;
use super::scratch::Scratch;
use crate::StageError;
use crate::key::KeyParts;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One partition of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableRecord {
    pub rows: u64,
    pub batches: u64,
    pub bytes: u64,
    /// The content digest of the file, which is also its name.
    pub digest: String,
    /// The digest of the column `reject` alone, so that it can be trusted without hashing the pixels beside it.
    pub reject_digest: String,
    /// Rows that no earlier stage had rejected.
    pub usable: u64,
    /// The longest run of rows that this stage rejected, rows rejected earlier left out.
    pub longest_run: u64,
    /// What this stage rejected, by row.
    pub rejects: Vec<RejectedRow>,
    /// What the derived stages between here and the stored tables rejected.
    pub derived: Vec<DerivedReject>,
    /// What the key was made of.
    pub key: KeyParts,
}

/// A row this stage rejected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedRow {
    /// In the partition.
    pub row: u64,
    /// `kind/code`.
    pub code: String,
    pub detail: String,
}

/// A row that a derived stage rejected, seen while its rows were computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DerivedReject {
    /// Which one: an index into [`crate::recipe::Recipe::derived`].
    pub maker: usize,
    pub row: u64,
    /// `kind/code: detail`.
    pub reason: String,
}

/// The folder of a gather unit or a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FolderRecord {
    /// Rows that went in; 0 for a job.
    pub rows: u64,
    pub bytes: u64,
    /// Over the names and digests of all files.
    pub digest: String,
    /// Digest and bytes by path in the folder.
    pub files: BTreeMap<PathBuf, (String, u64)>,
    /// Files and folders at its top that may change: none of `files`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ephemeral: Vec<String>,
    pub key: KeyParts,
}

impl TableRecord {
    /// How often each `kind/code` of this stage occurs.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        self.rejects.iter().for_each(|reject| *counts.entry(reject.code.clone()).or_insert(0) += 1);
        counts
    }
}

impl FolderRecord {
    /// Hashes every file of a folder but the `ephemeral` ones and makes all of it lasting.
    pub fn of(folder: &Path, rows: u64, key: KeyParts, ephemeral: &[&str]) -> Result<Self, StageError> {
        let mut files = BTreeMap::new();
        let mut digest = blake3::Hasher::new();
        for path in files::files_below(folder)? {
            let full = folder.join(&path);
            let synced = std::fs::File::open(&full).and_then(|file| file.sync_all());
            files::at(&full, synced)?;
            if is_below(&path, ephemeral) {
                continue;
            }
            let (hash, bytes) = files::at(&full, files::hash_file(&full))?;
            let name = path.to_string_lossy();
            digest.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes()).update(hash.as_bytes());
            files.insert(path, (hash.to_hex().to_string(), bytes));
        }
        let bytes = files.values().map(|(_, bytes)| bytes).sum();
        let digest = digest.finalize().to_hex().to_string();
        let ephemeral = ephemeral.iter().map(|&name| name.to_owned()).collect();
        Ok(Self { rows, bytes, digest, files, ephemeral, key })
    }

    /// Whether nobody vouches for a file of the folder.
    pub fn is_ephemeral(&self, path: &Path) -> bool {
        is_below(path, &self.ephemeral)
    }
}

/// Whether the first part of a path is one of `tops`.
fn is_below(path: &Path, tops: &[impl AsRef<str>]) -> bool {
    path.iter().next().is_some_and(|first| tops.iter().any(|top| *first == *top.as_ref()))
}

impl Store {
    /// The record of a partition whose file is there too.
    pub fn find_table(&self, stage: &str, key: &str) -> Result<Option<TableRecord>, StageError> {
        let Some(record) = read_sealed::<TableRecord>(&self.table_record(stage, key))? else {
            return Ok(None);
        };
        let file = self.root().join(Self::table_file(stage, &record.digest));
        let is_whole = file.metadata().is_ok_and(|file| file.len() == record.bytes);
        Ok(is_whole.then_some(record))
    }

    /// The record of a folder whose files are all there.
    pub fn find_folder(&self, stage: &str, key: &str) -> Result<Option<FolderRecord>, StageError> {
        let Some(record) = read_sealed::<FolderRecord>(&self.job_record(stage, key))? else {
            return Ok(None);
        };
        let folder = self.root().join(Self::job_folder(stage, key));
        let is_whole = folder.is_dir()
            && record.files.iter().all(|(path, (_, bytes))| {
                folder.join(path).metadata().is_ok_and(|file| file.len() == *bytes)
            });
        Ok(is_whole.then_some(record))
    }

    /// Publishes a finished file and then its record.
    pub fn commit_table(
        &self,
        scratch: &Scratch,
        stage: &str,
        file: &Path,
        record: &TableRecord,
    ) -> Result<(), StageError> {
        files::publish(file, &self.root().join(Self::table_file(stage, &record.digest)))?;
        let key = record.key.key();
        files::write_atomically(scratch, &self.table_record(stage, &key), &seal(record)?)
    }

    /// Publishes a finished folder and then its record.
    pub fn commit_folder(
        &self,
        scratch: &Scratch,
        stage: &str,
        folder: &Path,
        record: &FolderRecord,
    ) -> Result<(), StageError> {
        let key = record.key.key();
        let target = self.root().join(Self::job_folder(stage, &key));
        files::remove(&self.job_record(stage, &key))?;
        files::remove(&target)?;
        files::publish(folder, &target)?;
        files::write_atomically(scratch, &self.job_record(stage, &key), &seal(record)?)
    }
}

const BEFORE: &str = "{\"seal\":\"";
const BETWEEN: &str = "\",\"record\":";
const AFTER: &str = "}\n";

/// JSON with the digest of the inner JSON in front, so that a flipped bit is seen.
pub fn seal<T: Serialize>(value: &T) -> Result<Vec<u8>, StageError> {
    let json = serde_json::to_string(value)
        .map_err(|cause| StageError::new(format!("a record: {cause}")).because(cause))?;
    let digest = blake3::hash(json.as_bytes()).to_hex();
    Ok([BEFORE, digest.as_str(), BETWEEN, &json, AFTER].concat().into_bytes())
}

/// What was sealed; `None` when a bit of it has changed.
pub fn unseal<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (digest, rest) = text.strip_prefix(BEFORE)?.split_once(BETWEEN)?;
    let json = rest.strip_suffix(AFTER)?;
    (blake3::hash(json.as_bytes()).to_hex().as_str() == digest).then(|| serde_json::from_str(json).ok())?
}

/// A sealed file; `None` when it is not there or damaged.
pub fn read_sealed<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StageError> {
    Ok(files::read_if_there(path)?.and_then(|bytes| unseal(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_of_a_sealed_record_is_seen() {
        let value = BTreeMap::from([("rows".to_owned(), 4096_u64), ("bytes".to_owned(), 1)]);
        let sealed = seal(&value).unwrap();
        assert_eq!(unseal::<BTreeMap<String, u64>>(&sealed), Some(value));
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal::<BTreeMap<String, u64>>(&damaged), None, "bit {bit}");
        }
    }
}
