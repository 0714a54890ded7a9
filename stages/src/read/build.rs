//! Rows as they leave the source: the columns asked for and `reject`.
//!
//! A rejected row keeps its place: `reject` says why, every column is null but `id` and what is told of `language` and `source`.

use super::columns::{Conversation, Mapping};
use super::conversation::{Message, checked, from_prompt_answer, messages, prompt_and_completion, text_cell};
use super::image_cell::Picture;
use super::image_column::ImageColumn;
use super::image_files::ImageFiles;
use super::language_of::{LanguageOf, of_turns};
use super::prompts::draw;
use super::raw::reject;
use super::value::Value;
use crate::row::{images_type, message_fields, messages_type};
use arrow::array::{
    Array, ArrayRef, BinaryBuilder, ListArray, ListBuilder, NullBufferBuilder, RecordBatch,
    RecordBatchOptions, StringBuilder, StructArray, UInt32Builder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema};
use llavm_pipeline::StageError;
use llavm_pipeline::rejects::Reject;
use std::borrow::Cow;
use std::sync::Arc;

/// Most bytes of pictures in one batch: Arrow's binary offsets are 32 bits.
const MAX_BATCH_BYTES: usize = 1 << 30;

/// How a raw row becomes an output row.
pub struct RowRules {
    pub mapping: Mapping,
    pub image: Option<ImageColumn>,
    pub images: ImageFiles,
    /// Drawn from where a row has no prompt.
    pub prompts: Vec<String>,
    pub seed: u64,
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
    fn turns<'a>(&'a self, row: &'a Value<'_>, place: Place<'_>) -> Result<Vec<Message<'a>>, Reject> {
        let cell = |index: usize| {
            self.mapping.texts.get(index).and_then(Option::as_deref).and_then(|name| row.get(name))
        };
        let turns = match self.mapping.conversation {
            Conversation::PromptAnswer => from_prompt_answer(self.prompt(cell(0), place)?, cell(1))?,
            Conversation::Messages | Conversation::Llava => messages(cell(0))?,
            Conversation::PromptCompletion => prompt_and_completion(cell(0), cell(1))?,
        };
        checked(turns, self.image.is_some())
    }

    /// The row's prompt, or one of `prompts` where it has none.
    fn prompt<'a>(&'a self, cell: Option<&'a Value<'_>>, place: Place<'_>) -> Result<Cow<'a, str>, Reject> {
        let own = text_cell("prompt", cell)?;
        let own = own.filter(|prompt| self.prompts.is_empty() || !prompt.trim().is_empty());
        let drawn = || draw(&self.prompts, self.seed, place.row, place.item.unwrap_or(0)).map(Cow::Borrowed);
        own.or_else(drawn).ok_or_else(|| reject("no-prompt", "the prompt is null"))
    }

    fn pictures<'a>(&self, row: &'a Value<'_>) -> Result<Vec<Cow<'a, [u8]>>, Reject> {
        let Some(image) = &self.image else { return Ok(Vec::new()) };
        let found = image.pictures(row)?;
        self.is_there_to_ask_about(found.len())?;
        let load = |picture| match picture {
            Picture::Bytes(bytes) => Ok(bytes),
            Picture::Path(path) => self.images.load(&path).map(Cow::Owned),
        };
        found.into_iter().map(load).collect()
    }

    /// How many pictures [`RowRules::pictures`] gives, without loading any from a file.
    fn n_images(&self, row: &Value<'_>) -> Result<u32, Reject> {
        let Some(image) = &self.image else { return Ok(0) };
        let count = image.pictures(row)?.len();
        self.is_there_to_ask_about(count)?;
        Ok(count as u32)
    }

    /// Whether every row's prompt is drawn from instructions, which ask about the picture.
    pub fn asks_about_pictures(&self) -> bool {
        let Mapping { conversation, texts, .. } = &self.mapping;
        let own = texts.first().is_some_and(Option::is_some);
        self.image.is_some()
            && *conversation == Conversation::PromptAnswer
            && !self.prompts.is_empty()
            && !own
    }

    /// "Describe the picture" without one would teach a model to make things up.
    fn is_there_to_ask_about(&self, pictures: usize) -> Result<(), Reject> {
        if pictures == 0 && self.asks_about_pictures() {
            return Err(reject("no-image", "the row has no picture, and its instruction asks about one"));
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
        if self.explode.is_some() {
            // A raw row that cannot be read is one row. Whatever is asked for, the same rows must be the ones.
            let mut all = self.mapping.needed(&["images", "messages", "id", "language", "source"]);
            all.extend(self.explode.clone());
            return all;
        }
        let mut needed = self.mapping.needed(output);
        if self.language == Some(LanguageOf::Detect) && output.contains(&"language") {
            needed.extend(self.mapping.needed(&["messages"]));
        }
        needed
    }
}

/// One output column under construction.
enum Column {
    Text { name: &'static str, from: Option<String>, cells: StringBuilder },
    Images(ListBuilder<BinaryBuilder>),
    Count(UInt32Builder),
    Messages(Messages),
}

/// A batch under construction.
pub struct BatchBuilder<'a> {
    rules: &'a RowRules,
    columns: Vec<Column>,
    rejects: StringBuilder,
    rows: usize,
    image_bytes: usize,
}

/// What one row puts into one column.
enum Cell<'a> {
    Text(Option<Cow<'a, str>>),
    Images(Vec<Cow<'a, [u8]>>),
    Count(u32),
    Messages(Vec<Message<'a>>),
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
            "id" => Ok(text("id", &rules.mapping.id)),
            "language" => Ok(text("language", &rules.mapping.language)),
            "source" => Ok(text("source", &rules.mapping.source)),
            "images" => Ok(Column::Images(ListBuilder::new(BinaryBuilder::new()))),
            "n_images" => Ok(Column::Count(UInt32Builder::new())),
            "messages" => Ok(Column::Messages(Messages::default())),
            other => Err(StageError::new(format!("`read` has no column `{other}`"))),
        };
        // `reject` comes with every batch.
        let columns =
            columns.iter().filter(|name| **name != "reject").map(column).collect::<Result<_, _>>()?;
        Ok(Self { rules, columns, rejects: StringBuilder::new(), rows: 0, image_bytes: 0 })
    }

    /// The column of whose items each is a row.
    pub fn exploded(&self) -> Option<&'a str> {
        self.rules.explode.as_deref()
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a row.
    pub fn append(&mut self, row: Result<&Value<'_>, &Reject>, place: Place<'_>) {
        let cells = row.map_err(Clone::clone).and_then(|row| self.cells(row, place));
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
    }

    fn cells<'r>(&mut self, row: &'r Value<'_>, place: Place<'_>) -> Result<Vec<Cell<'r>>, Reject>
    where
        'a: 'r,
    {
        let rules = self.rules;
        let mut cells = Vec::with_capacity(self.columns.len());
        let mut bytes = 0;
        for column in &self.columns {
            cells.push(match column {
                Column::Text { name, from, .. } => {
                    let own = text_of(from.as_deref(), row);
                    Cell::Text(match *name {
                        "language" => rules.language(own, row, place)?,
                        "source" => own.or_else(|| rules.source.as_deref().map(Cow::Borrowed)),
                        _ => own,
                    })
                }
                Column::Count(_) => Cell::Count(rules.n_images(row)?),
                Column::Messages(_) => Cell::Messages(rules.turns(row, place)?),
                Column::Images(_) => {
                    let pictures = rules.pictures(row)?;
                    bytes = pictures.iter().map(|picture| picture.len()).sum::<usize>();
                    Cell::Images(pictures)
                }
            });
        }
        if self.image_bytes + bytes > MAX_BATCH_BYTES {
            let detail =
                format!("with {bytes} bytes of pictures, the batch would hold over {MAX_BATCH_BYTES} bytes");
            return Err(reject("too-large", detail));
        }
        self.image_bytes += bytes;
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

fn text_of<'r>(name: Option<&str>, row: &'r Value<'_>) -> Option<Cow<'r, str>> {
    name.and_then(|name| row.get(name)).and_then(Value::as_text).filter(|text| !text.is_empty())
}

impl Column {
    fn append(&mut self, cell: Cell<'_>, place: Place<'_>, rules: &RowRules) {
        match (self, cell) {
            (Self::Text { name: "id", cells, .. }, Cell::Text(text)) => cells.append_value(place.id(text)),
            (Self::Text { cells, .. }, Cell::Text(text)) => cells.append_option(text),
            (Self::Images(list), Cell::Images(pictures)) => {
                pictures.iter().for_each(|picture| list.values().append_value(picture));
                list.append(true);
            }
            (Self::Count(counts), Cell::Count(count)) => counts.append_value(count),
            (Self::Messages(messages), Cell::Messages(turns)) => messages.append(&turns),
            (column, _) => column.append_rejected(None, place, rules),
        }
    }

    /// Null, but for the row's name, which a reject needs most, and what its columns or the manifest say of where it comes from.
    fn append_rejected(&mut self, row: Option<&Value<'_>>, place: Place<'_>, rules: &RowRules) {
        match self {
            Self::Text { name, from, cells } => {
                let own = row.and_then(|row| text_of(from.as_deref(), row));
                match *name {
                    "id" => cells.append_value(place.id(own)),
                    _ => cells.append_option(own.or_else(|| rules.stated(name).map(Cow::Borrowed))),
                }
            }
            Self::Images(list) => list.append(false),
            Self::Count(counts) => counts.append_null(),
            Self::Messages(messages) => messages.append_null(),
        }
    }

    fn finish(&mut self) -> Result<(&'static str, ArrayRef), StageError> {
        Ok(match self {
            Self::Text { name, cells, .. } => (name, Arc::new(cells.finish())),
            Self::Images(list) => {
                let list = list.finish();
                debug_assert_eq!(list.data_type(), &images_type());
                ("images", Arc::new(list))
            }
            Self::Count(counts) => ("n_images", Arc::new(counts.finish())),
            Self::Messages(messages) => ("messages", Arc::new(messages.finish()?)),
        })
    }
}

/// `messages` under construction.
#[derive(Default)]
struct Messages {
    roles: StringBuilder,
    contents: StringBuilder,
    lengths: Vec<usize>,
    valid: Vec<bool>,
}

impl Messages {
    fn append(&mut self, turns: &[Message<'_>]) {
        for turn in turns {
            self.roles.append_value(turn.role.name());
            self.contents.append_value(&turn.content);
        }
        self.lengths.push(turns.len());
        self.valid.push(true);
    }

    fn append_null(&mut self) {
        self.lengths.push(0);
        self.valid.push(false);
    }

    fn finish(&mut self) -> Result<ListArray, StageError> {
        let columns: Vec<ArrayRef> = vec![Arc::new(self.roles.finish()), Arc::new(self.contents.finish())];
        let turns = StructArray::try_new(message_fields(), columns, None)?;
        let mut nulls = NullBufferBuilder::new(self.valid.len());
        self.valid.drain(..).for_each(|valid| nulls.append(valid));
        let offsets = OffsetBuffer::from_lengths(self.lengths.drain(..));
        let DataType::List(item) = messages_type() else {
            return Err(StageError::new("`messages` is no list"));
        };
        Ok(ListArray::try_new(item, offsets, Arc::new(turns), nulls.finish())?)
    }
}
