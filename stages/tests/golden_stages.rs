//! Every kind of stage on a small fixed input: what it gives is kept in `golden/stages.json` beside its `VERSION`.
//!
//! Results are stored under kind, version, parameters and input. So a kind that gives other bytes under the same version would
//! be mixed with what stores hold of it; here that fails. `LLAVM_GOLDEN=write cargo test --test golden_stages` writes the file
//! anew, but only entries whose version or input is another one.
//!
//! What holds floating-point numbers differs in the last bits from one CPU to another. Of such a kind (`encode-images`, `train`,
//! `evaluate`, `benchmark`, `export`) the digest covers everything else: names, texts, counts, shapes, answers. The numbers
//! are kept as figures (means of columns, tensors and features) and compared within [`CLOSE`].

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float16Type, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use common::root;
use llavm_pipeline::registry::Role;
use llavm_pipeline::{Engine, Manifest, Options, Silent};
use llavm_stages::registry;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// How far a figure may be from what is written down, as a part of it.
const CLOSE: f64 = 1e-3;

/// Tops of job folders that hold times and paths: no part of the content.
const EPHEMERAL: [&str; 6] =
    ["timing.json", "runs", "checkpoints", "towers.toml", "origin.json", "README.md"];

/// What the numbers of a report come from; it holds paths.
const ORIGIN: &str = "origin";

const MANIFEST: &str = r#"
name = "golden"
seed = 7
store = "$STORE"

[stages.drawn]
kind = "shapes"
rows = 6

[stages.rows]
kind = "read"
files = "$DATA/llava/chat.json"
conversation = "llava"
images = "$DATA/llava/images"
columns = { id = "id", image = "image", conversations = "conversations" }
partition_rows = 16
max_rejects = { fraction = 1.0 }

[stages.kept]
kind = "filter"
from = "rows"
where = "answer_chars >= 10"
dedup = "perceptual"

[stages.good]
kind = "quality"
from = "kept"
max_answer_chars = 60
max_aspect_ratio = 3.0
max_repeats = 1

[stages.clean]
kind = "clean-text"
from = "good"
normalize = "nfkc"
convert = "s2t"

[stages.pixels]
kind = "decode-resize"
from = "rows"
size = 48

[stages.features]
kind = "encode-images"
from = "pixels"
clip = "$DATA/shapes-model/clip"

[stages.chat]
kind = "chat-template"
from = "clean"
tokenizer = "$DATA/shapes-model/qwen3"
system = "You are a helpful assistant."

[stages.pads]
kind = "image-pads"
from = "chat"
count = 9

[stages.tokens]
kind = "tokenize"
from = "pads"
tokenizer = "$DATA/shapes-model/qwen3"

[stages.labels]
kind = "shift-labels"
from = "tokens"

[stages.shards]
kind = "shard"
from = ["labels", "pixels"]
validation = 0.3
keep = ["messages", "language", "source"]

[stages.model]
kind = "train"
from = "shards"
qwen = "$DATA/shapes-model/qwen3"
clip = "$DATA/shapes-model/clip"
trainable = ["projector", "lora"]
max_steps = 2
per_device_train_batch_size = 2
learning_rate = 1e-4

[stages.report]
kind = "evaluate"
from = ["model", "shards"]
generate = { max_new_tokens = 3, batch_size = 2 }
samples = 3
bootstrap = 0

[stages.pope]
kind = "benchmark"
from = "model"
name = "pope"
files = ["$DATA/benchmarks/pope.parquet"]
samples = 3
generate = { max_new_tokens = 3, batch_size = 2 }
bootstrap = 0

[stages.exported]
kind = "export"
from = "model"
format = "llava"
"#;

/// What a kind gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    version: u32,
    /// Digest of its parameters and, for everything it reads, of their entries.
    input: String,
    /// Of all that no CPU computes differently.
    digest: String,
    /// Means of what one may.
    figures: Vec<f64>,
}

/// Gathers what is exact and what is not.
#[derive(Default)]
struct Seen {
    exact: blake3::Hasher,
    figures: Vec<f64>,
}

impl Seen {
    fn text(&mut self, text: &str) {
        self.exact.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }

    /// Of those that are numbers; how many are none is exact.
    fn mean(&mut self, values: impl Iterator<Item = f64>) {
        let (mut sum, mut numbers, mut others) = (0.0, 0_u32, 0_u32);
        for value in values {
            if value.is_finite() {
                sum += value.abs();
                numbers += 1;
            } else {
                others += 1;
            }
        }
        self.text(&format!("{others} are no numbers"));
        self.figures.push(sum / f64::from(numbers.max(1)));
    }

    /// A stored table is exact, but for the encoder's; of the others the values are looked at.
    fn column(&mut self, name: &str, column: &ArrayRef) {
        self.text(&format!("{name} {:?} {}", column.data_type(), column.len()));
        if name == "features" {
            return self.features(column);
        }
        if column.data_type().is_floating() {
            let values = cast(column, &DataType::Float64).unwrap();
            let values = values.as_primitive::<Float64Type>().clone();
            self.text(&format!("{} nulls", values.null_count()));
            return self.mean(values.iter().flatten());
        }
        if format!("{:?}", column.data_type()).contains("Float") {
            return;
        }
        let options = FormatOptions::new().with_null("null");
        let cells = ArrayFormatter::try_new(column, &options).unwrap();
        for row in 0..column.len() {
            self.text(&cells.value(row).to_string());
        }
    }

    /// Lists of little-endian f16.
    fn features(&mut self, column: &ArrayRef) {
        type F16 = <Float16Type as ArrowPrimitiveType>::Native;
        for row in column.as_list::<i32>() {
            let Some(row) = row else { return self.text("null") };
            for states in row.as_binary_view().iter().flatten() {
                self.text(&states.len().to_string());
                self.mean(states.chunks_exact(2).map(|pair| F16::from_le_bytes([pair[0], pair[1]]).to_f64()));
            }
        }
    }

    fn batch(&mut self, batch: &RecordBatch) {
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            self.column(field.name(), column);
        }
    }

    /// A folder: its files by name.
    fn folder(&mut self, folder: &Path) {
        for path in files_below(folder) {
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            if EPHEMERAL.iter().any(|top| Path::new(&name).starts_with(top)) {
                continue;
            }
            self.text(&name);
            match path.extension().and_then(|end| end.to_str()) {
                Some("json") if !name.ends_with("tokenizer.json") => self.json(&path),
                Some("parquet") => self.parquet(&path),
                Some("safetensors") => self.safetensors(&path),
                Some("toml") => self.toml(&path),
                // A page draws the numbers of the reports beside it.
                Some("html") => {}
                _ => self.text(blake3::hash(&fs::read(&path).unwrap()).to_hex().as_str()),
            }
        }
    }

    fn json(&mut self, path: &Path) {
        let value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        self.value(&value);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Number(number) if number.is_f64() => self.figures.push(number.as_f64().unwrap()),
            Value::Array(items) => {
                self.text(&format!("{} items", items.len()));
                items.iter().for_each(|item| self.value(item));
            }
            Value::Object(fields) => {
                for (name, value) in fields.iter().filter(|(name, _)| *name != ORIGIN) {
                    self.text(name);
                    self.value(value);
                }
            }
            Value::String(text) if is_digest(text) || text.contains('/') => {}
            exact => self.text(&exact.to_string()),
        }
    }

    fn parquet(&mut self, path: &Path) {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
        reader.build().unwrap().for_each(|batch| self.batch(&batch.unwrap()));
    }

    /// Names and shapes; the mean of all numbers.
    fn safetensors(&mut self, path: &Path) {
        let bytes = fs::read(path).unwrap();
        let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
        let (header, body) = rest.split_at(u64::from_le_bytes(*length) as usize);
        self.value(&serde_json::from_slice(header).unwrap());
        let all_f32 = !String::from_utf8_lossy(header).contains("F16");
        if all_f32 {
            self.mean(
                body.chunks_exact(4).map(|four| f64::from(f32::from_le_bytes(four.try_into().unwrap()))),
            );
        }
    }

    /// Lines that hold neither digests, nor paths, nor fractions.
    fn toml(&mut self, path: &Path) {
        let text = fs::read_to_string(path).unwrap();
        for line in text.lines() {
            let value = line.rsplit_once('=').map_or("", |(_, value)| value).trim().trim_matches('"');
            if !is_digest(value) && !value.contains('/') {
                self.text(line);
            }
        }
    }

    fn entry(self, version: u32, input: String) -> Entry {
        Entry { version, input, digest: self.exact.finalize().to_hex().to_string(), figures: self.figures }
    }
}

fn is_digest(text: &str) -> bool {
    text.len() >= 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() { found.extend(files_below(&entry)) } else { found.push(entry) }
    }
    found.sort();
    found
}

/// Runs the manifest in a store of its own: what every kind gave.
fn run() -> BTreeMap<String, Entry> {
    let folder = tempfile::tempdir().unwrap();
    let text = MANIFEST
        .replace("$STORE", &folder.path().join("store").display().to_string())
        .replace("$DATA", &root("data").canonicalize().unwrap().display().to_string());
    let manifest = Manifest::read(text.as_bytes(), &folder.path().join("golden.toml"), &[], &registry());
    let graph = manifest.unwrap_or_else(|error| panic!("{error:?}")).graph;
    let engine = Engine::open(graph, Options { jobs: 2, ..Options::default() }).unwrap();
    let finished = engine.run(&Silent, &AtomicBool::new(false)).unwrap();
    assert!(finished.errors.is_empty(), "{:?}", finished.errors);
    let (mut entries, mut by_node) = (BTreeMap::new(), Vec::new());
    for node in &engine.graph().nodes {
        let before: Vec<&Entry> = node.tables().map(|input| &by_node[input]).collect();
        let before = serde_json::to_string(&before).unwrap() + &node.stage.params.to_string();
        let mut seen = Seen::default();
        match &node.stage.role {
            Role::Source(_) | Role::Map(_) => table(&engine, &node.name, &mut seen),
            Role::Gather(_) | Role::Job(_) => {
                engine.folders(&node.name).unwrap().iter().for_each(|folder| seen.folder(folder));
            }
        }
        let entry = seen.entry(node.stage.version, blake3::hash(before.as_bytes()).to_hex().to_string());
        // What figures it was made from does not make an input another one.
        by_node.push(Entry { figures: Vec::new(), ..entry.clone() });
        entries.insert(node.stage.kind.to_owned(), entry);
    }
    entries
}

/// The columns that a stage makes, with rejects; of a stored table also its files, which are named by their content.
fn table(engine: &Engine, name: &str, seen: &mut Seen) {
    let node = &engine.graph().nodes[engine.graph().find(name).unwrap()];
    let columns: Vec<String> =
        node.output().iter().flat_map(llavm_pipeline::Columns::names).map(str::to_owned).collect();
    // What follows from another column says nothing of its own.
    let columns = columns.iter().map(String::as_str).filter(|name| *name != "image_digests");
    let columns: Vec<&str> = columns.collect();
    let table = engine.table(name).unwrap();
    for partition in 0..table.partitions() {
        for batch in table.scan(partition, &columns).unwrap() {
            seen.batch(&batch.unwrap());
        }
    }
    let status = engine.status().unwrap();
    let stage = status.stages.iter().find(|stage| stage.name == name).unwrap();
    for file in stage.files.iter().filter(|_| stage.kind != "encode-images") {
        seen.text(file.file_name().unwrap().to_str().unwrap());
    }
}

fn place() -> PathBuf {
    root("stages/tests/golden/stages.json")
}

fn golden() -> BTreeMap<String, Entry> {
    let text = fs::read_to_string(place()).unwrap_or_else(|_| "{}".to_owned());
    serde_json::from_str(&text).unwrap()
}

/// Whether the same version gave the same for the same; an error in words.
fn compare(kind: &str, kept: &Entry, now: &Entry) -> Result<(), String> {
    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= CLOSE * a.abs().max(b.abs()) + 1e-6;
    if kept.digest != now.digest {
        return Err(format!("{kind} gives other bytes for the same input: raise its VERSION"));
    }
    if kept.figures.len() != now.figures.len() || !kept.figures.iter().zip(&now.figures).all(close) {
        return Err(format!(
            "{kind} gives other numbers for the same input: raise its VERSION\n{:?}\n{:?}",
            kept.figures, now.figures
        ));
    }
    Ok(())
}

/// Whether two entries are of the same version and input.
fn comparable(kept: &Entry, now: &Entry) -> bool {
    (kept.version, &kept.input) == (now.version, &now.input)
}

#[test]
fn every_kind_gives_what_its_version_says() {
    let (kept, now) = (golden(), run());
    let writes = std::env::var("LLAVM_GOLDEN").is_ok_and(|value| value == "write");
    let mut wrong = Vec::new();
    let registry = registry();
    // Those that no manifest names, because the engine puts them beside others, are among what was made.
    let kinds: BTreeSet<&str> =
        registry.kinds().iter().map(|kind| kind.name).chain(now.keys().map(String::as_str)).collect();
    for &kind in &kinds {
        let Some(now) = now.get(kind) else {
            wrong.push(format!("{kind} is not in the manifest of this test"));
            continue;
        };
        match kept.get(kind) {
            Some(kept) if comparable(kept, now) => wrong.extend(compare(kind, kept, now).err()),
            _ if writes => {}
            Some(_) => wrong.push(format!("{kind}: another version or input; write stages.json anew")),
            None => wrong.push(format!("{kind} has no entry; write stages.json anew")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    if writes {
        let same = |(kind, now): (&String, &Entry)| {
            let old = kept.get(kind).filter(|kept| comparable(kept, now));
            (kind.clone(), old.unwrap_or(now).clone())
        };
        let all: BTreeMap<String, Entry> = now.iter().map(same).collect();
        fs::write(place(), serde_json::to_string_pretty(&all).unwrap() + "\n").unwrap();
    }
    assert!(golden().keys().map(String::as_str).eq(kinds), "no entry of a kind that is gone");
}

#[test]
fn other_bytes_under_the_same_version_are_noticed() {
    let entry = |version, digest: &str, figure| Entry {
        version,
        input: "rows".to_owned(),
        digest: digest.to_owned(),
        figures: vec![figure],
    };
    let kept = entry(1, "a", 2.0);
    assert!(compare("x", &kept, &entry(1, "a", 2.000_1)).is_ok());
    assert!(compare("x", &kept, &entry(1, "b", 2.0)).unwrap_err().contains("raise its VERSION"));
    assert!(compare("x", &kept, &entry(1, "a", 2.1)).unwrap_err().contains("other numbers"));
    assert!(comparable(&kept, &entry(1, "b", 2.0)) && !comparable(&kept, &entry(2, "b", 2.0)));
}
