//! What a manifest says of `evaluate`.

use super::numbers::Metric;
use llavm_model::config::Dtype;
use llavm_model::device::DeviceName;
use serde::{Deserialize, Serialize};

/// Parameters of `evaluate`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluate {
    /// Which rows: `validation` (default) or `train`.
    pub split: Split,
    /// Rows used, drawn by the seed where there are more. Default 2000.
    pub samples: usize,
    /// Which of a row's questions are asked. Default `last`.
    pub turns: Turns,
    /// Where right answers come from. `row` (default): each row has its own. `image`: the rows that show one image are
    /// asked once, with the first one's question, and all their answers are right (caption sets); the loss is that of the
    /// first one's. Anything else names a column of the shards that lists them.
    pub references: References,
    /// How answers are made.
    pub generate: Generate,
    /// Which measures are reported beside loss and token accuracy. Default `exact_match`, `bleu`, `rouge_l`, `cider_d` and
    /// `yes_no`; `pope` reads yes/no answers by POPE's own rule.
    pub metrics: Vec<Metric>,
    /// Columns of the shards by whose values results are told apart. Default `language` and `source`.
    pub slices: Vec<String>,
    /// Where to compute: `cpu` (default), `cuda`, `cuda:1` or `wgpu`; of several (`cuda:0,1`) the first.
    #[serde(serialize_with = "crate::device::family")]
    pub device: String,
    /// `f32`, `f16` or `bf16`. Default: f32 on the CPU, elsewhere what the model was trained in.
    pub dtype: Option<Dtype>,
    /// Replicates behind each confidence interval; 0 for none. Default 1000.
    pub bootstrap: usize,
    /// Images in the gallery of `report.html`. Default 60.
    pub gallery: usize,
}

impl Default for Evaluate {
    fn default() -> Self {
        Self {
            split: Split::default(),
            samples: 2000,
            turns: Turns::default(),
            references: References::default(),
            generate: Generate::default(),
            metrics: Metric::DEFAULT.to_vec(),
            slices: vec!["language".to_owned(), "source".to_owned()],
            device: DeviceName::Cpu.to_string(),
            dtype: None,
            bootstrap: 1000,
            gallery: 60,
        }
    }
}

/// A split of the shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Held out.
    #[default]
    Validation,
    /// Trained on.
    Train,
}

impl Split {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::Train => "train",
        }
    }
}

/// Which questions of a row are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Turns {
    /// The final one, after all that was said before it.
    #[default]
    Last,
    /// Every one, by itself.
    Each,
}

/// Where right answers come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum References {
    /// Each row has its own.
    #[default]
    Row,
    /// All rows that show the same image.
    Image,
    /// A column with a list of them.
    Column(String),
}

impl From<String> for References {
    fn from(text: String) -> Self {
        match text.as_str() {
            "row" => Self::Row,
            "image" => Self::Image,
            _ => Self::Column(text),
        }
    }
}

impl From<References> for String {
    fn from(references: References) -> Self {
        match references {
            References::Row => "row".to_owned(),
            References::Image => "image".to_owned(),
            References::Column(name) => name,
        }
    }
}

/// How answers are made; always the likeliest token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Generate {
    /// Most tokens of an answer. Default 128.
    pub max_new_tokens: usize,
    /// Questions at once. Default 32.
    pub batch_size: usize,
}

impl Default for Generate {
    fn default() -> Self {
        Self { max_new_tokens: 128, batch_size: 32 }
    }
}
