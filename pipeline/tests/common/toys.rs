//! Toy stages. `lines` reads text files of lines `text|image`; the others do something small to either column.

use super::jobs::{Count, Pack, Probe};
use super::trap::trap;
use arrow::array::{Array, ArrayRef, BinaryArray, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::DataType;
use llavm_pipeline::rejects::FILE_LOST;
use llavm_pipeline::stage::{
    Apply, BATCH_ROWS, BatchIterator, Digest, MapStage, OpenContext, Parameters, Resource, SequentialPass,
    Source, SourcePartition, SourceStage, StageKind,
};
use llavm_pipeline::{Columns, Registry, Rejects, StageError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub fn registry() -> Registry {
    Registry::default()
        .source::<Lines>()
        .map::<Upper>()
        .map::<Length>()
        .map::<Image>()
        .map::<Keep>()
        .map::<Unique>()
        .map::<Sum>()
        .gather::<Pack>()
        .job::<Count>()
        .job::<Probe>()
}

pub fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a StringArray {
    batch.column_by_name(name).unwrap().as_any().downcast_ref().unwrap()
}

fn batch<const N: usize>(columns: [(&str, ArrayRef); N]) -> Result<RecordBatch, StageError> {
    Ok(RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true)))?)
}

/// Source: text files of lines `text|image`; a text `!x` is rejected as `lines/bad` when texts are read.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lines {
    #[serde(skip_serializing)]
    pub files: Vec<PathBuf>,
    #[serde(default = "four", skip_serializing)]
    pub partition_rows: usize,
    /// See [`trap`].
    #[serde(default, skip_serializing)]
    pub trap: PathBuf,
}

fn four() -> usize {
    4
}

impl StageKind for Lines {
    const KIND: &'static str = "lines";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "toy source";
}
impl Parameters for Lines {}
impl SourceStage for Lines {
    fn output(&self) -> Columns {
        Columns::new().with("id", DataType::Utf8).with("text", DataType::Utf8).with("image", DataType::Utf8)
    }

    fn open(&self, context: &dyn OpenContext) -> Result<Box<dyn Source>, StageError> {
        trap(&self.trap);
        let mut open = OpenLines { partitions: Vec::new(), rows: Vec::new(), trap: self.trap.clone() };
        for file in &self.files {
            context.file_digest(file)?;
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(file).map_err(|cause| StageError::io(file, cause))?;
            let lines: Vec<&str> = text.lines().collect();
            for (n, chunk) in lines.chunks(self.partition_rows).enumerate() {
                let first = n * self.partition_rows;
                open.partitions
                    .push(SourcePartition { label: format!("{name} rows {first}..{}", first + chunk.len()) });
                let row = |(n, line): (usize, &&str)| {
                    let (text, image) = line.split_once('|').unwrap();
                    [format!("{name}:{}", first + n), text.to_owned(), image.to_owned()]
                };
                open.rows.push(chunk.iter().enumerate().map(row).collect());
            }
        }
        Ok(Box::new(open))
    }
}

struct OpenLines {
    partitions: Vec<SourcePartition>,
    rows: Vec<Vec<[String; 3]>>,
    trap: PathBuf,
}

fn place(column: &str) -> usize {
    ["id", "text", "image"].iter().position(|name| *name == column).unwrap()
}

impl Source for OpenLines {
    fn partitions(&self) -> &[SourcePartition] {
        &self.partitions
    }

    /// Ids are made of names of files and of nothing else.
    fn ids_digest(&self, partition: usize) -> Result<Digest, StageError> {
        self.digest(partition, &[])
    }

    fn digest(&self, partition: usize, columns: &[&str]) -> Result<Digest, StageError> {
        trap(&self.trap);
        let mut hasher = blake3::Hasher::new();
        for row in &self.rows[partition] {
            for name in columns {
                hasher.update(row[place(name)].as_bytes()).update(b"\n");
            }
        }
        Ok(hasher.finalize())
    }

    fn batches(&self, partition: usize, columns: &[&str]) -> Result<BatchIterator<'_>, StageError> {
        let columns: Vec<String> = columns.iter().map(|&name| name.to_owned()).collect();
        trap(&self.trap);
        Ok(Box::new(self.rows[partition].chunks(BATCH_ROWS).map(move |rows| {
            trap(&self.trap);
            let with_text = columns.iter().any(|name| name == "text");
            let reject = |row: &[String; 3]| {
                let bad = with_text.then(|| row[1].strip_prefix('!')).flatten();
                bad.map(|what| match what.strip_prefix("lost ") {
                    Some(file) => format!("lines/{FILE_LOST}: {file}"),
                    None => format!("lines/bad: it says {what}"),
                })
            };
            let mut all: Vec<(&str, ArrayRef)> = Vec::new();
            for name in &columns {
                let values = rows.iter().map(|row| reject(row).is_none().then(|| row[place(name)].clone()));
                all.push((name, Arc::new(values.collect::<StringArray>())));
            }
            all.push(("reject", Arc::new(rows.iter().map(reject).collect::<StringArray>())));
            Ok(RecordBatch::try_from_iter_with_nullable(
                all.into_iter().map(|(name, array)| (name, array, true)),
            )?)
        })))
    }
}

/// Map: `text` to `upper`. A text with `REJECT` is rejected, `PANIC` panics, `FAIL` fails.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upper {
    pub suffix: String,
    /// A file whose content is appended too.
    #[serde(skip_serializing)]
    pub words: Option<PathBuf>,
    /// Milliseconds to sleep for each batch.
    #[serde(skip_serializing)]
    pub sleep: u64,
    /// Has no effect on the output.
    pub idle: u32,
    /// A file that must be there before a text with `WAIT` is worked on.
    #[serde(skip_serializing)]
    pub wait_for: PathBuf,
    /// See [`trap`].
    #[serde(skip_serializing)]
    pub trap: PathBuf,
}

impl StageKind for Upper {
    const KIND: &'static str = "upper";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "toy map";
}

impl Parameters for Upper {
    fn resources(&self) -> Result<Vec<Resource>, StageError> {
        let resource = |path: &PathBuf| Resource { name: "words".to_owned(), path: path.clone() };
        Ok(self.words.iter().map(resource).collect())
    }

    fn settings(&self) -> Result<Option<(&'static str, Value)>, StageError> {
        Ok(Some(("casing", json!({ "idle": self.idle }))))
    }
}

impl MapStage for Upper {
    fn input(&self) -> Columns {
        Columns::new().with("text", DataType::Utf8)
    }

    fn output(&self) -> Columns {
        Columns::new().with("upper", DataType::Utf8)
    }

    fn open(&self, _context: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError> {
        trap(&self.trap);
        let trapped = self.trap.clone();
        let words = self.words.as_ref().map(|path| fs::read_to_string(path).unwrap()).unwrap_or_default();
        let (suffix, sleep, wait_for) = (self.suffix.clone() + &words, self.sleep, self.wait_for.clone());
        Ok(Box::new(move |rows: &RecordBatch, rejects: &mut Rejects| {
            std::thread::sleep(Duration::from_millis(sleep));
            trap(&trapped);
            let text = column(rows, "text");
            let mut upper = Vec::new();
            for row in 0..rows.num_rows() {
                let value = if rejects.is_rejected(row) { "" } else { text.value(row) };
                assert!(!value.contains("PANIC"), "toy panic");
                while value.contains("WAIT") && !wait_for.exists() {
                    std::thread::sleep(Duration::from_millis(2));
                }
                if value.contains("FAIL") {
                    return Err(
                        StageError::new(format!("cannot work on `{value}`")).help("Write something else.")
                    );
                }
                if value.contains("REJECT") {
                    rejects.reject(row, "toy", format!("`{value}`"));
                }
                upper.push((!rejects.is_rejected(row)).then(|| value.to_uppercase() + &suffix));
            }
            batch([("upper", Arc::new(StringArray::from(upper)))])
        }))
    }
}

/// Map, derived unless `stored`: `upper` to `length`; rejects a length of 13.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Length {
    #[serde(skip_serializing)]
    pub stored: bool,
}

impl StageKind for Length {
    const KIND: &'static str = "length";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "toy derived map";
}
impl Parameters for Length {}
impl MapStage for Length {
    fn input(&self) -> Columns {
        Columns::new().with("upper", DataType::Utf8)
    }

    fn output(&self) -> Columns {
        Columns::new().with("text", DataType::Utf8)
    }

    fn stored(&self) -> bool {
        self.stored
    }

    fn open(&self, _context: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError> {
        Ok(Box::new(|rows: &RecordBatch, rejects: &mut Rejects| {
            let upper = column(rows, "upper");
            let mut lengths = Vec::new();
            for row in 0..rows.num_rows() {
                if !rejects.is_rejected(row) && upper.value(row).len() == 13 {
                    rejects.reject(row, "unlucky", "13 letters");
                }
                lengths.push((!rejects.is_rejected(row)).then(|| upper.value(row).len().to_string()));
            }
            batch([("text", Arc::new(StringArray::from(lengths)))])
        }))
    }
}

/// Map: `image` to `pixels`, `bytes` bytes each.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Image {
    pub bytes: usize,
    #[serde(skip_serializing)]
    pub store: bool,
    /// Has no effect on the output.
    pub idle: u32,
}

impl Default for Image {
    fn default() -> Self {
        Self { bytes: 8, store: true, idle: 0 }
    }
}

impl StageKind for Image {
    const KIND: &'static str = "image";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "toy pixels";
}
impl Parameters for Image {}
impl MapStage for Image {
    fn input(&self) -> Columns {
        Columns::new().with("image", DataType::Utf8)
    }

    fn output(&self) -> Columns {
        Columns::new().with("pixels", DataType::Binary)
    }

    fn stored(&self) -> bool {
        self.store
    }

    fn open(&self, _context: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError> {
        let bytes = self.bytes;
        Ok(Box::new(move |rows: &RecordBatch, rejects: &mut Rejects| {
            let image = column(rows, "image");
            let pixels: BinaryArray = (0..rows.num_rows())
                .map(|row| {
                    let seed = (!rejects.is_rejected(row)).then(|| image.value(row).as_bytes())?;
                    Some(seed.iter().cycle().take(bytes).copied().collect::<Vec<u8>>())
                })
                .collect();
            batch([("pixels", Arc::new(pixels))])
        }))
    }
}

/// Map: `pixels` to `upper`, the sum of the bytes.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sum {}

impl StageKind for Sum {
    const KIND: &'static str = "sum";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "toy reader of pixels";
}
impl Parameters for Sum {}
impl MapStage for Sum {
    fn input(&self) -> Columns {
        Columns::new().with("pixels", DataType::Binary)
    }

    fn output(&self) -> Columns {
        Columns::new().with("upper", DataType::Utf8)
    }

    fn open(&self, _context: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError> {
        Ok(Box::new(|rows: &RecordBatch, _: &mut Rejects| {
            let pixels: &BinaryArray =
                rows.column_by_name("pixels").unwrap().as_any().downcast_ref().unwrap();
            let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>().to_string();
            let sums: StringArray = pixels.iter().map(|bytes| bytes.map(sum)).collect();
            batch([("upper", Arc::new(sums))])
        }))
    }
}

/// Map that passes columns through and rejects, on purpose, texts shorter than `least`.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keep {
    pub least: usize,
}

impl StageKind for Keep {
    const KIND: &'static str = "keep";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "toy filter";
}
impl Parameters for Keep {}
impl MapStage for Keep {
    fn input(&self) -> Columns {
        Columns::new().with("text", DataType::Utf8)
    }

    fn output(&self) -> Columns {
        Columns::new()
    }

    fn passes_through(&self) -> bool {
        true
    }

    fn rejects_on_purpose(&self) -> bool {
        true
    }

    fn open(&self, _context: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError> {
        let least = self.least;
        Ok(Box::new(move |rows: &RecordBatch, rejects: &mut Rejects| {
            let text = column(rows, "text");
            for row in 0..rows.num_rows() {
                if !rejects.is_rejected(row) && text.value(row).len() < least {
                    rejects.reject(row, "short", "too short");
                }
            }
            Ok(rows.project(&[])?)
        }))
    }
}

/// Map with a sequential pass: rejects texts that occurred in an earlier row.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Unique {}

impl StageKind for Unique {
    const KIND: &'static str = "unique";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "toy dedup";
}
impl Parameters for Unique {}
impl MapStage for Unique {
    fn input(&self) -> Columns {
        Columns::new().with("text", DataType::Utf8)
    }

    fn output(&self) -> Columns {
        Columns::new().with("n_seen", DataType::UInt32)
    }

    fn intermediate(&self) -> Columns {
        Columns::new().with("hash", DataType::Utf8)
    }

    fn passes_through(&self) -> bool {
        true
    }

    fn rejects_on_purpose(&self) -> bool {
        true
    }

    fn open(&self, _context: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError> {
        Ok(Box::new(|rows: &RecordBatch, rejects: &mut Rejects| {
            let text = column(rows, "text");
            let hash = (0..rows.num_rows()).map(|row| (!rejects.is_rejected(row)).then(|| text.value(row)));
            batch([("hash", Arc::new(hash.collect::<StringArray>()))])
        }))
    }

    fn sequential(&self) -> Option<Box<dyn SequentialPass>> {
        Some(Box::new(Seen::default()))
    }
}

#[derive(Default)]
struct Seen(BTreeSet<String>);

impl SequentialPass for Seen {
    fn next(&mut self, rows: &RecordBatch, rejects: &mut Rejects) -> Result<RecordBatch, StageError> {
        assert_eq!(rows.num_columns(), 1, "the second pass sees what the first gave");
        let hash = column(rows, "hash");
        let mut seen = Vec::new();
        for row in 0..rows.num_rows() {
            if !rejects.is_rejected(row) && !self.0.insert(hash.value(row).to_owned()) {
                rejects.reject(row, "again", "seen before");
            }
            seen.push((!rejects.is_rejected(row)).then_some(self.0.len() as u32));
        }
        batch([("n_seen", Arc::new(UInt32Array::from(seen)))])
    }
}
