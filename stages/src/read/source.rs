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
//! | name of the image column, `image_name`, content of the image files, of the zip or the table; whether all prompts are drawn | `images`, `image_digests` |
//! | name of the image column, `image_name`, whether all prompts are drawn; not the bytes of its images (Parquet, webdataset), unless placeholders are dropped | `n_images` |
//! | name of the column, or what `images` has but for the files' contents | `group` |
//! | name of the column, and what the manifest states instead; for `id` also the short file name, which default ids hold | `id`, `language`, `source` |
//!
//! Never: paths, times, and for columns other than `id`, file names. For who only copies ids (`ids_digest`) no file names at all.

use super::build::{BatchBuilder, Place, RowRules};
use super::explode::Exploded;
use super::image_hashes::{Hashes, OfRow};
use super::input::Input;
use super::language_of::LanguageOf;
use super::raw::{Chunk, ChunkIterator, NamedFile, Request};
use super::select::Filter;
use arrow::array::RecordBatch;
use llavm_pipeline::StageError;
use llavm_pipeline::rejects::Reject;
use llavm_pipeline::stage::{BATCH_ROWS, BatchIterator, Digest, Memory, Source, SourcePartition};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Raised when the same raw bytes give other rows.
const ROWS_VERSION: u32 = 7;

/// Rows of one split of one file.
pub struct Part {
    pub file: usize,
    pub split: usize,
    /// How many of the split's rows, from its first (`limit` may cut it).
    pub rows: usize,
    /// Digest of the image files its rows name.
    pub images: Option<Digest>,
}

/// `read`, opened.
pub struct ReadSource {
    files: Vec<NamedFile>,
    parts: Vec<Part>,
    partitions: Vec<SourcePartition>,
    rules: RowRules,
    filter: Option<Filter>,
    notes: Vec<String>,
    memory: Arc<dyn Memory>,
}

impl ReadSource {
    pub fn new(
        files: Vec<NamedFile>,
        parts: Vec<Part>,
        rules: RowRules,
        filter: Option<Filter>,
        notes: Vec<String>,
        memory: Arc<dyn Memory>,
    ) -> Self {
        let label = |part: &Part| {
            let first = files[part.file].raw.splits()[part.split].rows.start;
            let label = format!("{} rows {first}..{}", files[part.file].name, first + part.rows as u64);
            SourcePartition { label }
        };
        let partitions = parts.iter().map(label).collect();
        Self { files, parts, partitions, rules, filter, notes, memory }
    }

    fn part(&self, partition: usize) -> Result<(&Part, &NamedFile, u64), StageError> {
        let part = self.parts.get(partition);
        let part = part.ok_or_else(|| StageError::new(format!("there is no partition {partition}")))?;
        let file = &self.files[part.file];
        Ok((part, file, file.raw.splits()[part.split].rows.start))
    }

    /// What to read of the raw files for some output columns.
    fn request(&self, columns: &[&str], rows: usize) -> Request {
        let rules = &self.rules;
        let in_text = rules.reader.holds_images();
        let others: Vec<&str> =
            columns.iter().copied().filter(|column| in_text || *column != "n_images").collect();
        let mut needed = rules.needed(&others);
        let root = |name: &str| name.split('.').next().map(str::to_owned);
        let is_read = |image: &str| needed.iter().any(|name| root(name) == root(image));
        let image = rules.reader.mapping.image.as_deref().filter(|_| columns.contains(&"n_images"));
        // A placeholder is known by its bytes only.
        let countable = rules.image.as_ref().is_some_and(|image| !image.needs_image_bytes());
        let counted = image.filter(|image| countable && !is_read(image)).map(Arc::from);
        needed.extend(image.map(str::to_owned));
        Request { columns: Some(needed.into()), counted, limit: Some(rows), ..Request::default() }
    }

    /// The digests of a partition's images, where a column follows from them and they stand in the raw file.
    fn hashes(&self, partition: usize, columns: &[&str]) -> Result<Option<Hashes>, StageError> {
        let (rules, (part, file, _)) = (&self.rules, self.part(partition)?);
        let inside = rules.images.places().is_empty() && rules.explode.is_none();
        if !inside || !columns.iter().any(|column| rules.follows_from_digests(column)) {
            return Ok(None);
        }
        let request = self.request(&["images"], part.rows);
        let (identity, of_row) =
            (rules.images_identity(), |row: &super::value::Value<'_>| rules.image_hashes(row));
        let find: (&str, OfRow<'_>) = (&identity, &of_row);
        Hashes::of(find, file.raw.as_ref(), (part.split, part.rows), &request, self.memory.as_ref())
    }

    /// The digest of columns, given what decides each of them besides the raw bytes.
    fn digest_of(&self, partition: usize, columns: &BTreeMap<&str, Value>) -> Result<Digest, StageError> {
        let (part, file, first_row) = self.part(partition)?;
        let names: Vec<&str> = columns.keys().copied().collect();
        let raw =
            |request: &Request| file.raw.digest(part.split, request).map(|raw| raw.to_hex().to_string());
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
        let RowRules { reader, prompts, seed, image, language, source, identity, .. } = &self.rules;
        let mapping = &reader.mapping;
        let asks = self.rules.asks_about_images();
        let texts = || reader.holds_images().then(|| self.column_identity("messages", part, file));
        match column {
            "images" | "image_digests" => {
                let files = part.images.map(|digest| digest.to_hex().to_string());
                serde_json::json!([image, asks, files, texts()])
            }
            "n_images" => serde_json::json!([image, asks, texts()]),
            "messages" => {
                let seed = (!prompts.is_empty()).then_some(seed);
                serde_json::json!([
                    mapping.conversation,
                    mapping.texts,
                    [&mapping.system, &mapping.history, &mapping.tools, &mapping.input],
                    reader.marks,
                    prompts,
                    seed,
                    identity,
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
            "group" => serde_json::json!([mapping.group, image, asks, texts()]),
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
        let id = serde_json::json!(self.rules.reader.mapping.id);
        self.digest_of(partition, &BTreeMap::from([("id", id)]))
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn batches(&self, partition: usize, columns: &[&str]) -> Result<BatchIterator<'_>, StageError> {
        let (part, file, first_row) = self.part(partition)?;
        let raw = file.raw.as_ref();
        let filter = self.filter.as_ref();
        let selection = filter.map(|filter| filter.select(raw, part.split, part.rows)).transpose()?;
        let (keep, unreadable) = selection
            .map_or_else(Default::default, |selection| (Some(selection.keep.into()), selection.unreadable));
        let hashes = self.hashes(partition, columns)?;
        let known = hashes.as_ref().is_some_and(Hashes::is_complete);
        let follows = |column: &&str| known && self.rules.follows_from_digests(column);
        let others: Vec<&str> = columns.iter().copied().filter(|column| !follows(column)).collect();
        let request = Request { keep, ..self.request(&others, part.rows) };
        let builder = BatchBuilder::new(&self.rules, columns)?.with_hashes(hashes, first_row);
        let chunks = raw.read(part.split, request)?;
        file.input.take_failure()?;
        Ok(Box::new(Rows {
            input: &file.input,
            name: &file.name,
            first_row,
            unreadable,
            chunks,
            current: None,
            pending: None,
            builder,
        }))
    }
}

/// One partition being read.
struct Rows<'a> {
    input: &'a Input,
    name: &'a str,
    first_row: u64,
    unreadable: BTreeMap<usize, Reject>,
    chunks: ChunkIterator<'a>,
    /// A chunk and how many of its rows are done.
    current: Option<(Box<dyn Chunk + 'a>, usize)>,
    /// A raw row of which rows are left, and where it stands.
    pending: Option<(Exploded<'static>, Place<'a>)>,
    builder: BatchBuilder<'a>,
}

impl<'a> Rows<'a> {
    /// Goes on with a row of which items are left.
    fn explode(
        &mut self,
        mut row: Exploded<'static>,
        place: Place<'a>,
    ) -> Result<Option<RecordBatch>, StageError> {
        let full = append_items(&mut self.builder, &mut row, place)?;
        self.pending = row.more().then_some((row, place));
        Ok(full)
    }

    /// A full batch, the last rows, or nothing.
    fn batch(&mut self) -> Result<Option<RecordBatch>, StageError> {
        let mut full = None;
        while full.is_none() && self.builder.rows() < BATCH_ROWS {
            if let Some((row, place)) = self.pending.take() {
                full = self.explode(row, place)?;
                continue;
            }
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
            *done += 1;
            let place = Place { file: self.name, row: self.first_row + *row as u64, item: None };
            full = match (value, self.builder.exploded()) {
                (Ok(value), Some(column)) => {
                    let mut row = Exploded::new(value, column);
                    let full = append_items(&mut self.builder, &mut row, place)?;
                    // Copied once where a batch ends among its items, so that it is not read again for each further batch.
                    self.pending = row.more().then(|| (row.into_owned(), place));
                    full
                }
                (value, _) => self.builder.append(value.as_ref(), place)?,
            };
        }
        match full {
            Some(batch) => Ok(Some(batch)),
            None if self.builder.rows() == 0 => Ok(None),
            None => self.builder.finish().map(Some),
        }
    }
}

/// Appends items until there are none, or the batch is full. Gives a batch that ended early.
fn append_items(
    builder: &mut BatchBuilder<'_>,
    row: &mut Exploded<'_>,
    place: Place<'_>,
) -> Result<Option<RecordBatch>, StageError> {
    loop {
        let (value, number) = row.row();
        let full = builder.append(Ok(value), Place { item: number, ..place })?;
        if full.is_some() || !row.more() || builder.rows() >= BATCH_ROWS {
            return Ok(full);
        }
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<RecordBatch, StageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batch();
        // Rows that could not be fetched are no broken rows.
        match self.input.take_failure() {
            Ok(()) => batch.transpose(),
            Err(failure) => Some(Err(failure)),
        }
    }
}
