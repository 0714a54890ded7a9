//! The chat template of a LLaVA folder: conversations rendered by transformers as they were in training.
//!
//! In transformers the template alone decides where the images of a message go, so an export puts a prologue
//! (`llava.jinja`) before the trained template: messages with a list of contents become text with image tokens in their
//! trained places, a conversation without a system message gets the trained one, `enable_thinking` its trained value.
//! Messages that are text already, as this crate renders them, pass through. [`Habits::of`] finds out by rendering what the
//! template of a folder does that brings no `model.toml`.

use serde_json::{Value, json};

use super::Settings;
use super::image_tokens::Placement;
use crate::chat_template::{ChatTemplate, TemplateError};

const PROLOGUE: &str = include_str!("llava.jinja");

/// The template `own` with what the settings say put before it.
pub fn template(settings: &Settings, own: &str) -> String {
    let tokens = &settings.image_tokens;
    let placement = serde_json::to_value(tokens.placement).unwrap_or_default();
    let thinking = Value::from(settings.rendering.enable_thinking);
    let system =
        settings.rendering.system.as_ref().map_or_else(|| "none".to_owned(), |text| json!(text).to_string());
    let values = [
        ("image", json!(tokens.token).to_string()),
        ("placeholder", json!(tokens.placeholder).to_string()),
        ("placement", placement.to_string()),
        ("separator", json!(tokens.separator).to_string()),
        ("system", system),
        ("thinking", thinking.to_string()),
    ];
    let head = values.map(|(name, value)| format!("{{%- set llavm_{name} = {value} -%}}\n")).concat();
    // The empty expression keeps whitespace control of the prologue away from the trained template.
    format!("{head}{}{{{{- '' }}}}{own}", PROLOGUE.trim_end())
}

/// What a template does with a question and an image when nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Habits {
    /// Where it puts the image.
    pub placement: Placement,
    /// What it puts between image and question.
    pub separator: String,
    /// The value that `enable_thinking` has when it is not given.
    pub enable_thinking: bool,
}

/// A template that prepares conversations in a way that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum HabitError {
    /// It refuses a plain question.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// It puts images elsewhere.
    #[error(
        "the chat template renders a question about an image as {0:?}; `{1}` is expected before or after the question, with nothing but whitespace between them"
    )]
    Placement(String, String),
}

impl Habits {
    /// Asks `template` about one image, `image_token`, and a question.
    pub fn of(template: &ChatTemplate, image_token: &str) -> Result<Self, HabitError> {
        const QUESTION: &str = "What is it?";
        let contents = json!([{"type": "image"}, {"type": "text", "text": QUESTION}]);
        let render = |content: Value, thinking| {
            template.render(&[json!({"role": "user", "content": content})], true, thinking, None)
        };
        let text = render(contents, None)?;
        let between = |first: &str, second: &str| {
            let (_, rest) = text.split_once(first)?;
            let (between, _) = rest.split_once(second)?;
            between.trim().is_empty().then(|| between.to_owned())
        };
        let behind = between(QUESTION, image_token).map(|separator| (Placement::Append, separator));
        let before = || between(image_token, QUESTION).map(|separator| (Placement::Prepend, separator));
        let Some((placement, separator)) = behind.or_else(before) else {
            return Err(HabitError::Placement(text, image_token.to_owned()));
        };
        let question = json!(QUESTION);
        let silent = render(question.clone(), None)?;
        let enable_thinking = silent != render(question, Some(false))?;
        Ok(Self { placement, separator, enable_thinking })
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode::SpecialInText;
    use super::super::image::ImageProcessor;
    use super::super::image_tokens::ImageTokens;
    use super::super::render::Rendering;
    use super::*;

    /// A template like Qwen3's in what matters here.
    const OWN: &str = "\n{%- for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<a>{% if enable_thinking is defined and enable_thinking is false %}<no>{% endif %}";

    fn settings(placement: Placement, system: Option<&str>, enable_thinking: bool) -> Settings {
        let system = system.map(str::to_owned);
        Settings {
            rendering: Rendering { system, enable_thinking, ..Rendering::default() },
            image_tokens: ImageTokens {
                token: "<|image_pad|>".to_owned(),
                count: 4,
                placeholder: "<image>".to_owned(),
                placement,
                separator: "\n".to_owned(),
            },
            special_in_text: SpecialInText::default(),
            image: ImageProcessor::default(),
        }
    }

    fn compiled(source: String) -> ChatTemplate {
        let folder = tempfile::tempdir().unwrap();
        ChatTemplate::with_source(folder.path(), source).unwrap()
    }

    #[allow(clippy::needless_pass_by_value, reason = "tests hand over what they just made")]
    fn rendered(settings: &Settings, messages: Value) -> String {
        let text = compiled(template(settings, OWN)).render(&messages, true, None, None).unwrap();
        text.replace("<|image_pad|>", "P").replace('\n', "/")
    }

    #[allow(clippy::needless_pass_by_value, reason = "as above")]
    fn user(content: Value) -> Value {
        json!([{"role": "user", "content": content}])
    }

    /// `/tests/export/check_formats.py` has transformers render the same.
    #[test]
    fn images_go_where_training_put_them() {
        use Placement::{Append, AsWritten, Prepend};
        let (image, text) = (json!({"type": "image"}), |text: &str| json!({"type": "text", "text": text}));
        let of = |placement, contents: &[&Value]| {
            rendered(&settings(placement, None, false), user(json!(contents)))
        };
        let (what, a, b) = (text("What?"), text("a"), text("b"));
        let placed = text("one <image> two <image>");
        assert_eq!(of(Append, &[&image, &what]), "<user>What?/P<a><no>");
        assert_eq!(of(Append, &[&what, &image, &image]), "<user>What?/P/P<a><no>");
        assert_eq!(of(Prepend, &[&image, &image, &what]), "<user>P/P/What?<a><no>");
        assert_eq!(of(AsWritten, &[&image, &what]), "<user>PWhat?<a><no>");
        for placement in [Append, Prepend, AsWritten] {
            assert_eq!(of(placement, &[&a, &image, &b]), "<user>aPb<a><no>");
            assert_eq!(of(placement, &[&image, &image, &placed]), "<user>one P two P<a><no>");
            assert_eq!(of(placement, &[&what]), "<user>What?<a><no>");
        }
    }

    #[test]
    fn what_is_text_passes_and_gets_the_system_prompt_unless_it_has_one() {
        let settings = settings(Placement::Append, Some("Be \"kind\".\n你好 {{ x }}"), true);
        assert_eq!(
            rendered(&settings, user(json!("an <image>"))),
            "<system>Be \"kind\"./你好 {{ x }}<user>an <image><a>"
        );
        let own = json!([{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]);
        assert_eq!(rendered(&settings, own), "<system>S<user>Q<a>");
    }

    #[test]
    fn the_habits_of_an_exported_template_are_those_it_was_given() {
        for placement in [Placement::Append, Placement::Prepend] {
            for enable_thinking in [false, true] {
                let template = compiled(template(&settings(placement, Some("S"), enable_thinking), OWN));
                let habits = Habits::of(&template, "<|image_pad|>").unwrap();
                assert_eq!(habits, Habits { placement, separator: "\n".to_owned(), enable_thinking });
            }
        }
        let elsewhere = compiled(
            "{% for m in messages %}{% for c in m.content %}{{ c.type }}{% endfor %}{% endfor %}".to_owned(),
        );
        assert!(matches!(Habits::of(&elsewhere, "<|image_pad|>"), Err(HabitError::Placement(..))));
    }
}
