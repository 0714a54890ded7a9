//! `read`: raw files as rows.
//!
//! In: Parquet, JSON Lines, JSON, CSV, TSV or webdataset tar files, with pictures inside them, in a folder, a zip or a table.
//! Out: `id` utf8, `images` list<binary> (empty = text only), `n_images` u32, `messages` list<struct<role, content>>, `language` utf8,
//! `source` utf8. A row that cannot be used keeps its place and says why in `reject`.
//!
//! A partition is a stretch of one file, so that new files add partitions and change none; rows stay in the order of the
//! files' paths and of the rows in them.

mod arrow_value;
mod broken;
mod build;
mod columns;
mod conversation;
mod delimited;
mod explode;
mod files;
mod image_cell;
mod image_column;
mod image_digest;
mod image_files;
mod image_table;
mod json_array;
mod json_lines;
mod json_row;
mod language_of;
mod locate;
mod open;
mod parquet;
mod prompts;
mod raw;
mod regions;
mod sample;
mod section;
mod select;
mod source;
mod text;
mod value;
mod webdataset;

#[cfg(test)]
mod tests;

pub use columns::{ColumnNames, Conversation};
pub use conversation::IMAGE_PLACEHOLDER;
pub use files::{Format, Patterns};
pub use image_cell::short;
pub use image_column::PlaceholderImages;
pub use language_of::LanguageOf;
pub use prompts::Prompts;

use crate::row::{images_type, messages_type};
use crate::sql::Predicate;
use arrow::datatypes::DataType;
use llavm_pipeline::stage::{
    Missing, OpenContext, PARTITION_ROWS, Parameters, Source, SourceStage, StageKind,
};
use llavm_pipeline::{Columns, StageError};
use serde::{Deserialize, Serialize};

/// Parameters of `read`.
///
/// Files enter a partition's digest by content, so neither their names nor `partition_rows` are part of the stage's identity.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// A pattern or a list of patterns: `data/*.parquet`.
    #[serde(skip_serializing)]
    pub files: Patterns,
    /// Default: by extension.
    #[serde(default)]
    pub format: Option<Format>,
    /// Which raw columns hold what.
    #[serde(default)]
    pub columns: ColumnNames,
    /// How a row tells its conversation. Default `prompt-answer`.
    #[serde(default)]
    pub conversation: Conversation,
    /// Where pictures given by name lie: a folder, a zip, or a `.tsv` whose lines are a name, a tab and base64; or a list of
    /// these, looked at in turn.
    #[serde(default, skip_serializing)]
    pub images: Patterns,
    /// How the image column becomes a picture's name: `{}` stands for the cell (text or a number, without the `#0` that caption
    /// files put behind it), as in `"{}.jpg"`. Default: the cell is the name.
    #[serde(default)]
    pub image_name: Option<String>,
    /// `drop` leaves out black pictures of at most 8 × 8 pixels, which stand for "no picture" in sets whose column may not be
    /// empty. Default `keep`.
    #[serde(default)]
    pub placeholder_images: PlaceholderImages,
    /// A column that holds a list: each of its items becomes a row of its own (five captions of one picture: five rows).
    #[serde(default)]
    pub explode: Option<String>,
    /// SQL condition over the scalar columns of the raw files; rows it does not hold for are not read.
    #[serde(default, rename = "where")]
    pub predicate: Option<String>,
    /// Read only the first so many rows of all files together, before `where`.
    #[serde(default)]
    pub limit: Option<u64>,
    /// Instructions to draw from, by seed and row, where a row has an answer and no prompt: a list, or a file with one on each
    /// line. They ask about a picture: where no column holds prompts, a row without one is rejected.
    #[serde(default)]
    pub prompts: Prompts,
    /// Language of rows whose column does not say it: a code such as `zh`, or `detect` to tell it by the answers (by
    /// the questions where the answers hold no letter). Default: none.
    #[serde(default)]
    pub language: Option<LanguageOf>,
    /// Source of rows whose column does not say it: the data set's name, for counts and slices of reports. Default: none.
    #[serde(default)]
    pub source: Option<String>,
    /// Whether the first line of CSV and TSV files names the columns; otherwise they are `column_1`, `column_2`, … Default true.
    #[serde(default = "yes")]
    pub header: bool,
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
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "Raw files as rows: parquet, jsonl, json, csv, tsv, webdataset tar";
    const PARAMS: &'static [&'static str] = &[
        "files",
        "format",
        "columns",
        "conversation",
        "images",
        "image_name",
        "placeholder_images",
        "explode",
        "where",
        "limit",
        "prompts",
        "language",
        "source",
        "header",
        "partition_rows",
    ];
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
}

/// What to tell a user whose pictures are not there.
fn missing_images(images: &str) -> Option<Missing> {
    let (text, help) = match locate::local(images) {
        Ok(path) if path.exists() => return None,
        Ok(_) => (
            format!("there is no `{images}`"),
            locate::advice(images).unwrap_or_else(|| {
                "Name the folder, the zip or the table that holds the pictures.".to_owned()
            }),
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
            .with("n_images", DataType::UInt32)
            .with("messages", messages_type())
            .with("language", DataType::Utf8)
            .with("source", DataType::Utf8)
    }

    fn open(&self, context: &dyn OpenContext) -> Result<Box<dyn Source>, StageError> {
        Ok(Box::new(open::open(self, context)?))
    }
}
