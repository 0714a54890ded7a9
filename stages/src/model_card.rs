//! `README.md` of an exported folder: what the model was made of, how, and how good it is, as the hub shows it.
//!
//! In: the model folder (`model.toml`, `training.json` and those of `history/`, `origin.json`: see `train`), and the folders of
//! evaluations and benchmarks. Out: a Markdown card with data, recipe, scores and the hash of every input. What the folder does not
//! say is not made up: a section says what is missing.

use llavm_model::folder::{Description, ModelFolder};
use llavm_model::hub::HUB;
use llavm_pipeline::StageError;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// The card's file.
pub const CARD: &str = "README.md";
/// What a model was made of, in its folder.
pub const ORIGIN: &str = "origin.json";

/// Numbers of an evaluation that lead: key, name, whether it is a share.
const MEASURES: [(&str, &str, bool); 7] = [
    ("exact_match", "exact match", true),
    ("token_accuracy", "token accuracy", true),
    ("loss", "loss, nats per answer token", false),
    ("bleu_4", "BLEU-4", false),
    ("rouge_l", "ROUGE-L", false),
    ("cider_d", "CIDEr-D", false),
    ("perplexity", "perplexity", false),
];

/// How an exported folder is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Loaded {
    /// What the folder holds, in a few words.
    pub what: &'static str,
    /// The library, as the hub names it.
    pub library: &'static str,
    /// Lines of Python.
    pub python: &'static str,
}

/// Writes the card of the model in `model` into the folder `to`. `reports`: folders of evaluations of this model, with their names.
pub fn write(
    model: &ModelFolder,
    loaded: Loaded,
    reports: &[(String, PathBuf)],
    to: &Path,
) -> Result<(), StageError> {
    let origin = read(&model.path.join(ORIGIN))?;
    let trainings = trainings(&model.path)?;
    let mut text = head(&model.description, loaded, &origin);
    use_of(&mut text, loaded);
    recipe(&mut text, &trainings);
    scores(&mut text, reports)?;
    data(&mut text, &origin);
    inputs(&mut text, &model.description, &origin);
    let path = to.join(CARD);
    fs::write(&path, text).map_err(|cause| StageError::io(&path, cause))
}

/// A JSON file; null when it is not there.
fn read(path: &Path) -> Result<Value, StageError> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|error| StageError::new(format!("{}: {error}", path.display()))),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(cause) => Err(StageError::io(path, cause)),
    }
}

/// `training.json` of all trainings that made a model, the oldest first.
fn trainings(model: &Path) -> Result<Vec<Value>, StageError> {
    let history = model.join("history");
    let mut folders = Vec::new();
    if history.is_dir() {
        for entry in fs::read_dir(&history).map_err(|cause| StageError::io(&history, cause))? {
            folders.push(entry.map_err(|cause| StageError::io(&history, cause))?.path());
        }
    }
    folders.sort();
    folders.push(model.to_owned());
    let all: Vec<Value> =
        folders.iter().map(|folder| read(&folder.join("training.json"))).collect::<Result<_, _>>()?;
    Ok(all.into_iter().filter(|training| !training.is_null()).collect())
}

fn head(description: &Description, loaded: Loaded, origin: &Value) -> String {
    let mut text = format!("---\nlibrary_name: {}\npipeline_tag: image-text-to-text\n", loaded.library);
    let towers = [&description.qwen, &description.clip].into_iter();
    let hub: Vec<&str> = towers.filter_map(|name| name.strip_prefix(HUB)).collect();
    if !hub.is_empty() {
        let names: String =
            hub.iter().map(|name| format!("- {}\n", name.split('@').next().unwrap_or(name))).collect();
        let _ = write!(text, "base_model:\n{names}");
    }
    let name = origin["origin"]["name"].as_str().unwrap_or("A vision-language model");
    let trained =
        if description.trained.is_empty() { "nothing".to_owned() } else { description.trained.join(", ") };
    let _ = write!(
        text,
        "tags:\n- llavm\n---\n\n# {}\n\nA vision-language model of the LLaVA kind: a CLIP vision tower, a projector of two layers and Qwen3. \
         Trained parts: {trained}. This folder is {}; LLaVM wrote it and this card.\n",
        plain(name),
        loaded.what,
    );
    text
}

fn use_of(text: &mut String, loaded: Loaded) {
    let _ = write!(text, "\n## Use\n\n```python\n{}\n```\n", loaded.python.trim());
}

fn recipe(text: &mut String, trainings: &[Value]) {
    text.push_str("\n## Recipe\n");
    if trainings.is_empty() {
        text.push_str("\nThe model folder does not say how it was trained.\n");
    }
    for training in trainings {
        let stage = training["stage"].as_str().unwrap_or("training");
        let _ = write!(text, "\n### {}\n\n| setting | value |\n|---|---|\n", plain(stage));
        for (name, value) in training.as_object().into_iter().flatten() {
            match value {
                Value::Object(inner) => inner.iter().for_each(|(name, value)| row(text, name, value)),
                value => row(text, name, value),
            }
        }
    }
}

fn row(text: &mut String, name: &str, value: &Value) {
    let _ = writeln!(text, "| {} | {} |", plain(name), cell(value));
}

fn scores(text: &mut String, reports: &[(String, PathBuf)]) -> Result<(), StageError> {
    text.push_str("\n## Scores\n");
    if reports.is_empty() {
        text.push_str("\nNone were given when this folder was written.\n");
    }
    for (name, folder) in reports {
        let report = read(&folder.join("report.json"))?;
        let _ = write!(
            text,
            "\n### {}\n\n| | value | 95% interval, over images |\n|---|---:|---|\n",
            plain(name)
        );
        match report["scores"].as_array() {
            Some(scores) => scores.iter().for_each(|score| benchmark(text, score)),
            None => evaluation(text, &report),
        }
        let rejected: u64 = report["rejected"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(_, count)| count.as_u64())
            .sum();
        let questions = report["questions"].as_u64().or_else(|| report["rows"].as_u64()).unwrap_or(0);
        let _ = write!(text, "\n{questions} questions; {rejected} rows left out.\n");
    }
    Ok(())
}

fn benchmark(text: &mut String, score: &Value) {
    let rule = format!("{}, rule {}", cell(&score["benchmark"]), cell(&score["rule"]));
    for number in score["numbers"].as_array().into_iter().flatten() {
        let Some(value) = number["value"].as_f64() else { continue };
        let _ = writeln!(
            text,
            "| {rule}: {} | {} | {} |",
            cell(&number["name"]),
            figure(value),
            interval(&number["ci"], figure)
        );
    }
}

fn evaluation(text: &mut String, report: &Value) {
    for (key, name, share) in MEASURES {
        let Some(value) = report[key].as_f64() else { continue };
        let shown = |value: f64| if share { format!("{:.1} %", 100.0 * value) } else { figure(value) };
        let ci = interval(&report[format!("{key}_ci")], shown);
        let _ = writeln!(text, "| {name} | {} | {ci} |", shown(value));
    }
}

fn interval(ci: &Value, shown: impl Fn(f64) -> String) -> String {
    let ends = [&ci[0], &ci[1]].map(Value::as_f64);
    if let [Some(lo), Some(hi)] = ends { format!("{} … {}", shown(lo), shown(hi)) } else { String::new() }
}

fn figure(value: f64) -> String {
    if value.abs() < 100.0 { format!("{value:.4}") } else { format!("{value:.1}") }
}

fn data(text: &mut String, origin: &Value) {
    text.push_str("\n## Data\n");
    let Some(stages) = origin["origin"]["stages"].as_array() else {
        text.push_str("\nThe model folder does not say what it was trained on (`origin.json` is missing).\n");
        return;
    };
    text.push_str("\n| stage | kind | reads | rows | key | content (BLAKE3) |\n|---|---|---|---:|---|---|\n");
    for stage in stages {
        let from: Vec<String> = stage["from"].as_array().into_iter().flatten().map(cell).collect();
        let rows = stage["rows"].as_u64().filter(|rows| *rows > 0).map(|rows| rows.to_string());
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            cell(&stage["name"]),
            cell(&stage["kind"]),
            from.join(", "),
            rows.unwrap_or_default(),
            code(&stage["key"]),
            code(&stage["digest"]),
        );
    }
    let _ = write!(
        text,
        "\nSeed {}. The manifest:\n\n```toml\n{}\n```\n",
        cell(&origin["origin"]["seed"]),
        origin["origin"]["text"].as_str().unwrap_or_default().trim().replace("```", "'''")
    );
}

fn inputs(text: &mut String, description: &Description, origin: &Value) {
    text.push_str("\n## Inputs\n\nBLAKE3 of the content of everything that was read.\n\n| stage | input | hash |\n|---|---|---|\n");
    let mut all: BTreeMap<(String, String), String> = BTreeMap::new();
    for (stage, inputs) in origin["inputs"].as_object().into_iter().flatten() {
        for (name, digest) in inputs.as_object().into_iter().flatten() {
            all.insert((plain(stage), plain(name)), code(digest));
        }
    }
    for (tower, digest) in &description.digests {
        all.insert(("(model folder)".to_owned(), plain(tower)), format!("`{}`", plain(digest)));
    }
    for ((stage, name), digest) in all {
        let _ = writeln!(text, "| {stage} | {name} | {digest} |");
    }
}

/// A value in a table.
fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        Value::Null => String::new(),
        other => plain(&other.to_string()),
    }
}

fn code(value: &Value) -> String {
    value.as_str().map_or_else(String::new, |text| format!("`{}`", plain(text)))
}

/// Text that ends no cell, line or block.
fn plain(text: &str) -> String {
    let kept: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    kept.replace('|', "\\|").replace('`', "'").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_card_holds_data_recipe_scores_and_the_hash_of_every_input() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["model/history/00-align", "report", "pope", "out"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        let put = |name: &str, value: &Value| fs::write(path(name), value.to_string()).unwrap();
        let about = "qwen = \"hub:Qwen/Qwen3-0.6B@main\"\nclip = \"clip\"\ntrained = [\"projector\", \"lora\"]\n[digests]\nqwen = \"abc\"\n";
        fs::write(path("model/model.toml"), about).unwrap();
        put(
            "model/history/00-align/training.json",
            &json!({"stage": "align", "rows": 10, "arguments": {"learning_rate": 0.001}}),
        );
        put("model/training.json", &json!({"stage": "lora", "rows": 10}));
        put(
            "model/origin.json",
            &json!({
                "origin": {"name": "mine|2", "seed": 42, "text": "name = \"x\"", "stages": [{"name": "rows", "kind": "read", "from": [], "rows": 7, "key": null, "digest": "d1"}]},
                "inputs": {"rows": {"a.parquet": "d2"}},
            }),
        );
        put(
            "report/report.json",
            &json!({"rows": 5, "exact_match": 0.5, "exact_match_ci": [0.25, 0.75], "rejected": {"x": 2}}),
        );
        put(
            "pope/report.json",
            &json!({"questions": 9, "scores": [{"benchmark": "pope", "rule": "pope", "numbers": [{"name": "f1", "value": 0.5, "ci": null}]}]}),
        );
        let model = ModelFolder::open(&path("model").display().to_string()).unwrap();
        let loaded = Loaded { what: "the adapter", library: "peft", python: "load()" };
        let reports = [("report".to_owned(), path("report")), ("pope".to_owned(), path("pope"))];
        write(&model, loaded, &reports, &path("out")).unwrap();
        let card = fs::read_to_string(path("out/README.md")).unwrap();
        for part in [
            "library_name: peft\n",
            "- Qwen/Qwen3-0.6B\n",
            "# mine\\|2\n",
            "### align\n",
            "| learning_rate | 0.001 |",
            "### lora\n",
            "| exact match | 50.0 % | 25.0 % … 75.0 % |",
            "| pope, rule pope: f1 | 0.5000 |  |",
            "5 questions; 2 rows left out.",
            "| rows | read |  | 7 |  | `d1` |",
            "| rows | a.parquet | `d2` |",
            "| (model folder) | qwen | `abc` |",
            "```toml\nname = \"x\"\n```",
        ] {
            assert!(card.contains(part), "{part:?} in\n{card}");
        }
        // Without any of it, the card says so.
        for name in ["model/origin.json", "model/training.json", "model/history/00-align/training.json"] {
            fs::remove_file(path(name)).unwrap();
        }
        write(&model, loaded, &[], &path("out")).unwrap();
        let card = fs::read_to_string(path("out/README.md")).unwrap();
        for part in ["does not say how it was trained", "None were given", "`origin.json` is missing"] {
            assert!(card.contains(part), "{part:?} in\n{card}");
        }
    }
}
