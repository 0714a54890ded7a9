//! A memory-mapped file whose pages can be given back once they were read.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, UncheckedAdvice};

use super::error::WeightsError;

/// A weights file, mapped read-only.
///
/// Mapped pages count as resident memory once touched, so a reader that copies a file out calls
/// [`MappedFile::release`] behind itself; otherwise loading would show twice the file's size.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let io = |source| WeightsError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is read-only and private to this process. Weights files are written under a
        // temporary name and renamed, here as in huggingface_hub, so a mapped file is not changed in place.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Self { path: path.to_owned(), map })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Gives the pages of `range` back to the system; reading them again fetches them from the file.
    pub fn release(&self, range: Range<usize>) {
        if range.end > self.map.len() {
            return;
        }
        // SAFETY: the map is backed by a file and never written to, so a dropped page comes back with the
        // same bytes. Failure only costs memory, so the result does not matter.
        let _ =
            unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
    }
}
