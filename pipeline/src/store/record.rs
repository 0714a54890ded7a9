//! Commit records: what a finished file or folder holds, and which key gave it. Written after it.

use super::files;
use super::{Address, Commit, Store};
use crate::spec::error::StageError;
use crate::spec::rejects::Reason;
use crate::store::key::KeyParts;
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
#[serde(from = "StoredReject", into = "StoredReject")]
pub struct RejectedRow {
    /// In the partition.
    pub row: u64,
    pub reason: Reason,
}

/// As it stands in a record.
#[derive(Serialize, Deserialize)]
struct StoredReject {
    row: u64,
    code: String,
    detail: String,
}

impl From<StoredReject> for RejectedRow {
    fn from(StoredReject { row, code, detail }: StoredReject) -> Self {
        Self { row, reason: format!("{code}: {detail}").into() }
    }
}

impl From<RejectedRow> for StoredReject {
    fn from(RejectedRow { row, reason }: RejectedRow) -> Self {
        Self { row, code: reason.code().to_owned(), detail: reason.detail().to_owned() }
    }
}

/// A row that a derived stage rejected, seen while its rows were computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DerivedReject {
    /// Which one: an index into [`crate::keys::recipe::Recipe::derived`].
    pub maker: usize,
    pub row: u64,
    pub reason: Reason,
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
        self.rejects
            .iter()
            .for_each(|reject| *counts.entry(reject.reason.code().to_owned()).or_insert(0) += 1);
        counts
    }
}

impl FolderRecord {
    /// Hashes every file of a folder but the `ephemeral` ones and makes all of it durable.
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
        files::sync_folders_below(folder)?;
        let bytes = files.values().map(|(_, bytes)| bytes).sum();
        let digest = digest.finalize().to_hex().to_string();
        let ephemeral = ephemeral.iter().map(|&name| name.to_owned()).collect();
        Ok(Self { rows, bytes, digest, files, ephemeral, key })
    }

    /// Whether a file of the folder is no part of its content.
    pub fn is_ephemeral(&self, path: &Path) -> bool {
        is_below(path, &self.ephemeral)
    }
}

/// Whether the first part of a path is one of `tops`.
fn is_below(path: &Path, tops: &[impl AsRef<str>]) -> bool {
    path.iter().next().is_some_and(|first| tops.iter().any(|top| *first == *top.as_ref()))
}

/// The record of a partition whose file is there too.
pub fn find_table(store: &dyn Store, stage: &str, key: &str) -> Result<Option<TableRecord>, StageError> {
    let record = read_record::<TableRecord>(store, &Address::table(stage, key))?;
    Ok(match record {
        Some(record) if table_is_there(store, stage, &record)? => Some(record),
        _ => None,
    })
}

fn table_is_there(store: &dyn Store, stage: &str, record: &TableRecord) -> Result<bool, StageError> {
    let content = Address::table(stage, &record.digest);
    let size = store.sizes(&content)?.and_then(|sizes| sizes.into_values().next());
    Ok(size == Some(record.bytes) && !store.is_damaged(&content)?)
}

/// The record of a folder whose files are all there.
pub fn find_folder(store: &dyn Store, stage: &str, key: &str) -> Result<Option<FolderRecord>, StageError> {
    let address = Address::folder(stage, key);
    let record = read_record::<FolderRecord>(store, &address)?;
    Ok(match record {
        Some(record) if folder_is_there(store, &address, &record)? => Some(record),
        _ => None,
    })
}

fn folder_is_there(store: &dyn Store, address: &Address, record: &FolderRecord) -> Result<bool, StageError> {
    if store.is_damaged(address)? {
        return Ok(false);
    }
    let Some(sizes) = store.sizes(address)? else { return Ok(false) };
    Ok(record.files.iter().all(|(path, (_, bytes))| sizes.get(path) == Some(bytes)))
}

/// Publishes a finished file and then its record; gives the record that stands. `force`: whatever is there is replaced.
pub fn commit_table(
    store: &dyn Store,
    stage: &str,
    file: &Path,
    record: TableRecord,
    force: bool,
) -> Result<TableRecord, StageError> {
    let content = Address::table(stage, &record.digest);
    let address = Address::table(stage, &record.key.key());
    let bytes = seal(&record)?;
    let accepts = |bytes: &[u8]| match unseal::<TableRecord>(bytes) {
        Some(record) if !force => table_is_there(store, stage, &record),
        _ => Ok(false),
    };
    let commit =
        Commit { content: &content, from: file, record: &address, bytes: &bytes, force, accepts: &accepts };
    Ok(unseal(&store.commit(&commit)?).unwrap_or(record))
}

/// Publishes a finished folder and then its record; gives the record that stands. `force`: whatever is there is replaced.
pub fn commit_folder(
    store: &dyn Store,
    stage: &str,
    folder: &Path,
    record: FolderRecord,
    force: bool,
) -> Result<FolderRecord, StageError> {
    let address = Address::folder(stage, &record.key.key());
    let bytes = seal(&record)?;
    let accepts = |bytes: &[u8]| match unseal::<FolderRecord>(bytes) {
        Some(record) if !force => folder_is_there(store, &address, &record),
        _ => Ok(false),
    };
    let commit =
        Commit { content: &address, from: folder, record: &address, bytes: &bytes, force, accepts: &accepts };
    Ok(unseal(&store.commit(&commit)?).unwrap_or(record))
}

/// A record; `None` when it is not there or damaged.
pub fn read_record<T: DeserializeOwned>(
    store: &dyn Store,
    address: &Address,
) -> Result<Option<T>, StageError> {
    Ok(store.record(address)?.and_then(|bytes| unseal(&bytes)))
}

const BEFORE: &str = "{\"seal\":\"";
const BETWEEN: &str = "\",\"record\":";
const AFTER: &str = "}\n";

/// Hexadecimal digits of a digest.
const DIGITS: usize = 2 * blake3::OUT_LEN;

/// JSON with the digest of the inner JSON in front, so that a flipped bit is seen. Roots are large: there is one copy only.
pub fn seal<T: Serialize>(value: &T) -> Result<Vec<u8>, StageError> {
    let mut sealed = format!("{BEFORE}{}{BETWEEN}", "0".repeat(DIGITS)).into_bytes();
    let start = sealed.len();
    serde_json::to_writer(&mut sealed, value)
        .map_err(|cause| StageError::new(format!("a record: {cause}")).because(cause))?;
    let digest = blake3::hash(&sealed[start..]).to_hex();
    sealed[BEFORE.len()..BEFORE.len() + DIGITS].copy_from_slice(digest.as_bytes());
    sealed.extend_from_slice(AFTER.as_bytes());
    Ok(sealed)
}

/// What was sealed; `None` when a bit of it has changed.
pub fn unseal<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (digest, rest) = text.strip_prefix(BEFORE)?.split_once(BETWEEN)?;
    let json = rest.strip_suffix(AFTER)?;
    (blake3::hash(json.as_bytes()).to_hex().as_str() == digest).then(|| serde_json::from_str(json).ok())?
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
