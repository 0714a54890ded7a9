//! `llavm generate`: answers to questions about images.

use crate::commands::model::{AnswerArgs, ModelArgs, failed, read_image};
use crate::ui::failure::{Failure, Outcome};
use crate::ui::output::{print_data, print_json};
use llavm_model::generate::assistant::Assistant;
use llavm_model::generate::{GenerateError, Prompt, generate};
use llavm_model::message::{Beside, Json, Message, definitions};
use llavm_model::processor::Processor;
use llavm_model::stream::TextStream;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Answer questions about images with a trained model
///
/// Several --image and --prompt make pairs in their order; one image may have several questions and one question several
/// images. The prompt is rendered as in training.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    llavm generate manifests/quickstart.toml --image photo.jpg --prompt \"What is this?\"\n  \
    llavm generate DIR --jsonl questions.jsonl --json\n  \
    (each line: {\"image\": \"photo.jpg\", \"prompt\": \"What is this?\"}, the path relative to the file; instead of \"prompt\" also\n  \
    \"messages\", a list of {role, content, tool_calls, reasoning_content, …}, and beside either \"tools\")")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    answer: AnswerArgs,

    /// An image
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,

    /// A question
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,

    /// Read questions from a file, one JSON object per line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["image", "prompt"])]
    jsonl: Option<PathBuf>,

    /// Offer tools: a file with a JSON list of their definitions
    #[arg(long, value_name = "FILE")]
    tools: Option<PathBuf>,

    /// Ask without images
    #[arg(long, conflicts_with = "image")]
    text_only: bool,

    /// Print one JSON object per answer: `prompt_tokens`, `generated_ids`, text, seconds, `tokens_per_second`
    #[arg(long)]
    json: bool,

    /// Answer this many questions at a time
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    batch_size: u64,
}

/// One line of `--jsonl`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    image: Option<OneOrMany>,
    prompt: Option<String>,
    messages: Option<Vec<Said>>,
    tools: Option<Json>,
}

/// One message, as chat APIs have it.
#[derive(Deserialize)]
struct Said {
    role: String,
    content: Option<String>,
    #[serde(flatten)]
    beside: Beside,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

struct Question {
    images: Vec<PathBuf>,
    turns: Vec<Said>,
    tools: Option<Json>,
}

impl Question {
    fn new(images: Vec<PathBuf>, prompt: String, tools: Option<Json>) -> Self {
        let said = Said { role: "user".to_owned(), content: Some(prompt), beside: Beside::default() };
        Self { images, turns: vec![said], tools }
    }

    /// What is asked last.
    fn text(&self) -> &str {
        self.turns.last().and_then(|turn| turn.content.as_deref()).unwrap_or_default()
    }

    /// As training has it: the tools on offer are beside the first turn.
    fn messages(&self) -> Result<Vec<Message<'_>>, Failure> {
        self.turns
            .iter()
            .enumerate()
            .map(|(n, turn)| turn.message(self.tools.as_ref().filter(|_| n == 0)))
            .collect()
    }
}

impl Said {
    fn message(&self, tools: Option<&Json>) -> Result<Message<'_>, Failure> {
        Ok(Message {
            role: &self.role,
            content: self.content.as_deref().unwrap_or_default(),
            tool_calls: self.beside.calls().map_err(failed)?,
            extra: self.beside.extra(),
            tools: tools.cloned(),
        })
    }
}

/// What `--json` prints, one line per question.
#[derive(Serialize)]
struct Answer {
    prompt_tokens: usize,
    generated_ids: Vec<u32>,
    text: String,
    /// From the start of the question's batch to its last token.
    seconds: f64,
    tokens_per_second: f64,
}

pub fn run(args: &Args) -> Outcome {
    args.answer.check()?;
    let questions = args.questions()?;
    let (folder, processor) = args.model.open()?;
    let mut reader = Reader::default();
    if args.jsonl.is_none() {
        // A mistyped path is reported before the model is loaded.
        questions.iter().try_for_each(|question| reader.read(&processor, question))?;
    }
    let assistant = args.model.load(&folder, processor)?;
    let size = args.batch_size as usize;
    for (number, batch) in questions.chunks(size).enumerate() {
        let answers = answer(args, &assistant, batch, number * size, &mut reader)?;
        for (question, answer) in batch.iter().zip(answers) {
            print_answer(args, questions.len(), question, &answer)?;
        }
    }
    Ok(())
}

impl Args {
    fn questions(&self) -> Result<Vec<Question>, Failure> {
        let tools = self.tools.as_deref().map(read_tools).transpose()?.flatten();
        if let Some(path) = &self.jsonl {
            return read_jsonl(path, tools.as_ref());
        }
        let (images, prompts) = (self.image.len(), self.prompt.len());
        let pair = |n: usize| {
            let images = self.image.get(if images == 1 { 0 } else { n }).cloned().into_iter().collect();
            let prompt = self.prompt.get(if prompts == 1 { 0 } else { n }).cloned().unwrap_or_default();
            Question::new(images, prompt, tools.clone())
        };
        match (images, prompts) {
            (_, 0) => Err(Failure::wrong("there is no question", "give --prompt TEXT or --jsonl FILE")),
            (0, _) if !self.text_only => Err(Failure::wrong(
                "there is no image",
                "give --image FILE, or --text-only to ask without one",
            )),
            (0 | 1, _) | (_, 1) => Ok((0..images.max(prompts)).map(pair).collect()),
            _ if images == prompts => Ok((0..images).map(pair).collect()),
            _ => Err(Failure::wrong(
                format!("{images} images and {prompts} questions make no pairs"),
                "give as many --prompt as --image, or one of either",
            )),
        }
    }
}

/// Definitions of tools from a file.
pub fn read_tools(path: &Path) -> Result<Option<Json>, Failure> {
    let wrong = |error: &dyn std::fmt::Display| failed(format!("{}: {error}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let tools = Json::parse(&text).map_err(|error| wrong(&error))?;
    definitions(Some(tools)).map_err(|error| wrong(&error))
}

fn read_jsonl(path: &Path, tools: Option<&Json>) -> Result<Vec<Question>, Failure> {
    let text = fs::read_to_string(path).map_err(|error| failed(format!("{}: {error}", path.display())))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let question = |(number, line): (usize, &str)| {
        let wrong = |error: &dyn std::fmt::Display| {
            failed(format!("{}, line {}: {error}", path.display(), number + 1))
        };
        let line: Line = serde_json::from_str(line).map_err(|error| wrong(&error))?;
        let images = match line.image {
            None => Vec::new(),
            Some(OneOrMany::One(image)) => vec![image],
            Some(OneOrMany::Many(images)) => images,
        };
        let images = images.iter().map(|image| folder.join(image)).collect();
        let own = definitions(line.tools).map_err(|error| wrong(&error))?;
        let tools = own.or_else(|| tools.cloned());
        match (line.prompt, line.messages) {
            (Some(prompt), None) => Ok(Question::new(images, prompt, tools)),
            (None, Some(turns)) => {
                turns
                    .iter()
                    .try_for_each(|turn| turn.beside.calls().map(drop))
                    .map_err(|error| wrong(&error))?;
                Ok(Question { images, turns, tools })
            }
            _ => Err(wrong(&"a question has either `prompt` or `messages`")),
        }
    };
    lines.map(question).collect()
}

/// Decoded images, each file once.
#[derive(Default)]
struct Reader {
    pixels: BTreeMap<PathBuf, Vec<u8>>,
}

impl Reader {
    fn read(&mut self, processor: &Processor, question: &Question) -> Result<(), Failure> {
        for path in &question.images {
            if !self.pixels.contains_key(path) {
                self.pixels.insert(path.clone(), read_image(processor, path)?);
            }
        }
        Ok(())
    }

    /// Prompts of a batch; each image is seen by the vision tower once. Forgets the images.
    fn prompts(&mut self, assistant: &Assistant, batch: &[Question]) -> Result<Vec<Prompt>, Failure> {
        batch.iter().try_for_each(|question| self.read(&assistant.processor, question))?;
        let wanted = |path: &PathBuf| batch.iter().any(|question| question.images.contains(path));
        let used: Vec<(PathBuf, Vec<u8>)> = self.pixels.extract_if(.., |path, _| wanted(path)).collect();
        let features =
            assistant.features(used.iter().flat_map(|(_, pixels)| pixels.iter().copied()).collect());
        let rows = |question: &Question| -> Vec<usize> {
            let row = |path| used.iter().position(|(name, _)| name == path);
            question.images.iter().filter_map(row).collect()
        };
        let prompt = |question: &Question| {
            let turns = question.messages()?;
            let features = features.as_ref().and_then(|features| Assistant::pick(features, &rows(question)));
            assistant.prompt(&turns, assistant.system.as_deref(), features).map_err(failed)
        };
        batch.iter().map(prompt).collect()
    }
}

/// The answers to one batch, which starts at question number `first`.
fn answer(
    args: &Args,
    assistant: &Assistant,
    batch: &[Question],
    first: usize,
    reader: &mut Reader,
) -> Result<Vec<Answer>, Failure> {
    let start = Instant::now();
    let prompts = reader.prompts(assistant, batch)?;
    let mut seconds = vec![0.0; batch.len()];
    let mut live = (!args.json && batch.len() == 1).then(|| TextStream::new(assistant.processor.tokenizer()));
    let mut on_token = |row: usize, id: u32| {
        if let Some(row) = seconds.get_mut(row) {
            if *row == 0.0 && first == 0 {
                tracing::info!("first token after {:.3} s", start.elapsed().as_secs_f64());
            }
            *row = start.elapsed().as_secs_f64();
        }
        let piece = live.as_mut().and_then(|stream| stream.push(id).ok()).unwrap_or_default();
        if print_data(&piece).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let options = args.answer.options(assistant.eos());
    let ids = generate(&assistant.model, &prompts, first as u64, &options, &mut on_token)
        .map_err(|error| too_long(error, batch, &prompts))?;
    if let Some(stream) = live {
        print_data(&format!("{}\n", stream.finish().map_err(failed)?))?;
    }
    let rows = ids.into_iter().zip(prompts).zip(seconds);
    rows.map(|((generated_ids, prompt), seconds)| {
        let text = assistant.text(&generated_ids).map_err(failed)?;
        let tokens_per_second = if seconds > 0.0 { generated_ids.len() as f64 / seconds } else { 0.0 };
        Ok(Answer { prompt_tokens: prompt.ids.len(), generated_ids, text, seconds, tokens_per_second })
    })
    .collect()
}

/// Says which question is too long, where there are several.
fn too_long(error: GenerateError, batch: &[Question], prompts: &[Prompt]) -> Failure {
    let GenerateError::TooLong { tokens, .. } = error else { return failed(error) };
    match prompts.iter().position(|prompt| prompt.ids.len() == tokens).and_then(|row| batch.get(row)) {
        Some(question) if batch.len() > 1 => {
            failed(format!("question `{}…`: {error}", question.text().chars().take(60).collect::<String>()))
        }
        _ => failed(error),
    }
}

fn print_answer(args: &Args, questions: usize, question: &Question, answer: &Answer) -> Outcome {
    if args.json {
        let line = serde_json::to_string(answer).map_err(failed)?;
        print_json(&line)?;
    } else if questions > 1 {
        let images: Vec<String> = question.images.iter().map(|path| path.display().to_string()).collect();
        print_data(&format!("{} | {}\n{}\n\n", images.join(" "), question.text(), answer.text))?;
    }
    Ok(())
}
