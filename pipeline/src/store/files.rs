//! Small file operations with errors that name the path.

use super::scratch::Scratch;
use crate::StageError;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes read at once when a file is hashed.
const CHUNK: usize = 1 << 20;

/// Adds the path to an error.
pub fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, StageError> {
    result.map_err(|cause| StageError::io(path, cause))
}

/// Writes a whole file so that it is either there and complete, or not there.
pub fn write_atomically(scratch: &Scratch, target: &Path, bytes: &[u8]) -> Result<(), StageError> {
    let unfinished = scratch.unfinished("file");
    let path = unfinished.path();
    let written = File::create_new(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    at(target, written)?;
    publish(path, target)
}

/// Moves a finished and synced file or folder to its final name, for good.
pub fn publish(from: &Path, target: &Path) -> Result<(), StageError> {
    let folder = target.parent().unwrap_or(target);
    at(folder, fs::create_dir_all(folder))?;
    at(target, fs::rename(from, target))?;
    sync_folder(folder)
}

/// Makes renames and removals in a folder lasting.
pub fn sync_folder(folder: &Path) -> Result<(), StageError> {
    at(folder, File::open(folder).and_then(|file| file.sync_all()))
}

/// The whole file; `None` when there is no such file.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, StageError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(StageError::io(path, cause)),
    }
}

/// Removes a file, or a folder with all in it; fine when it is not there.
pub fn remove(path: &Path) -> Result<(), StageError> {
    let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match result {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(StageError::io(path, cause)),
        _ => Ok(()),
    }
}

/// The content digest of a file and its size in bytes.
pub fn hash_file(path: &Path) -> io::Result<(blake3::Hash, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok((hasher.finalize(), bytes)),
            Ok(n) => {
                hasher.update(&chunk[..n]);
                bytes += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// All files below a folder, relative to it, sorted.
pub fn files_below(folder: &Path) -> Result<Vec<PathBuf>, StageError> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(inner) = open.pop() {
        for entry in entries(&folder.join(&inner))? {
            let path = inner.join(entry.file_name());
            if at(&entry.path(), entry.file_type())?.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}

/// The entries of a folder, sorted by name; none when it is not there.
pub fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>, StageError> {
    let listed = match fs::read_dir(folder) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => at(folder, listed)?,
    };
    let mut entries: Vec<fs::DirEntry> = at(folder, listed.collect())?;
    entries.sort_by_key(fs::DirEntry::file_name);
    Ok(entries)
}

/// Whether an open file is still the one under `path`.
pub fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(there) => {
            let open = file.metadata()?;
            Ok((there.dev(), there.ino()) == (open.dev(), open.ino()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
