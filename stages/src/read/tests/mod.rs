//! What `read` makes of files on the disk, format by format.

mod counts;
mod formats;
mod jsonl;
mod layouts;
mod odd;
mod parquet;
mod webdataset;
mod zip;

use super::Read;
use arrow::array::{Array, AsArray, RecordBatch};
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{Digest, Memory, OpenContext, Source, SourceStage};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// All columns of `read`.
pub const ALL: [&str; 6] = ["id", "images", "n_images", "messages", "language", "source"];

/// The smallest JPEG-like bytes; `read` never looks inside.
pub fn image(number: u8) -> Vec<u8> {
    vec![0xff, 0xd8, 0xff, 0xe0, number, b'J', b'F', b'I', b'F', number]
}

/// Remembers values, and of which it was asked.
#[derive(Default)]
pub struct Kept(Mutex<HashMap<String, Vec<u8>>>);

impl Kept {
    /// How many values there are whose key begins so.
    pub fn count(&self, key: &str) -> usize {
        self.0.lock().unwrap().keys().filter(|known| known.starts_with(key)).count()
    }
}

impl Memory for Kept {
    fn remembered(
        &self,
        key: &str,
        compute: &mut dyn FnMut() -> Result<Vec<u8>, StageError>,
    ) -> Result<Vec<u8>, StageError> {
        if let Some(value) = self.0.lock().unwrap().get(key) {
            return Ok(value.clone());
        }
        let value = compute()?;
        self.0.lock().unwrap().insert(key.to_owned(), value.clone());
        Ok(value)
    }
}

/// Digests files anew each time; remembers in memory.
#[derive(Default)]
pub struct Context {
    pub kept: Arc<Kept>,
}

impl OpenContext for Context {
    fn file_digest(&self, path: &Path) -> Result<Digest, StageError> {
        let bytes = std::fs::read(path).map_err(|cause| StageError::io(path, cause))?;
        Ok(blake3::hash(&bytes))
    }

    fn files_digest(&self, _memo: &str, paths: &[PathBuf]) -> Result<Digest, StageError> {
        let mut hasher = blake3::Hasher::new();
        for path in paths {
            hasher.update(self.file_digest(path)?.as_bytes());
        }
        Ok(hasher.finalize())
    }

    fn remembered(
        &self,
        key: &str,
        compute: &mut dyn FnMut() -> Result<Vec<u8>, StageError>,
    ) -> Result<Vec<u8>, StageError> {
        self.kept.remembered(key, compute)
    }

    fn memory(&self) -> Arc<dyn Memory> {
        Arc::clone(&self.kept) as Arc<dyn Memory>
    }

    fn seed(&self) -> u64 {
        42
    }
}

/// One row as it left the source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    pub id: Option<String>,
    pub images: Option<Vec<Vec<u8>>>,
    /// `role: content` of each turn.
    pub messages: Option<Vec<String>>,
    pub language: Option<String>,
    pub source: Option<String>,
    pub reject: Option<String>,
}

impl Row {
    /// The code of the reject, without the detail.
    pub fn code(&self) -> Option<&str> {
        self.reject.as_deref().map(|reject| reject.split(':').next().unwrap_or_default())
    }
}

/// A folder of raw files and the manifest's parameters for it.
pub struct Files {
    pub folder: TempDir,
}

impl Files {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// `read` with these parameters; `files` and `images` are relative to the folder.
    pub fn stage(&self, files: &str, mut params: Value) -> Read {
        params["files"] = json!(self.path(files));
        if let Some(images) = params.get("images").and_then(Value::as_str) {
            params["images"] = json!(self.path(images));
        }
        serde_json::from_value(params).unwrap()
    }

    pub fn open(&self, files: &str, params: Value) -> Box<dyn Source> {
        self.stage(files, params).open(&Context::default()).unwrap()
    }

    pub fn error(&self, files: &str, params: Value) -> StageError {
        self.stage(files, params).open(&Context::default()).err().expect("an error")
    }

    pub fn rows(&self, files: &str, params: Value) -> Vec<Row> {
        all_rows(self.open(files, params).as_ref(), &ALL)
    }
}

/// All rows of a source, in order.
pub fn all_rows(source: &dyn Source, columns: &[&str]) -> Vec<Row> {
    (0..source.partitions().len()).flat_map(|partition| rows_of(source, partition, columns)).collect()
}

pub fn rows_of(source: &dyn Source, partition: usize, columns: &[&str]) -> Vec<Row> {
    let batches: Vec<_> = source.batches(partition, columns).unwrap().map(Result::unwrap).collect();
    assert!(batches.iter().all(|batch| (1..=llavm_pipeline::stage::BATCH_ROWS).contains(&batch.num_rows())));
    batches.iter().flat_map(batch_rows).collect()
}

fn batch_rows(batch: &RecordBatch) -> Vec<Row> {
    let text = |name: &str, row: usize| {
        let column = batch.column_by_name(name)?.as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    if let Some(counts) =
        batch.column_by_name("n_images").filter(|_| batch.column_by_name("images").is_some())
    {
        let counts = counts.as_primitive::<arrow::datatypes::UInt32Type>();
        let lengths = (0..batch.num_rows()).map(|row| images(batch, row).map(|images| images.len() as u32));
        assert!(counts.iter().eq(lengths), "n_images counts images: {counts:?}");
    }
    let row = |row: usize| Row {
        id: text("id", row),
        images: images(batch, row),
        messages: messages(batch, row),
        language: text("language", row),
        source: text("source", row),
        reject: text("reject", row),
    };
    (0..batch.num_rows()).map(row).collect()
}

fn images(batch: &RecordBatch, row: usize) -> Option<Vec<Vec<u8>>> {
    let column = batch.column_by_name("images")?.as_list::<i32>();
    column.is_valid(row).then(|| {
        let images = column.value(row);
        images.as_binary::<i32>().iter().map(|image| image.unwrap().to_vec()).collect()
    })
}

fn messages(batch: &RecordBatch, row: usize) -> Option<Vec<String>> {
    let column = batch.column_by_name("messages")?.as_list::<i32>();
    column.is_valid(row).then(|| {
        let turns = column.value(row);
        let turns = turns.as_struct();
        let [roles, contents] = [0, 1].map(|field| turns.column(field).as_string::<i32>());
        (0..turns.len()).map(|turn| format!("{}: {}", roles.value(turn), contents.value(turn))).collect()
    })
}

/// Prompt and answer as `messages` holds them.
#[allow(clippy::unnecessary_wraps, reason = "compared with rows that may be null")]
pub fn turns(prompt: &str, answer: &str) -> Option<Vec<String>> {
    Some(vec![format!("user: {prompt}"), format!("assistant: {answer}")])
}
