//! A file that is not what its format says: one rejected row that names it, so that the files beside it are still used.

use super::raw::{ChunkIterator, Failed, RawColumn, RawFile, Request, Split, reject};
use llavm_pipeline::StageError;
use llavm_pipeline::rejects::{FILE_LOST, Reject};
use llavm_pipeline::stage::OpenContext;
use std::path::Path;

/// Such a file.
pub struct BrokenFile {
    splits: [Split; 1],
    reject: Reject,
}

impl BrokenFile {
    /// `name` is what reports call the file, `cause` what is wrong with it.
    pub fn new(path: &Path, name: &str, cause: &str, context: &dyn OpenContext) -> Result<Self, StageError> {
        let reject = reject(FILE_LOST, format!("{name}: {cause}"));
        let mut hasher = blake3::Hasher::new();
        hasher.update(context.file_digest(path)?.as_bytes()).update(reject.detail.as_bytes());
        Ok(Self { splits: [Split { rows: 0..1, digest: hasher.finalize() }], reject })
    }
}

impl RawFile for BrokenFile {
    fn splits(&self) -> &[Split] {
        &self.splits
    }

    fn columns(&self) -> &[RawColumn] {
        &[]
    }

    fn lost(&self) -> Option<&str> {
        Some(&self.reject.detail)
    }

    fn read(&self, _split: usize, _request: Request) -> Result<ChunkIterator<'_>, StageError> {
        Ok(Box::new(std::iter::once(
            Ok(Box::new(Failed { rows: vec![0], reject: self.reject.clone() }) as _),
        )))
    }
}
