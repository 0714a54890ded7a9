//! What every target for `read` does: write the bytes to a file, open it, read all of it in several ways.
//!
//! Whatever the bytes are, there must be rows or an error that says why there are none; each way of reading must see the same
//! number of rows; a row without a reject must have its values.

pub mod weights;

use arrow::array::Array;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{BATCH_ROWS, Digest, OpenContext, Source, SourceStage};
use llavm_stages::read::Read;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Digests files, remembers nothing.
pub struct Context;

impl OpenContext for Context {
    fn file_digest(&self, path: &Path) -> Result<Digest, StageError> {
        std::fs::read(path).map(|bytes| blake3::hash(&bytes)).map_err(|cause| StageError::io(path, cause))
    }

    fn files_digest(&self, _memo: &str, paths: &[PathBuf]) -> Result<Digest, StageError> {
        let mut hasher = blake3::Hasher::new();
        for path in paths {
            hasher.update(self.file_digest(path)?.as_bytes());
        }
        Ok(hasher.finalize())
    }

    fn seed(&self) -> u64 {
        1
    }
}

/// Reads `bytes` as a file of that extension with these parameters of `read`.
pub fn read_all(extension: &str, bytes: &[u8], mut params: Value) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("rows").with_extension(extension);
    std::fs::write(&path, bytes).expect("a temporary file");
    params["files"] = json!(path);
    params["partition_rows"] = json!(3);
    open_and_read(params);
}

/// Reads rows that name entries of a zip, which is `bytes`.
pub fn read_with_zip(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (rows, zip) = (folder.path().join("rows.jsonl"), folder.path().join("images.zip"));
    let names = ["a.jpg", "images/a.jpg", "b", "../a.jpg"];
    let lines: Vec<_> =
        names.iter().map(|name| json!({"prompt": "q", "answer": "a", "image": name}).to_string()).collect();
    std::fs::write(&rows, lines.join("\n")).expect("a temporary file");
    std::fs::write(&zip, bytes).expect("a temporary file");
    open_and_read(json!({"files": rows, "images": zip}));
}

fn open_and_read(params: Value) {
    let read: Read = serde_json::from_value(params).expect("parameters");
    let Ok(source) = read.open(&Context) else { return };
    let wide = rows(source.as_ref(), &["id", "images", "messages", "language", "source"]);
    for columns in [["messages"].as_slice(), &["messages", "n_images"], &["n_images"], &["images"], &["id"]] {
        assert_eq!(rows(source.as_ref(), columns), wide, "{columns:?}");
    }
}

/// Rows per partition.
fn rows(source: &dyn Source, columns: &[&str]) -> Vec<usize> {
    (0..source.partitions().len()).map(|partition| partition_rows(source, partition, columns)).collect()
}

fn partition_rows(source: &dyn Source, partition: usize, columns: &[&str]) -> usize {
    source.digest(partition, columns).expect("a digest");
    let mut rows = 0;
    for batch in source.batches(partition, columns).expect("batches") {
        let batch = batch.expect("a batch");
        assert!(batch.num_rows() <= BATCH_ROWS);
        let rejects = batch.column_by_name("reject").expect("reject");
        for name in columns.iter().filter(|name| ["id", "images", "messages"].contains(name)) {
            let column = batch.column_by_name(name).expect("a column that was asked for");
            for row in 0..batch.num_rows() {
                let may_be_null = rejects.is_valid(row) && *name != "id";
                assert!(column.is_valid(row) || may_be_null, "{name} of row {row} is null without a reject");
            }
        }
        rows += batch.num_rows();
    }
    rows
}
