//! `llavm chat`: a conversation with a trained model.

use crate::commands::generate::read_tools;
use crate::commands::model::{AnswerArgs, ModelArgs, failed, read_image};
use crate::ui::failure::{Failure, Outcome};
use crate::ui::output::{note, print};
use llavm_model::generate::Options;
use llavm_model::generate::conversation::{ChatError, Conversation};
use llavm_model::processor::Processor;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::json;
use std::fs;
use std::io::{self, BufRead, IsTerminal};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Talk with a trained model about an image
///
/// Every answer is asked with all turns before it; what the model has already read is not computed again. Reads lines from
/// standard input where that is no terminal.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    answer: AnswerArgs,

    /// An image to talk about, shown with the first question; may be repeated
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
}

const HELP: &str = "Examples:
  llavm chat manifests/quickstart.toml --image photo.jpg
  llavm chat DIR --image photo.jpg

In the chat:
  /image FILE    show an image with the next question; several may be shown. It stands where training put images,
                 or where the question says <image>
  /system TEXT   set the system prompt (nothing: none)
  /tools FILE    offer tools, by a JSON list of their definitions (nothing: none)
  /reset         forget the turns; images are shown with the next question, the system prompt stays
  /clear         forget the turns and the images
  /save FILE     write the conversation as JSON
  /help          show this
  /quit          leave (also Ctrl-D); Ctrl-C stops an answer";

/// Where lines typed on a terminal are remembered, in the home folder.
const HISTORY: &str = ".llavm_history";

pub fn run(args: &Args) -> Outcome {
    args.answer.check()?;
    let (folder, processor) = args.model.open()?;
    let pixels: Vec<Vec<u8>> =
        args.image.iter().map(|path| read_image(&processor, path)).collect::<Result<_, _>>()?;
    let assistant = args.model.load(&folder, processor)?;
    let mut chat = Chat {
        conversation: Conversation::new(&assistant),
        options: args.answer.options(assistant.eos()),
        processor: &assistant.processor,
        images: args.image.clone(),
        interrupt: Interrupt::install()?,
    };
    pixels.into_iter().for_each(|pixels| chat.conversation.show(pixels));
    let mut lines = Lines::open()?;
    while let Some(line) = lines.next()? {
        let done = match line.trim() {
            "" => continue,
            "/quit" | "/exit" => break,
            command if command.starts_with('/') => chat.command(command),
            question => chat.ask(question),
        };
        // A question or command that fails ends a script, but not a conversation.
        match done {
            Err(failure) if lines.interactive() => drop(failure.report()),
            done => done?,
        }
    }
    Ok(())
}

struct Chat<'a> {
    conversation: Conversation<'a>,
    options: Options,
    processor: &'a Processor,
    /// The files shown, in order.
    images: Vec<PathBuf>,
    interrupt: Interrupt,
}

impl Chat<'_> {
    fn ask(&mut self, question: &str) -> Outcome {
        let interrupt = &self.interrupt;
        let mut on_text = |piece: &str| {
            let printed = print(piece);
            if printed.is_err() || interrupt.asked() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        interrupt.begin();
        let answer = self.conversation.ask(question, &self.options, &mut on_text);
        interrupt.end();
        print("\n")?;
        tracing::info!("{} tokens in the cache", self.conversation.cached_tokens());
        answer.map(drop).map_err(|error: ChatError| failed(error))
    }

    fn command(&mut self, line: &str) -> Outcome {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match name {
            "/image" => {
                self.conversation.show(read_image(self.processor, Path::new(rest))?);
                self.images.push(PathBuf::from(rest));
            }
            "/system" => self.conversation.set_system(rest),
            "/tools" => {
                let tools = if rest.is_empty() { None } else { read_tools(Path::new(rest))? };
                self.conversation.set_tools(tools);
            }
            "/reset" => self.conversation.reset(),
            "/clear" => {
                self.conversation.clear();
                self.images.clear();
            }
            "/save" => self.save(Path::new(rest))?,
            "/help" => print(&format!("{HELP}\n"))?,
            _ => {
                return Err(Failure::wrong(
                    format!("there is no command {name}"),
                    "/help lists the commands",
                ));
            }
        }
        Ok(())
    }

    fn save(&self, path: &Path) -> Outcome {
        let conversation = json!({
            "image": self.images.first(),
            "images": self.images,
            "system": self.conversation.system(),
            "messages": self.conversation.turns(),
        });
        let text = format!("{conversation:#}\n");
        fs::write(path, text).map_err(|error| failed(format!("{}: {error}", path.display())))
    }
}

/// Ctrl-C: stops the answer that is being given, otherwise the program.
struct Interrupt {
    answering: Arc<AtomicBool>,
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    fn install() -> Result<Self, Failure> {
        let (answering, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (in_answer, ask) = (Arc::clone(&answering), Arc::clone(&asked));
        ctrlc::set_handler(move || {
            if !in_answer.load(Ordering::SeqCst) || ask.swap(true, Ordering::SeqCst) {
                std::process::exit(130); // 128 + SIGINT, as shells have it
            }
        })
        .map_err(failed)?;
        Ok(Self { answering, asked })
    }

    fn begin(&self) {
        self.asked.store(false, Ordering::SeqCst);
        self.answering.store(true, Ordering::SeqCst);
    }

    fn end(&self) {
        self.answering.store(false, Ordering::SeqCst);
    }

    fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Lines from a terminal, with editing and history, or from a pipe.
enum Lines {
    Terminal { editor: Box<DefaultEditor>, history: Option<PathBuf> },
    Pipe(io::Lines<io::StdinLock<'static>>),
}

impl Lines {
    fn open() -> Result<Self, Failure> {
        if !io::stdin().is_terminal() {
            return Ok(Self::Pipe(io::stdin().lock().lines()));
        }
        let mut editor = Box::new(DefaultEditor::new().map_err(failed)?);
        let history = std::env::home_dir().map(|home| home.join(HISTORY));
        if let Some(history) = &history {
            let _ = editor.load_history(history); // there is none the first time
        }
        note("/help lists the commands");
        Ok(Self::Terminal { editor, history })
    }

    fn interactive(&self) -> bool {
        matches!(self, Self::Terminal { .. })
    }

    /// The next line; `None` at the end. Ctrl-C at the prompt drops the line.
    fn next(&mut self) -> Result<Option<String>, Failure> {
        match self {
            Self::Pipe(lines) => lines.next().transpose().map_err(failed),
            Self::Terminal { editor, history } => match editor.readline("> ") {
                Ok(line) => {
                    let _ = editor.add_history_entry(&line);
                    if let Some(history) = history {
                        let _ = editor.save_history(history); // a read-only home is no reason to stop
                    }
                    Ok(Some(line))
                }
                Err(ReadlineError::Interrupted) => Ok(Some(String::new())),
                Err(ReadlineError::Eof) => Ok(None),
                Err(error) => Err(failed(error)),
            },
        }
    }
}
