//! The digest of the image files that a partition names, so that a changed image is seen though no row changed.
//!
//! In: the raw rows of a partition. Out: one digest over the files' contents and over which of them are missing.

use super::build::RowRules;
use super::image_cell::Image;
use super::image_files::{Folder, Place};
use super::raw::{RawFile, Request};
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{Digest, OpenContext};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Raised when paths are found in other places of a row.
const PATHS_VERSION: u32 = 2;

/// Digests the images of one source.
pub struct ImageDigests<'a> {
    rules: &'a RowRules,
    context: &'a dyn OpenContext,
    listed: Mutex<HashMap<PathBuf, HashSet<OsString>>>,
}

impl<'a> ImageDigests<'a> {
    pub fn new(rules: &'a RowRules, context: &'a dyn OpenContext) -> Self {
        Self { rules, context, listed: Mutex::default() }
    }

    /// The digest for the first `rows` rows of a split; `None` where no image lies outside the raw file.
    pub fn digest(
        &self,
        file: &dyn RawFile,
        split: usize,
        rows: usize,
    ) -> Result<Option<Digest>, StageError> {
        let places = self.rules.images.places();
        if places.is_empty() {
            return Ok(None);
        }
        let Some(raw) = file.digest(split, &self.request(rows)) else {
            return Ok(None);
        };
        let mut hasher = blake3::Hasher::new();
        let folders: Vec<&Folder> = places.iter().filter_map(Place::folder).collect();
        let is_mixed = !folders.is_empty() && folders.len() < places.len();
        for place in places {
            match place.digest() {
                Some(digest) => hasher.update(digest.as_bytes()),
                // The first place that has a name counts: where a folder stands among zips and tables matters.
                None if is_mixed => hasher.update(b"folder"),
                None => &mut hasher,
            };
        }
        if !folders.is_empty() {
            let part = format!("{PATHS_VERSION}/{}/{rows}/{}", raw.to_hex(), self.rules.images_identity());
            let mut list = || self.paths(file, split, rows).map(|paths| paths.join("\0").into_bytes());
            let listed = self.context.remembered(&format!("read/paths/{part}"), &mut list)?;
            self.digest_files(&folders, &String::from_utf8_lossy(&listed), &part, &mut hasher)?;
        }
        Ok(Some(hasher.finalize()))
    }

    fn request(&self, rows: usize) -> Request {
        let columns = self.rules.needed(&["images"]);
        Request { columns: Some(columns.into()), limit: Some(rows), ..Request::default() }
    }

    /// Adds the contents of the files that `listed` names, each in the first folder that has it, and the names that none has.
    fn digest_files(
        &self,
        folders: &[&Folder],
        listed: &str,
        part: &str,
        hasher: &mut blake3::Hasher,
    ) -> Result<(), StageError> {
        let (mut files, mut missing) = (Vec::new(), Vec::new());
        for path in listed.split('\0').filter(|path| !path.is_empty()) {
            let candidates = folders.iter().flat_map(|folder| folder.candidates(path).unwrap_or_default());
            match candidates.into_iter().find(|file| self.exists(file)) {
                Some(file) => files.push(file),
                None => missing.push(path),
            }
        }
        hasher.update(missing.join("\0").as_bytes()).update(b"\0\0");
        if !files.is_empty() {
            let digest = self.context.files_digest(&format!("read/images/{part}"), &files)?;
            hasher.update(digest.as_bytes());
        }
        Ok(())
    }

    /// The paths that rows name, each once, in order of their names.
    fn paths(&self, file: &dyn RawFile, split: usize, rows: usize) -> Result<Vec<String>, StageError> {
        let mut paths = BTreeSet::new();
        for chunk in file.read(split, self.request(rows))? {
            let chunk = chunk?;
            for index in 0..chunk.rows().len() {
                let Ok(row) = chunk.value(index) else { continue };
                let Ok(found) = self.rules.named_images(&row) else { continue };
                for image in found {
                    if let Image::Path(path) = image {
                        paths.insert(path.into_owned());
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
