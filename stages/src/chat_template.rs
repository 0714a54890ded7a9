//! `chat-template`: render a conversation as the model was taught to read it, and mark what it shall learn to write.
//!
//! In: `messages` `list<struct<role, content, tool_calls, extra, tools>>` of utf8, `n_images` u32.
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
//!
//! The reference's two training stages end an answer differently: stage 1 with `<|im_end|>`, stage 2 with the line break behind it.
//! The default of `answer_end` follows the recipe that the other parameters describe; the parameter overrides it.

use crate::arrays::{column, counts_of_kept};
use crate::facts;
use crate::messages::MessageRows;
use crate::row::messages_type;
use crate::segments::{SegmentsBuilder, segments_type};
use crate::settings;
use crate::tokenizer_folder;
use arrow::array::{RecordBatch, UInt32Array};
use arrow::datatypes::DataType;
use llavm_model::chat_template::{self as hf, Message};
pub use llavm_model::processor::render::{AnswerEnd, LossOn};
use llavm_model::processor::render::{Renderer, Rendering};
use llavm_pipeline::stage::{
    Apply, Estimate, Expected, Fact, MapStage, Missing, OpenContext, Parameters, Resource, StageKind,
};
use llavm_pipeline::{Columns, Rejects, StageError};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};
use std::path::Path;

/// What `validate` says of such a template.
const EARLIER: &str = "loss_on = \"all-assistant\" trains earlier answers as this template renders them, which is not behind the \
                       prompt that asks for them (Qwen3: no empty think block); the last answer is trained as it is asked";

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

    fn renderer(&self) -> Result<Renderer, StageError> {
        let template = self.load()?;
        let eos = template.eos_token().ok_or_else(|| {
            StageError::new("the tokenizer names no eos token, so the end of an answer cannot be found")
                .help("Add \"eos_token\" to its tokenizer_config.json.")
        })?;
        Renderer::new(template, self.rendering(), eos)
            .map_err(|error| StageError::new(error.to_string()).because(error))
    }

    fn rendering(&self) -> Rendering {
        Rendering {
            system: self.system.clone(),
            enable_thinking: self.enable_thinking,
            loss_on: self.loss_on,
            answer_end: self.answer_end(),
        }
    }

    /// Whether the template renders an earlier answer behind something else than the prompt that asks for it.
    fn bare(&self, template: &hf::ChatTemplate) -> bool {
        let turn = |role, content| Message::new(role, content);
        let turns = [turn("user", "a"), turn("assistant", "b"), turn("user", "c"), turn("assistant", "d")];
        let render = |turns: &[Message<'_>], prompt| {
            template.render(&turns, prompt, Some(self.enable_thinking), None).ok()
        };
        let (Some(asked), Some(trained)) = (render(&turns[..1], true), render(&turns, false)) else {
            return false;
        };
        !template.marks_generation() && !trained.starts_with(&asked)
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
    const VERSION: u32 = 3;
    const ABOUT: &'static str =
        "render a conversation with the tokenizer's template and mark what is trained on";
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

    fn check(&self) -> Vec<(&'static str, String)> {
        let wrong = self.renderer().ok().and_then(|renderer| renderer.unaskable());
        wrong.map(|why| ("template", why)).into_iter().collect()
    }

    fn facts(&self) -> Vec<Fact> {
        let folder = tokenizer_folder::resolve(&self.tokenizer).ok();
        let tokenizer = folder.and_then(|folder| facts::tokenizer(&folder, "tokenizer"));
        let template = self.load().ok().map(|template| Fact {
            name: "the chat template",
            param: "template",
            value: template.source().to_owned(),
            shown: "this template".to_owned(),
            help: "A model answers in one template: mix data sets that are rendered alike.".to_owned(),
        });
        let end = match self.answer_end() {
            AnswerEnd::Eos => "eos",
            AnswerEnd::Turn => "turn",
        };
        let system = Fact {
            name: "the system prompt",
            param: "system",
            value: format!("{:?}", self.system),
            shown: match &self.system {
                Some(system) => format!("`{}`", system.chars().take(40).collect::<String>().escape_debug()),
                None => "no system prompt".to_owned(),
            },
            help: "A model is asked with one system prompt: give all data sets the same `system`, or none and put it \
                   into the rows as a first message of role `system`."
                .to_owned(),
        };
        let thinking = facts::fact("thinking", "enable_thinking", &self.enable_thinking.to_string());
        let end = facts::fact("where an answer ends", "answer_end", end);
        tokenizer.into_iter().chain(template).chain([system, thinking, end]).collect()
    }

    /// What training on earlier answers means with this template.
    fn preview(&self) -> Result<Vec<String>, StageError> {
        let earlier =
            self.loss_on == LossOn::AllAssistant && self.load().is_ok_and(|template| self.bare(&template));
        Ok(earlier.then(|| EARLIER.to_owned()).into_iter().collect())
    }

    /// A [`ChatSettings`].
    fn settings(&self) -> Result<Option<(&'static str, Value)>, StageError> {
        let value = json!({ "template": self.load()?.source(), "rendering": self.rendering() });
        Ok(Some((settings::RENDERING, value)))
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
        let renderer = self.renderer()?;
        Ok(Box::new(Render { renderer, columns: self.output() }))
    }
}

/// What a model trained on the rows repeats.
#[derive(Debug, Deserialize)]
pub struct ChatSettings {
    /// The text of the chat template.
    pub template: String,
    /// How it is used.
    pub rendering: Rendering,
}

struct Render {
    renderer: Renderer,
    columns: Columns,
}

impl Apply for Render {
    fn apply(&self, rows: &RecordBatch, rejects: &mut Rejects) -> Result<RecordBatch, StageError> {
        let n_images: &UInt32Array = column(rows, "n_images")?;
        let messages = MessageRows::of(rows)?;
        let mut segments = SegmentsBuilder::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            if !rejects.is_rejected(row) {
                match self.renderer.conversation(&messages_of(&messages, row)?) {
                    Ok(conversation) => {
                        conversation.write(&mut segments);
                        segments.end_row();
                        continue;
                    }
                    Err(refusal) => rejects.reject(row, refusal.code, refusal.detail),
                }
            }
            segments.null_row();
        }
        let columns = vec![segments.finish()?, counts_of_kept(n_images, rejects)];
        Ok(RecordBatch::try_new(self.columns.schema(), columns)?)
    }
}

/// The messages of a row, as the template takes them.
fn messages_of<'a>(rows: &MessageRows<'a>, row: usize) -> Result<Vec<Message<'a>>, StageError> {
    rows.row(row).into_iter().flatten().map(|turn| turn.message()).collect()
}
