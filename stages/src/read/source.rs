//! The opened source: partitions of raw files, their digests, their rows in batches.
//!
//! What a partition's digest holds, by the columns asked for:
//!
//! | part | enters |
//! |---|---|
//! | raw bytes (of the columns read, where the format can tell them apart), number of rows, place in the file | always |
//! | `where` and the types of its columns | always, when set |
//! | the column of `explode` | always, when set; then all columns are read, whichever are asked for |
//! | names and layout of the text columns, `prompts`, the seed when prompts are drawn | `messages`; `language` when detected |
//! | name of the image column, `image_name`, content of the picture files, of the zip or the table; whether all prompts are drawn | `images` |
//! | name of the image column, `image_name`, whether all prompts are drawn; not the bytes of its pictures (Parquet, webdataset), unless placeholders are dropped | `n_images` |
//! | name of the column, and what the manifest states instead; for `id` also the short file name, which default ids hold | `id`, `language`, `source` |
//!
//! Never: paths, times, and for columns other than `id`, file names. For who only copies ids (`ids_digest`) no file names at all.

use super::build::{BatchBuilder, Place, RowRules};
use super::explode::{Item, nth};
use super::language_of::LanguageOf;
use super::raw::{Chunk, ChunkIterator, RawFile, Request};
use super::select::Filter;
use arrow::array::RecordBatch;
use llavm_pipeline::StageError;
use llavm_pipeline::rejects::Reject;
use llavm_pipeline::stage::{BATCH_ROWS, BatchIterator, Digest, Source, SourcePartition};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Raised when the same raw bytes give other rows.
const ROWS_VERSION: u32 = 4;

/// A raw file and what reports call it.
pub struct NamedFile {
    pub name: String,
    pub raw: Box<dyn RawFile>,
}

/// Rows of one piece of one file.
pub struct Part {
    pub file: usize,
    pub piece: usize,
    /// How many of the piece's rows, from its first (`limit` may cut it).
    pub rows: usize,
    /// Digest of the picture files its rows name.
    pub images: Option<Digest>,
}

/// `read`, opened.
pub struct ReadSource {
    files: Vec<NamedFile>,
    parts: Vec<Part>,
    partitions: Vec<SourcePartition>,
    rules: RowRules,
    filter: Option<Filter>,
}

impl ReadSource {
    pub fn new(files: Vec<NamedFile>, parts: Vec<Part>, rules: RowRules, filter: Option<Filter>) -> Self {
        let label = |part: &Part| {
            let first = files[part.file].raw.pieces()[part.piece].rows.start;
            let label = format!("{} rows {first}..{}", files[part.file].name, first + part.rows as u64);
            SourcePartition { label }
        };
        let partitions = parts.iter().map(label).collect();
        Self { files, parts, partitions, rules, filter }
    }

    fn part(&self, partition: usize) -> Result<(&Part, &NamedFile, u64), StageError> {
        let part = self.parts.get(partition);
        let part = part.ok_or_else(|| StageError::new(format!("there is no partition {partition}")))?;
        let file = &self.files[part.file];
        Ok((part, file, file.raw.pieces()[part.piece].rows.start))
    }

    /// What to read of the raw files for some output columns.
    fn request(&self, columns: &[&str], rows: usize) -> Request {
        let rules = &self.rules;
        let others: Vec<&str> = columns.iter().copied().filter(|column| *column != "n_images").collect();
        let mut needed = rules.needed(&others);
        let root = |name: &str| name.split('.').next().map(str::to_owned);
        let is_read = |image: &str| needed.iter().any(|name| root(name) == root(image));
        let image = rules.mapping.image.as_deref().filter(|_| columns.contains(&"n_images"));
        // A placeholder is known by its bytes only.
        let countable = rules.image.as_ref().is_some_and(|image| !image.looks_at_pictures());
        let counted = image.filter(|image| countable && !is_read(image)).map(Arc::from);
        needed.extend(image.map(str::to_owned));
        Request { columns: Some(needed.into()), counted, limit: Some(rows), keep: None }
    }

    /// The digest of columns, given what decides each of them besides the raw bytes.
    fn digest_of(&self, partition: usize, columns: &BTreeMap<&str, Value>) -> Result<Digest, StageError> {
        let (part, file, first_row) = self.part(partition)?;
        let names: Vec<&str> = columns.keys().copied().collect();
        let raw =
            |request: &Request| file.raw.digest(part.piece, request).map(|raw| raw.to_hex().to_string());
        let looked_at =
            |filter: &Filter| Request { columns: Some(filter.columns().into()), ..Request::default() };
        let identity = serde_json::json!({
            "version": ROWS_VERSION,
            "raw": raw(&self.request(&names, part.rows)),
            "raw_where": self.filter.as_ref().map(|filter| raw(&looked_at(filter))),
            "first_row": first_row,
            "rows": part.rows,
            "explode": self.rules.explode,
            "where": self.filter.as_ref().map(Filter::identity),
            "columns": columns,
        });
        Ok(blake3::hash(identity.to_string().as_bytes()))
    }

    /// What decides the content of one output column besides the raw bytes.
    fn column_identity(&self, column: &str, part: &Part, file: &NamedFile) -> Value {
        let RowRules { mapping, prompts, seed, image, language, source, .. } = &self.rules;
        let asks = self.rules.asks_about_pictures();
        match column {
            "images" => {
                serde_json::json!([image, asks, part.images.map(|digest| digest.to_hex().to_string())])
            }
            "n_images" => serde_json::json!([image, asks]),
            "messages" => {
                let seed = (!prompts.is_empty()).then_some(seed);
                serde_json::json!([
                    mapping.conversation,
                    mapping.texts,
                    prompts,
                    seed,
                    mapping.image.is_some()
                ])
            }
            "id" => serde_json::json!([mapping.id, file.name]),
            "language" => {
                let detected = *language == Some(LanguageOf::Detect);
                let texts = detected.then(|| self.column_identity("messages", part, file));
                serde_json::json!([mapping.language, language, texts])
            }
            "source" => serde_json::json!([mapping.source, source]),
            _ => Value::Null,
        }
    }
}

impl Source for ReadSource {
    fn partitions(&self) -> &[SourcePartition] {
        &self.partitions
    }

    fn digest(&self, partition: usize, columns: &[&str]) -> Result<Digest, StageError> {
        let (part, file, _) = self.part(partition)?;
        let columns = columns.iter().map(|column| (*column, self.column_identity(column, part, file)));
        self.digest_of(partition, &columns.collect())
    }

    fn ids_digest(&self, partition: usize) -> Result<Digest, StageError> {
        let id = serde_json::json!(self.rules.mapping.id);
        self.digest_of(partition, &BTreeMap::from([("id", id)]))
    }

    fn batches(&self, partition: usize, columns: &[&str]) -> Result<BatchIterator<'_>, StageError> {
        let (part, file, first_row) = self.part(partition)?;
        let raw = file.raw.as_ref();
        let filter = self.filter.as_ref();
        let selection = filter.map(|filter| filter.select(raw, part.piece, part.rows)).transpose()?;
        let (keep, unreadable) = selection
            .map_or_else(Default::default, |selection| (Some(selection.keep.into()), selection.unreadable));
        let request = Request { keep, ..self.request(columns, part.rows) };
        let builder = BatchBuilder::new(&self.rules, columns)?;
        let chunks = raw.read(part.piece, request)?;
        Ok(Box::new(Rows {
            name: &file.name,
            first_row,
            unreadable,
            chunks,
            current: None,
            item: 0,
            builder,
        }))
    }
}

/// One partition being read.
struct Rows<'a> {
    name: &'a str,
    first_row: u64,
    unreadable: BTreeMap<usize, Reject>,
    chunks: ChunkIterator<'a>,
    /// A chunk and how many of its rows are done.
    current: Option<(Box<dyn Chunk + 'a>, usize)>,
    /// How many rows the current raw row has given.
    item: usize,
    builder: BatchBuilder<'a>,
}

impl Rows<'_> {
    /// A full batch, the last rows, or nothing.
    fn batch(&mut self) -> Result<Option<RecordBatch>, StageError> {
        while self.builder.rows() < BATCH_ROWS {
            let Some((chunk, done)) = &mut self.current else {
                match self.chunks.next() {
                    Some(chunk) => self.current = Some((chunk?, 0)),
                    None => break,
                }
                continue;
            };
            let Some(row) = chunk.rows().get(*done) else {
                self.current = None;
                continue;
            };
            let value = match self.unreadable.get(row) {
                Some(reject) => Err(reject.clone()),
                None => chunk.value(*done),
            };
            let mut place = Place { file: self.name, row: self.first_row + *row as u64, item: None };
            let (value, more) = match (value, self.builder.exploded()) {
                (Ok(value), Some(column)) => {
                    let Item { row, number, more } = nth(value, column, self.item);
                    place.item = number;
                    (Ok(row), more)
                }
                (value, _) => (value, false),
            };
            self.builder.append(value.as_ref(), place);
            self.item = if more { self.item + 1 } else { 0 };
            *done += usize::from(!more);
        }
        if self.builder.rows() == 0 { Ok(None) } else { self.builder.finish().map(Some) }
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<RecordBatch, StageError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batch().transpose()
    }
}
