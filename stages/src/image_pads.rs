//! `image-pads`: put the image tokens where the pictures of a conversation belong.
//!
//! In: `segments` (see [`crate::segments`]), `n_images` u32.
//! Out: `segments` in which each placeholder of a user turn has become one segment of role `image` holding `count` pads,
//! as many as there are pictures; `n_images` as it came. A placeholder in any other turn is ordinary text.
//!
//! Where a row with pictures has no placeholder, `missing` decides. `append` puts a line break and the placeholder behind
//! the first user turn, once for each picture, as the reference recipe does; `prepend` puts the
//! placeholder and a line break before it. The pads then stand in the text to the byte where the reference has them.

use crate::arrays::{column, counts_of_kept};
use crate::segments::{IMAGE, Segment, SegmentRows, SegmentsBuilder, USER, segments_type};
use arrow::array::{RecordBatch, UInt32Array};
use arrow::datatypes::DataType;
use llavm_pipeline::stage::{Apply, Estimate, Expected, MapStage, OpenContext, Parameters, StageKind};
use llavm_pipeline::{Columns, Rejects, StageError};
use serde::{Deserialize, Serialize};

/// Parameters of `image-pads`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImagePads {
    /// Tokens per picture. Default 49: the (224 / 32)² patches of CLIP ViT-B/32.
    pub count: usize,
    /// What stands for a picture in a user turn. Default `<image>`.
    pub placeholder: String,
    /// The token that is repeated. Default `<|image_pad|>`, Qwen3's.
    pub pad: String,
    /// What to do with a row that has pictures and no placeholder. Default `append`.
    pub missing: Missing,
}

/// What to do with a row that has pictures and no placeholder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// The pictures come after the first question.
    Append,
    /// The pictures come before the first question.
    Prepend,
    Reject,
}

impl Default for ImagePads {
    fn default() -> Self {
        Self {
            count: 49,
            placeholder: "<image>".to_owned(),
            pad: "<|image_pad|>".to_owned(),
            missing: Missing::Append,
        }
    }
}

impl StageKind for ImagePads {
    const KIND: &'static str = "image-pads";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "put the image tokens where the pictures of a conversation belong";
    const PARAMS: &'static [&'static str] = &["count", "placeholder", "pad", "missing"];
}

impl Parameters for ImagePads {
    /// Bytes of a row of the samples under `data/`.
    fn estimate(&self, expected: &Expected) -> Option<Estimate> {
        Some(Estimate::table(expected, 1_000))
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        if self.count == 0 {
            wrong.push(("count", "must be at least 1".to_owned()));
        }
        if self.placeholder.is_empty() {
            wrong.push(("placeholder", "must not be empty".to_owned()));
        }
        if self.pad.is_empty() {
            wrong.push(("pad", "must not be empty".to_owned()));
        }
        wrong
    }
}

impl MapStage for ImagePads {
    fn input(&self) -> Columns {
        Columns::new().with("segments", segments_type()).with("n_images", DataType::UInt32)
    }

    fn output(&self) -> Columns {
        self.input()
    }

    fn open(&self, _context: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError> {
        Ok(Box::new(Padder { pads: self.pad.repeat(self.count), stage: self.clone() }))
    }
}

struct Padder {
    stage: ImagePads,
    /// The pads of one picture.
    pads: String,
}

type Unusable = (&'static str, String);

impl Apply for Padder {
    fn apply(&self, rows: &RecordBatch, rejects: &mut Rejects) -> Result<RecordBatch, StageError> {
        let segments = SegmentRows::of(rows)?;
        let n_images: &UInt32Array = column(rows, "n_images")?;
        let mut out = SegmentsBuilder::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            if !rejects.is_rejected(row) {
                match self.place(segments.row(row), n_images.value(row) as usize) {
                    Ok(place) => {
                        self.write(segments.row(row), place, n_images.value(row) as usize, &mut out);
                        continue;
                    }
                    Err((code, detail)) => rejects.reject(row, code, detail),
                }
            }
            out.null_row();
        }
        let columns = vec![out.finish()?, counts_of_kept(n_images, rejects)];
        Ok(RecordBatch::try_new(self.stage.output().schema(), columns)?)
    }
}

/// Where the pictures of a row go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Where the placeholders are; there may be none at all.
    AtPlaceholders,
    BeforeFirstQuestion,
    AfterFirstQuestion,
}

impl Padder {
    fn place<'a>(
        &self,
        mut segments: impl Iterator<Item = Segment<'a>> + Clone,
        n_images: usize,
    ) -> Result<Place, Unusable> {
        let user = segments.clone().filter(|segment| segment.role == USER);
        let found: usize = user.map(|segment| segment.text.matches(&self.stage.placeholder).count()).sum();
        if found == n_images {
            return Ok(Place::AtPlaceholders);
        }
        if found > 0 {
            let detail = format!(
                "the row has {n_images} picture(s), and {found} × `{}` in its user turns",
                self.stage.placeholder
            );
            return Err(("placeholder-count", detail));
        }
        if !segments.any(|segment| segment.role == USER) {
            return Err((
                "no-user-turn",
                format!("the row has {n_images} picture(s) and no user turn to put them in"),
            ));
        }
        match self.stage.missing {
            Missing::Append => Ok(Place::AfterFirstQuestion),
            Missing::Prepend => Ok(Place::BeforeFirstQuestion),
            Missing::Reject => {
                let detail = format!(
                    "the row has {n_images} picture(s) and no `{}`; set missing = \"append\" to have it added",
                    self.stage.placeholder
                );
                Err(("no-placeholder", detail))
            }
        }
    }

    fn write<'a>(
        &self,
        segments: impl Iterator<Item = Segment<'a>>,
        place: Place,
        n_images: usize,
        out: &mut SegmentsBuilder,
    ) {
        let mut first_question = true;
        for segment in segments {
            let question = segment.role == USER;
            let here = question && first_question;
            first_question &= !question;
            if here && place == Place::BeforeFirstQuestion {
                for _ in 0..n_images {
                    self.push_pads(segment, out);
                    push(Segment { text: "\n", ..segment }, out);
                }
            }
            if question && place == Place::AtPlaceholders {
                self.replace_placeholders(segment, out);
            } else {
                push(segment, out);
            }
            if here && place == Place::AfterFirstQuestion {
                for _ in 0..n_images {
                    push(Segment { text: "\n", ..segment }, out);
                    self.push_pads(segment, out);
                }
            }
        }
        out.end_row();
    }

    fn replace_placeholders(&self, segment: Segment<'_>, out: &mut SegmentsBuilder) {
        for (n, text) in segment.text.split(&self.stage.placeholder).enumerate() {
            if n > 0 {
                self.push_pads(segment, out);
            }
            push(Segment { text, ..segment }, out);
        }
    }

    fn push_pads(&self, beside: Segment<'_>, out: &mut SegmentsBuilder) {
        out.push(Segment { text: &self.pads, train: beside.train, role: IMAGE });
    }
}

fn push(segment: Segment<'_>, out: &mut SegmentsBuilder) {
    if !segment.text.is_empty() {
        out.push(segment);
    }
}
