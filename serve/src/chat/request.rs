//! The body of a chat completion, as OpenAI documents it, checked.
//!
//! Unknown fields are tolerated, for clients send many. Known ones that would change the answer and cannot be honoured are
//! refused by name.

use std::hash::{BuildHasher, RandomState};

use llavm_model::generate::Options as EngineOptions;
use llavm_model::message::{Beside, Json, definitions};
use llavm_model::sampler::Sampling;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::Defaults;
use crate::error::ApiError;

/// Most stop texts, and most bytes of one.
const STOPS: usize = 16;
const STOP_BYTES: usize = 256;

/// A conversation whose next turn is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    /// The model that is asked for.
    pub model: Option<String>,
    /// The conversation.
    pub turns: Vec<Turn>,
    /// Definitions of the tools on offer.
    pub tools: Option<Json>,
    /// Whether the answer comes piece by piece.
    pub stream: bool,
    /// Whether the stream ends with the usage.
    pub include_usage: bool,
    /// How it is answered.
    pub options: Options,
}

/// How a request is answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Most tokens of the answer.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end the answer.
    pub stop: Vec<String>,
}

/// One turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// What is said and shown.
    pub parts: Vec<Part>,
    /// Calls of tools.
    pub tool_calls: Option<Json>,
    /// What else a chat template reads of a message.
    pub extra: Option<Json>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `system`, or `developer`.
    System,
    /// `user`.
    User,
    /// `assistant`.
    Assistant,
    /// `tool`: what a tool gave back.
    Tool,
}

/// A part of a turn.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Words.
    Text(String),
    /// An image.
    Image(ImageSource),
}

/// Where an image is.
#[derive(Clone, Debug, PartialEq)]
pub enum ImageSource {
    /// A data URI or an address.
    Uri(String),
    /// Here.
    Bytes(Vec<u8>),
}

impl Role {
    fn of(name: &str) -> Result<Self, ApiError> {
        match name {
            "system" | "developer" => Ok(Self::System),
            "user" => Ok(Self::User),
            "assistant" => Ok(Self::Assistant),
            "tool" => Ok(Self::Tool),
            _ => Err(ApiError::field(
                "messages",
                format!("the role `{name:.40}` is not understood; use system, user, assistant or tool"),
            )),
        }
    }

    /// As the chat template has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }

    /// Whether it is the one who asks.
    pub fn is_user(self) -> bool {
        self == Self::User
    }
}

impl Part {
    /// The words; none of an image.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Image(_) => None,
        }
    }
}

impl ChatRequest {
    /// The images' addresses.
    pub fn images(&self) -> impl Iterator<Item = &str> {
        self.turns.iter().flat_map(|turn| &turn.parts).filter_map(|part| match part {
            Part::Image(ImageSource::Uri(uri)) => Some(uri.as_str()),
            Part::Image(ImageSource::Bytes(_)) | Part::Text(_) => None,
        })
    }

    /// Where its images are, to be replaced.
    pub fn sources_mut(&mut self) -> impl Iterator<Item = &mut ImageSource> {
        self.turns.iter_mut().flat_map(|turn| &mut turn.parts).filter_map(|part| match part {
            Part::Image(source) => Some(source),
            Part::Text(_) => None,
        })
    }

    /// Refuses more images than `most`.
    pub fn check_images(&self, most: usize) -> Result<(), ApiError> {
        let images = self.images().count();
        if images <= most {
            return Ok(());
        }
        Err(ApiError::field(
            "messages",
            format!("{images} images, but at most {most} are taken; see --max-images"),
        ))
    }
}

impl Options {
    /// For the engine: how to choose, and where to stop.
    pub fn for_engine(self, eos: Vec<u32>) -> (EngineOptions, Vec<String>) {
        let Self { max_tokens, sampling, stop } = self;
        (EngineOptions { max_new_tokens: max_tokens, sampling, eos }, stop)
    }
}

#[derive(Deserialize)]
struct Body {
    model: Option<String>,
    messages: Vec<BodyMessage>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    repetition_penalty: Option<f32>,
    seed: Option<i64>,
    stop: Option<OneOrMany>,
    tools: Option<Json>,
    tool_choice: Option<serde_json::Value>,
    #[serde(flatten)]
    unsupported: Unsupported,
}

/// What would change the answer, or its form, and is not there.
#[derive(Deserialize)]
struct Unsupported {
    n: Option<u64>,
    logprobs: Option<bool>,
    frequency_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    functions: Option<Vec<IgnoredAny>>,
    response_format: Option<ResponseFormat>,
}

#[derive(Deserialize)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "`stop` is a string or a list of strings")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct BodyMessage {
    role: String,
    content: Option<Content>,
    #[serde(flatten)]
    beside: Beside,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "`content` is a string or a list of parts with a `type`, and `text` or `image_url`"
)]
enum Content {
    Text(String),
    Parts(Vec<BodyPart>),
}

#[derive(Deserialize)]
struct BodyPart {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    image_url: Option<ImageUrl>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ImageUrl {
    Plain(String),
    Object { url: String },
}

/// A request's body; `defaults` count where it says nothing.
pub fn parse(body: &[u8], defaults: &Defaults) -> Result<ChatRequest, ApiError> {
    let mut body: Body = serde_json::from_slice(body).map_err(|error| {
        ApiError::invalid("invalid_json", format!("the request is not understood: {error}"))
    })?;
    body.unsupported.check()?;
    let options = Options {
        max_tokens: body.max_tokens(defaults)?,
        sampling: body.sampling(defaults)?,
        stop: body.stop.take().map_or_else(|| Ok(Vec::new()), OneOrMany::stops)?,
    };
    let tools = body.tools()?;
    Ok(ChatRequest {
        model: body.model,
        tools,
        turns: turns(body.messages)?,
        stream: body.stream.unwrap_or_default(),
        include_usage: body.stream_options.and_then(|options| options.include_usage).unwrap_or_default(),
        options,
    })
}

impl Unsupported {
    fn check(&self) -> Result<(), ApiError> {
        let penalty = |penalty: Option<f64>| penalty.is_some_and(|penalty| penalty != 0.0);
        let given = |list: Option<&Vec<IgnoredAny>>| list.is_some_and(|list| !list.is_empty());
        let format = self.response_format.as_ref().and_then(|format| format.kind.as_deref());
        let refused = [
            ("n", self.n.is_some_and(|n| n != 1), "one answer is given to a request: n = 1"),
            ("logprobs", self.logprobs == Some(true), "probabilities are not given"),
            ("frequency_penalty", penalty(self.frequency_penalty), "use repetition_penalty"),
            ("presence_penalty", penalty(self.presence_penalty), "use repetition_penalty"),
            ("functions", given(self.functions.as_ref()), "use tools"),
            ("response_format", format.is_some_and(|kind| kind != "text"), "answers are plain text"),
        ];
        let refused = refused.into_iter().find(|(_, refused, _)| *refused);
        refused.map_or(Ok(()), |(field, _, why)| {
            Err(ApiError::invalid("unsupported_parameter", format!("`{field}`: {why}")).because_of(field))
        })
    }
}

impl Body {
    /// The tools on offer: those given, unless none may be called.
    fn tools(&mut self) -> Result<Option<Json>, ApiError> {
        let tools = definitions(self.tools.take()).map_err(|why| ApiError::field("tools", why))?;
        match self.tool_choice.as_ref() {
            None | Some(serde_json::Value::Null) => Ok(tools),
            Some(choice) if choice == "auto" => Ok(tools),
            Some(choice) if choice == "none" => Ok(None),
            Some(_) => {
                let why = "`tool_choice`: the model chooses itself; use auto or none";
                Err(ApiError::invalid("unsupported_parameter", why.to_owned()).because_of("tool_choice"))
            }
        }
    }

    fn max_tokens(&self, defaults: &Defaults) -> Result<usize, ApiError> {
        let asked = self.max_completion_tokens.or(self.max_tokens);
        match asked {
            Some(0) => Err(ApiError::field("max_tokens", "an answer has at least one token")),
            asked => Ok(asked.unwrap_or(defaults.max_tokens)),
        }
    }

    /// Without a seed, a drawn answer is another every time.
    fn sampling(&self, defaults: &Defaults) -> Result<Sampling, ApiError> {
        let given = &defaults.sampling;
        // -1 is vLLM's word for all.
        let top_k =
            self.top_k.map_or(given.top_k, |top_k| usize::try_from(top_k.max(0)).unwrap_or(usize::MAX));
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(given.temperature),
            top_k,
            top_p: self.top_p.unwrap_or(given.top_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(given.repetition_penalty),
            seed: self.seed.map_or_else(|| RandomState::new().hash_one(0_u8), i64::cast_unsigned),
        };
        let checked = sampling.validate();
        checked.map_err(|error| ApiError::field(error.name, error.to_string()))?;
        Ok(sampling)
    }
}

impl OneOrMany {
    fn stops(self) -> Result<Vec<String>, ApiError> {
        let stops = match self {
            Self::One(stop) => vec![stop],
            Self::Many(stops) => stops,
        };
        if stops.len() > STOPS || stops.iter().any(|stop| stop.len() > STOP_BYTES) {
            return Err(ApiError::field(
                "stop",
                format!("at most {STOPS} texts of at most {STOP_BYTES} bytes end an answer"),
            ));
        }
        Ok(stops)
    }
}

fn turns(messages: Vec<BodyMessage>) -> Result<Vec<Turn>, ApiError> {
    let turns: Vec<Turn> = messages.into_iter().map(turn).collect::<Result<_, _>>()?;
    if turns.last().is_some_and(|turn| turn.role.is_user() || turn.role == Role::Tool) {
        return Ok(turns);
    }
    Err(ApiError::field(
        "messages",
        "the last message must be the user's or a tool's: it is what is answered",
    ))
}

fn turn(message: BodyMessage) -> Result<Turn, ApiError> {
    let role = Role::of(&message.role)?;
    let parts = match message.content {
        None => Vec::new(),
        Some(Content::Text(text)) => vec![Part::Text(text)],
        Some(Content::Parts(parts)) => parts.into_iter().map(part).collect::<Result<_, _>>()?,
    };
    if !role.is_user() && parts.iter().any(|part| part.text().is_none()) {
        return Err(ApiError::field(
            "messages",
            format!("an image in a {} message; only users show images", role.name()),
        ));
    }
    let tool_calls = message.beside.calls().map_err(|why| ApiError::field("messages", why))?;
    Ok(Turn { role, parts, tool_calls, extra: message.beside.extra() })
}

fn part(part: BodyPart) -> Result<Part, ApiError> {
    let BodyPart { kind, text, image_url } = part;
    let lacks = |what: &str| ApiError::field("messages", format!("a part of type `{kind}` has no `{what}`"));
    match kind.as_str() {
        "text" => text.map(Part::Text).ok_or_else(|| lacks("text")),
        "image_url" => match image_url.ok_or_else(|| lacks("image_url"))? {
            ImageUrl::Plain(url) | ImageUrl::Object { url } => Ok(Part::Image(ImageSource::Uri(url))),
        },
        _ => Err(ApiError::field(
            "messages",
            format!("parts of type `{kind:.40}` are not understood; use text or image_url"),
        )),
    }
}

#[cfg(test)]
mod tests;
