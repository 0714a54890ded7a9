//! `quality`: leave out rows that teach little, each for a reason of its own.
//!
//! In: `messages` and `images`, as far as a rule looks at them. Out: no column of its own; everything passes through.
//!
//! | code | the row is left out because |
//! |---|---|
//! | `answer-too-short`, `answer-too-long` | an answer has fewer or more characters than asked for |
//! | `url` | a text holds a web address |
//! | `tag` | a text holds a tag such as `<person>` (but for `<image>` in a question) |
//! | `language` | the answers are in none of `languages` |
//! | `image-too-small`, `aspect-ratio` | an image's shorter side, or its longer side over its shorter |
//! | `repeated-answer` | the same answers came `max_repeats` times before |
//!
//! The first reason counts. An image whose header cannot be read is left to `decode-resize`; a row without images passes the rules
//! about them. Near-duplicate images are `filter` with `dedup = "perceptual"`; lengths in tokens are `tokenize`'s.
//!
//! A condition in SQL (`filter`) says anything but has one reason; the usual faults deserve a name each in every count.

mod repeats;
mod rules;

use crate::arrays::batch_of;
use crate::row::{images_type, messages_type};
use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use llavm_pipeline::stage::{Apply, MapStage, OpenContext, Parameters, SequentialPass, StageKind};
use llavm_pipeline::{Columns, Rejects, StageError};
use repeats::{ANSWERS, Repeats, answers};
use serde::{Deserialize, Serialize};

/// Parameters of `quality`; a rule that is not set does not hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quality {
    /// Fewest characters of each answer. Default: any.
    pub min_answer_chars: Option<usize>,
    /// Most characters of each answer. Default: any.
    pub max_answer_chars: Option<usize>,
    /// Leave out rows with a web address in any turn. Default false.
    pub reject_urls: bool,
    /// Leave out rows with a tag such as `<person>` in any turn. Default false.
    pub reject_tags: bool,
    /// Codes of which one must be the language of the answers (`zh`, `en`, `ja`, `ko`, others as in ISO 639-3). Answers without letters
    /// pass. Default: any.
    pub languages: Vec<String>,
    /// Fewest pixels of the shorter side of each image. Default: any.
    pub min_image_side: Option<u32>,
    /// Most that the longer side of an image may be of the shorter (3.0: three times as long). Default: any.
    pub max_aspect_ratio: Option<f64>,
    /// How many rows may have the same answers; the first ones stay. Default: any number.
    pub max_repeats: Option<u32>,
}

impl Quality {
    fn needs_image_bytes(&self) -> bool {
        self.min_image_side.is_some() || self.max_aspect_ratio.is_some()
    }

    fn needs_texts(&self) -> bool {
        let without_texts = Self {
            min_image_side: self.min_image_side,
            max_aspect_ratio: self.max_aspect_ratio,
            ..Self::default()
        };
        *self != without_texts
    }
}

impl StageKind for Quality {
    const KIND: &'static str = "quality";
    const VERSION: u32 = 1;
    const ABOUT: &'static str =
        "leave out rows by length, language, web addresses, tags, repeats, image size";
}

impl Parameters for Quality {
    fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        if *self == Self::default() {
            wrong.push(("min_answer_chars", "no rule is set: every row would pass".to_owned()));
        }
        if let (Some(min), Some(max)) = (self.min_answer_chars, self.max_answer_chars)
            && min > max
        {
            wrong.push(("max_answer_chars", format!("is below min_answer_chars = {min}: no row would pass")));
        }
        if self.max_aspect_ratio.is_some_and(|ratio| ratio.is_nan() || ratio < 1.0) {
            wrong.push(("max_aspect_ratio", "must be at least 1, the ratio of a square".to_owned()));
        }
        if self.max_repeats == Some(0) {
            wrong.push(("max_repeats", "must be at least 1".to_owned()));
        }
        wrong
    }
}

impl MapStage for Quality {
    fn input(&self) -> Columns {
        let mut columns = Columns::new();
        if self.needs_image_bytes() {
            columns = columns.with("images", images_type());
        }
        if self.needs_texts() {
            columns = columns.with("messages", messages_type());
        }
        columns
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
        let stage = self.clone();
        Ok(Box::new(move |rows: &RecordBatch, rejects: &mut Rejects| {
            if stage.needs_texts() {
                rules::texts(&stage, rows, rejects)?;
            }
            if stage.needs_image_bytes() {
                rules::images(&stage, rows, rejects)?;
            }
            let counted = stage.max_repeats.map(|_| answers(rows, rejects)).transpose()?;
            batch_of(counted.map(|column| (ANSWERS, column)), rows.num_rows())
        }))
    }

    fn sequential(&self) -> Option<Box<dyn SequentialPass>> {
        self.max_repeats.map(|most| Box::new(Repeats::new(most)) as Box<dyn SequentialPass>)
    }

    fn intermediate(&self) -> Columns {
        if self.max_repeats.is_some() {
            Columns::new().with(ANSWERS, DataType::Binary)
        } else {
            Columns::new()
        }
    }
}

#[cfg(test)]
mod tests;
