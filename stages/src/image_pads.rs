//! `image-pads`: put the image tokens where the images of a conversation belong.
//!
//! In: `segments` (see [`crate::segments`]), `n_images` u32.
//! Out: `segments` in which each placeholder of a user turn has become one segment of role `image` holding `count` image
//! tokens, as many as there are images; `n_images` as it came. A placeholder in any other turn is ordinary text.
//!
//! Where a row with images has no placeholder, `missing` decides. `append` puts a line break and the placeholder behind
//! the first user turn, once for each image, as the reference recipe does; `prepend` puts the placeholder and a line break
//! before it. The image tokens then stand in the text to the byte where the reference has them; see
//! [`llavm_model::processor::image_tokens`].
//!
//! | code | why a row is rejected |
//! |---|---|
//! | `placeholder-count` | other placeholders than images |
//! | `no-user-turn` | images, but no user turn to put them in |
//! | `no-placeholder` | `missing = "reject"`, images and no placeholder |
//! | `typed-pad` | the image token itself is typed in a message, where it would stand for an image that is not there |

use crate::arrays::{column, counts_of_kept};
use crate::facts;
use crate::segments::{Segment, SegmentRows, SegmentsBuilder, USER, segments_type};
use crate::settings;
use arrow::array::{RecordBatch, UInt32Array};
use arrow::datatypes::DataType;
use llavm_model::processor::files::{IMAGE_TOKEN, PLACEHOLDER};
use llavm_model::processor::image_tokens::{ImageTokens, PlaceError, Placement, line_break};
use llavm_pipeline::stage::{
    Apply, Estimate, Expected, Fact, MapStage, Missing, OpenContext, Parameters, StageKind,
};
use llavm_pipeline::{Columns, Rejects, StageError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Parameters of `image-pads`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct ImagePads {
    /// Tokens per image. Default: the patches of `vision`, or 49, the (224 / 32)² of CLIP ViT-B/32.
    pub count: usize,
    /// The vision tower that will look at the images, a folder or `hub:ORG/NAME`: it says how many tokens an image takes.
    #[serde(skip_serializing)]
    pub vision: Option<String>,
    /// What stands for an image in a user turn. Default `<image>`.
    pub placeholder: String,
    /// The token that is repeated. Default `<|image_pad|>`, Qwen3's.
    pub pad: String,
    /// What to do with a row that has images and no placeholder. Default `append`.
    pub missing: Placement,
}

/// The parameters as a manifest has them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    count: Option<usize>,
    vision: Option<String>,
    placeholder: String,
    pad: String,
    missing: Placement,
}

impl From<Written> for ImagePads {
    fn from(written: Written) -> Self {
        let Written { count, vision, placeholder, pad, missing } = written;
        let patches = || facts::vision_config(vision.as_deref()?).map(|config| config.num_patches());
        Self { count: count.or_else(patches).unwrap_or(49), vision, placeholder, pad, missing }
    }
}

impl Default for Written {
    fn default() -> Self {
        Self {
            count: None,
            vision: None,
            placeholder: PLACEHOLDER.to_owned(),
            pad: IMAGE_TOKEN.to_owned(),
            missing: Placement::Append,
        }
    }
}

impl StageKind for ImagePads {
    const KIND: &'static str = "image-pads";
    const VERSION: u32 = 2;
    const ABOUT: &'static str = "put the image tokens where the images of a conversation belong";
}

impl Parameters for ImagePads {
    /// Bytes of a row of the samples under `data/`.
    fn estimate(&self, expected: &Expected) -> Option<Estimate> {
        Some(Estimate::table(expected, 1_000))
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        let patches =
            self.vision.as_deref().and_then(facts::vision_config).map(|config| config.num_patches());
        if let Some(patches) = patches.filter(|patches| *patches != self.count) {
            wrong.push((
                "count",
                format!("is {}, but `vision` makes {patches} patches of an image", self.count),
            ));
        }
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

    fn facts(&self) -> Vec<Fact> {
        let placement = match self.missing {
            Placement::Append => "behind the first question",
            Placement::Prepend => "before the first question",
            Placement::AsWritten => "where they are written",
        };
        vec![
            facts::image_tokens(self.count, "count"),
            facts::fact("the token that stands for an image", "pad", &self.pad),
            facts::fact("what stands for an image in a question", "placeholder", &self.placeholder),
            facts::fact("where images without a placeholder go", "missing", placement),
        ]
    }

    fn missing(&self) -> Vec<Missing> {
        facts::missing_tower(self.vision.as_deref(), "vision")
    }

    /// An [`ImageTokens`].
    fn settings(&self) -> Result<Option<(&'static str, Value)>, StageError> {
        Ok(Some((settings::IMAGE_TOKENS, json!(self.image_tokens()))))
    }
}

impl ImagePads {
    fn image_tokens(&self) -> ImageTokens {
        ImageTokens {
            token: self.pad.clone(),
            count: self.count,
            placeholder: self.placeholder.clone(),
            placement: self.missing,
            separator: line_break(),
        }
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
        let tokens = self.image_tokens();
        Ok(Box::new(Place { image: tokens.text(), tokens, columns: self.output() }))
    }
}

struct Place {
    tokens: ImageTokens,
    /// The tokens of one image.
    image: String,
    columns: Columns,
}

impl Apply for Place {
    fn apply(&self, rows: &RecordBatch, rejects: &mut Rejects) -> Result<RecordBatch, StageError> {
        let segments = SegmentRows::of(rows)?;
        let n_images: &UInt32Array = column(rows, "n_images")?;
        let mut out = SegmentsBuilder::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            if !rejects.is_rejected(row) {
                let images = n_images.value(row) as usize;
                let placed = match self.typed(segments.row(row)) {
                    Some(fault) => Err(fault),
                    None => self
                        .tokens
                        .place(segments.row(row), images, &self.image, &mut out)
                        .map_err(|error| reason(&error)),
                };
                match placed {
                    Ok(()) => {
                        out.end_row();
                        continue;
                    }
                    Err((code, detail)) => rejects.reject(row, code, detail),
                }
            }
            out.null_row();
        }
        let columns = vec![out.finish()?, counts_of_kept(n_images, rejects)];
        Ok(RecordBatch::try_new(self.columns.schema(), columns)?)
    }
}

impl Place {
    /// The reject of a row in which an image token is typed: it would be found among the tokens, and no image for it. Where questions have
    /// that very token for a placeholder, it is one.
    fn typed<'a>(&self, segments: impl Iterator<Item = Segment<'a>>) -> Option<(&'static str, String)> {
        let token = &self.tokens.token;
        let is_placeholder =
            |segment: &Segment<'_>| segment.role == USER && self.tokens.placeholder.contains(token.as_str());
        let mut data = segments.filter(|segment| segment.is_data() && !is_placeholder(segment));
        let typed = data.find(|segment| segment.text.contains(token.as_str()))?;
        let role = typed.role;
        let detail = format!(
            "`{token}` is typed in the {role} text, where it would stand for an image that is not there"
        );
        Some(("typed-pad", detail))
    }
}

/// Code and detail of a reject.
fn reason(error: &PlaceError) -> (&'static str, String) {
    match error {
        PlaceError::Count { images, placeholders, placeholder } => (
            "placeholder-count",
            format!("the row has {images} image(s), and {placeholders} × `{placeholder}` in its user turns"),
        ),
        PlaceError::NoQuestion { images } => {
            ("no-user-turn", format!("the row has {images} image(s) and no user turn to put them in"))
        }
        PlaceError::NoPlaceholder { images, placeholder } => (
            "no-placeholder",
            format!(
                "the row has {images} image(s) and no `{placeholder}`; set missing = \"append\" to have it added"
            ),
        ),
    }
}
