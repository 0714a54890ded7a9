//! Greedy answers are those of transformers, however they are computed. `fixtures/make_fixtures.py` made them.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use llavm_model::chat_template::Message;
use llavm_model::config::Dtype;
use llavm_model::folder::ModelFolder;
use llavm_model::generate::assistant::Assistant;
use llavm_model::generate::conversation::Conversation;
use llavm_model::generate::session::Session;
use llavm_model::generate::shared::generate_shared;
use llavm_model::generate::{GenerateError, Options, Prompt, generate};
use llavm_model::sampler::Sampling;
use safetensors::SafeTensors;

const SHAPES: [&str; 3] = ["gqa", "untied", "biased"];

struct Fixture {
    assistant: Assistant,
    expected: Vec<u8>,
}

impl Fixture {
    /// The model folder `name`, with its adapter or (in a copy) without.
    fn open(name: &str, adapter: bool) -> Self {
        let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        let mut opened = ModelFolder::open(folder.to_str().unwrap()).unwrap();
        let bare = tempfile::tempdir().unwrap();
        if !adapter {
            std::fs::copy(folder.join("projector.safetensors"), bare.path().join("projector.safetensors"))
                .unwrap();
            folder.join("qwen").to_str().unwrap().clone_into(&mut opened.description.qwen);
            folder.join("clip").to_str().unwrap().clone_into(&mut opened.description.clip);
            bare.path().clone_into(&mut opened.path);
        }
        let assistant = Assistant::load(&opened, &Device::flex(), Dtype::F32).unwrap();
        Self { assistant, expected: std::fs::read(folder.join("expected.safetensors")).unwrap() }
    }

    fn ids(&self, key: &str) -> Vec<u32> {
        let file = SafeTensors::deserialize(&self.expected).unwrap();
        let data = file.tensor(key).unwrap().data();
        data.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// The fixture's prompt `n`, about its image `n`.
    fn prompt(&self, n: usize) -> Prompt {
        let file = SafeTensors::deserialize(&self.expected).unwrap();
        let pixels = file.tensor("pixels").unwrap();
        let one = pixels.data().len() / pixels.shape()[0];
        let features = self.assistant.features(pixels.data()[n * one..(n + 1) * one].to_vec());
        Prompt { ids: self.ids(&format!("prompt.{n}")), features }
    }

    fn answers(&self, prompts: &[Prompt], options: &Options) -> Vec<Vec<u32>> {
        generate(&self.assistant.model, prompts, 0, options, &mut |_, _| ControlFlow::Continue(())).unwrap()
    }
}

/// 64 tokens without a stop, as in the fixtures.
fn greedy() -> Options {
    Options { max_new_tokens: 64, sampling: Sampling::default(), eos: Vec::new() }
}

#[test]
fn greedy_ids_are_those_of_transformers_with_and_without_adapter() {
    for name in SHAPES {
        for (adapter, key) in [(false, "greedy"), (true, "lora.greedy")] {
            let fixture = Fixture::open(name, adapter);
            for n in 0..2 {
                let answer = fixture.answers(&[fixture.prompt(n)], &greedy());
                assert_eq!(answer, [fixture.ids(&format!("{key}.{n}"))], "{name} {key}.{n}");
            }
        }
    }
}

#[test]
fn a_merged_adapter_gives_the_same_ids() {
    for name in SHAPES {
        let mut fixture = Fixture::open(name, true);
        fixture.assistant.model.qwen.merge_lora();
        assert_eq!(
            fixture.answers(&[fixture.prompt(0)], &greedy()),
            [fixture.ids("lora.greedy.0")],
            "{name}"
        );
    }
}

#[test]
fn a_padded_batch_answers_as_each_prompt_alone() {
    for name in SHAPES {
        let fixture = Fixture::open(name, false);
        let prompts = [fixture.prompt(0), fixture.prompt(1)];
        assert_ne!(prompts[0].ids.len(), prompts[1].ids.len(), "one of them must be padded");
        let expected = [fixture.ids("greedy.0"), fixture.ids("greedy.1")];
        assert_eq!(fixture.answers(&prompts, &greedy()), expected, "{name}");
    }
}

#[test]
fn questions_that_share_images_are_answered_as_each_alone() {
    for name in SHAPES {
        let fixture = Fixture::open(name, true);
        let images = [0, 1].map(|n| fixture.prompt(n).features);
        let questions = ["What is it?", "What is there, and where is it?", "这是什么？", "Why"];
        let asked = questions.iter().flat_map(|question| [(0, *question), (1, *question)]);
        let mut asked: Vec<(usize, &str)> = asked.chain([(0, "<image> Which?")]).collect();
        asked.sort_unstable();
        let prompt = |(image, question): &(usize, &str)| {
            let message = Message::new("user", question);
            fixture.assistant.prompt(&[message], None, images[*image].clone()).unwrap()
        };
        let mut prompts: Vec<Prompt> = asked.iter().map(prompt).collect();
        let mut shown: Vec<u64> = asked.iter().map(|(image, _)| *image as u64).collect();
        let words = Message::new("user", "No image.");
        prompts.push(fixture.assistant.prompt(&[words], None, None).unwrap());
        shown.push(9);
        // Some answers end early, so that rows leave the batch.
        let alone = |options: &Options| -> Vec<Vec<u32>> {
            let one = |prompt: &Prompt| fixture.answers(std::slice::from_ref(prompt), options).remove(0);
            prompts.iter().map(one).collect()
        };
        let options = Options { eos: vec![alone(&greedy())[0][3]], ..greedy() };
        let expected = alone(&options);
        assert!(expected[0].len() <= 4, "{name}");
        let mut go_on = |_: usize, _: u32| ControlFlow::Continue(());
        let model = &fixture.assistant.model;
        let found = generate_shared(model, &prompts, &shown, 0, &options, &mut go_on).unwrap();
        assert_eq!(found, expected, "{name}");
        assert_eq!(fixture.answers(&prompts, &options), expected, "{name}: a batch that shares nothing");
    }
}

#[test]
fn sampling_does_not_depend_on_the_batch_but_on_the_seed() {
    let fixture = Fixture::open("gqa", false);
    let prompts = [fixture.prompt(0), fixture.prompt(1)];
    let options = |seed| Options {
        sampling: Sampling { temperature: 0.8, top_k: 20, top_p: 0.95, seed, ..Sampling::default() },
        ..greedy()
    };
    let together = fixture.answers(&prompts, &options(1));
    let second = generate(&fixture.assistant.model, &prompts[1..], 1, &options(1), &mut |_, _| {
        ControlFlow::Continue(())
    });
    assert_eq!(second.unwrap()[0], together[1]);
    assert_ne!(fixture.answers(&prompts, &options(2)), together);
}

#[test]
fn an_answer_ends_with_the_first_end_token() {
    let fixture = Fixture::open("gqa", false);
    let whole = fixture.ids("greedy.0");
    let end = whole[20];
    let first = whole.iter().position(|id| *id == end).unwrap();
    let options = Options { eos: vec![9999, end], ..greedy() };
    let answers = fixture.answers(&[fixture.prompt(0), fixture.prompt(1)], &options);
    assert_eq!(answers[0], whole[..=first]);
    assert!(answers[1].starts_with(&fixture.ids("greedy.1")[..first.min(5)]), "the other row goes on");
}

#[test]
fn tokens_arrive_one_by_one_and_can_be_stopped() {
    let fixture = Fixture::open("gqa", false);
    let mut seen = Vec::new();
    let mut stop_at_five = |row: usize, id: u32| {
        assert_eq!(row, 0);
        seen.push(id);
        if seen.len() == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let answers =
        generate(&fixture.assistant.model, &[fixture.prompt(0)], 0, &greedy(), &mut stop_at_five).unwrap();
    assert_eq!((answers[0].len(), &answers[0]), (5, &seen));
}

#[test]
fn a_prompt_without_room_for_an_answer_is_refused() {
    let fixture = Fixture::open("gqa", false);
    let prompt = Prompt { ids: vec![1; 512], features: None };
    let error =
        generate(&fixture.assistant.model, &[prompt], 0, &greedy(), &mut |_, _| ControlFlow::Continue(()));
    assert!(matches!(error, Err(GenerateError::TooLong { tokens: 512, limit: 512 })));
    let last = Prompt { ids: vec![1; 510], features: None };
    assert_eq!(fixture.answers(&[last], &greedy())[0].len(), 2, "an answer ends where the positions do");
}

#[test]
fn a_session_that_reuses_its_cache_answers_as_one_that_does_not() {
    for name in SHAPES {
        let fixture = Fixture::open(name, false);
        let model = &fixture.assistant.model;
        let first = fixture.prompt(0);
        let options = Options { max_new_tokens: 12, ..greedy() };
        let mut session = Session::new();
        let ask = |prompt: &Prompt, image: u64, session: &mut Session| {
            session.answer(model, prompt, &[image], &options, &mut |_, _| ControlFlow::Continue(())).unwrap()
        };
        let answer = ask(&first, 1, &mut session);
        assert_eq!(session.tokens(), first.ids.len() + answer.len() - 1, "the last token was not fed back");
        // The next turn: the same beginning, part of the answer, something new.
        let mut second = first.clone();
        second.ids.extend(answer.iter().take(7).chain(&[40, 41, 42]));
        assert_eq!(
            ask(&second, 1, &mut session),
            fixture.answers(std::slice::from_ref(&second), &options)[0],
            "{name}"
        );
        // Another image behind the same tokens.
        let other = Prompt { ids: second.ids.clone(), features: fixture.prompt(1).features };
        assert_eq!(
            ask(&other, 2, &mut session),
            fixture.answers(std::slice::from_ref(&other), &options)[0],
            "{name}"
        );
        // A shorter conversation, all of which is in the cache.
        assert_eq!(ask(&first, 1, &mut session), answer, "{name}");
    }
}

#[test]
fn a_chat_answers_as_its_turns_rendered_in_one_prompt() {
    let fixture = Fixture::open("untied", false);
    let assistant = &fixture.assistant;
    let options = Options { max_new_tokens: 9, eos: assistant.eos().to_vec(), ..greedy() };
    let side = assistant.image_size() as usize;
    let image: Vec<u8> = (0..3 * side * side).map(|i| (i * 7 % 251) as u8).collect();
    let mut chat = Conversation::new(assistant);
    chat.set_system("Be brief.");
    chat.show(image.clone());
    let mut streamed = String::new();
    let mut listen = |piece: &str| {
        streamed.push_str(piece);
        ControlFlow::Continue(())
    };
    let first = chat.ask("What is this?", &options, &mut listen).unwrap();
    let second = chat.ask("And 这个呢？", &options, &mut listen).unwrap();
    assert_eq!(streamed, format!("{first}{second}"));

    let turn = |role, content| Message::new(role, content);
    let turns = [turn("user", "What is this?"), turn("assistant", &first), turn("user", "And 这个呢？")];
    let prompt = assistant.prompt(&turns, Some("Be brief."), assistant.features(image)).unwrap();
    let ids = fixture.answers(&[prompt], &options).remove(0);
    assert_eq!(assistant.text(&ids).unwrap(), second);
}

#[test]
fn every_answer_of_a_chat_draws_from_a_stream_of_its_own() {
    let fixture = Fixture::open("untied", false);
    let sampling = Sampling { temperature: 1.0, seed: 3, ..Sampling::default() };
    let options = Options { max_new_tokens: 12, sampling, eos: Vec::new() };
    let mut chat = Conversation::new(&fixture.assistant);
    let mut ask = || {
        chat.reset();
        chat.ask("What is this?", &options, &mut |_| ControlFlow::Continue(())).unwrap()
    };
    let (first, second) = (ask(), ask());
    assert_ne!(first, second);
    let prompt = fixture.assistant.prompt(&[Message::new("user", "What is this?")], None, None);
    let alone = fixture.answers(&[prompt.unwrap()], &options).remove(0);
    assert_eq!(fixture.assistant.text(&alone).unwrap(), first, "the first is that of a question by itself");
}

#[test]
fn images_of_a_chat_stand_with_the_question_they_are_shown_with() {
    let fixture = Fixture::open("untied", false);
    let assistant = &fixture.assistant;
    let options = Options { max_new_tokens: 5, eos: assistant.eos().to_vec(), ..greedy() };
    let side = assistant.image_size() as usize;
    let image = |step: usize| -> Vec<u8> { (0..3 * side * side).map(|i| (i * step % 251) as u8).collect() };
    let mut quiet = |_: &str| ControlFlow::Continue(());
    let mut chat = Conversation::new(assistant);
    chat.show(image(7));
    let first = chat.ask("What is this?", &options, &mut quiet).unwrap();
    chat.show(image(11));
    let second = chat.ask("And <image> this?", &options, &mut quiet).unwrap();
    let third = chat.ask("Compare", &options, &mut quiet).unwrap();

    let turn = |role, content| Message::new(role, content);
    let turns = [
        turn("user", "What is this?\n<image>"),
        turn("assistant", &first),
        turn("user", "And <image> this?"),
        turn("assistant", &second),
        turn("user", "Compare"),
    ];
    let features = assistant.features([image(7), image(11)].concat());
    let prompt = assistant.prompt(&turns, None, features).unwrap();
    let ids = fixture.answers(&[prompt], &options).remove(0);
    assert_eq!(assistant.text(&ids).unwrap(), third);

    chat.show(image(13));
    let error = chat.ask("<image> or <image>?", &options, &mut quiet).unwrap_err().to_string();
    assert_eq!(error, "the questions place 2 image(s) with `<image>`, but 1 are given");
    assert_eq!((chat.turns().len(), chat.waiting_images()), (6, 1), "a question that fails is not kept");
}

#[test]
fn a_control_token_typed_in_a_question_is_refused() {
    let fixture = Fixture::open("gqa", false);
    let turns = [Message::new("user", "Hi<|im_end|>")];
    let error = fixture.assistant.prompt(&turns, None, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`<|im_end|>` is typed in the user text, where it would become a control token. Write it in other words."
    );
}
