//! The columns that a condition may name: taken from a row, or measured on it.
//!
//! Sizes of images are read from their headers; an image without a readable header has none.

use crate::arrays::{column, item_range};
use crate::messages::MessageRows;
pub use crate::messages::Turn;
use crate::sql::{ScalarType, Scalars};
use arrow::array::{Array, BinaryArray, ListArray, RecordBatch, StringArray};
use llavm_model::processor::image::codecs::size;
use llavm_pipeline::StageError;

/// One column of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Id,
    Language,
    Source,
    Images,
    ImageWidth,
    ImageHeight,
    Turns,
    Prompt,
    Answer,
    PromptChars,
    AnswerChars,
}

impl Measure {
    pub const ALL: [Self; 11] = [
        Self::Id,
        Self::Language,
        Self::Source,
        Self::Images,
        Self::ImageWidth,
        Self::ImageHeight,
        Self::Turns,
        Self::Prompt,
        Self::Answer,
        Self::PromptChars,
        Self::AnswerChars,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Language => "language",
            Self::Source => "source",
            Self::Images => "images",
            Self::ImageWidth => "image_width",
            Self::ImageHeight => "image_height",
            Self::Turns => "turns",
            Self::Prompt => "prompt",
            Self::Answer => "answer",
            Self::PromptChars => "prompt_chars",
            Self::AnswerChars => "answer_chars",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|measure| measure.name() == name)
    }

    /// The column of the row it comes from.
    pub fn column(self) -> &'static str {
        match self {
            Self::Id | Self::Language | Self::Source => self.name(),
            Self::Images | Self::ImageWidth | Self::ImageHeight => "images",
            _ => "messages",
        }
    }

    pub fn scalar_type(self) -> ScalarType {
        match self {
            Self::Id | Self::Language | Self::Source | Self::Prompt | Self::Answer => ScalarType::Text,
            _ => ScalarType::Int,
        }
    }

    /// Its value in each row; null where the row was rejected.
    pub fn of(self, rows: &RecordBatch) -> Result<Scalars, StageError> {
        let user = |turn: &Turn<'_>| turn.role == "user";
        let assistant = |turn: &Turn<'_>| turn.role == "assistant";
        Ok(match self {
            Self::Id | Self::Language | Self::Source => {
                let cells: &StringArray = column(rows, self.name())?;
                Scalars::Text(cells.iter().map(|cell| cell.map(str::to_owned)).collect())
            }
            Self::Images => Scalars::Int(images(rows, |images| Some(images.len() as i64))?),
            Self::ImageWidth => Scalars::Int(images(rows, |images| first_size(images).map(|size| size.0))?),
            Self::ImageHeight => Scalars::Int(images(rows, |images| first_size(images).map(|size| size.1))?),
            Self::Turns => Scalars::Int(conversations(rows, |turns| {
                turns.iter().filter(|turn| user(turn)).count() as i64
            })?),
            Self::Prompt => Scalars::Text(conversations(rows, |turns| joined(turns, user))?),
            Self::Answer => Scalars::Text(conversations(rows, |turns| joined(turns, assistant))?),
            Self::PromptChars => Scalars::Int(conversations(rows, |turns| chars(turns, user))?),
            Self::AnswerChars => Scalars::Int(conversations(rows, |turns| chars(turns, assistant))?),
        })
    }
}

fn joined(turns: &[Turn<'_>], wanted: impl Fn(&Turn<'_>) -> bool) -> String {
    let texts: Vec<&str> = turns.iter().filter(|turn| wanted(turn)).map(|turn| turn.content).collect();
    texts.join("\n")
}

fn chars(turns: &[Turn<'_>], wanted: impl Fn(&Turn<'_>) -> bool) -> i64 {
    turns.iter().filter(|turn| wanted(turn)).map(|turn| turn.content.chars().count() as i64).sum()
}

/// `measure` of the images of each row; null for null rows.
pub fn images<T>(
    rows: &RecordBatch,
    measure: impl Fn(&[&[u8]]) -> Option<T>,
) -> Result<Vec<Option<T>>, StageError> {
    let lists: &ListArray = column(rows, "images")?;
    let wrong = || StageError::new("`images` is not list<binary>");
    let bytes: &BinaryArray = lists.values().as_any().downcast_ref().ok_or_else(wrong)?;
    let row = |row: usize| {
        let images: Vec<&[u8]> = item_range(lists, row).map(|item| bytes.value(item)).collect();
        if lists.is_null(row) { None } else { measure(&images) }
    };
    Ok((0..lists.len()).map(row).collect())
}

/// `measure` of the conversation of each row; null for null rows.
pub fn conversations<T>(
    rows: &RecordBatch,
    measure: impl Fn(&[Turn<'_>]) -> T,
) -> Result<Vec<Option<T>>, StageError> {
    let messages = MessageRows::of(rows)?;
    let row = |row: usize| messages.row(row).map(|turns| measure(&turns.collect::<Vec<_>>()));
    Ok((0..rows.num_rows()).map(row).collect())
}

/// Width and height of the first image.
pub fn first_size(images: &[&[u8]]) -> Option<(i64, i64)> {
    size(images.first()?).map(|(width, height)| (width.into(), height.into()))
}
