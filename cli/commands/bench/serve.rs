//! `llavm bench serve`: a model answering several clients at once, as `llavm serve` has it answer; without HTTP.

use crate::commands::model::{ModelArgs, failed};
use crate::ui::failure::{Failure, Outcome};
use crate::ui::output::print;
use crate::ui::table::{Align, Table};
use llavm_model::generate::Options;
use llavm_model::generate::batch::engine::Engine;
use llavm_model::generate::batch::{Event, Limits, Listener, Request};
use llavm_model::sampler::Sampling;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Time a model answering 1, 4 and 16 clients at once
///
/// Each client asks one question of text after the other; no two begin alike, so that no cache answers. The time to the first token
/// is from asking to the first token of the answer. `scripts/bench_serve.py` measures the same over HTTP, of any server.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// Clients at once; may be repeated [default: 1, 4 and 16]
    #[arg(long, value_name = "N")]
    clients: Vec<NonZeroUsize>,

    /// Tokens of a prompt
    #[arg(long, default_value = "64", value_name = "N")]
    prompt: NonZeroUsize,

    /// Tokens of an answer
    #[arg(long = "new", default_value = "64", value_name = "N")]
    answer: NonZeroUsize,

    /// Questions of each client; one more comes first for warmth
    #[arg(long, default_value = "4", value_name = "N")]
    questions: NonZeroUsize,
}

/// An answer as its client saw it.
struct Answer {
    first_token: Duration,
    tokens: usize,
}

pub fn run(args: &Args) -> Outcome {
    let (folder, processor) = args.model.open()?;
    let assistant = args.model.load(&folder, processor)?;
    let vocabulary = assistant.model.qwen.config().vocab_size;
    let image = assistant.processor.image_token_id;
    let most = args.clients.iter().copied().max().map_or(16, NonZeroUsize::get);
    let limits = Limits { sequences: most, waiting: most, ..Limits::default() };
    let engine = Engine::start(assistant, limits).map_err(failed)?;
    let words = Words { vocabulary: vocabulary as u32, image };
    args.ask(&engine, words, 0)?;
    let columns = [
        ("clients", Align::Right),
        ("tokens/s", Align::Right),
        ("first token, median", Align::Right),
        ("slowest", Align::Right),
    ];
    let mut table = Table::new(&columns);
    for clients in args.clients() {
        table.row(args.measure(&engine, words, clients)?);
    }
    Ok(print(&table.draw())?)
}

impl Args {
    fn clients(&self) -> Vec<usize> {
        let asked: Vec<usize> = self.clients.iter().map(|clients| clients.get()).collect();
        if asked.is_empty() { vec![1, 4, 16] } else { asked }
    }

    /// A row of the table: `clients` at once.
    fn measure(&self, engine: &Engine, words: Words, clients: usize) -> Result<Vec<String>, Failure> {
        let start = Instant::now();
        let answers: Result<Vec<Vec<Answer>>, Failure> = thread::scope(|scope| {
            let client = |number: usize| {
                let questions = 1 + number * self.questions.get()..=(number + 1) * self.questions.get();
                move || questions.map(|question| self.ask(engine, words, question)).collect()
            };
            let threads: Vec<_> = (0..clients).map(|number| scope.spawn(client(number))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(broken()))).collect()
        });
        let seconds = start.elapsed().as_secs_f64();
        let answers: Vec<Answer> = answers?.into_iter().flatten().collect();
        let tokens: usize = answers.iter().map(|answer| answer.tokens).sum();
        let mut firsts: Vec<f64> = answers.iter().map(|answer| answer.first_token.as_secs_f64()).collect();
        firsts.sort_by(f64::total_cmp);
        let first = |at: usize| firsts.get(at).map_or(String::new(), |seconds| format!("{seconds:.3} s"));
        Ok(vec![
            clients.to_string(),
            format!("{:.1}", tokens as f64 / seconds),
            first(firsts.len() / 2),
            first(firsts.len().saturating_sub(1)),
        ])
    }

    /// Asks a question and waits for its answer, which no end token ends.
    fn ask(&self, engine: &Engine, words: Words, question: usize) -> Result<Answer, Failure> {
        let start = Instant::now();
        let (sender, events) = channel();
        let sampling = Sampling { temperature: 1.0, seed: question as u64, ..Sampling::default() };
        let options = Options { max_new_tokens: self.answer.get(), sampling, eos: Vec::new() };
        let ids = words.prompt(question, self.prompt.get());
        let listener = Box::new(Client(sender));
        let request = Request { ids, images: Vec::new(), options, stop: Vec::new(), listener };
        engine.submit(request).map_err(failed)?;
        answer(&events, start)
    }
}

fn answer(events: &Receiver<Event>, start: Instant) -> Result<Answer, Failure> {
    let (mut first_token, mut tokens) = (None, 0);
    loop {
        match events.recv().map_err(|_| broken())? {
            Event::Token { .. } => {
                first_token.get_or_insert_with(|| start.elapsed());
                tokens += 1;
            }
            Event::Finished { .. } => {
                return Ok(Answer { first_token: first_token.unwrap_or_else(|| start.elapsed()), tokens });
            }
            Event::Failed(error) => return Err(failed(error)),
        }
    }
}

fn broken() -> Failure {
    failed("the answer broke off; the log says why")
}

/// Tokens that a prompt may have.
#[derive(Clone, Copy)]
struct Words {
    vocabulary: u32,
    image: u32,
}

impl Words {
    /// The prompt of a question: any tokens, of which the first is of no other.
    fn prompt(self, question: usize, tokens: usize) -> Vec<u32> {
        let question = question as u32;
        let spread = |place: u32| (question + 1).wrapping_mul(2_654_435_761).wrapping_add(place * 40_503);
        let ids = (0..tokens as u32).map(|place| if place == 0 { question } else { spread(place) });
        ids.map(|id| id % self.vocabulary).map(|id| if id == self.image { 0 } else { id }).collect()
    }
}

/// Who asks, on the engine's side.
#[derive(Debug)]
struct Client(Sender<Event>);

impl Listener for Client {
    fn send(&mut self, event: Event) {
        let _ = self.0.send(event); // a client that failed waits no more
    }

    fn gone(&self) -> bool {
        false
    }
}
