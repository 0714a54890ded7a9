//! `shapes`: images drawn on the fly, and questions about them; the data of the quick start.
//!
//! In: nothing but its parameters.
//! Out: the columns of `read` (`id`, `images`, `image_digests`, `n_images`, `messages`, `language`, `source`), and `kind` list<utf8>, one per question, and
//! `scene` utf8, what is drawn. Row i depends on the seed, i and the parameters alone.
//!
//! | file | what |
//! |---|---|
//! | `words.rs` | what can be drawn, and what it is called |
//! | `scene.rs` | what an image shows |
//! | `paint.rs` | a scene as PNG bytes |
//! | `questions.rs` | questions and answers about a scene |
//! | `source.rs` | rows, partitions, digests |

mod paint;
mod questions;
mod scene;
mod source;
mod words;

#[cfg(test)]
mod tests;

use crate::arrays::list_of;
use crate::image_lists::digests_list;
use crate::row::{images_type, messages_type};
use arrow::datatypes::DataType;
use llavm_pipeline::stage::{OpenContext, PARTITION_ROWS, Parameters, Source, SourceStage, StageKind};
use llavm_pipeline::{Columns, StageError};
use serde::{Deserialize, Serialize};
use words::{COUNTS, Fact, Language};

/// Parameters of `shapes`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shapes {
    /// Images.
    pub rows: u64,
    /// Decides what is drawn and asked. Default: the manifest's.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Languages of the questions; a row has one of them. Default `["en", "zh"]`.
    #[serde(default = "languages")]
    pub languages: Vec<Language>,
    /// Side of the square images, in pixels. Default 48: with CLIP patches of 16 pixels, each of the nine places is one patch.
    #[serde(default = "size")]
    pub size: usize,
    /// Most questions about one image. Default 4.
    #[serde(default = "turns")]
    pub turns: usize,
    /// Kinds of questions. Default: all.
    #[serde(default = "kinds")]
    pub kinds: Vec<Kind>,
    /// What yes/no questions are about. Default: all, `["colour", "shape", "size", "place", "count"]`. A small model learns to compare with
    /// one of two sizes or three numbers long before it can with one of six colours or nine places.
    #[serde(default = "facts")]
    pub yes_no: Vec<Fact>,
    /// Most shapes in one image, up to 3. Default 3.
    #[serde(default = "objects")]
    pub objects: usize,
}

/// What a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Colour,
    Shape,
    Place,
    Size,
    Count,
    YesNo,
    Describe,
}

impl Kind {
    /// The open question about a fact.
    fn of(fact: Fact) -> Self {
        match fact {
            Fact::Colour => Self::Colour,
            Fact::Shape => Self::Shape,
            Fact::Size => Self::Size,
            Fact::Place => Self::Place,
            Fact::Count => Self::Count,
        }
    }

    /// As in the manifest and in the column `kind`.
    fn name(self) -> &'static str {
        match self {
            Self::Colour => "colour",
            Self::Shape => "shape",
            Self::Place => "place",
            Self::Size => "size",
            Self::Count => "count",
            Self::YesNo => "yes-no",
            Self::Describe => "describe",
        }
    }
}

fn languages() -> Vec<Language> {
    vec![Language::En, Language::Zh]
}

fn size() -> usize {
    48
}

fn turns() -> usize {
    4
}

fn kinds() -> Vec<Kind> {
    use Kind::{Colour, Count, Describe, Place, Shape, Size, YesNo};
    vec![Colour, Shape, Place, Size, Count, YesNo, Describe]
}

fn facts() -> Vec<Fact> {
    Fact::ALL.to_vec()
}

fn objects() -> usize {
    COUNTS.len()
}

impl Shapes {
    /// What can be asked about an image of `count` shapes.
    fn askable(&self, count: usize) -> impl Iterator<Item = Fact> {
        let there = move |fact: &Fact| match fact {
            Fact::Place => count == 1,
            Fact::Count => self.objects > 1,
            _ => true,
        };
        let wanted = |fact: &Fact| self.asks_whether(*fact) || self.kinds.contains(&Kind::of(*fact));
        Fact::ALL.into_iter().filter(there).filter(wanted)
    }

    /// Whether yes/no questions are asked about the fact.
    fn asks_whether(&self, fact: Fact) -> bool {
        self.kinds.contains(&Kind::YesNo) && self.yes_no.contains(&fact)
    }
}

impl StageKind for Shapes {
    const KIND: &'static str = "shapes";
    const VERSION: u32 = 3;
    const ABOUT: &'static str = "draw coloured shapes and ask about them, in English and Chinese";
}

impl Parameters for Shapes {
    fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        let mut require = |fine: bool, param, text: &str| {
            if !fine {
                wrong.push((param, text.to_owned()));
            }
        };
        require(self.rows > 0, "rows", "must be at least 1");
        require(!self.languages.is_empty(), "languages", "at least one of \"en\" and \"zh\" is needed");
        require((16..=1024).contains(&self.size), "size", "must be between 16 and 1024 pixels");
        require(self.turns > 0, "turns", "must be at least 1");
        require((1..=COUNTS.len()).contains(&self.objects), "objects", "must be 1, 2 or 3");
        require(!self.kinds.is_empty(), "kinds", "at least one kind of question is needed");
        let nothing = (1..=self.objects).any(|count| self.askable(count).next().is_none());
        require(
            self.kinds.is_empty() || self.kinds.contains(&Kind::Describe) || !nothing,
            "kinds",
            "some images have nothing to be asked (a place is asked of one shape, a count where there can be several): \
             add another kind",
        );
        wrong
    }
}

impl SourceStage for Shapes {
    fn output(&self) -> Columns {
        Columns::new()
            .with("id", DataType::Utf8)
            .with("images", images_type())
            .with("image_digests", digests_list())
            .with("n_images", DataType::UInt32)
            .with("messages", messages_type())
            .with("language", DataType::Utf8)
            .with("source", DataType::Utf8)
            .with("kind", list_of(DataType::Utf8))
            .with("scene", DataType::Utf8)
    }

    fn open(&self, context: &dyn OpenContext) -> Result<Box<dyn Source>, StageError> {
        let seed = self.seed.unwrap_or_else(|| context.seed());
        Ok(Box::new(source::ShapesSource::new(self.clone(), seed, PARTITION_ROWS as u64)))
    }
}
