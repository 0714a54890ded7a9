//! The number in the report is the number that a user sees: on held-out images of the quick start, `report`, `generate`,
//! `generate --jsonl` and `chat` give the same answers.
//!
//! `LLAVM_QUICKSTART=DIR`: ask the model of a finished quick start in DIR (its `.llavm`); without it, a short one is run here.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use arrow::array::{Array, AsArray};
use llavm_pipeline::{Engine, Manifest, Options};
use llavm_stages::evaluate::prediction::{self, Prediction};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const MANIFEST: &str = "manifests/quickstart.toml";

/// A folder with the quick start, run to its end.
struct Quickstart {
    folder: PathBuf,
    _scratch: Option<tempfile::TempDir>,
}

impl Quickstart {
    fn open() -> Self {
        if let Some(folder) = std::env::var_os("LLAVM_QUICKSTART") {
            return Self { folder: folder.into(), _scratch: None };
        }
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().to_owned();
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        copy(&here.join("data/shapes-model"), &folder.join("data/shapes-model"));
        let text = fs::read_to_string(here.join(MANIFEST)).unwrap();
        fs::create_dir(folder.join("manifests")).unwrap();
        fs::write(folder.join(MANIFEST), text.replace("rows   = 6000", "rows   = 400")).unwrap();
        let short = Self { folder, _scratch: Some(scratch) };
        let run = short.llavm(&["run", MANIFEST], "");
        assert!(String::from_utf8_lossy(&run.stdout).contains(&format!("llavm chat {MANIFEST}")));
        short
    }

    fn llavm(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llavm"));
        command.args(arguments).current_dir(&self.folder).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn predictions(&self) -> Vec<Prediction> {
        let latest = self.folder.join(".llavm/latest/quickstart/report");
        prediction::read(&latest.join("predictions.parquet")).unwrap().0
    }

    /// Writes the images of the rows that were asked; where each is.
    fn images(&self, predictions: &[Prediction]) -> BTreeMap<String, PathBuf> {
        let text = fs::read_to_string(self.folder.join(MANIFEST)).unwrap();
        let absolute = |line: &str| match line.split_once(" = ") {
            Some(("store", _)) => format!("store = \"{}\"\n", self.folder.join(".llavm").display()),
            Some(("model", _)) => {
                format!("model = \"{}\"\n", self.folder.join("data/shapes-model").display())
            }
            _ => format!("{line}\n"),
        };
        let text: String = text.lines().map(absolute).collect();
        let path = self.folder.join(MANIFEST);
        let manifest = Manifest::read(text.as_bytes(), &path, &[], &llavm_stages::registry()).unwrap();
        let engine = Engine::open(manifest.graph, Options::default()).unwrap();
        let folder = self.folder.join("asked");
        fs::create_dir_all(&folder).unwrap();
        let mut images = BTreeMap::new();
        let table = engine.table("rows").unwrap();
        for partition in 0..table.partitions() {
            for batch in table.scan(partition, &["id", "images"]).unwrap() {
                let batch = batch.unwrap();
                let ids = batch.column_by_name("id").unwrap().as_string::<i32>();
                let lists = batch.column_by_name("images").unwrap().as_list::<i32>();
                for row in
                    (0..ids.len()).filter(|row| predictions.iter().any(|asked| asked.id == ids.value(*row)))
                {
                    let file = folder.join(format!("{}.png", images.len()));
                    fs::write(&file, lists.value(row).as_binary::<i32>().value(0)).unwrap();
                    images.insert(ids.value(row).to_owned(), file);
                }
            }
        }
        images
    }
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

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn report_generate_jsonl_and_chat_give_the_same_answers() {
    let quickstart = Quickstart::open();
    let predictions = quickstart.predictions();
    let images = quickstart.images(&predictions);
    let line = |asked: &Prediction| json!({"image": images[&asked.id], "prompt": asked.question}).to_string();
    let lines: Vec<String> = predictions.iter().map(line).collect();
    let file = quickstart.folder.join("asked/questions.jsonl");
    fs::write(&file, lines.join("\n")).unwrap();

    let file = file.to_str().unwrap();
    let answered = quickstart.llavm(&["generate", MANIFEST, "--jsonl", file, "--json"], "");
    let answers: Vec<String> = stdout(&answered)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().trim().to_owned())
        .collect();
    let reported: Vec<&str> = predictions.iter().map(|asked| asked.answer.as_str()).collect();
    assert_eq!(answers, reported);
    let right =
        predictions.iter().zip(&answers).filter(|(asked, answer)| asked.reference == **answer).count();
    println!("{right} of {} answers are right, in the report and in generate", answers.len());

    for asked in predictions.iter().step_by(predictions.len().div_ceil(8)) {
        let image = images[&asked.id].to_str().unwrap();
        let one =
            quickstart.llavm(&["generate", MANIFEST, "--image", image, "--prompt", &asked.question], "");
        assert_eq!(stdout(&one).trim(), asked.answer, "{}", asked.question);
        let shown = quickstart.llavm(&["chat", MANIFEST, "--image", image], &format!("{}\n", asked.question));
        assert_eq!(stdout(&shown).trim(), asked.answer, "{}", asked.question);
        let script = format!("/image {image}\n{}\n", asked.question);
        let stage = format!("{MANIFEST}:lora");
        assert_eq!(stdout(&quickstart.llavm(&["chat", &stage], &script)).trim(), asked.answer);
    }
}
