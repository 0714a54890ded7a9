//! `read`: raw files as rows.
//!
//! In: Parquet, Arrow, JSON Lines, JSON, CSV, TSV or webdataset tar files (text and tars also packed with gzip or zstd), with images
//! inside them, in a folder, a zip or a table.
//! Out: `id` utf8, `images` list<binary> (empty = text only), `image_digests` (of each image that of its bytes), `n_images` u32, `messages` `list<struct<role, content, tool_calls, extra, tools>>`, `language` utf8,
//! `source` utf8, `group` list<utf8> (what rows share that belong together: the names of their images, or digests). A row that cannot be used keeps its place and says why in `reject`.
//!
//! A partition is a stretch of one file, so that new files add partitions and change none; rows stay in the order of the
//! files' paths and of the rows in them.

mod arrow_file;
mod arrow_value;
mod broken;
mod build;
mod byte_ranges;
mod columns;
mod conversation;
mod delimited;
mod dialect;
mod explode;
mod files;
mod format;
mod image_cell;
mod image_column;
mod image_digest;
mod image_files;
mod image_hashes;
mod image_table;
mod input;
mod json;
mod json_array;
mod json_lines;
mod language_of;
pub(crate) mod locate;
mod marks;
mod message_rows;
mod open;
mod opening;
mod parquet;
mod preview;
mod prompts;
mod raw;
mod repository_files;
mod sample;
mod section;
mod select;
mod source;
mod text;
mod unread_images;
mod unused;
mod value;
mod webdataset;

#[cfg(test)]
mod tests;

pub use columns::{ColumnNames, Conversation};
pub use dialect::{Delimiter, Quote, TextEncoding};
pub use files::Patterns;
pub use format::Format;
pub use image_cell::short;
pub use image_column::PlaceholderImages;
pub use language_of::LanguageOf;
pub use marks::{IMAGE_PLACEHOLDER, Marks};
pub use prompts::Prompts;

use crate::arrays::list_of;
use crate::image_lists::digests_list;
use crate::row::{images_type, messages_type};
use crate::sql::Predicate;
use arrow::datatypes::DataType;
use llavm_pipeline::stage::{
    Missing, OpenContext, PARTITION_ROWS, Parameters, Source, SourceStage, StageKind,
};
use llavm_pipeline::storage::remote::{is_object, is_remote};
use llavm_pipeline::{Columns, Shard, StageError};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Parameters of `read`.
///
/// Files enter a partition's digest by content, so neither their names nor `partition_rows` are part of the stage's identity.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// A pattern or a list of patterns: `data/*.parquet`, `s3://bucket/set/*.parquet`, or `hub:datasets/ORG/NAME/*.parquet`, which is
    /// read where it lies unless there is a copy in the cache.
    #[serde(skip_serializing)]
    pub files: Patterns,
    /// Default: by extension.
    #[serde(default)]
    pub format: Option<Format>,
    /// Which raw columns hold what.
    #[serde(default)]
    pub columns: ColumnNames,
    /// How a row holds its conversation. Default `prompt-answer`.
    #[serde(default)]
    pub conversation: Conversation,
    /// Where images given by name lie: a folder, a zip, or a `.tsv` whose lines are a name, a tab and base64; or a list of
    /// these, looked at in turn.
    #[serde(default, skip_serializing)]
    pub images: Patterns,
    /// How the image column becomes an image's name: `{}` stands for the cell (text or a number, without the `#0` that caption
    /// files put behind it), as in `"{}.jpg"`. Default: the cell is the name.
    #[serde(default)]
    pub image_name: Option<String>,
    /// `drop` leaves out black images of at most 8 × 8 pixels, which stand for "no image" in sets whose column may not be
    /// empty. Default `keep`.
    #[serde(default)]
    pub placeholder_images: PlaceholderImages,
    /// A column that holds a list: each of its items becomes a row of its own (five captions of one image: five rows).
    #[serde(default)]
    pub explode: Option<String>,
    /// SQL condition over the scalar columns of the raw files; rows it does not hold for are not read.
    #[serde(default, rename = "where")]
    pub predicate: Option<String>,
    /// Read only the first so many rows of all files together, before `where`.
    #[serde(default)]
    pub limit: Option<u64>,
    /// Instructions to draw from, by seed and row, where a row has an answer and no prompt: a list, or a file with one on each
    /// line. They ask about an image: where no column holds prompts, a row without one is rejected.
    #[serde(default)]
    pub prompts: Prompts,
    /// Language of rows whose column does not say it: a code such as `zh`, or `detect` to recognise it by the answers (by
    /// the questions where the answers hold no letter). Default: none.
    #[serde(default)]
    pub language: Option<LanguageOf>,
    /// Source of rows whose column does not say it: the data set's name, for counts and slices of reports. Default: none.
    #[serde(default)]
    pub source: Option<String>,
    /// Whether the first line of CSV and TSV files names the columns; otherwise they are `column_1`, `column_2`, … Default true.
    #[serde(default = "yes")]
    pub header: bool,
    /// What separates the fields of CSV and TSV files: one character, or `tab`. Default: by format.
    #[serde(default)]
    pub delimiter: Option<Delimiter>,
    /// What encloses fields of CSV and TSV files, `""` for nothing. Default `"`; in TSV files where they are written so throughout.
    #[serde(default)]
    pub quote: Option<Quote>,
    /// The encoding of text files, such as `gbk` or `utf-16`. Default UTF-8.
    #[serde(default)]
    pub encoding: Option<TextEncoding>,
    /// Marks that stand for an image in a question beside `<image>`: `["<img>", "<image{n}>"]`, where `{n}` is a number. Default: none.
    #[serde(default)]
    pub placeholders: Marks,
    /// Read rows without images, though a column looks like one. Default false: then such a column has to be named.
    #[serde(default)]
    pub text_only: bool,
    /// Rows in one partition. Default 4096.
    #[serde(default = "partition_rows")]
    pub partition_rows: u64,
}

fn yes() -> bool {
    true
}

fn partition_rows() -> u64 {
    PARTITION_ROWS as u64
}

impl StageKind for Read {
    const KIND: &'static str = "read";
    const VERSION: u32 = 4;
    const ABOUT: &'static str =
        "make rows of raw files: parquet, arrow, jsonl, json, csv, tsv, webdataset tar";
}

impl Parameters for Read {
    fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        if self.files.0.is_empty() {
            wrong.push(("files", "at least one pattern is needed".to_owned()));
        }
        if self.partition_rows == 0 {
            wrong.push(("partition_rows", "must be at least 1".to_owned()));
        }
        if self.limit == Some(0) {
            wrong.push(("limit", "must be at least 1; leave it out to read everything".to_owned()));
        }
        if let Some(text) = self.columns.misplaced(self.conversation) {
            wrong.push(("columns", text));
        }
        if let Some(Err(error)) = self.predicate.as_deref().map(Predicate::parse) {
            wrong.push(("where", error.to_string()));
        }
        if matches!(&self.prompts, Prompts::List(texts) if texts.iter().any(|text| text.trim().is_empty())) {
            wrong.push(("prompts", "an instruction is empty".to_owned()));
        }
        if let Some(mark) = self.placeholders.faulty() {
            wrong
                .push(("placeholders", format!("`{mark}` is no mark: write it out, with at most one {{n}}")));
        }
        if self.image_name.as_ref().is_some_and(|name| !name.contains(image_column::NAME)) {
            wrong.push((
                "image_name",
                "must hold `{}`, which stands for what the image column says".to_owned(),
            ));
        }
        wrong
    }

    fn missing(&self) -> Vec<Missing> {
        let unmatched = self.files.unmatched().into_iter();
        let mut missing: Vec<_> =
            unmatched.map(|(text, help)| Missing { param: "files", text, help }).collect();
        missing.extend(self.images.0.iter().filter_map(|images| missing_images(images)));
        missing.extend(self.prompts.missing().map(|file| Missing {
            param: "prompts",
            text: format!("there is no file `{file}`"),
            help: "Name a file with one instruction on each line, or list the instructions.".to_owned(),
        }));
        missing
    }

    fn preview(&self) -> Result<Vec<String>, StageError> {
        preview::preview(self)
    }
}

/// The advice for a user whose images are not there.
fn missing_images(images: &str) -> Option<Missing> {
    if is_object(images) {
        let text = format!("images cannot be looked up in a bucket (`{images}`)");
        let help = "Images in a bucket are read from the files of `files`: parquet, arrow, webdataset tars, json with base64.";
        return Some(Missing { param: "images", text, help: help.to_owned() });
    }
    let (text, help) = match locate::local(images) {
        Ok(path) if path.exists() => return None,
        Ok(_) => (
            format!("there is no `{images}`"),
            locate::advice(images)
                .unwrap_or_else(|| "Name the folder, the zip or the table that holds the images.".to_owned()),
        ),
        Err(error) => (error.to_string(), error.advice().unwrap_or_default().to_owned()),
    };
    Some(Missing { param: "images", text, help })
}

impl SourceStage for Read {
    fn output(&self) -> Columns {
        Columns::new()
            .with("id", DataType::Utf8)
            .with("images", images_type())
            .with("image_digests", digests_list())
            .with("n_images", DataType::UInt32)
            .with("messages", messages_type())
            .with("language", DataType::Utf8)
            .with("source", DataType::Utf8)
            .with("group", list_of(DataType::Utf8))
    }

    fn open(&self, context: &dyn OpenContext) -> Result<Box<dyn Source>, StageError> {
        Ok(Box::new(open::open(self, context)?))
    }

    /// Those on a disk: of an object the address, size and tag say what it is.
    fn raw_files(&self) -> Result<Vec<PathBuf>, StageError> {
        Ok(self.files.files()?.into_iter().filter(|path| !is_remote(path)).collect())
    }

    fn shared(&self, shard: Shard) -> Result<Option<Box<dyn SourceStage>>, StageError> {
        let all = self.raw_files()?;
        let own = all[shard.range(all.len())].iter();
        let names: Option<Vec<String>> = own.map(|path| path.to_str().map(str::to_owned)).collect();
        let names = names.filter(|names| !names.is_empty());
        Ok(names
            .map(|names| Box::new(Self { files: Patterns(names), ..self.clone() }) as Box<dyn SourceStage>))
    }
}
