//! Continuous batching: whoever else asks, whenever they come and go, a request gets the answer that it gets alone.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use llavm_model::chat_template::Message;
use llavm_model::config::Dtype;
use llavm_model::folder::ModelFolder;
use llavm_model::generate::assistant::Assistant;
use llavm_model::generate::batch::engine::Engine;
use llavm_model::generate::batch::{Event, Finish, Image, Limits, Listener, Refused, Request};
use llavm_model::generate::{Options, Prompt, generate};
use llavm_model::sampler::Sampling;

const SHAPES: [&str; 3] = ["gqa", "untied", "biased"];
/// Images differ in this number.
const IMAGES: [usize; 3] = [7, 11, 13];
/// Tokens of a block of the cache.
const BLOCK: usize = 256;

fn assistant(name: &str) -> Assistant {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let folder = ModelFolder::open(folder.to_str().unwrap()).unwrap();
    Assistant::load(&folder, &Device::flex(), Dtype::F32).unwrap()
}

#[derive(Debug)]
struct Ear {
    events: Sender<Event>,
    gone: Arc<AtomicBool>,
}

impl Listener for Ear {
    fn send(&mut self, event: Event) {
        let _ = self.events.send(event); // a test that heard enough
    }

    fn gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }
}

/// The other end of a request.
struct Heard {
    events: Receiver<Event>,
    gone: Arc<AtomicBool>,
}

#[derive(Debug, PartialEq)]
struct Answer {
    ids: Vec<u32>,
    text: String,
    finish: Finish,
    cached: usize,
}

impl Heard {
    fn next(&self) -> Event {
        self.events.recv_timeout(Duration::from_mins(2)).unwrap()
    }

    fn answer(&self) -> Answer {
        let (mut ids, mut answer) = (Vec::new(), String::new());
        loop {
            match self.next() {
                Event::Token { id, text } => {
                    ids.push(id);
                    answer.push_str(&text);
                }
                Event::Finished { finish, text, cached } => {
                    return Answer { ids, text: answer + &text, finish, cached };
                }
                Event::Failed(error) => unreachable!("{error}"),
            }
        }
    }
}

/// What is asked: words, and the numbers of images.
struct Question {
    ids: Vec<u32>,
    images: Vec<Vec<u8>>,
}

impl Question {
    fn new(assistant: &Assistant, turns: &[(&str, &str)], images: &[usize]) -> Self {
        let turns: Vec<Message<'_>> =
            turns.iter().map(|(role, content)| Message::new(role, content)).collect();
        let ids = assistant.processor.prompt(&turns, assistant.system.as_deref(), images.len()).unwrap();
        let side = assistant.image_size() as usize;
        let pixels = |step: &usize| (0..3 * side * side).map(|i| (i * step % 251) as u8).collect();
        Self { ids, images: images.iter().map(pixels).collect() }
    }

    fn request(&self, options: &Options, stop: &[&str]) -> (Request, Heard) {
        let (events, heard) = channel();
        let gone = Arc::new(AtomicBool::new(false));
        let request = Request {
            ids: self.ids.clone(),
            images: self.images.iter().cloned().map(Image::new).collect(),
            options: options.clone(),
            stop: stop.iter().map(|stop| (*stop).to_owned()).collect(),
            listener: Box::new(Ear { events, gone: Arc::clone(&gone) }),
        };
        (request, Heard { events: heard, gone })
    }

    fn ask(&self, engine: &Engine, options: &Options) -> Heard {
        let (request, heard) = self.request(options, &[]);
        engine.submit(request).unwrap();
        heard
    }

    /// The answer of `generate` to this question alone.
    fn alone(&self, assistant: &Assistant, options: &Options) -> Vec<u32> {
        let prompt = Prompt { ids: self.ids.clone(), features: assistant.features(self.images.concat()) };
        generate(&assistant.model, &[prompt], 0, options, &mut |_, _| ControlFlow::Continue(()))
            .unwrap()
            .remove(0)
    }
}

fn greedy(max_new_tokens: usize) -> Options {
    Options { max_new_tokens, sampling: Sampling::default(), eos: Vec::new() }
}

/// Sixteen questions of other lengths, with and without images.
fn sixteen(assistant: &Assistant) -> Vec<Question> {
    let question = |n: usize| {
        let text = format!("{}What is in image {n}? 这是什么？", "Look. ".repeat(n * 3 % 7));
        let images: &[usize] = if n.is_multiple_of(3) { &[] } else { IMAGES.get(n % 3..=n % 3).unwrap() };
        Question::new(assistant, &[("user", &text)], images)
    };
    (0..16).map(question).collect()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_mins(1), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn sixteen_at_once_are_answered_as_one_at_a_time_token_by_token() {
    for name in SHAPES {
        let assistant = assistant(name);
        let questions = sixteen(&assistant);
        let drawn = Sampling { temperature: 0.8, top_k: 20, top_p: 0.95, seed: 5, ..Sampling::default() };
        let options = |n: usize| Options {
            sampling: if n % 4 == 3 { drawn.clone() } else { Sampling::default() },
            ..greedy(24 + n)
        };
        let asked = questions.iter().enumerate();
        let alone: Vec<Vec<u32>> = asked.map(|(n, asked)| asked.alone(&assistant, &options(n))).collect();
        for sequences in [16, 5, 1] {
            let limits = Limits { sequences, prompt_piece: 16, ..Limits::default() };
            let engine = Engine::start(self::assistant(name), limits).unwrap();
            let heard: Vec<Heard> =
                questions.iter().enumerate().map(|(n, asked)| asked.ask(&engine, &options(n))).collect();
            let together: Vec<Vec<u32>> = heard.iter().map(|heard| heard.answer().ids).collect();
            assert_eq!(together, alone, "{name}, {sequences} at once");
        }
    }
}

#[test]
fn a_request_joins_while_another_is_being_answered() {
    let assistant = assistant("gqa");
    let (long, short) = (Question::new(&assistant, &[("user", "Tell")], &[7]), sixteen(&assistant).remove(2));
    let expected = (long.alone(&assistant, &greedy(200)), short.alone(&assistant, &greedy(4)));
    let engine = Engine::start(assistant, Limits::default()).unwrap();
    let first = long.ask(&engine, &greedy(200));
    let Event::Token { id, .. } = first.next() else { unreachable!() };
    let second = short.ask(&engine, &greedy(4)).answer();
    assert!(engine.running() > 0, "the first is still being answered");
    assert_eq!([vec![id], first.answer().ids].concat(), expected.0);
    assert_eq!(second.ids, expected.1);
}

#[test]
fn the_next_turn_of_a_conversation_computes_only_what_is_new() {
    for name in SHAPES {
        let assistant = assistant(name);
        let options = greedy(9);
        let first = Question::new(&assistant, &[("user", "What is this?")], &[7]);
        let engine = Engine::start(self::assistant(name), Limits::default()).unwrap();
        let answer = first.ask(&engine, &options).answer();
        assert_eq!((answer.cached, &answer.ids), (0, &first.alone(&assistant, &options)));
        let turns = [("user", "What is this?"), ("assistant", answer.text.as_str()), ("user", "And now?")];
        for (images, reused) in [([7], true), ([11], false), ([7], true)] {
            let next = Question::new(&assistant, &turns, &images);
            let answer = next.ask(&engine, &options).answer();
            assert_eq!(answer.ids, next.alone(&assistant, &options), "{name}, image {images:?}");
            let image = next.ids.iter().position(|id| *id == assistant.model.image_pad_id).unwrap();
            if reused {
                assert!(answer.cached > image, "{} of {} tokens", answer.cached, next.ids.len());
            } else {
                assert!(answer.cached <= image, "{} tokens of another image", answer.cached);
            }
            assert!(answer.cached < next.ids.len());
        }
    }
}

#[test]
fn keys_and_values_stay_within_their_bytes_and_everybody_is_answered() {
    let assistant = assistant("gqa");
    let questions = sixteen(&assistant);
    let config = assistant.model.qwen.config();
    let token = 8 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim;
    let alone: Vec<Vec<u32>> = questions.iter().map(|asked| asked.alone(&assistant, &greedy(20))).collect();
    let cache_bytes = 3 * BLOCK * token + 1;
    let engine = Engine::start(assistant, Limits { cache_bytes, ..Limits::default() }).unwrap();
    assert_eq!(engine.context(), 512, "the model's own limit");
    for _ in 0..2 {
        let heard: Vec<Heard> = questions.iter().map(|asked| asked.ask(&engine, &greedy(20))).collect();
        let mut most = (0, 0);
        let answers = heard.iter().map(|heard| {
            most = (most.0.max(engine.running()), most.1.max(engine.cache_bytes()));
            heard.answer().ids
        });
        assert_eq!(answers.collect::<Vec<_>>(), alone);
        assert!((1..=3).contains(&most.0), "{} at once", most.0);
        assert!(most.1 <= cache_bytes, "{} of {cache_bytes} bytes", most.1);
    }
    drop(engine);
    let small =
        Engine::start(self::assistant("gqa"), Limits { cache_bytes: BLOCK * token, ..Limits::default() });
    assert_eq!(small.unwrap().context(), BLOCK);
}

#[test]
fn a_full_queue_refuses_and_whoever_goes_makes_room() {
    let assistant = assistant("gqa");
    let question = Question::new(&assistant, &[("user", "Tell")], &[]);
    let engine = Engine::start(assistant, Limits { sequences: 1, waiting: 2, ..Limits::default() }).unwrap();
    let first = question.ask(&engine, &greedy(400));
    first.next();
    let waiting = [question.ask(&engine, &greedy(1)), question.ask(&engine, &greedy(1))];
    let refused = engine.submit(question.request(&greedy(1), &[]).0);
    assert_eq!(refused, Err(Refused::Full { waiting: 2 }));
    waiting[0].gone.store(true, Ordering::SeqCst);
    let third = question.ask(&engine, &greedy(1));
    first.gone.store(true, Ordering::SeqCst);
    assert_eq!(waiting[1].answer(), third.answer());
    wait_until("the first is gone", || engine.running() == 0);
    assert!(first.events.iter().count() < 400, "its answer was cut");
    assert_eq!(waiting[0].events.iter().count(), 0);
}

#[test]
fn answers_end_at_stop_texts_end_tokens_and_limits() {
    let assistant = assistant("gqa");
    let question = Question::new(&assistant, &[("user", "What is this?")], &[7]);
    let engine = Engine::start(self::assistant("gqa"), Limits::default()).unwrap();
    let ask = |options: &Options, stop: &[&str]| {
        let (request, heard) = question.request(options, stop);
        engine.submit(request).unwrap();
        heard.answer()
    };
    let whole = ask(&greedy(40), &[]);
    assert_eq!((whole.finish, whole.ids.len()), (Finish::Length, 40));
    assert_eq!(whole.text, assistant.text(&whole.ids).unwrap());
    let (from, to) =
        (whole.text.char_indices().nth(9).unwrap().0, whole.text.char_indices().nth(13).unwrap().0);
    let stop = &whole.text[from..to];
    let cut = ask(&greedy(40), &["never there", stop]);
    assert_eq!(
        (cut.text.as_str(), cut.finish),
        (&whole.text[..whole.text.find(stop).unwrap()], Finish::Stop)
    );
    let end = Options { eos: vec![whole.ids[20]], ..greedy(40) };
    let ended = ask(&end, &[]);
    let first = whole.ids.iter().position(|id| *id == whole.ids[20]).unwrap();
    assert_eq!((ended.finish, ended.ids.as_slice()), (Finish::Stop, &whole.ids[..=first]));

    let room = engine.context() - question.ids.len();
    assert_eq!(ask(&greedy(usize::MAX), &[]).ids.len(), room, "an answer ends where the context does");
    let long = Question { ids: vec![1; 512], images: Vec::new() };
    let refused = engine.submit(long.request(&greedy(1), &[]).0);
    assert_eq!(refused, Err(Refused::TooLong { tokens: 512, limit: 512 }));
    let unknown = Question { ids: vec![1, u32::MAX], images: Vec::new() };
    let failed = unknown.ask(&engine, &greedy(1)).next();
    assert!(matches!(failed, Event::Failed(_)), "{failed:?}");
    assert_eq!(ask(&greedy(40), &[]).ids, whole.ids, "the others go on");
}

#[test]
fn dropping_the_engine_ends_every_answer() {
    let assistant = assistant("gqa");
    let question = Question::new(&assistant, &[("user", "Tell")], &[]);
    let engine = Engine::start(assistant, Limits { sequences: 1, ..Limits::default() }).unwrap();
    let heard = [question.ask(&engine, &greedy(400)), question.ask(&engine, &greedy(400))];
    heard[0].next();
    drop(engine);
    for heard in heard {
        assert!(matches!(heard.events.iter().last(), Some(Event::Failed(_))));
    }
}
