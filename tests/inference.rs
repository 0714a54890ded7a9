//! The commands that answer, as a user runs them: on the small model folders of `model/tests/fixtures`, whose answers
//! come from transformers, and on folders that are broken in one way each.
//!
//! `inference/check_with_transformers.py` compares `llavm generate` with transformers on larger models and real images.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("model/tests/fixtures").join(name)
}

fn llavm(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_llavm"))
        .args(arguments)
        .env("HF_HOME", "/no/such/cache")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A copy of the model folder `gqa` with an image to ask about, to be broken.
struct Copy {
    folder: TempDir,
}

impl Copy {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy_folder(&fixture("gqa"), folder.path());
        fs::write(folder.path().join("image.png"), image()).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path(name)).unwrap();
        change(&mut bytes);
        fs::write(self.path(name), bytes).unwrap();
    }

    fn generate(&self, more: &[&str]) -> Output {
        let (model, image) = (self.folder.path().to_str().unwrap(), self.path("image.png"));
        let mut arguments = vec!["generate", "--model", model, "--image", image.to_str().unwrap()];
        if !more.contains(&"--max-new-tokens") {
            arguments.extend(["--max-new-tokens", "4"]);
        }
        arguments.extend(more);
        llavm(&arguments)
    }

    /// What `generate` says when it fails with exit status 1, on one line, without the folder's name.
    fn refusal(&self, more: &[&str]) -> String {
        let output = self.generate(if more.is_empty() { &["--prompt", "What?"] } else { more });
        let text = reported(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(output.stdout.is_empty(), "{}", stdout(&output));
        text.replace(self.folder.path().to_str().unwrap(), "/m")
    }
}

/// Standard error as one line: the drawing and its line breaks taken out.
fn reported(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let words = text.split_whitespace().filter(|word| !matches!(*word, "×" | "│" | "help:"));
    words.collect::<Vec<_>>().join(" ")
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// An image of 60 by 50 pixels as PNG.
fn image() -> Vec<u8> {
    let pixel = |x: u32, y: u32| image::Rgb([(x * 4) as u8, (y * 5) as u8, ((x * y) % 256) as u8]);
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_fn(60, 50, pixel).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn answers(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", reported(output));
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn json_has_the_promised_fields_and_no_other() {
    let answer = answers(&Copy::new().generate(&["--prompt", "What?", "--json"])).remove(0);
    let keys: Vec<&String> = answer.as_object().unwrap().keys().collect();
    let mut sorted = keys.clone();
    sorted.sort();
    assert_eq!(sorted, ["generated_ids", "prompt_tokens", "seconds", "text", "tokens_per_second"]);
    let ids = answer["generated_ids"].as_array().unwrap();
    assert!((1..=4).contains(&ids.len()));
    let (seconds, rate) =
        (answer["seconds"].as_f64().unwrap(), answer["tokens_per_second"].as_f64().unwrap());
    assert!((rate * seconds - ids.len() as f64).abs() < 1e-6);
}

#[test]
fn pairs_broadcasts_and_lines_of_a_file_ask_the_same() {
    let copy = Copy::new();
    let ids = |output: &Output| -> Vec<Value> {
        answers(output).iter().map(|answer| answer["generated_ids"].clone()).collect()
    };
    let image = copy.path("image.png");
    let image = image.to_str().unwrap();
    let first = ids(&copy.generate(&["--prompt", "What?", "--json"]));
    let second = ids(&copy.generate(&["--prompt", "Why 为什么", "--json"]));
    let both = [first, second].concat();
    assert_ne!(both[0], both[1]);
    assert_eq!(ids(&copy.generate(&["--prompt", "What?", "--prompt", "Why 为什么", "--json"])), both);
    let pairs = ["--prompt", "What?", "--image", image, "--prompt", "Why 为什么", "--json"];
    assert_eq!(ids(&copy.generate(&pairs)), both);

    let lines = "{\"image\": \"image.png\", \"prompt\": \"What?\"}\n\n{\"image\": [\"image.png\"], \"prompt\": \"Why 为什么\"}\n";
    fs::write(copy.path("questions.jsonl"), lines).unwrap();
    for batch in ["1", "2"] {
        let file = copy.path("questions.jsonl");
        let model = copy.folder.path().to_str().unwrap();
        let arguments = ["generate", "--model", model, "--jsonl", file.to_str().unwrap(), "--json"];
        let arguments = [&arguments[..], &["--batch-size", batch, "--max-new-tokens", "4"]].concat();
        assert_eq!(ids(&llavm(&arguments)), both, "batch {batch}");
    }
}

/// Model, processor and answers are transformers' own: `model/tests/fixtures/llava/make.py`.
#[test]
fn a_llava_of_transformers_is_asked_and_answers_as_there() {
    let folder = fixture("llava");
    let text = fs::read_to_string(folder.join("expected.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let questions = tempfile::tempdir().unwrap();
    let lines: String = cases
        .iter()
        .map(|case| {
            let images = case["images"].as_u64().unwrap();
            let images: Vec<PathBuf> = (0..images).map(|n| folder.join(format!("{n}.png"))).collect();
            serde_json::json!({"image": images, "prompt": case["question"]}).to_string() + "\n"
        })
        .collect();
    let file = questions.path().join("questions.jsonl");
    fs::write(&file, lines).unwrap();
    let (model, file) = (folder.join("saved"), file.to_str().unwrap().to_owned());
    let arguments = ["generate", "--model", model.to_str().unwrap(), "--jsonl", &file, "--json"];
    let ours = answers(&llavm(&[&arguments[..], &["--max-new-tokens", "64"]].concat()));
    assert_eq!(ours.len(), 6);
    for (ours, theirs) in ours.iter().zip(&cases) {
        let question = &theirs["question"];
        assert_eq!(ours["prompt_tokens"], theirs["prompt"].as_array().unwrap().len(), "{question}");
        assert_eq!(ours["generated_ids"], theirs["ids"], "{question}");
    }
}

#[test]
fn without_json_the_answer_is_the_text() {
    let copy = Copy::new();
    let answer = answers(&copy.generate(&["--prompt", "What?", "--json"])).remove(0);
    let plain = copy.generate(&["--prompt", "What?"]);
    assert_eq!(stdout(&plain), format!("{}\n", answer["text"].as_str().unwrap()));
}

#[test]
fn the_adapter_and_the_system_prompt_change_the_answer() {
    let copy = Copy::new();
    let ask =
        |more: &[&str]| answers(&copy.generate(&[&["--prompt", "What?", "--json"], more].concat())).remove(0);
    let with = ask(&[]);
    let tokens = |answer: &Value| answer["prompt_tokens"].as_u64().unwrap();
    assert!(tokens(&ask(&["--system", "Be brief."])) > tokens(&with));
    copy.edit("model.toml", |text| text.extend(b"system = \"Be brief.\"\n"));
    assert_eq!(tokens(&ask(&["--system", ""])), tokens(&with));
    assert_eq!(tokens(&ask(&[])), tokens(&ask(&["--system", "Be brief."])));
    fs::remove_dir_all(copy.path("adapter")).unwrap();
    assert_ne!(ask(&["--system", ""])["generated_ids"], with["generated_ids"]);
}

#[test]
fn a_seed_draws_the_same_answer_twice() {
    let copy = Copy::new();
    let ask = |seed| {
        let settings =
            ["--prompt", "What?", "--json", "--temperature", "0.9", "--top-k", "20", "--top-p", "0.9"];
        let answer =
            copy.generate(&[&settings[..], &["--repetition-penalty", "1.1", "--seed", seed]].concat());
        answers(&answer)[0]["generated_ids"].clone()
    };
    assert_eq!(ask("1"), ask("1"));
    assert_ne!(ask("1"), ask("2"));
}

#[test]
fn a_question_without_image_must_be_meant() {
    let copy = Copy::new();
    let model = copy.folder.path().to_str().unwrap();
    let without = llavm(&["generate", "--model", model, "--prompt", "What?"]);
    assert_eq!(without.status.code(), Some(2));
    insta::assert_snapshot!(reported(&without), @"there is no image give --image FILE, or --text-only to ask without one");
    let meant = llavm(&[
        "generate",
        "--model",
        model,
        "--prompt",
        "What?",
        "--text-only",
        "--json",
        "--max-new-tokens",
        "3",
    ]);
    let with = copy.generate(&["--prompt", "What?", "--json"]);
    let tokens = |output: &Output| answers(output)[0]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(tokens(&with) - tokens(&meant), 9 + 1, "nine pads and a line break");
}

#[test]
fn a_wrong_command_line_is_told_before_anything_is_loaded() {
    let copy = Copy::new();
    let wrong = |more: &[&str]| {
        let output = copy.generate(more);
        assert_eq!(output.status.code(), Some(2), "{}", reported(&output));
        reported(&output)
    };
    insta::assert_snapshot!(wrong(&["--prompt", "What?", "--top-p", "1.5"]), @"--top-p = 1.5: must be between 0 and 1 `llavm generate --help` explains the settings");
    insta::assert_snapshot!(wrong(&["--prompt", "A", "--prompt", "B", "--prompt", "C", "--image", "x.png"]), @"2 images and 3 questions make no pairs give as many --prompt as --image, or one of either");
    insta::assert_snapshot!(wrong(&[]), @"there is no question give --prompt TEXT or --jsonl FILE");
}

#[test]
fn weights_that_cannot_be_used_are_one_error() {
    let weights = "qwen/model.safetensors";
    let broken = |change: fn(&mut Vec<u8>)| {
        let copy = Copy::new();
        copy.edit(weights, change);
        copy.refusal(&[])
    };
    insta::assert_snapshot!(broken(|bytes| bytes.truncate(bytes.len() / 2)), @"/m/qwen/model.safetensors: is truncated or has bytes appended: its header describes another length than 174688 bytes. Download it again.");
    insta::assert_snapshot!(broken(|bytes| bytes.truncate(100)), @"/m/qwen/model.safetensors: is truncated: 100 bytes do not hold the header. Download it again.");
    insta::assert_snapshot!(broken(|bytes| bytes[..8].fill(255)), @"/m/qwen/model.safetensors: is no safetensors file: its first 8 bytes claim a header of over 100 MB.");
    insta::assert_snapshot!(broken(|bytes| bytes[8] = b'?'), @"/m/qwen/model.safetensors: is no usable safetensors file: invalid JSON in header: expected value at line 1 column 1.");
}

#[test]
fn a_tensor_of_integers_is_a_wrong_dtype() {
    let copy = Copy::new();
    copy.edit("projector.safetensors", |bytes| {
        let text = String::from_utf8_lossy(&bytes[8..400]).into_owned();
        let at = 8 + text.find("\"F32\"").unwrap();
        bytes[at..at + 5].copy_from_slice(b"\"I32\"");
    });
    insta::assert_snapshot!(copy.refusal(&[]), @"/m/projector.safetensors: the weights do not fit the configuration. unusable /m/projector.safetensors: `dense1.bias` is stored as I32; a parameter needs f64, f32, f16 or bf16. 0 missing, 0 misshaped, 0 unknown, 1 unusable. Do the configuration and the weights belong to the same model?");
}

#[test]
fn a_configuration_of_another_size_lists_every_tensor() {
    let copy = Copy::new();
    copy.edit("qwen/config.json", |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        *bytes = text.replace("\"intermediate_size\": 80", "\"intermediate_size\": 96").into_bytes();
    });
    let reported = copy.refusal(&[]);
    assert_eq!(reported.matches("wrong shape").count(), 9, "three layers of three matrices: {reported}");
    assert!(
        reported
            .contains("model.layers.2.mlp.down_proj.weight is [48, 80], the configuration asks for [48, 96]"),
        "{reported}"
    );
}

#[test]
fn folders_that_lack_a_file_say_which_and_where() {
    let lacking = |name: &str| {
        let copy = Copy::new();
        fs::remove_file(copy.path(name)).unwrap();
        copy.refusal(&[])
    };
    insta::assert_snapshot!(lacking("qwen/config.json"), @"/m/qwen lacks config.json: looked for /m/qwen/config.json.");
    insta::assert_snapshot!(lacking("clip/config.json"), @"/m/clip lacks config.json: looked for /m/clip/config.json.");
    insta::assert_snapshot!(lacking("projector.safetensors"), @"/m lacks projector.safetensors: looked for /m/projector.safetensors.");
    insta::assert_snapshot!(lacking("model.toml"), @"/m is no model folder: it lacks model.toml. `llavm run` writes model folders; by hand, model.toml needs at least `qwen` and `clip`.");
    insta::assert_snapshot!(lacking("qwen/model.safetensors"), @"/m/qwen holds no weights: looked for model.safetensors, model.safetensors.index.json, pytorch_model.bin, pytorch_model.bin.index.json.");
    insta::assert_snapshot!(lacking("adapter/adapter_config.json"), @"/m/adapter lacks adapter_config.json: looked for /m/adapter/adapter_config.json.");
    let copy = Copy::new();
    fs::write(copy.path("model.toml"), "qwen = \"hub:Qwen/Qwen3-0.6B\"\nclip = \"clip\"\n").unwrap();
    insta::assert_snapshot!(copy.refusal(&[]), @"`hub:Qwen/Qwen3-0.6B` is not in the Hugging Face cache: looked for /no/such/cache/hub/models--Qwen--Qwen3-0.6B/refs/main. Download it with `llavm fetch hub:Qwen/Qwen3-0.6B`, or set HF_HOME to the cache that has it.");
}

#[test]
fn an_adapter_for_another_base_is_named_as_such() {
    let copy = Copy::new();
    copy_folder(&fixture("untied").join("adapter"), &copy.path("adapter"));
    let reported = copy.refusal(&[]);
    assert!(
        reported.contains("the adapter in /m/adapter belongs to another base model than /m/qwen."),
        "{reported}"
    );
}

#[test]
fn an_image_that_cannot_be_decoded_is_named() {
    let copy = Copy::new();
    copy.edit("image.png", |bytes| bytes.truncate(90));
    insta::assert_snapshot!(copy.refusal(&[]), @"/m/image.png is no image that can be decoded: truncated PNG: the file ends before its pixels do");
    fs::write(copy.path("image.png"), "<html>404</html>").unwrap();
    insta::assert_snapshot!(copy.refusal(&[]), @"/m/image.png is no image that can be decoded: no image: it is a web page (HTML), such as a login or an error page: download the file itself: the address may need a login, or its raw form");
    fs::remove_file(copy.path("image.png")).unwrap();
    insta::assert_snapshot!(copy.refusal(&[]), @"/m/image.png: No such file or directory (os error 2)");
}

#[test]
fn a_prompt_that_is_too_long_says_how_long() {
    let copy = Copy::new();
    let long = "word ".repeat(200);
    insta::assert_snapshot!(copy.refusal(&["--prompt", &long]), @"the prompt has 1035 tokens; the model ends at max_position_embeddings = 512. Shorten the prompt, or start a new conversation.");
}

#[test]
fn a_control_token_in_a_question_is_refused() {
    insta::assert_snapshot!(Copy::new().refusal(&["--prompt", "Hi<|im_end|>"]), @"`<|im_end|>` is typed in the user text, where it would become a control token. Write it in other words.");
}

#[test]
fn a_line_that_is_no_question_says_its_number() {
    let copy = Copy::new();
    let file = copy.path("q.jsonl");
    fs::write(&file, "{\"prompt\": \"a\"}\n{\"question\": \"b\"}\n").unwrap();
    let output = llavm(&[
        "generate",
        "--model",
        copy.folder.path().to_str().unwrap(),
        "--jsonl",
        file.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    let reported = reported(&output).replace(copy.folder.path().to_str().unwrap(), "/m");
    insta::assert_snapshot!(reported, @"/m/q.jsonl, line 2: unknown field `question`, expected one of `image`, `prompt`, `messages`, `tools` at line 1 column 11");
}

/// Runs `llavm chat` on `input`.
fn chat(copy: &Copy, more: &[&str], input: &str) -> Output {
    let model = copy.folder.path().to_str().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_llavm"));
    command.args(["chat", "--model", model, "--max-new-tokens", "6"]).args(more);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_chat_keeps_its_turns_and_saves_them() {
    let copy = Copy::new();
    let (image, saved) = (copy.path("image.png"), copy.path("chat.json"));
    let (image, saved) = (image.to_str().unwrap(), saved.to_str().unwrap());
    let input = format!("What?\nAnd why?\n/save {saved}\n/quit\nnever read\n");
    let output = chat(&copy, &["--image", image, "--system", "Be brief."], &input);
    assert!(output.status.success(), "{}", reported(&output));

    let conversation: Value = serde_json::from_str(&fs::read_to_string(saved).unwrap()).unwrap();
    assert_eq!(
        (conversation["image"].as_str(), conversation["system"].as_str()),
        (Some(image), Some("Be brief."))
    );
    let messages = conversation["messages"].as_array().unwrap();
    let roles: Vec<&str> = messages.iter().map(|turn| turn["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant"]);
    let content = |n: usize| messages[n]["content"].as_str().unwrap();
    assert_eq!(
        (content(0), content(2)),
        ("What?\n<image>", "And why?"),
        "the image stands where it was asked about"
    );
    assert_eq!(stdout(&output), format!("{}\n{}\n", content(1), content(3)));
    // The first answer is that of a single question.
    let single = copy.generate(&["--prompt", "What?", "--system", "Be brief.", "--max-new-tokens", "6"]);
    assert_eq!(stdout(&single), format!("{}\n", content(1)));
}

#[test]
fn a_reset_chat_answers_as_a_new_one() {
    let copy = Copy::new();
    let image = copy.path("image.png");
    let image = image.to_str().unwrap();
    let fresh = stdout(&chat(&copy, &["--image", image], "What?\n"));
    let reset = stdout(&chat(&copy, &["--image", image], "Something else entirely\n/reset\nWhat?\n"));
    assert!(reset.ends_with(&fresh) && reset.len() > fresh.len());
    let changed = stdout(&chat(&copy, &[], &format!("/image {image}\n/system\nWhat?\n")));
    assert_eq!(changed, fresh);
}

#[test]
fn a_chat_from_a_pipe_ends_at_the_first_failure() {
    let copy = Copy::new();
    let failure = |line: &str| {
        let output = chat(&copy, &[], &format!("{line}\nWhat?\n"));
        assert!(!output.status.success());
        reported(&output)
    };
    insta::assert_snapshot!(failure("/nonsense"), @"there is no command /nonsense /help lists the commands");
    insta::assert_snapshot!(failure("/image /no/such.png"), @"/no/such.png: No such file or directory (os error 2)");
}

#[test]
fn the_doctor_finds_the_cpu_right() {
    let output = llavm(&["doctor"]);
    assert!(output.status.success(), "{}", reported(&output));
    let text = stdout(&output);
    for check in
        ["image features", "loss", "projector and LoRA gradients", "cached decoding", "verdict: right"]
    {
        assert!(text.contains(check), "{text}");
    }
    assert!(text.contains("bf16") && !text.contains("WRONG"), "{text}");
}

#[cfg(not(feature = "cuda-llvm"))]
#[test]
fn a_device_that_this_build_lacks_is_an_error() {
    let output = llavm(&["doctor", "--device", "cuda"]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(reported(&output), @"device `cuda` needs a build with its backend: run `cargo build --release --features cuda`");
}
