//! `chat-template`: render a conversation as the model was taught to read it, and mark what it shall learn to write.
//!
//! In: `messages` list<struct<role: utf8, content: utf8>>, `n_images` u32.
//! Out: `segments` (see [`crate::segments`]), `n_images` as it came.
//!
//! | code | why a row is rejected |
//! |---|---|
//! | `no-answer` | it does not end with an assistant turn (or has none, with `all-assistant`) |
//! | `answer-changes-prompt` | the template renders prompt and answer together otherwise than one after the other |
//! | `template-refuses` | the template raises an error for these messages |
//! | `template-edits-text` | the template changes a message in a way that cannot be followed |
//! | `no-eos` | the template does not end an answer with the tokenizer's eos token |
//! | `noncharacter` | a message holds a Unicode noncharacter, which no text should |

mod marks;
mod render;

use crate::arrays::{column, counts_of_kept, item_range, list_of};
use crate::segments::{SegmentsBuilder, segments_type};
use crate::tokenizer_folder;
use arrow::array::{Array, ListArray, RecordBatch, StringArray, StructArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Fields};
use llavm_model::chat_template::{self as hf, Message};
use llavm_pipeline::stage::{
    Apply, Estimate, Expected, MapStage, Missing, OpenContext, Parameters, Resource, StageKind,
};
use llavm_pipeline::{Columns, Rejects, StageError};
use render::Renderer;
use serde::{Deserialize, Serialize, Serializer};
use std::path::Path;

/// Parameters of `chat-template`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatTemplate {
    /// Folder of the tokenizer, or `hub:ORG/NAME`: its chat template and special tokens.
    #[serde(skip_serializing)]
    pub tokenizer: String,
    /// System message put before conversations that have none. Default: none is invented.
    #[serde(default)]
    pub system: Option<String>,
    /// Another chat template: a file, or the Jinja text itself. Default: the tokenizer's.
    #[serde(default, serialize_with = "text_only")]
    pub template: Option<String>,
    /// Handed to the template as `enable_thinking`. Default false: an empty think block before each answer, as a model that
    /// shall answer at once is prompted.
    #[serde(default)]
    pub enable_thinking: bool,
    /// Which answers are trained on. Default `last`.
    #[serde(default)]
    pub loss_on: LossOn,
    /// Where a trained answer ends. Default: as in the reference recipe, `turn` (its stage 2: conversations without a
    /// system message), but `eos` when `system` is given (its stage 1: captions) or with `all-assistant`.
    #[serde(default)]
    pub answer_end: Option<AnswerEnd>,
}

/// Which answers are trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossOn {
    #[default]
    Last,
    /// Every assistant turn: all that `{% generation %}` encloses, if the template has it.
    AllAssistant,
}

/// Where a trained answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerEnd {
    /// With the eos token.
    Eos,
    /// With the whitespace the template puts behind the eos token (Qwen3: a line break).
    Turn,
}

/// A template given by its text is a parameter; a file enters the key by content instead.
#[allow(clippy::ref_option, reason = "serde hands over a reference to the field")]
fn text_only<S: Serializer>(template: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    template.as_ref().filter(|template| is_text(template)).serialize(serializer)
}

fn is_text(template: &str) -> bool {
    template.contains("{{") || template.contains("{%")
}

impl ChatTemplate {
    fn answer_end(&self) -> AnswerEnd {
        let recipe = match self.loss_on {
            LossOn::Last if self.system.is_none() => AnswerEnd::Turn,
            _ => AnswerEnd::Eos,
        };
        self.answer_end.unwrap_or(recipe)
    }

    fn template_file(&self) -> Option<&Path> {
        self.template.as_deref().filter(|template| !is_text(template)).map(Path::new)
    }

    fn load(&self) -> Result<hf::ChatTemplate, StageError> {
        let folder = tokenizer_folder::resolve(&self.tokenizer)?;
        let source = match (&self.template, self.template_file()) {
            (_, Some(file)) => {
                Some(std::fs::read_to_string(file).map_err(|cause| StageError::io(file, cause))?)
            }
            (text, None) => text.clone(),
        };
        let template = match source {
            Some(source) => hf::ChatTemplate::with_source(&folder, source),
            None => hf::ChatTemplate::from_folder(&folder),
        };
        template.map_err(|error| {
            StageError::new(error.to_string()).help("Name a chat template with `template`.").because(error)
        })
    }
}

impl StageKind for ChatTemplate {
    const KIND: &'static str = "chat-template";
    const VERSION: u32 = 1;
    const ABOUT: &'static str =
        "render a conversation with the tokenizer's template and mark what is trained on";
    const PARAMS: &'static [&'static str] =
        &["tokenizer", "system", "template", "enable_thinking", "loss_on", "answer_end"];
}

impl Parameters for ChatTemplate {
    /// Bytes of a row of the samples under `data/`.
    fn estimate(&self, expected: &Expected) -> Option<Estimate> {
        Some(Estimate::table(expected, 400))
    }

    fn resources(&self) -> Result<Vec<Resource>, StageError> {
        let mut resources = tokenizer_folder::resources(&self.tokenizer)?;
        let file = self.template_file();
        resources.extend(file.map(|file| Resource { name: "template".to_owned(), path: file.to_owned() }));
        Ok(resources)
    }

    fn missing(&self) -> Vec<Missing> {
        let mut missing = tokenizer_folder::missing(&self.tokenizer);
        missing.extend(self.template_file().filter(|file| !file.is_file()).map(|file| Missing {
            param: "template",
            text: format!("there is no file `{}`", file.display()),
            help: "Name a file with a Jinja template, or write the template itself.".to_owned(),
        }));
        missing
    }
}

impl MapStage for ChatTemplate {
    fn input(&self) -> Columns {
        Columns::new().with("messages", messages_type()).with("n_images", DataType::UInt32)
    }

    fn output(&self) -> Columns {
        Columns::new().with("segments", segments_type()).with("n_images", DataType::UInt32)
    }

    fn open(&self, _context: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError> {
        let template = self.load()?;
        let eos = template.eos_token().ok_or_else(|| {
            StageError::new("the tokenizer names no eos token, so the end of an answer cannot be found")
                .help("Add \"eos_token\" to its tokenizer_config.json.")
        })?;
        let renderer = Renderer::new(template, self.clone(), eos)
            .map_err(|error| StageError::new(error.to_string()).because(error))?;
        Ok(Box::new(renderer))
    }
}

fn messages_type() -> DataType {
    list_of(DataType::Struct(Fields::from(vec![
        Field::new("role", DataType::Utf8, true),
        Field::new("content", DataType::Utf8, true),
    ])))
}

impl Apply for Renderer {
    fn apply(&self, rows: &RecordBatch, rejects: &mut Rejects) -> Result<RecordBatch, StageError> {
        let n_images: &UInt32Array = column(rows, "n_images")?;
        let messages = MessageRows::of(rows)?;
        let mut segments = SegmentsBuilder::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            if !rejects.is_rejected(row) {
                match self.conversation(&messages.row(row)) {
                    Ok(conversation) => {
                        conversation.write(&mut segments);
                        continue;
                    }
                    Err((code, detail)) => rejects.reject(row, code, detail),
                }
            }
            segments.null_row();
        }
        let columns = vec![segments.finish()?, counts_of_kept(n_images, rejects)];
        Ok(RecordBatch::try_new(self.stage.output().schema(), columns)?)
    }
}

/// The column `messages` of a batch.
struct MessageRows<'a> {
    lists: &'a ListArray,
    role: &'a StringArray,
    content: &'a StringArray,
}

impl<'a> MessageRows<'a> {
    fn of(rows: &'a RecordBatch) -> Result<Self, StageError> {
        let lists: &ListArray = column(rows, "messages")?;
        let turns = lists.values().as_any().downcast_ref::<StructArray>();
        let text = |name: &str| turns?.column_by_name(name)?.as_any().downcast_ref::<StringArray>();
        match (text("role"), text("content")) {
            (Some(role), Some(content)) => Ok(Self { lists, role, content }),
            _ => Err(StageError::new("`messages` is not list<struct<role: utf8, content: utf8>>")),
        }
    }

    fn row(&self, row: usize) -> Vec<Message<'a>> {
        item_range(self.lists, row)
            .map(|item| Message { role: self.role.value(item), content: self.content.value(item) })
            .collect()
    }
}
