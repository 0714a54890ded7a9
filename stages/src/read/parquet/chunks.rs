//! Digests of column chunks, so that the digest of a partition follows the columns asked for and no others.
//!
//! In: a file and some of its leaf columns. Out: one digest per leaf and row group, over the bytes of the chunk and what decides
//! how they are read. One pass over these chunks, remembered by the file's content. Of a file in a bucket no chunk is read for this:
//! there, the file's own identity decides.

use super::super::section::Section;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{Digest, OpenContext};
use llavm_pipeline::storage::remote::is_remote;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Raised when the same chunk gets another digest.
const VERSION: u32 = 1;

/// By leaf column: the digests of its chunks, by row group.
#[derive(Debug, Default)]
pub struct Chunks(BTreeMap<usize, Vec<Digest>>);

impl Chunks {
    /// The chunks of `leaves`; `file` is the file's digest.
    pub fn new(
        path: &Path,
        metadata: &ParquetMetaData,
        file: Digest,
        leaves: &[usize],
        context: &dyn OpenContext,
    ) -> Result<Self, StageError> {
        let key = format!("read/chunks/{VERSION}/{}/{leaves:?}", file.to_hex());
        let mut compute = || {
            let digests =
                digests(path, metadata, file, leaves).map_err(|cause| StageError::io(path, cause))?;
            Ok(digests.iter().flat_map(|digest| *digest.as_bytes()).collect())
        };
        let groups = metadata.num_row_groups();
        let remembered = context.remembered(&key, &mut compute)?;
        let decoded = match decode(&remembered, leaves, groups) {
            None => decode(&compute()?, leaves, groups),
            decoded => decoded,
        };
        decoded.map(Self).ok_or_else(|| StageError::new(format!("{}: no column digests", path.display())))
    }

    /// The digest of one chunk; `None` for a leaf that was not asked for.
    pub fn digest(&self, leaf: usize, group: usize) -> Option<&Digest> {
        self.0.get(&leaf)?.get(group)
    }
}

/// Leaf by leaf, row group by row group.
fn digests(
    path: &Path,
    metadata: &ParquetMetaData,
    whole: Digest,
    leaves: &[usize],
) -> io::Result<Vec<Digest>> {
    let file = (!is_remote(path)).then(|| Section::open(path)).transpose()?;
    let chunks: Vec<&ColumnChunkMetaData> = leaves
        .iter()
        .flat_map(|leaf| metadata.row_groups().iter().filter_map(|group| group.columns().get(*leaf)))
        .collect();
    chunks.par_iter().map(|chunk| digest(file.as_ref(), whole, chunk)).collect()
}

/// Without `file`, what is known of the whole file decides, and where in it the chunk is.
fn digest(file: Option<&Section>, whole: Digest, chunk: &ColumnChunkMetaData) -> io::Result<Digest> {
    let column = chunk.column_descr();
    let types = (column.physical_type(), column.logical_type_ref(), column.converted_type());
    let levels = (column.max_def_level(), column.max_rep_level());
    let read_as = format!("{} {types:?} {levels:?} {:?}\0", column.path().string(), chunk.compression());
    let mut hasher = blake3::Hasher::new();
    hasher.update(read_as.as_bytes());
    let number = |value: i64| u64::try_from(value).unwrap_or(0);
    let start = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
    let (start, length) = (number(start), number(chunk.compressed_size()));
    match file {
        Some(file) => hasher.update_reader(file.part(start, length))?,
        None => hasher.update(whole.as_bytes()).update(&start.to_le_bytes()).update(&length.to_le_bytes()),
    };
    Ok(hasher.finalize())
}

fn decode(bytes: &[u8], leaves: &[usize], groups: usize) -> Option<BTreeMap<usize, Vec<Digest>>> {
    let (digests, rest) = bytes.as_chunks::<{ blake3::OUT_LEN }>();
    if !rest.is_empty() || digests.len() != leaves.len() * groups {
        return None;
    }
    let of = |n: usize| digests[n * groups..(n + 1) * groups].iter().copied().map(Digest::from_bytes);
    Some(leaves.iter().enumerate().map(|(n, leaf)| (*leaf, of(n).collect())).collect())
}
