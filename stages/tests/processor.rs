//! What was trained is what is asked: the processor of a model folder gives the tokens that the stages gave to training, on the
//! sample manifests and with every parameter that decides how a row is rendered.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use arrow::array::{Array, AsArray, ListArray, RecordBatch};
use arrow::datatypes::{Int32Type, UInt32Type};
use common::{Table, Turn, conversations, golden, list, qwen, root, turns};
use llavm_model::chat_template::Message;
use llavm_model::folder::{DESCRIPTION, Description, ModelFolder};
use llavm_model::processor::files::{self, ProcessorDescription, Sources};
use llavm_model::processor::image::ImageProcessor;
use llavm_model::processor::{Processor, Settings};
use llavm_pipeline::Silent;
use llavm_pipeline::stage::Parameters;
use llavm_pipeline::{Engine, Manifest, Options};
use llavm_stages::chat_template::{ChatSettings, ChatTemplate};
use llavm_stages::image_lists::whole;
use llavm_stages::image_pads::ImagePads;
use llavm_stages::tokenize::Tokenize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

const CLIP: &str = r#"{"model_type": "clip_vision_model", "hidden_size": 8, "image_size": 224, "intermediate_size": 16,
    "num_attention_heads": 2, "num_hidden_layers": 1, "patch_size": 32, "hidden_act": "quick_gelu"}"#;
const QWEN: &str = r#"{"model_type": "qwen3", "hidden_size": 8, "head_dim": 4, "intermediate_size": 16, "eos_token_id": 151643,
    "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 1, "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "tie_word_embeddings": true, "vocab_size": 151669, "hidden_act": "silu"}"#;

/// Messages up to the last answer.
fn question(messages: &[Turn]) -> Vec<Message<'_>> {
    let last = messages.iter().rposition(|(role, _)| role == "assistant").unwrap();
    messages[..last].iter().map(|(role, content)| Message::new(role, content)).collect()
}

/// The prompt must be how the row begins, and end where the last trained stretch does: what is trained on and yet part of
/// every prompt (a think block, where the template marks it as generated) counts as prompt.
fn check(processor: &Processor, messages: &[Turn], images: usize, ids: &[u32], train: &[bool], about: &str) {
    let prompt = processor.prompt(&question(messages), processor.system(), images);
    let prompt = prompt.unwrap_or_else(|error| panic!("{about}: {error}"));
    assert!(ids.starts_with(&prompt), "{about}\n{:?}\n{:?}", processor.text(ids), processor.text(&prompt));
    // The last trained stretch; a template may write something behind it.
    let end = train.iter().rposition(|train| *train).unwrap() + 1;
    let start = train[..end].iter().rposition(|train| !train).map_or(0, |before| before + 1);
    assert!((start..end).contains(&prompt.len()), "{about}");
    if !processor.template().marks_generation() {
        assert_eq!(prompt.len(), start, "{about}");
    }
}

/// The row as training sees it, made at once.
fn check_row(
    processor: &Processor,
    messages: &[Turn],
    images: usize,
    ids: &[u32],
    train: &[bool],
    about: &str,
) {
    let messages: Vec<Message<'_>> =
        messages.iter().map(|(role, content)| Message::new(role, content)).collect();
    let row = processor.row(&messages, images).unwrap();
    assert_eq!((row.ids.as_slice(), row.train.as_slice()), (ids, train), "{about}");
}

/// A model folder that holds nothing but its processor.
struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    fn new(settings: &Settings, template: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (tower, config) in [("qwen", QWEN), ("clip", CLIP)] {
            fs::create_dir(folder.path().join(tower)).unwrap();
            fs::write(folder.path().join(tower).join("config.json"), config).unwrap();
        }
        let qwen = folder.path().join("qwen");
        let tokenizer = root("data/qwen3-tokenizer");
        let sources = Sources { tokenizer: &tokenizer, template, qwen: &qwen, patch_size: 32 };
        files::write(folder.path(), settings, &sources).unwrap();
        let description = Description {
            qwen: "qwen".to_owned(),
            clip: "clip".to_owned(),
            image_pad_num: Some(settings.image_tokens.count),
            system: settings.rendering.system.clone(),
            processor: Some(ProcessorDescription::of(settings)),
            ..Description::default()
        };
        fs::write(folder.path().join(DESCRIPTION), description.to_toml().unwrap()).unwrap();
        Self { folder }
    }

    fn load(&self) -> Processor {
        let folder = ModelFolder::open(self.folder.path().to_str().unwrap()).unwrap();
        Processor::load(&folder).unwrap()
    }
}

fn settings<S: Parameters + DeserializeOwned, T: DeserializeOwned>(params: &Value) -> T {
    let stage: S = serde_json::from_value(params.clone()).unwrap();
    serde_json::from_value(stage.settings().unwrap().unwrap().1).unwrap()
}

/// Rows of every kind: what Transformers rendered, and images with and without a place of their own.
fn rows() -> Vec<(Vec<Turn>, u32)> {
    let mut rows: Vec<(Vec<Turn>, u32)> = Vec::new();
    for case in list(&golden()["cases"]).iter().filter(|case| case["add_generation_prompt"] == false) {
        rows.push((turns(&case["messages"]), 0));
    }
    rows.dedup();
    let turn = |role: &str, text: &str| (role.to_owned(), text.to_owned());
    let talk = |first: &str, second: &str| {
        vec![
            turn("user", first),
            turn("assistant", "A cat."),
            turn("user", second),
            turn("assistant", "二只狗。"),
        ]
    };
    let told = |answer: &str| {
        vec![
            turn("user", "\n What is this?"),
            turn("assistant", " A cat. "),
            turn("user", "And \n"),
            turn("assistant", answer),
        ]
    };
    let answers = [
        "\n\n二只狗。 ",
        "<think>\n\n</think>\n\nDogs.",
        "<think>\nHm.\n</think>\n\nDogs.",
        "</think>Dogs.",
        " Dogs.\n",
    ];
    rows.extend(answers.map(|answer| (told(answer), 1)));
    // Questions and answers that begin and end in every way, about an image with a place of its own, one without, and none.
    for question in
        ["<image>\nWhat?", "图里有什么？ ", "\tWho <b>?", "[img]谁", "1. One\n2. Two\n", "é\u{301}?"]
    {
        for answer in ["A cat.", "两只狗。\n", " 1 < 2 & 3", "", "```\ncode\n```"] {
            let row = vec![turn("user", question), turn("assistant", answer)];
            rows.extend([(row.clone(), 0), (row, 1)]);
        }
    }
    rows.extend([
        (talk("What is this?", "And 这个呢？"), 1),
        (talk("<image>\nWhat?", "Where?"), 1),
        (talk("What?\n<image>", " Why? "), 1),
        (talk("First <image>, then <image>.", "Which?"), 2),
        (talk("Look.", "Now <image>?"), 1),
        (talk("Both?", "Or?"), 2),
        (talk("[img] What?", "Where?"), 1),
        (talk("", "Go on."), 1),
        ([vec![turn("system", "Be brief.")], talk("What?", "Where?")].concat(), 1),
    ]);
    rows
}

const MARKED: &str = "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}\
    {%- if message.role == 'assistant' %}{% generation %}{{- '<think>\\n\\n</think>\\n\\n' + message.content + '<|im_end|>' }}{% endgeneration %}\
    {{- '\\n' }}{%- else %}{{- message.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}\
    {%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}{%- endif %}";

#[test]
fn whatever_the_parameters_the_saved_processor_asks_as_was_trained() {
    let rows = rows();
    let mut compared = 0;
    for system in [None, Some("You are a helpful assistant.")] {
        for (thinking, template) in [(false, None), (true, None), (false, Some(MARKED))] {
            for loss_on in ["last", "all-assistant"] {
                for answer_end in ["eos", "turn"] {
                    let chat = json!({"tokenizer": qwen(), "system": system, "enable_thinking": thinking,
                        "template": template, "loss_on": loss_on, "answer_end": answer_end});
                    compared +=
                        PLACEMENTS.iter().map(|placement| compare(&rows, &chat, *placement)).sum::<usize>();
                }
            }
        }
    }
    assert!(compared > 3000, "{compared}");
}

/// What is done about an image without a place of its own, what stands for an image, and whether special tokens may be typed.
const PLACEMENTS: [[&str; 3]; 4] = [
    ["append", "<image>", "reject"],
    ["prepend", "<image>", "allow"],
    ["reject", "<image>", "reject"],
    ["append", "[img]", "allow"],
];

/// One placement of images and one way of rendering; how many rows were compared.
fn compare(rows: &[(Vec<Turn>, u32)], chat: &Value, [missing, placeholder, special]: [&str; 3]) -> usize {
    let ChatSettings { template, rendering } = settings::<ChatTemplate, _>(chat);
    let rendered = conversations(rows).then::<ChatTemplate>(chat.clone());
    let mut compared = 0;
    let pads = json!({"missing": missing, "placeholder": placeholder});
    let tokenize = json!({"tokenizer": qwen(), "special_in_text": special});
    let made: Table = rendered.then::<ImagePads>(pads.clone()).then::<Tokenize>(tokenize.clone());
    let settings = Settings {
        rendering: rendering.clone(),
        image_tokens: settings::<ImagePads, _>(&pads),
        special_in_text: settings::<Tokenize, _>(&tokenize),
        image: ImageProcessor::default(),
    };
    let folder = Folder::new(&settings, &template);
    let processor = folder.load();
    assert_eq!(processor.settings(), settings);
    // The base checkpoint ends with <|endoftext|> alone; what was trained is <|im_end|>.
    assert_eq!(processor.eos, [151_643, 151_645]);
    for (n, (messages, images)) in rows.iter().enumerate().filter(|(n, _)| made.rejects[*n].is_none()) {
        let about = format!("row {n}, {missing} {placeholder} {special}, {chat}");
        let (ids, train) = (made.input_ids(n), made.train(n));
        check_row(&processor, messages, *images as usize, &ids, &train, &about);
        // A row that goes on behind its last answer is trained in a way that nobody asks.
        if messages.last().is_some_and(|(role, _)| role == "assistant") {
            check(&processor, messages, *images as usize, &ids, &train, &about);
            compared += 1;
        }
    }
    compared
}

#[test]
fn tools_thoughts_and_calls_are_asked_as_they_were_trained() {
    let golden = fs::read_to_string(root("stages/tests/golden/tools.json")).unwrap();
    let golden: serde_json::Map<String, Value> = serde_json::from_str(&golden).unwrap();
    for (name, case) in &golden {
        for loss_on in ["last", "all-assistant"] {
            let mut chat =
                json!({"tokenizer": qwen(), "enable_thinking": case["enable_thinking"], "loss_on": loss_on});
            if let Some(template) = case["template"].as_str() {
                chat["template"] = json!(template);
            }
            let made = common::messages(&case["turns"]);
            let made = made.then::<ChatTemplate>(chat.clone()).then::<ImagePads>(json!({}));
            let made = made.then::<Tokenize>(json!({"tokenizer": qwen()}));
            let ChatSettings { template, rendering } = settings::<ChatTemplate, _>(&chat);
            let settings = Settings {
                rendering,
                image_tokens: settings::<ImagePads, _>(&json!({})),
                special_in_text: settings::<Tokenize, _>(&json!({"tokenizer": qwen()})),
                image: ImageProcessor::default(),
            };
            let folder = Folder::new(&settings, &template);
            let processor = folder.load();
            let table = common::messages(&case["turns"]);
            let rows = llavm_stages::messages::MessageRows::of(&table.batch).unwrap();
            let messages: Vec<Message<'_>> =
                rows.row(0).unwrap().map(|turn| turn.message().unwrap()).collect();
            let row = processor.row(&messages, 0).unwrap();
            assert_eq!((row.ids, row.train), (made.input_ids(0), made.train(0)), "{name} {loss_on}");
            let prompt = processor.prompt(&messages[..messages.len() - 1], None, 0).unwrap();
            assert_eq!(
                processor.tokenizer().decode(&prompt, false).unwrap(),
                case["prompt"].as_str().unwrap(),
                "{name}"
            );
            assert!(made.input_ids(0).starts_with(&prompt), "{name} {loss_on}");
        }
    }
}

/// Appended to a sample manifest, whose rows then train a model.
const TRAIN: &str = r#"
[stages.model]
kind = "train"
from = "shards"
qwen = "$DIR/qwen"
clip = "$DIR/clip"
tokenizer = "$DATA/qwen3-tokenizer"
from_scratch = ["language", "vision"]
max_steps = 1
per_device_train_batch_size = 2
"#;

/// Manifest and the variables that name its data.
const SAMPLES: [(&str, &str); 5] = [
    ("cc3m-sample", "cc3m"),
    ("llava-sample", "llava"),
    ("zh-sample", "zh"),
    ("instruct-sample", "instruct"),
    ("broken-sample", "broken"),
];

#[test]
fn every_row_of_the_samples_is_asked_as_it_was_trained() {
    for (name, data) in SAMPLES {
        let dir = tempfile::tempdir().unwrap();
        for (tower, config) in [("qwen", QWEN), ("clip", CLIP)] {
            fs::create_dir(dir.path().join(tower)).unwrap();
            fs::write(dir.path().join(tower).join("config.json"), config).unwrap();
        }
        let text = fs::read_to_string(root(&format!("manifests/{name}.toml"))).unwrap();
        let train = TRAIN.replace("$DIR", dir.path().to_str().unwrap());
        let data = root("data").join(data).display().to_string();
        let set = [format!("raw={data}"), format!("tokenizer={}", qwen())];
        run(
            &(text + &train.replace("$DATA", root("data").to_str().unwrap())),
            &set,
            dir.path(),
            "model",
            name,
        );
    }
}

#[test]
fn every_row_of_the_quick_start_is_asked_as_it_was_trained() {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(root("manifests/quickstart.toml")).unwrap();
    let text = text.replace("rows   = 6000", "rows   = 100");
    let text: String =
        text.lines().filter(|line| !line.starts_with("store ")).map(|line| format!("{line}\n")).collect();
    let set = [format!("model={}", root("data/shapes-model").display())];
    run(&text, &set, dir.path(), "lora", "quickstart");
}

/// Runs a manifest up to the model that `stage` trains, and compares every row of its shards.
fn run(text: &str, set: &[String], dir: &Path, stage: &str, about: &str) {
    let text = format!("store = \"{}\"\n{text}", dir.join("store").display());
    let manifest = Manifest::read(text.as_bytes(), &dir.join("m.toml"), set, &llavm_stages::registry());
    let graph = manifest.unwrap_or_else(|error| panic!("{about}: {error:?}")).graph;
    let options = Options { jobs: 2, until: Some(stage.to_owned()), ..Options::default() };
    let engine = Engine::open(graph, options).unwrap();
    let finished = engine.run(&Silent, &AtomicBool::new(false)).unwrap();
    assert!(finished.errors.is_empty(), "{about}: {:?}", finished.errors);
    let model = engine.folders(stage).unwrap().remove(0);
    // A model folder is whole wherever it is.
    let moved = dir.join("moved");
    fs::create_dir(&moved).unwrap();
    copy(&model, &moved.join("model"));
    let folder = ModelFolder::open(moved.join("model").to_str().unwrap()).unwrap();
    folder.check_towers().unwrap();
    let processor = Processor::load(&folder).unwrap();
    let mut rows = 0;
    for table in engine.rows_of("shards").unwrap() {
        for partition in 0..table.partitions() {
            let columns = ["messages", "n_images", "input_ids", "labels", "images", "pixels", "origins"];
            let columns = if table.columns().iter().any(|column| column.name == "pixels") {
                &columns[..]
            } else {
                &columns[..4] // a group of text alone
            };
            for batch in table.scan(partition, columns).unwrap() {
                let mut batch = batch.unwrap();
                if batch.column_by_name("pixels").is_some() {
                    let elsewhere = &mut |partition: u32, rows: &[usize]| {
                        Ok(table.take(partition as usize, rows, &["pixels", "origins"]).unwrap())
                    };
                    batch = whole(&batch, "pixels", elsewhere).unwrap();
                }
                rows += compare_batch(&processor, &batch, about);
            }
        }
    }
    assert!(rows > 0, "{about}");
}

/// How many rows of a batch were compared; rejected ones are left out.
fn compare_batch(processor: &Processor, batch: &RecordBatch, about: &str) -> usize {
    let lists = |name: &str| -> ListArray { batch.column_by_name(name).unwrap().as_list::<i32>().clone() };
    let (messages, ids, labels) = (lists("messages"), lists("input_ids"), lists("labels"));
    let images = batch.column_by_name("n_images").unwrap().as_primitive::<UInt32Type>();
    let reject = batch.column_by_name("reject").unwrap();
    let kept = (0..batch.num_rows()).filter(|row| reject.is_null(*row));
    kept.map(|row| {
        let turns = messages.value(row);
        let text = |name: &str, at| {
            turns.as_struct().column_by_name(name).unwrap().as_string::<i32>().value(at).to_owned()
        };
        let turns: Vec<Turn> = (0..turns.len()).map(|at| (text("role", at), text("content", at))).collect();
        let input_ids = ids.value(row).as_primitive::<UInt32Type>().values().to_vec();
        let labels = labels.value(row).as_primitive::<Int32Type>().values().to_vec();
        let (n_images, about) = (images.value(row) as usize, format!("{about}: {turns:?}"));
        // The row before it was shifted; of a last token without loss only the place is known.
        let last = labels.last().map_or(0, |label| u32::try_from(*label).unwrap_or(0));
        let ids = [input_ids.as_slice(), &[last]].concat();
        let train: Vec<bool> = [false].into_iter().chain(labels.iter().map(|label| *label >= 0)).collect();
        check(processor, &turns, n_images, &ids, &train, &about);
        if batch.column_by_name("pixels").is_some() {
            let (images, pixels) = (lists("images").value(row), lists("pixels").value(row));
            assert_eq!((images.len(), pixels.len()), (n_images, n_images), "{about}");
            for image in 0..n_images {
                let prepared = processor.image.prepare(images.as_binary::<i32>().value(image)).unwrap();
                assert!(prepared == pixels.as_binary_view().value(image), "{about}");
            }
        }
    })
    .count()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}
