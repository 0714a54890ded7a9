//! A look at the raw files before anything runs, for `llavm validate`: are the columns there, does nothing go unused?
//!
//! Parquet and Arrow files say what is in them at their end or beginning; other files have to be read, so they are only looked at where they
//! are small.

use super::Read;
use super::locate::local;
use super::open::examine;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{Digest, OpenContext};
use llavm_pipeline::storage::remote::RemoteFile;
use std::path::{Path, PathBuf};

/// Bytes up to which files are read for a look.
const MOST: u64 = 32 << 20;

/// Endings of files whose columns are known without reading them, and what one of them counts as.
const DESCRIBED: [&str; 4] = ["parquet", "pq", "arrow", "feather"];
const DESCRIPTION: u64 = 64 << 10;

/// What a person should know of the rows; nothing where that would take long, or where files are missing, which is reported elsewhere.
pub fn preview(read: &Read) -> Result<Vec<String>, StageError> {
    let Ok(files) = read.files.files() else { return Ok(Vec::new()) };
    let images = read.images.0.iter().filter_map(|place| local(place).ok()).collect::<Vec<_>>();
    let missing = images.iter().any(|place| !place.exists()) || read.prompts.missing().is_some();
    let all = files.iter().chain(&images).map(|path| cost(path)).sum::<u64>();
    if missing || files.is_empty() || all > MOST {
        return Ok(Vec::new());
    }
    Ok(examine(read, &Look)?.notes)
}

fn cost(path: &Path) -> u64 {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    if let Ok(file) = RemoteFile::open(path) {
        return if DESCRIBED.contains(&ending.as_str()) { DESCRIPTION } else { file.size() };
    }
    match path.metadata() {
        Ok(metadata) if metadata.is_file() && !DESCRIBED.contains(&ending.as_str()) && ending != "zip" => {
            metadata.len()
        }
        _ => DESCRIPTION,
    }
}

/// Nothing that a look finds is kept, so no digest matters.
struct Look;

impl OpenContext for Look {
    fn file_digest(&self, path: &Path) -> Result<Digest, StageError> {
        Ok(blake3::hash(path.as_os_str().as_encoded_bytes()))
    }

    fn files_digest(&self, memo: &str, _paths: &[PathBuf]) -> Result<Digest, StageError> {
        Ok(blake3::hash(memo.as_bytes()))
    }

    fn seed(&self) -> u64 {
        0
    }
}
