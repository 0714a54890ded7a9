//! Rows as they leave the source: the columns asked for and `reject`.
//!
//! A rejected row keeps its place: `reject` says why, every column is null but `id`, `language` and `source`.

use super::columns::{Conversation as Layout, MADE, Mapping};
use super::conversation::{Conversation, Message, Reader};
use super::image_cell::Image;
use super::image_column::ImageColumn;
use super::image_files::ImageFiles;
use super::image_hashes::Hashes;
use super::language_of::{LanguageOf, of_turns};
use super::marks::IMAGE_PLACEHOLDER;
use super::message_rows::Messages;
use super::prompts::draw;
use super::raw::reject;
use super::value::Value;
use crate::arrays::Lists;
use crate::image_lists::{ImageDigest, digest_array, image_digest};
use crate::row::images_type;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, ListBuilder, RecordBatch, RecordBatchOptions, StringBuilder,
    UInt32Builder,
};
use arrow::datatypes::{DataType, Field, Schema};
use blake3::Hash;
use llavm_pipeline::StageError;
use llavm_pipeline::rejects::Reject;
use llavm_pipeline::stage::BATCH_ROWS;
use std::borrow::Cow;
use std::sync::Arc;

/// Bytes of images from which on a batch ends early, so that large images take no more memory than many small ones.
const MAX_BATCH_BYTES: usize = if cfg!(test) { 1 << 20 } else { 256 << 20 };

/// Most bytes that are made room for before they are there.
const MAX_AHEAD: usize = 16 << 20;

/// Most bytes of images in one row: Arrow's binary offsets are 32 bits.
const MAX_ROW_BYTES: usize = i32::MAX as usize;

/// How a raw row becomes an output row.
pub struct RowRules {
    pub reader: Reader,
    pub image: Option<ImageColumn>,
    pub images: ImageFiles,
    /// Drawn from where a row has no prompt.
    pub prompts: Vec<String>,
    pub seed: u64,
    /// The column that names a row, for drawing.
    pub identity: Option<String>,
    /// Column of whose items each is a row.
    pub explode: Option<String>,
    /// What is said of rows whose columns do not say it.
    pub language: Option<LanguageOf>,
    pub source: Option<String>,
}

/// Where a row comes from.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub file: &'a str,
    pub row: u64,
    /// Which of the rows that the raw row becomes.
    pub item: Option<usize>,
}

impl Place<'_> {
    /// The row's name: its own, or the file's with the row's number; rows of one raw row are counted behind it.
    fn id(&self, own: Option<Cow<'_, str>>) -> String {
        let name = own.map_or_else(|| format!("{}#{}", self.file, self.row), Cow::into_owned);
        self.item.map_or_else(|| name.clone(), |item| format!("{name}#{item}"))
    }
}

impl RowRules {
    fn conversation<'a>(&'a self, row: &'a Value<'_>, place: Place<'_>) -> Result<Conversation<'a>, Reject> {
        self.reader.read(row, || self.drawn(row, place).map(Cow::Borrowed))
    }

    fn turns<'a>(&'a self, row: &'a Value<'_>, place: Place<'_>) -> Result<Vec<Message<'a>>, Reject> {
        Ok(self.conversation(row, place)?.turns)
    }

    /// One of `prompts`.
    fn drawn(&self, row: &Value<'_>, place: Place<'_>) -> Option<&str> {
        if self.prompts.is_empty() {
            return None;
        }
        let answer = self.reader.mapping.texts.get(1).and_then(Option::as_deref);
        let own = [self.identity.as_deref(), answer].into_iter().flatten();
        let own: Vec<_> = own.filter_map(|name| row.get(name)?.as_name()).collect();
        let own: Vec<&str> = own.iter().map(Cow::as_ref).collect();
        draw(&self.prompts, self.seed, place.row, &own, place.item.unwrap_or(0))
    }

    /// The images of a row, as its column has them or its conversation.
    pub fn named_images<'a>(&self, row: &'a Value<'_>) -> Result<Vec<Image<'a>>, Reject> {
        match &self.image {
            Some(image) => image.images(row),
            // The prompt that would be drawn holds none.
            None => Ok(self.reader.read(row, || Some(Cow::Borrowed(IMAGE_PLACEHOLDER)))?.images),
        }
    }

    /// The digests of a row's images; `None` for a row that cannot be read or names a file.
    pub fn image_hashes(&self, row: &Value<'_>) -> Option<Vec<blake3::Hash>> {
        let hash = |image: &Image<'_>| match image {
            Image::Bytes(bytes) => Some(blake3::hash(bytes)),
            Image::Path(_) => None,
        };
        self.named_images(row).ok()?.iter().map(hash).collect()
    }

    fn images<'a>(&self, row: &'a Value<'_>) -> Result<Vec<Cow<'a, [u8]>>, Reject> {
        let found = self.named_images(row)?;
        self.is_there_to_ask_about(found.len())?;
        let load = |image| match image {
            Image::Bytes(bytes) => Ok(bytes),
            Image::Path(path) => self.images.load(&path).map(Cow::Owned),
        };
        found.into_iter().map(load).collect()
    }

    /// The digests of the images that [`RowRules::images`] gives; `known` are those of [`RowRules::named_images`], all bytes.
    fn digests(&self, row: &Value<'_>, known: Option<&[Hash]>) -> Result<Vec<ImageDigest>, Reject> {
        let Some(known) = known else {
            let images = self.images(row)?;
            return Ok(images.iter().map(|image| image_digest(&blake3::hash(image))).collect());
        };
        self.is_there_to_ask_about(known.len())?;
        Ok(known.iter().map(image_digest).collect())
    }

    /// Whether a column follows from the digests of the images.
    pub fn follows_from_digests(&self, column: &str) -> bool {
        column == "image_digests" || column == "group" && self.reader.mapping.group.is_none()
    }

    /// What the row is grouped by: its column, or its images, by name where they have one and by content where not.
    fn group(&self, row: &Value<'_>, known: Option<&[Hash]>) -> Result<Vec<String>, Reject> {
        if let Some(name) = &self.reader.mapping.group {
            return Ok(row.get(name).and_then(Value::as_name).map(Cow::into_owned).into_iter().collect());
        }
        if let Some(hashes) = known {
            return Ok(hashes.iter().map(|hash| hash.to_hex().to_string()).collect());
        }
        let name = |image| match image {
            Image::Path(path) => path.into_owned(),
            Image::Bytes(bytes) => blake3::hash(&bytes).to_hex().to_string(),
        };
        Ok(self.named_images(row)?.into_iter().map(name).collect())
    }

    /// How many images [`RowRules::images`] gives, without loading any from a file.
    fn n_images(&self, row: &Value<'_>) -> Result<u32, Reject> {
        let count = self.named_images(row)?.len();
        self.is_there_to_ask_about(count)?;
        Ok(count as u32)
    }

    /// All that decides which images a row names, as text.
    pub fn images_identity(&self) -> String {
        let column = self.image.as_ref().map(ImageColumn::identity);
        column.unwrap_or_else(|| format!("{:?}/{:?}", self.reader.mapping, self.reader.marks))
    }

    /// Whether every row's prompt is drawn from instructions, which ask about the image.
    pub fn asks_about_images(&self) -> bool {
        let Mapping { conversation, texts, .. } = &self.reader.mapping;
        let own = texts.first().is_some_and(Option::is_some);
        self.image.is_some() && *conversation == Layout::PromptAnswer && !self.prompts.is_empty() && !own
    }

    /// "Describe the image" without one would teach a model to make things up.
    fn is_there_to_ask_about(&self, images: usize) -> Result<(), Reject> {
        if images == 0 && self.asks_about_images() {
            return Err(reject("no-image", "the row has no image, and its instruction asks about one"));
        }
        Ok(())
    }

    /// What the row says of its language; otherwise what the manifest says.
    fn language<'a>(
        &'a self,
        own: Option<Cow<'a, str>>,
        row: &Value<'_>,
        place: Place<'_>,
    ) -> Result<Option<Cow<'a, str>>, Reject> {
        Ok(match (&self.language, own) {
            (_, Some(own)) => Some(own),
            (None, None) => None,
            (Some(LanguageOf::Stated(code)), None) => Some(Cow::Borrowed(code.as_str())),
            (Some(LanguageOf::Detect), None) => of_turns(&self.turns(row, place)?).map(Cow::Borrowed),
        })
    }

    /// What the manifest says of every row.
    fn stated(&self, column: &str) -> Option<&str> {
        match (column, &self.language) {
            ("source", _) => self.source.as_deref(),
            ("language", Some(LanguageOf::Stated(code))) => Some(code),
            _ => None,
        }
    }

    /// The raw columns that the named output columns are made of.
    pub fn needed(&self, output: &[&str]) -> Vec<String> {
        let mapping = &self.reader.mapping;
        // With `explode`, a raw row that cannot be read is one row. Whatever is asked for, the same rows must be the ones.
        let output = if self.explode.is_some() { &MADE[..] } else { output };
        let mut needed = mapping.needed(output);
        needed.extend(self.explode.clone());
        let detects = self.language == Some(LanguageOf::Detect) && output.contains(&"language");
        if detects {
            needed.extend(mapping.needed(&["messages"]));
        }
        if detects || output.contains(&"messages") {
            needed.extend(self.identity.clone());
        }
        needed
    }
}

/// One output column under construction.
enum Column {
    Text { name: &'static str, from: Option<String>, cells: StringBuilder },
    Images(ListBuilder<BinaryBuilder>),
    Digests(Digests),
    Count(UInt32Builder),
    Messages(Box<Messages>),
    Group(ListBuilder<StringBuilder>),
}

/// A batch under construction.
pub struct BatchBuilder<'a> {
    rules: &'a RowRules,
    columns: Vec<Column>,
    rejects: StringBuilder,
    rows: usize,
    image_bytes: usize,
    /// Digests of images that are known, and the number of the first row that they are of.
    hashes: Option<(Hashes, u64)>,
}

/// What one row puts into one column.
enum Cell<'a> {
    Text(Option<Cow<'a, str>>),
    Images(Vec<Cow<'a, [u8]>>),
    Digests(Vec<ImageDigest>),
    Count(u32),
    Messages(Vec<Message<'a>>),
    Group(Vec<String>),
}

impl Cell<'_> {
    fn image_bytes(&self) -> usize {
        if let Self::Images(images) = self { images.iter().map(|image| image.len()).sum() } else { 0 }
    }
}

impl<'a> BatchBuilder<'a> {
    /// For the named output columns, in that order.
    pub fn new(rules: &'a RowRules, columns: &[&str]) -> Result<Self, StageError> {
        let text = |name, from: &Option<String>| Column::Text {
            name,
            from: from.clone(),
            cells: StringBuilder::new(),
        };
        let column = |name: &&str| match *name {
            "id" => Ok(text("id", &rules.reader.mapping.id)),
            "language" => Ok(text("language", &rules.reader.mapping.language)),
            "source" => Ok(text("source", &rules.reader.mapping.source)),
            "images" => Ok(Column::Images(ListBuilder::new(BinaryBuilder::new()))),
            "image_digests" => Ok(Column::Digests(Digests::default())),
            "n_images" => Ok(Column::Count(UInt32Builder::new())),
            "messages" => Ok(Column::Messages(Box::default())),
            "group" => Ok(Column::Group(ListBuilder::new(StringBuilder::new()))),
            other => Err(StageError::new(format!("`read` has no column `{other}`"))),
        };
        // `reject` comes with every batch.
        let columns =
            columns.iter().filter(|name| **name != "reject").map(column).collect::<Result<_, _>>()?;
        let (rejects, rows, image_bytes) = (StringBuilder::new(), 0, 0);
        Ok(Self { rules, columns, rejects, rows, image_bytes, hashes: None })
    }

    /// The same, for rows of which digests are known, the first of them row `first` of its file.
    pub fn with_hashes(self, hashes: Option<Hashes>, first: u64) -> Self {
        Self { hashes: hashes.map(|hashes| (hashes, first)), ..self }
    }

    /// The column of whose items each is a row.
    pub fn exploded(&self) -> Option<&'a str> {
        self.rules.explode.as_deref()
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a row. Where its images would make the batch too large, the rows before it are given back as a batch.
    pub fn append(
        &mut self,
        row: Result<&Value<'_>, &Reject>,
        place: Place<'_>,
    ) -> Result<Option<RecordBatch>, StageError> {
        let cells = row.map_err(Clone::clone).and_then(|row| self.cells(row, place));
        let bytes = cells.as_ref().map_or(0, |cells| cells.iter().map(Cell::image_bytes).sum());
        let is_full = self.rows > 0 && self.image_bytes + bytes > MAX_BATCH_BYTES;
        let before = if is_full { Some(self.finish()?) } else { None };
        self.image_bytes += bytes;
        self.rows += 1;
        match cells {
            Ok(cells) => {
                self.rejects.append_null();
                let rules = self.rules;
                let columns = self.columns.iter_mut().zip(cells);
                columns.for_each(|(column, cell)| column.append(cell, place, rules));
            }
            Err(Reject { code, detail }) => {
                self.rejects.append_value(format!("read/{code}: {detail}"));
                let (row, rules) = (row.ok(), self.rules);
                self.columns.iter_mut().for_each(|column| column.append_rejected(row, place, rules));
            }
        }
        Ok(before)
    }

    fn cells<'r>(&self, row: &'r Value<'_>, place: Place<'_>) -> Result<Vec<Cell<'r>>, Reject>
    where
        'a: 'r,
    {
        let rules = self.rules;
        let known = self.hashes.as_ref();
        let known = known.and_then(|(hashes, first)| hashes.row(place.row.checked_sub(*first)? as usize));
        let mut cells = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            cells.push(match column {
                Column::Text { name, from, .. } => {
                    let own = text_of(name, from.as_deref(), row);
                    Cell::Text(match *name {
                        "language" => rules.language(own, row, place)?,
                        "source" => own.or_else(|| rules.source.as_deref().map(Cow::Borrowed)),
                        _ => own,
                    })
                }
                Column::Count(_) => Cell::Count(rules.n_images(row)?),
                Column::Messages(_) => Cell::Messages(rules.turns(row, place)?),
                Column::Group(_) => Cell::Group(rules.group(row, known)?),
                Column::Images(_) => Cell::Images(rules.images(row)?),
                Column::Digests(_) => Cell::Digests(rules.digests(row, known)?),
            });
        }
        let bytes: usize = cells.iter().map(Cell::image_bytes).sum();
        if bytes > MAX_ROW_BYTES {
            return Err(reject(
                "too-large",
                format!("the images of the row have {bytes} bytes, over {MAX_ROW_BYTES}"),
            ));
        }
        Ok(cells)
    }

    /// The rows so far as a batch; the builder is empty afterwards.
    pub fn finish(&mut self) -> Result<RecordBatch, StageError> {
        let (mut fields, mut arrays): (Vec<Field>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
        for column in &mut self.columns {
            let (name, array) = column.finish()?;
            fields.push(Field::new(name, array.data_type().clone(), true));
            arrays.push(array);
        }
        fields.push(Field::new("reject", DataType::Utf8, true));
        arrays.push(Arc::new(self.rejects.finish()));
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        (self.rows, self.image_bytes) = (0, 0);
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?)
    }
}

fn text_of<'r>(column: &str, from: Option<&str>, row: &'r Value<'_>) -> Option<Cow<'r, str>> {
    let cell = from.and_then(|name| row.get(name))?;
    let text = if column == "id" { cell.as_name() } else { cell.as_text() };
    text.filter(|text| !text.is_empty())
}

impl Column {
    fn append(&mut self, cell: Cell<'_>, place: Place<'_>, rules: &RowRules) {
        match (self, cell) {
            (Self::Text { name: "id", cells, .. }, Cell::Text(text)) => cells.append_value(place.id(text)),
            (Self::Text { cells, .. }, Cell::Text(text)) => cells.append_option(text),
            (Self::Images(list), Cell::Images(images)) => {
                images.iter().for_each(|image| list.values().append_value(image));
                list.append(true);
            }
            (Self::Digests(lists), Cell::Digests(digests)) => lists.append(digests),
            (Self::Count(counts), Cell::Count(count)) => counts.append_value(count),
            (Self::Messages(messages), Cell::Messages(turns)) => messages.append(&turns),
            (Self::Group(groups), Cell::Group(names)) => groups.append_value(names.into_iter().map(Some)),
            (column, _) => column.append_rejected(None, place, rules),
        }
    }

    /// Null, but for the row's name, which a reject needs most, and what its columns or the manifest say of where it comes from.
    fn append_rejected(&mut self, row: Option<&Value<'_>>, place: Place<'_>, rules: &RowRules) {
        match self {
            Self::Text { name, from, cells } => {
                let own = row.and_then(|row| text_of(name, from.as_deref(), row));
                match *name {
                    "id" => cells.append_value(place.id(own)),
                    _ => cells.append_option(own.or_else(|| rules.stated(name).map(Cow::Borrowed))),
                }
            }
            Self::Images(list) => list.append(false),
            Self::Digests(digests) => digests.lists.push_null(),
            Self::Count(counts) => counts.append_null(),
            Self::Messages(messages) => messages.append_null(),
            Self::Group(groups) => groups.append(false),
        }
    }

    fn finish(&mut self) -> Result<(&'static str, ArrayRef), StageError> {
        Ok(match self {
            Self::Text { name, cells, .. } => (name, Arc::new(cells.finish())),
            Self::Images(images) => {
                let list = images.finish();
                // The next batch is about as large: growing step by step would copy it once more.
                let bytes = list.values().as_binary::<i32>().value_data().len().min(MAX_AHEAD);
                *images = ListBuilder::new(BinaryBuilder::with_capacity(BATCH_ROWS, bytes + bytes / 8));
                debug_assert_eq!(list.data_type(), &images_type());
                ("images", Arc::new(list))
            }
            Self::Digests(digests) => ("image_digests", std::mem::take(digests).finish()?),
            Self::Count(counts) => ("n_images", Arc::new(counts.finish())),
            Self::Messages(messages) => ("messages", Arc::new(messages.finish()?)),
            Self::Group(groups) => ("group", Arc::new(groups.finish())),
        })
    }
}

/// `image_digests` under construction.
#[derive(Default)]
struct Digests {
    lists: Lists,
    digests: Vec<ImageDigest>,
}

impl Digests {
    fn append(&mut self, digests: Vec<ImageDigest>) {
        self.lists.push(digests.len());
        self.digests.extend(digests);
    }

    fn finish(self) -> Result<ArrayRef, StageError> {
        self.lists.finish(Arc::new(digest_array(&self.digests)?))
    }
}
