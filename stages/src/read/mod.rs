//! `read`: raw files as rows.
//!
//! In: Parquet, JSON Lines, JSON, CSV, TSV or webdataset tar files, with pictures inside them, in a folder or in a zip.
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
mod files;
mod image_cell;
mod image_digest;
mod image_files;
mod json_array;
mod json_lines;
mod json_row;
mod locate;
mod open;
mod parquet;
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
    /// Folder or zip for pictures given by path.
    #[serde(default, skip_serializing)]
    pub images: Option<String>,
    /// SQL condition over the scalar columns of the raw files; rows it does not hold for are not read.
    #[serde(default, rename = "where")]
    pub predicate: Option<String>,
    /// Read only the first so many rows of all files together, before `where`.
    #[serde(default)]
    pub limit: Option<u64>,
    /// Instructions to draw from, by seed and row, where a row has an answer and no prompt.
    #[serde(default)]
    pub prompts: Vec<String>,
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
        "where",
        "limit",
        "prompts",
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
        if self.prompts.iter().any(|prompt| prompt.trim().is_empty()) {
            wrong.push(("prompts", "an instruction is empty".to_owned()));
        }
        wrong
    }

    fn missing(&self) -> Vec<Missing> {
        let unmatched = self.files.unmatched().into_iter();
        let mut missing: Vec<_> =
            unmatched.map(|(text, help)| Missing { param: "files", text, help }).collect();
        missing.extend(self.images.as_deref().and_then(missing_images));
        missing
    }
}

/// What to tell a user whose pictures are not there.
fn missing_images(images: &str) -> Option<Missing> {
    let (text, help) = match locate::local(images) {
        Ok(path) if path.exists() => return None,
        Ok(_) => (
            format!("there is no `{images}`"),
            locate::advice(images)
                .unwrap_or_else(|| "Name the folder or the zip that holds the pictures.".to_owned()),
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
