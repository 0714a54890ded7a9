//! What every file format offers: splits of at most `partition_rows` rows, each with a content digest, read in chunks.
//!
//! Chunks of images end early where the images are large: limits that depend on a row's neighbours rejected legal rows. Tables are
//! put side by side by rows, not by chunks.

use super::input::Input;
use super::value::Value;
use llavm_pipeline::StageError;
use llavm_pipeline::rejects::Reject;
use llavm_pipeline::stage::{Digest, OpenContext};
use std::ops::Range;
use std::sync::Arc;

/// Rows handed over together: the memory a reader holds.
pub const CHUNK_ROWS: usize = llavm_pipeline::stage::BATCH_ROWS;

/// One raw file that could be opened.
pub trait RawFile: Send + Sync {
    /// In order; together they are the whole file.
    fn splits(&self) -> &[Split];

    /// The columns the file has, for checks and messages.
    fn columns(&self) -> &[RawColumn];

    /// Why the whole file is lost, if it is.
    fn lost(&self) -> Option<&str> {
        None
    }

    /// Whether every row has all of [`RawFile::columns`], so that a column that is not there is a mistake in the manifest.
    fn has_fixed_columns(&self) -> bool {
        false
    }

    /// Whether the types of the columns are the file's own, and not those of the cells in a sample.
    fn has_fixed_types(&self) -> bool {
        false
    }

    /// Whether each row names its columns, so that any row may have one more.
    fn names_in_rows(&self) -> bool {
        false
    }

    /// What the type of a column is called when it holds this cell.
    fn kind(&self, cell: &Value<'_>) -> String {
        cell.kind()
    }

    /// Learns what digests of the columns of `request` and counts of the images in `image` need. Called once, before those are
    /// asked for.
    fn prepare(
        &mut self,
        _request: &Request,
        _image: Option<&str>,
        _context: &dyn OpenContext,
    ) -> Result<(), StageError> {
        Ok(())
    }

    /// Digest of what decides the columns of `request` in a split: of all its bytes, where a format cannot tell them apart.
    fn digest(&self, split: usize, _request: &Request) -> Option<Digest> {
        self.splits().get(split).map(|split| split.digest)
    }

    /// The rows of one split in order.
    fn read(&self, split: usize, request: Request) -> Result<ChunkIterator<'_>, StageError>;
}

/// Rows of a file that become one partition.
#[derive(Clone, Debug)]
pub struct Split {
    /// Rows counted from the start of the file.
    pub rows: Range<u64>,
    /// Digest of the raw bytes these rows come from.
    pub digest: Digest,
}

/// A column of a raw file; fields of structs appear under their dotted path as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawColumn {
    pub name: String,
    /// The type as a person would write it.
    pub kind: String,
    /// Whether its cells are images by the look of them: names with the ending of an image, base64 text.
    pub holds_images: bool,
}

impl RawColumn {
    pub fn new(name: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { name: name.into(), kind: kind.into(), holds_images: false }
    }

    /// Whether its cells may be text or lists of texts: anything but numbers.
    pub fn is_text(&self) -> bool {
        !matches!(self.kind.as_str(), "int" | "float" | "bool")
    }
}

/// What to read of a split.
#[derive(Clone, Default)]
pub struct Request {
    /// Top-level columns (or dotted paths, whose first part counts); `None` = all.
    pub columns: Option<Arc<[String]>>,
    /// The one of them of which only the number of images matters, so that each may be given without its bytes.
    pub counted: Option<Arc<str>>,
    /// Whether nothing but the types of cells matters, so that images may be given without their bytes.
    pub types_only: bool,
    /// Only the first so many rows.
    pub limit: Option<usize>,
    /// Per row of the split: whether it is wanted; `None` = all.
    pub keep: Option<Arc<[bool]>>,
}

impl Request {
    /// Whether row `row` of the split is asked for.
    pub fn wants(&self, row: usize) -> bool {
        self.keep.as_ref().is_none_or(|keep| keep.get(row).copied().unwrap_or(true))
    }

    /// Whether of the top-level column `name` only the number of images matters.
    pub fn counts(&self, name: &str) -> bool {
        self.counted.as_deref().is_some_and(|path| leads_into(path, name))
    }

    /// Whether the top-level column `name` is asked for.
    pub fn wants_column(&self, name: &str) -> bool {
        self.columns.as_ref().is_none_or(|columns| columns.iter().any(|path| leads_into(path, name)))
    }
}

/// Whether `path` is the column `name` or lies within it.
fn leads_into(path: &str, name: &str) -> bool {
    path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// A raw file and what reports call it.
pub struct NamedFile {
    pub name: String,
    pub input: Arc<Input>,
    pub raw: Box<dyn RawFile>,
}

/// Chunks in order, each of at most [`CHUNK_ROWS`] rows.
pub type ChunkIterator<'a> = Box<dyn Iterator<Item = Result<Box<dyn Chunk + 'a>, StageError>> + Send + 'a>;

/// Some rows in memory.
pub trait Chunk: Send {
    /// Which rows of the split these are, ascending.
    fn rows(&self) -> &[usize];

    /// The `index`-th of them as an object of the columns asked for (more columns do no harm).
    fn value(&self, index: usize) -> Result<Value<'_>, Reject>;
}

/// Rows that could not be read, all for the same reason.
pub struct Failed {
    pub rows: Vec<usize>,
    pub reject: Reject,
}

impl Chunk for Failed {
    fn rows(&self) -> &[usize] {
        &self.rows
    }

    fn value(&self, _index: usize) -> Result<Value<'_>, Reject> {
        Err(self.reject.clone())
    }
}

/// A reject of the `read` stage.
pub fn reject(code: &'static str, detail: impl Into<String>) -> Reject {
    Reject { code, detail: detail.into() }
}
