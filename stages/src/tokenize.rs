//! `tokenize`: text to token ids, and for each token whether it is trained on.
//!
//! In: `segments` (see [`crate::segments`]), `n_images` u32.
//! Out: `input_ids` list<u32>, `train` list<bool> (as many), `n_images` as it came.
//!
//! Segments are encoded together up to where training begins or ends, as the reference recipe encodes a prompt and an answer
//! apart. The pads of a picture are single special tokens, so the text around them is encoded by itself with the same result.
//!
//! | code | why a row is rejected |
//! |---|---|
//! | `special-token` | a special token is typed in a message: it would end a turn, or stand for a picture |
//! | `too-long` | more than `max_tokens` tokens |
//! | `answer-too-short`, `answer-too-long` | fewer trained tokens than `min_answer_tokens`, or more than `max_answer_tokens` |
//! | `truncated-image` | `overlong = "truncate"` would cut off the pads of a picture |
//! | `pad-count` | other pads than those of the pictures (only with `special_in_text = "allow"`) |
//! | `unencodable` | the tokenizer refuses the text |

use crate::arrays::{Lists, column, counts_of_kept, list_of};
use crate::segments::{IMAGE, Segment, SegmentRows, segments_type};
use crate::tokenizer_folder;
use arrow::array::{BooleanArray, RecordBatch, UInt32Array};
use arrow::datatypes::DataType;
use llavm_model::tokenizer::Tokenizer;
use llavm_pipeline::stage::{
    Apply, Estimate, Expected, MapStage, Missing, OpenContext, Parameters, Resource, StageKind,
};
use llavm_pipeline::{Columns, Rejects, StageError};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

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

/// What to do with a message in which a special token is typed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpecialInText {
    #[default]
    Reject,
    /// It becomes the token itself, as it does in Transformers.
    Allow,
}

impl StageKind for Tokenize {
    const KIND: &'static str = "tokenize";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "turn the rendered conversation into token ids";
    const PARAMS: &'static [&'static str] =
        &["tokenizer", "max_tokens", "overlong", "min_answer_tokens", "max_answer_tokens", "special_in_text"];
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
        Ok(Box::new(Encoder { tokenizer, stage: self.clone(), prompts: Prompts::default() }))
    }
}

struct Encoder {
    tokenizer: Tokenizer,
    stage: Tokenize,
    prompts: Prompts,
}

/// The tokens of text that is not trained on: prompts and what the template adds come again and again.
#[derive(Default)]
struct Prompts {
    known: RwLock<HashMap<String, Arc<[u32]>>>,
}

impl Prompts {
    /// Texts remembered at once; data sets ask a few questions, or as many as they have rows.
    const MOST: usize = 1024;

    fn get(&self, text: &str) -> Option<Arc<[u32]>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(text).cloned()
    }

    fn insert(&self, text: &str, ids: Arc<[u32]>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= Self::MOST {
            known.clear();
        }
        known.insert(text.to_owned(), ids);
    }
}

impl Apply for Encoder {
    fn apply(&self, rows: &RecordBatch, rejects: &mut Rejects) -> Result<RecordBatch, StageError> {
        let segments = SegmentRows::of(rows)?;
        let n_images: &UInt32Array = column(rows, "n_images")?;
        let (mut input_ids, mut train) = (Vec::new(), Vec::new());
        let mut lists = Lists::with_capacity(rows.num_rows());
        let mut work = Work::default();
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

/// What one row needs, kept from row to row.
#[derive(Default)]
struct Work {
    /// Text not yet encoded.
    text: String,
    ids: Vec<u32>,
    train: Vec<bool>,
    pads: Option<Pads>,
    /// Pads of the row's pictures, and where the last one ends.
    n_pads: usize,
    pads_end: usize,
}

/// The pads of one picture as text and as tokens.
struct Pads {
    text: String,
    id: u32,
    count: usize,
}

enum Failure {
    Row(&'static str, String),
    Stage(StageError),
}

impl Encoder {
    /// Leaves the row's tokens in `work`.
    fn row<'a>(&self, segments: impl Iterator<Item = Segment<'a>>, work: &mut Work) -> Result<(), Failure> {
        work.begin_row();
        let mut train = false;
        for segment in segments {
            if segment.train != train {
                self.encode(work, train)?;
                train = segment.train;
            }
            if segment.role == IMAGE {
                self.encode(work, train)?;
                self.push_pads(segment.text, work, train)?;
            } else {
                self.check_special(segment)?;
                work.text.push_str(segment.text);
            }
        }
        self.encode(work, train)?;
        check_pads(work)?;
        self.limit_answer(work)?;
        self.limit(work)
    }

    /// Judged before a row is truncated.
    fn limit_answer(&self, work: &Work) -> Result<(), Failure> {
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

    /// Encodes the text gathered so far.
    fn encode(&self, work: &mut Work, train: bool) -> Result<(), Failure> {
        if work.text.is_empty() {
            return Ok(());
        }
        if let Some(ids) = (!train).then(|| self.prompts.get(&work.text)).flatten() {
            work.ids.extend_from_slice(&ids);
        } else {
            let ids = self.tokenizer.encode(&work.text);
            let ids = ids.map_err(|error| Failure::Row("unencodable", error.to_string()))?;
            work.ids.extend_from_slice(&ids);
            if !train {
                self.prompts.insert(&work.text, ids.into());
            }
        }
        work.train.resize(work.ids.len(), train);
        work.text.clear();
        Ok(())
    }

    fn push_pads(&self, text: &str, work: &mut Work, train: bool) -> Result<(), Failure> {
        if work.pads.as_ref().is_none_or(|pads| pads.text != text) {
            work.pads = Some(self.pads(text)?);
        }
        if let Some(pads) = &work.pads {
            work.ids.resize(work.ids.len() + pads.count, pads.id);
            work.train.resize(work.ids.len(), train);
            work.n_pads += pads.count;
            work.pads_end = work.ids.len();
        }
        Ok(())
    }

    /// Pads must be repetitions of one special token that takes nothing from the text around it.
    fn pads(&self, text: &str) -> Result<Pads, Failure> {
        let special = self.tokenizer.special_in(text);
        let special = special.filter(|token| token.standalone && text.replace(&token.text, "").is_empty());
        let Some(token) = special else {
            let message = format!("the pads `{text:.40}…` are not repetitions of one special token");
            let help = "Set `pad` of image-pads to a special token of this tokenizer.";
            return Err(Failure::Stage(StageError::new(message).help(help)));
        };
        Ok(Pads { text: text.to_owned(), id: token.id, count: text.len() / token.text.len() })
    }

    fn check_special(&self, segment: Segment<'_>) -> Result<(), Failure> {
        if !segment.is_data() || self.stage.special_in_text == SpecialInText::Allow {
            return Ok(());
        }
        let Some(token) = self.tokenizer.special_in(segment.text) else { return Ok(()) };
        let detail = format!(
            "`{}` is typed in the {} text, where it would become a control token; set special_in_text = \"allow\" \
             to let it",
            token.text, segment.role
        );
        Err(Failure::Row("special-token", detail))
    }

    fn limit(&self, work: &mut Work) -> Result<(), Failure> {
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
        if work.pads_end > max {
            let detail =
                format!("the pads of a picture end at token {}, behind max_tokens = {max}", work.pads_end);
            return Err(Failure::Row("truncated-image", detail));
        }
        work.ids.truncate(max);
        work.train.truncate(max);
        Ok(())
    }
}

impl Work {
    fn begin_row(&mut self) {
        self.text.clear();
        self.ids.clear();
        self.train.clear();
        (self.n_pads, self.pads_end) = (0, 0);
    }
}

/// In a row with pictures, the pads among the tokens are theirs, no more.
fn check_pads(work: &Work) -> Result<(), Failure> {
    let Some(pads) = work.pads.as_ref().filter(|_| work.n_pads > 0) else { return Ok(()) };
    let found = work.ids.iter().filter(|id| **id == pads.id).count();
    if found == work.n_pads {
        return Ok(());
    }
    let detail = format!("{found} pads among the tokens, but the pictures have {}", work.n_pads);
    Err(Failure::Row("pad-count", detail))
}
