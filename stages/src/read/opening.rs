//! What a format is handed to open a file, and what it gives.

use super::Read;
use super::input::Input;
use super::parquet::Dictionaries;
use super::raw::RawFile;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::OpenContext;
use std::path::Path;
use std::sync::Arc;

/// What a format opens.
pub struct Opening<'a> {
    pub read: &'a Read,
    pub input: Arc<Input>,
    pub dictionaries: &'a Arc<Dictionaries>,
    pub context: &'a dyn OpenContext,
}

impl Opening<'_> {
    pub fn path(&self) -> &Path {
        self.input.path()
    }
}

/// Errors of the outer result concern the disk, of the inner one the file's content.
pub type Opened = Result<Result<Box<dyn RawFile>, String>, StageError>;

#[allow(clippy::unnecessary_wraps, reason = "all formats are opened by functions of one type")]
pub fn boxed<T: RawFile + 'static>(opened: Result<T, String>) -> Opened {
    Ok(opened.map(|file| Box::new(file) as Box<dyn RawFile>))
}
