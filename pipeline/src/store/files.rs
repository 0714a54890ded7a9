//! Small file operations with errors that name the path.

use crate::spec::error::StageError;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Bytes read at once when a file is hashed.
const CHUNK: usize = 1 << 20;

/// Adds the path to an error.
pub fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, StageError> {
    result.map_err(|cause| StageError::io(path, cause))
}

/// Moves a finished and synced file or folder to its final name, for good.
pub fn publish(from: &Path, target: &Path) -> Result<(), StageError> {
    let folder = target.parent().unwrap_or(target);
    make_folder(folder)?;
    at(target, fs::rename(from, target))?;
    sync_folder(folder)
}

/// Gives a file that is never written again a second name; where that cannot be, a copy.
pub fn link(from: &Path, target: &Path) -> Result<(), StageError> {
    match fs::hard_link(from, target) {
        Ok(()) => Ok(()),
        Err(_) => at(target, fs::copy(from, target).map(drop)),
    }
}

/// Makes a folder and those above it that are not there, for good.
pub fn make_folder(folder: &Path) -> Result<(), StageError> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().unwrap_or(folder);
    make_folder(above)?;
    match fs::create_dir(folder) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => Err(StageError::io(folder, cause)),
        _ => sync_folder(above),
    }
}

/// Makes renames and removals in a folder durable.
pub fn sync_folder(folder: &Path) -> Result<(), StageError> {
    at(folder, File::open(folder).and_then(|file| file.sync_all()))
}

/// Makes the names of all files below a folder durable.
pub fn sync_folders_below(folder: &Path) -> Result<(), StageError> {
    for entry in entries(folder)? {
        if at(&entry.path(), entry.file_type())?.is_dir() {
            sync_folders_below(&entry.path())?;
        }
    }
    sync_folder(folder)
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
    hash_file_with(path, &mut |_| Ok(()))
}

/// As [`hash_file`]; `read` is called with the number of bytes after each chunk, and may end it with an error.
pub fn hash_file_with(
    path: &Path,
    read: &mut dyn FnMut(u64) -> io::Result<()>,
) -> io::Result<(blake3::Hash, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let small = usize::try_from(file.metadata()?.len()).unwrap_or(CHUNK).saturating_add(1);
    let mut chunk = vec![0; small.clamp(4096, CHUNK)];
    let mut bytes = 0;
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok((hasher.finalize(), bytes)),
            Ok(n) => {
                hasher.update(&chunk[..n]);
                bytes += n as u64;
                read(n as u64)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Bytes of a file, or of all files below a folder.
pub fn size(path: &Path) -> Result<u64, StageError> {
    let bytes = |path: &Path| at(path, path.metadata()).map(|file| file.len());
    if !path.is_dir() {
        return bytes(path);
    }
    files_below(path)?.iter().map(|file| bytes(&path.join(file))).sum()
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
