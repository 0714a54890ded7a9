//! A tokenizer's own chat template, rendered as Transformers renders it.
//!
//! In: messages (anything that serialises to a list of `{role, content, …}`), and the arguments of `apply_chat_template`. Out: the prompt as text, to the byte what `apply_chat_template(tokenize=False)` gives.
//!
//! Follows `transformers/utils/chat_template_utils.py` (5.23): Jinja with `trim_blocks` and `lstrip_blocks`, a `tojson`
//! that escapes nothing, `raise_exception`, the tokenizer's special tokens as variables, and `{% generation %}` blocks.
//! `strftime_now` is left out on purpose: a template that asks for today's date would give other tokens tomorrow.

use crate::magic::culprit;
pub use crate::message::{Json, Message};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Written where a `{% generation %}` block begins, in [`ChatTemplate::render_marked`]. A noncharacter (Unicode 23.7),
/// which no text may hold.
pub const GENERATION_START: char = '\u{FDE0}';
/// Written where a `{% generation %}` block ends.
pub const GENERATION_END: char = '\u{FDE1}';

/// Why a chat template cannot be had or rendered.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("{}: {cause}", path.display())]
    Read { path: PathBuf, cause: std::io::Error },
    #[error("{}: not the JSON of a tokenizer configuration: {}", path.display(), culprit(path, cause))]
    Json { path: PathBuf, cause: serde_json::Error },
    #[error(
        "{} has no chat template: neither chat_template.jinja nor `chat_template` in tokenizer_config.json",
        folder.display()
    )]
    Missing { folder: PathBuf },
    #[error("the chat template is not valid: {0:#}")]
    Syntax(Error),
    /// The template refused these messages (`raise_exception`) or tripped over them.
    #[error("the chat template cannot render these messages: {}", innermost(.0))]
    Render(Error),
}

fn innermost(error: &Error) -> String {
    match (error.detail(), error.line()) {
        (Some(detail), Some(line)) => format!("{detail} (template line {line})"),
        _ => error.to_string(),
    }
}

/// A compiled template with the special tokens it may print.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    special_tokens: BTreeMap<&'static str, Value>,
    marks_generation: bool,
}

const NAME: &str = "chat_template";

/// The special tokens Transformers hands to a template, by the names of `tokenizer_config.json`.
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl ChatTemplate {
    /// The template of the tokenizer in `folder`: `chat_template.jinja` if there is one, otherwise `chat_template` of
    /// `tokenizer_config.json` (a string, or a list of named templates of which `default` is taken).
    pub fn from_folder(folder: &Path) -> Result<Self, TemplateError> {
        let config = tokenizer_config(folder)?;
        let file = folder.join("chat_template.jinja");
        let source = if file.is_file() {
            read(&file)?
        } else {
            template_of(&config).ok_or_else(|| TemplateError::Missing { folder: folder.to_owned() })?
        };
        Self::new(source, &config)
    }

    /// Another template (its text) with the special tokens of the tokenizer in `folder`.
    pub fn with_source(folder: &Path, source: String) -> Result<Self, TemplateError> {
        Self::new(source, &tokenizer_config(folder)?)
    }

    fn new(source: String, config: &serde_json::Value) -> Result<Self, TemplateError> {
        let (compiled, marks_generation) = mark_generation_blocks(&source);
        let mut environment = environment()?;
        environment.add_template_owned(NAME, compiled).map_err(TemplateError::Syntax)?;
        let special_tokens = SPECIAL_TOKENS
            .iter()
            .filter_map(|&name| special_token(config, name).map(|text| (name, Value::from(text))))
            .collect();
        Ok(Self { environment, source, special_tokens, marks_generation })
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of the tokenizer's `eos_token`.
    pub fn eos_token(&self) -> Option<String> {
        self.special_tokens.get("eos_token").and_then(Value::as_str).map(str::to_owned)
    }

    /// Whether the template says itself, with `{% generation %}`, which text an assistant writes.
    pub fn marks_generation(&self) -> bool {
        self.marks_generation
    }

    /// The rendered conversation.
    ///
    /// `enable_thinking`: `None` leaves the variable undefined, as when the argument is not given in Python.
    /// `tools`: the definitions of the tools on offer.
    pub fn render(
        &self,
        messages: &impl Serialize,
        add_generation_prompt: bool,
        enable_thinking: Option<bool>,
        tools: Option<&Json>,
    ) -> Result<String, TemplateError> {
        let mut text = self.render_marked(messages, add_generation_prompt, enable_thinking, tools)?;
        if self.marks_generation {
            text.retain(|c| c != GENERATION_START && c != GENERATION_END);
        }
        Ok(text)
    }

    /// As [`ChatTemplate::render`], with [`GENERATION_START`] and [`GENERATION_END`] left in the text.
    pub fn render_marked(
        &self,
        messages: &impl Serialize,
        add_generation_prompt: bool,
        enable_thinking: Option<bool>,
        tools: Option<&Json>,
    ) -> Result<String, TemplateError> {
        let mut variables = self.special_tokens.clone();
        variables.insert("messages", Value::from(Serde(messages)));
        variables.insert("tools", tools.map_or_else(|| Value::from(()), |Json(tools)| tools.clone()));
        variables.insert("documents", Value::from(()));
        variables.insert("add_generation_prompt", Value::from(add_generation_prompt));
        if let Some(thinking) = enable_thinking {
            variables.insert("enable_thinking", Value::from(thinking));
        }
        let template = self.environment.get_template(NAME).map_err(TemplateError::Syntax)?;
        template.render(Value::from(variables)).map_err(TemplateError::Render)
    }
}

/// The files of a tokenizer folder that decide what a chat template renders and which ids come out.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
        .iter()
        .map(|name| folder.join(name))
        .filter(|path| path.is_file())
        .collect()
}

fn environment() -> Result<Environment<'static>, TemplateError> {
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .map_err(TemplateError::Syntax)?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_filter("tojson", tojson);
    Ok(environment)
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`, which Transformers puts in place of Jinja's own filter.
#[allow(clippy::needless_pass_by_value, reason = "the signature of a minijinja filter")]
fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.get::<Option<bool>>("ensure_ascii")?;
    options.assert_all_used()?;
    let invalid = |cause: serde_json::Error| Error::new(ErrorKind::BadSerialization, cause.to_string());
    let spaces = " ".repeat(indent.unwrap_or_default().min(16));
    let pretty = indent.map(|_| PrettyFormatter::with_indent(spaces.as_bytes()));
    let mut bytes = Vec::new();
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Python(pretty)))
        .map_err(invalid)?;
    String::from_utf8(bytes).map_err(|cause| Error::new(ErrorKind::BadSerialization, cause.to_string()))
}

/// Python's separators, `", "` and `": "` or those of an indented text, and its numbers.
struct Python<'a>(Option<PrettyFormatter<'a>>);

/// The methods that are the indented text's, where it is indented.
macro_rules! pretty_or {
    ($($name:ident($($arg:ident: $kind:ty),*) $plain:expr;)*) => {$(
        fn $name<W: ?Sized + Write>(&mut self, w: &mut W $(, $arg: $kind)*) -> io::Result<()> {
            match &mut self.0 {
                Some(pretty) => pretty.$name(w $(, $arg)*),
                None => w.write_all($plain),
            }
        }
    )*};
}

impl Formatter for Python<'_> {
    pretty_or! {
        begin_array() b"[";
        end_array() b"]";
        begin_array_value(first: bool) if first { b"" } else { b", " };
        end_array_value() b"";
        begin_object() b"{";
        end_object() b"}";
        begin_object_key(first: bool) if first { b"" } else { b", " };
        begin_object_value() b": ";
        end_object_value() b"";
    }

    fn write_f64<W: ?Sized + Write>(&mut self, w: &mut W, value: f64) -> io::Result<()> {
        w.write_all(python_float(value).as_bytes())
    }
}

/// `repr` of a float: scientific below 1e-4 and from 1e16 on, with a sign and at least two digits in the exponent.
fn python_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let parts = scientific
        .split_once('e')
        .and_then(|(digits, exponent)| Some((digits, exponent.parse::<i32>().ok()?)));
    match parts {
        Some((digits, exponent)) if value != 0.0 && !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => {
            let plain = value.to_string();
            if plain.contains('.') { plain } else { format!("{plain}.0") }
        }
    }
}

/// Turns `{% generation %}` and `{% endgeneration %}`, which minijinja does not know, into printed marks; whitespace
/// control stays that of a block tag. The flag says whether there was one.
fn mark_generation_blocks(source: &str) -> (String, bool) {
    let mut out = String::with_capacity(source.len() + 64);
    let mut rest = source;
    let mut found = false;
    while let Some((start, end)) =
        rest.find("{%").and_then(|at| rest[at..].find("%}").map(|n| (at, at + n + 2)))
    {
        let tag = &rest[start + 2..end - 2];
        let mark = match tag.trim_matches(['-', '+']).trim() {
            "generation" => Some("\u{FDE0}"),
            "endgeneration" => Some("\u{FDE1}"),
            _ => None,
        };
        out.push_str(&rest[..start]);
        match mark {
            Some(mark) => {
                found = true;
                let before = &tag[..tag.len() - tag.trim_start_matches(['-', '+']).len()];
                let after = &tag[tag.trim_end_matches(['-', '+']).len()..];
                let printed = ["{%", before, " if true %}{{ '", mark, "' }}{% endif ", after, "%}"];
                out.extend(printed);
            }
            None => out.push_str(&rest[start..end]),
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    (out, found)
}

fn read(path: &Path) -> Result<String, TemplateError> {
    std::fs::read_to_string(path).map_err(|cause| TemplateError::Read { path: path.to_owned(), cause })
}

/// `tokenizer_config.json` of `folder`; null when there is none.
pub(crate) fn tokenizer_config(folder: &Path) -> Result<serde_json::Value, TemplateError> {
    let path = folder.join("tokenizer_config.json");
    if !path.is_file() {
        return Ok(serde_json::Value::Null);
    }
    serde_json::from_str(&read(&path)?).map_err(|cause| TemplateError::Json { path, cause })
}

/// A special token's text: a string, or the `content` of an object.
pub(crate) fn special_token(config: &serde_json::Value, name: &str) -> Option<String> {
    let token = config.get(name)?;
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
}

fn template_of(config: &serde_json::Value) -> Option<String> {
    let template = config.get("chat_template")?;
    if let Some(text) = template.as_str() {
        return Some(text.to_owned());
    }
    let named = template.as_array()?;
    let default = named.iter().find(|entry| entry.get("name").is_some_and(|name| name == "default"));
    default.or(named.first())?.get("template")?.as_str().map(str::to_owned)
}
