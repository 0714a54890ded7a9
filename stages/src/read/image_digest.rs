//! The digest of the picture files that a partition names, so that a changed picture is seen though no row changed.
//!
//! In: the raw rows of a partition. Out: one digest over the files' contents and over which of them are missing.

use super::image_cell::{Picture, pictures};
use super::image_files::{ImageFiles, inside};
use super::raw::{RawFile, Request};
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{Digest, OpenContext};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Raised when paths are found in other places of a row.
const PATHS_VERSION: u32 = 1;

/// Digests the pictures of one source.
pub struct ImageDigests<'a> {
    images: &'a ImageFiles,
    /// The column of the paths.
    column: &'a str,
    context: &'a dyn OpenContext,
    listed: Mutex<HashMap<PathBuf, HashSet<OsString>>>,
}

impl<'a> ImageDigests<'a> {
    pub fn new(images: &'a ImageFiles, column: &'a str, context: &'a dyn OpenContext) -> Self {
        Self { images, column, context, listed: Mutex::default() }
    }

    /// The digest for the first `rows` rows of a piece; `None` where no picture lies outside the raw file.
    pub fn digest(
        &self,
        file: &dyn RawFile,
        piece: usize,
        rows: usize,
    ) -> Result<Option<Digest>, StageError> {
        let ImageFiles::Folder(folder) = self.images else {
            return Ok(self.images.zip_digest());
        };
        let Some(raw) = file.digest(piece, &self.request(rows)) else {
            return Ok(None);
        };
        let part = format!("{PATHS_VERSION}/{}/{rows}/{}", raw.to_hex(), self.column);
        let mut list = || self.paths(file, piece, rows).map(|paths| paths.join("\0").into_bytes());
        let listed = self.context.remembered(&format!("read/paths/{part}"), &mut list)?;
        let listed = String::from_utf8_lossy(&listed);
        let paths = listed.split('\0').filter(|path| !path.is_empty());
        let (found, missing): (Vec<_>, Vec<_>) = paths.partition(|path| self.exists(&folder.join(path)));
        let files: Vec<PathBuf> = found.iter().map(|path| folder.join(path)).collect();
        let mut hasher = blake3::Hasher::new();
        hasher.update(missing.join("\0").as_bytes()).update(b"\0\0");
        if !files.is_empty() {
            hasher.update(self.context.files_digest(&format!("read/images/{part}"), &files)?.as_bytes());
        }
        Ok(Some(hasher.finalize()))
    }

    fn request(&self, rows: usize) -> Request {
        Request { columns: Some([self.column.to_owned()].into()), limit: Some(rows), ..Request::default() }
    }

    /// The paths that rows name, each once, in order of their names.
    fn paths(&self, file: &dyn RawFile, piece: usize, rows: usize) -> Result<Vec<String>, StageError> {
        let mut paths = BTreeSet::new();
        for chunk in file.read(piece, self.request(rows))? {
            let chunk = chunk?;
            for index in 0..chunk.rows().len() {
                let Ok(row) = chunk.value(index) else { continue };
                let Some(Ok(found)) = row.get(self.column).map(pictures) else { continue };
                for picture in found {
                    if let Picture::Path(path) = picture
                        && let Ok(path) = inside(&path)
                    {
                        paths.insert(path.to_string_lossy().into_owned());
                    }
                }
            }
        }
        Ok(paths.into_iter().collect())
    }

    /// Whether a file is there: one listing per folder instead of one look-up per file.
    fn exists(&self, path: &Path) -> bool {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return false;
        };
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let names = listed.entry(folder.to_owned()).or_insert_with(|| file_names(folder));
        names.contains(name) || path.is_file()
    }
}

/// Plain files of a folder; links are left to the look-up that follows them.
fn file_names(folder: &Path) -> HashSet<OsString> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return HashSet::new();
    };
    let plain = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
    entries.flatten().filter(plain).map(|entry| entry.file_name()).collect()
}
