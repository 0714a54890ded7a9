//! `tokenize`: text to token ids, and for each token whether it is trained on.
//!
//! In: `segments` (see [`crate::segments`]), `n_images` u32.
//! Out: `input_ids` list<u32>, `train` list<bool> (as many), `n_images` as it came.
//!
//! Segments become ids in [`llavm_model::processor::encode`]; here rows are measured.
//!
//! | code | why a row is rejected |
//! |---|---|
//! | `special-token` | a special token is typed in a message: it would end a turn, or stand for an image |
//! | `too-long` | more than `max_tokens` tokens |
//! | `answer-too-short`, `answer-too-long` | fewer trained tokens than `min_answer_tokens`, or more than `max_answer_tokens` |
//! | `truncated-image` | `overlong = "truncate"` would cut off tokens of an image |
//! | `truncated-answer` | `overlong = "truncate"` would leave no token that is trained on |
//! | `pad-count` | other image tokens than those of the images (`image-pads` finds typed ones first) |
//! | `unencodable` | the tokenizer refuses the text |

use crate::arrays::{Lists, column, counts_of_kept, list_of};
use crate::facts;
use crate::segments::{Segment, SegmentRows, segments_type};
use crate::settings;
use crate::tokenizer_folder;
use arrow::array::{BooleanArray, RecordBatch, UInt32Array};
use arrow::datatypes::DataType;
pub use llavm_model::processor::encode::SpecialInText;
use llavm_model::processor::encode::{EncodeError, Encoded, Encoder};
use llavm_model::tokenizer::Tokenizer;
use llavm_pipeline::stage::{
    Apply, Estimate, Expected, Fact, MapStage, Missing, OpenContext, Parameters, Resource, StageKind,
};
use llavm_pipeline::{Columns, Rejects, StageError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// Parameters of `tokenize`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokenize {
    /// Folder of the tokenizer, or `hub:ORG/NAME`.
    #[serde(skip_serializing)]
    pub tokenizer: String,
    /// Most tokens of a row, pads included. Default 2048.
    #[serde(default = "default_max_tokens")]
    pub max_tokens: usize,
    /// What to do with a longer row. Default `reject`.
    #[serde(default)]
    pub overlong: Overlong,
    /// Fewest tokens that are trained on, the end of the turn included. Default: any.
    #[serde(default)]
    pub min_answer_tokens: Option<usize>,
    /// Most tokens that are trained on. Default: as many as `max_tokens` lets through.
    #[serde(default)]
    pub max_answer_tokens: Option<usize>,
    /// What to do with a message in which a special token is typed. Default `reject`.
    #[serde(default)]
    pub special_in_text: SpecialInText,
}

fn default_max_tokens() -> usize {
    2048
}

/// What to do with a row of more than `max_tokens` tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlong {
    #[default]
    Reject,
    /// Cut off its end.
    Truncate,
}

impl StageKind for Tokenize {
    const KIND: &'static str = "tokenize";
    const VERSION: u32 = 2;
    const ABOUT: &'static str = "turn the rendered conversation into token ids";
}

impl Parameters for Tokenize {
    /// Bytes of a row of the samples under `data/`.
    fn estimate(&self, expected: &Expected) -> Option<Estimate> {
        Some(Estimate::table(expected, 450))
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        let too_few = (self.max_tokens < 2).then(|| ("max_tokens", "must be at least 2".to_owned()));
        let min = self.min_answer_tokens.filter(|min| self.max_answer_tokens.is_some_and(|max| max < *min));
        let none = min.map(|min| {
            ("max_answer_tokens", format!("is below min_answer_tokens = {min}: no row would pass"))
        });
        too_few.into_iter().chain(none).collect()
    }

    fn resources(&self) -> Result<Vec<Resource>, StageError> {
        tokenizer_folder::resources(&self.tokenizer)
    }

    fn missing(&self) -> Vec<Missing> {
        tokenizer_folder::missing(&self.tokenizer)
    }

    fn facts(&self) -> Vec<Fact> {
        let folder = tokenizer_folder::resolve(&self.tokenizer).ok();
        let tokenizer = folder.and_then(|folder| facts::tokenizer(&folder, "tokenizer"));
        let special = match self.special_in_text {
            SpecialInText::Reject => "reject",
            SpecialInText::Allow => "allow",
        };
        let special = facts::fact("special tokens in messages", "special_in_text", special);
        tokenizer.into_iter().chain([special]).collect()
    }

    /// A [`SpecialInText`].
    fn settings(&self) -> Result<Option<(&'static str, Value)>, StageError> {
        Ok(Some((settings::SPECIAL_TOKENS, json!(self.special_in_text))))
    }
}

impl MapStage for Tokenize {
    fn input(&self) -> Columns {
        Columns::new().with("segments", segments_type()).with("n_images", DataType::UInt32)
    }

    fn output(&self) -> Columns {
        Columns::new()
            .with("input_ids", list_of(DataType::UInt32))
            .with("train", list_of(DataType::Boolean))
            .with("n_images", DataType::UInt32)
    }

    fn open(&self, _context: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError> {
        let folder = tokenizer_folder::resolve(&self.tokenizer)?;
        let tokenizer = Tokenizer::from_folder(&folder)
            .map_err(|error| StageError::new(error.to_string()).because(error))?;
        Ok(Box::new(Encode { encoder: Encoder::new(tokenizer, self.special_in_text), stage: self.clone() }))
    }
}

struct Encode {
    encoder: Encoder,
    stage: Tokenize,
}

impl Apply for Encode {
    fn apply(&self, rows: &RecordBatch, rejects: &mut Rejects) -> Result<RecordBatch, StageError> {
        let segments = SegmentRows::of(rows)?;
        let n_images: &UInt32Array = column(rows, "n_images")?;
        let (mut input_ids, mut train) = (Vec::new(), Vec::new());
        let mut lists = Lists::with_capacity(rows.num_rows());
        let mut work = Encoded::default();
        for row in 0..rows.num_rows() {
            if !rejects.is_rejected(row) {
                match self.row(segments.row(row), &mut work) {
                    Ok(()) => {
                        input_ids.extend_from_slice(&work.ids);
                        train.extend_from_slice(&work.train);
                        lists.push(work.ids.len());
                        continue;
                    }
                    Err(Failure::Row(code, detail)) => rejects.reject(row, code, detail),
                    Err(Failure::Stage(error)) => return Err(error),
                }
            }
            lists.push_null();
        }
        let columns = vec![
            lists.finish(Arc::new(UInt32Array::from(input_ids)))?,
            lists.finish(Arc::new(BooleanArray::from(train)))?,
            counts_of_kept(n_images, rejects),
        ];
        Ok(RecordBatch::try_new(self.stage.output().schema(), columns)?)
    }
}

enum Failure {
    Row(&'static str, String),
    Stage(StageError),
}

impl From<EncodeError> for Failure {
    fn from(error: EncodeError) -> Self {
        let detail = error.to_string();
        match error {
            EncodeError::SpecialToken { .. } => {
                Self::Row("special-token", format!("{detail}; set special_in_text = \"allow\" to let it"))
            }
            EncodeError::ImageTokens { .. } => Self::Row("pad-count", detail),
            EncodeError::Tokenizer(_) => Self::Row("unencodable", detail),
            EncodeError::NoImageToken(_) => {
                let help = "Set `pad` of image-pads to a special token of this tokenizer.";
                Self::Stage(StageError::new(detail).help(help))
            }
        }
    }
}

impl Encode {
    /// Leaves the row's tokens in `work`.
    fn row<'a>(
        &self,
        segments: impl Iterator<Item = Segment<'a>>,
        work: &mut Encoded,
    ) -> Result<(), Failure> {
        self.encoder.encode(segments, None, work)?;
        self.limit_answer(work)?;
        self.limit(work)
    }

    /// Judged before a row is truncated.
    fn limit_answer(&self, work: &Encoded) -> Result<(), Failure> {
        let trained = work.train.iter().filter(|train| **train).count();
        if let Some(min) = self.stage.min_answer_tokens.filter(|min| trained < *min) {
            let detail = format!("{trained} tokens to train on, under min_answer_tokens = {min}");
            return Err(Failure::Row("answer-too-short", detail));
        }
        if let Some(max) = self.stage.max_answer_tokens.filter(|max| trained > *max) {
            let detail = format!("{trained} tokens to train on, over max_answer_tokens = {max}");
            return Err(Failure::Row("answer-too-long", detail));
        }
        Ok(())
    }

    fn limit(&self, work: &mut Encoded) -> Result<(), Failure> {
        let max = self.stage.max_tokens;
        if work.ids.len() <= max {
            return Ok(());
        }
        if self.stage.overlong == Overlong::Reject {
            let detail = format!(
                "{} tokens, over max_tokens = {max}; raise max_tokens or set overlong = \"truncate\"",
                work.ids.len()
            );
            return Err(Failure::Row("too-long", detail));
        }
        if work.images_end > max {
            let detail =
                format!("the tokens of an image end at token {}, behind max_tokens = {max}", work.images_end);
            return Err(Failure::Row("truncated-image", detail));
        }
        work.ids.truncate(max);
        work.train.truncate(max);
        if !work.train.contains(&true) {
            let detail =
                format!("no token that is trained on stands within max_tokens = {max}; raise max_tokens");
            return Err(Failure::Row("truncated-answer", detail));
        }
        Ok(())
    }
}
