//! What every file format offers: pieces of at most `partition_rows` rows, each with a content digest, read in chunks.

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
    fn pieces(&self) -> &[Piece];

    /// The columns the file has, for checks and messages.
    fn columns(&self) -> &[RawColumn];

    /// Whether every row has all of [`RawFile::columns`], so that a column that is not there is a mistake in the manifest.
    fn has_fixed_columns(&self) -> bool {
        false
    }

    /// Learns what digests of the columns of `request` and counts of the pictures in `image` need. Called once, before those are
    /// asked for.
    fn prepare(
        &mut self,
        _request: &Request,
        _image: Option<&str>,
        _context: &dyn OpenContext,
    ) -> Result<(), StageError> {
        Ok(())
    }

    /// Digest of what decides the columns of `request` in a piece: of all its bytes, where a format cannot tell them apart.
    fn digest(&self, piece: usize, _request: &Request) -> Option<Digest> {
        self.pieces().get(piece).map(|piece| piece.digest)
    }

    /// The rows of one piece in order.
    fn read(&self, piece: usize, request: Request) -> Result<ChunkIterator<'_>, StageError>;
}

/// Rows of a file that become one partition.
#[derive(Clone, Debug)]
pub struct Piece {
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
}

/// What to read of a piece.
#[derive(Clone, Default)]
pub struct Request {
    /// Top-level columns (or dotted paths, whose first part counts); `None` = all.
    pub columns: Option<Arc<[String]>>,
    /// The one of them of which only the number of pictures matters, so that each may be given without its bytes.
    pub counted: Option<Arc<str>>,
    /// Only the first so many rows.
    pub limit: Option<usize>,
    /// Per row of the piece: whether it is wanted; `None` = all.
    pub keep: Option<Arc<[bool]>>,
}

impl Request {
    /// Whether row `row` of the piece is asked for.
    pub fn wants(&self, row: usize) -> bool {
        self.keep.as_ref().is_none_or(|keep| keep.get(row).copied().unwrap_or(true))
    }

    /// Whether of the top-level column `name` only the number of pictures matters.
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

/// Chunks in order, each of at most [`CHUNK_ROWS`] rows.
pub type ChunkIterator<'a> = Box<dyn Iterator<Item = Result<Box<dyn Chunk + 'a>, StageError>> + Send + 'a>;

/// Some rows in memory.
pub trait Chunk: Send {
    /// Which rows of the piece these are, ascending.
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
