//! `report.html`: one file for people, with images and curves inside, that works offline, in light and dark, on a phone.
//!
//! `page.html` is the template (Jinja, everything escaped), `page.css` and `page.js` go into it as they are. The page
//! forbids requests of any kind, and scripts but its own.

mod curves;
pub(crate) mod gallery;
#[cfg(test)]
mod tests;

use super::session::MODEL;
use super::session::{Found, Session, read_json};
use crate::metrics::words::Tokenisation;
use arrow::array::RecordBatch;
use curves::Curve;
use gallery::Card;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::Origin;
use llavm_pipeline::units::thousands;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

const TEMPLATE: &str = include_str!("page.html");
/// Macros that every page may import as `parts.html`.
pub const PARTS: &str = include_str!("parts.html");
pub const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Below this exact match, answers are compared by other measures.
const FREE_TEXT: f64 = 0.05;

/// Everything the template names.
#[derive(Serialize)]
struct Page<'a> {
    css: &'a str,
    js: &'a str,
    nonce: String,
    /// The evaluation's own name.
    stage: String,
    origin: Origin,
    /// `report.json`.
    r: &'a Map<String, Value>,
    /// Answers are free text that never is the reference to the word: other numbers lead then.
    captions: bool,
    /// The measure of the slices, and the loss of the longest bar.
    measure: &'static str,
    worst: f64,
    /// Whether any column has slices.
    sliced: bool,
    /// Rows that were asked about.
    rows: usize,
    tiles: Vec<Tile>,
    looks: Verdict,
    listens: Verdict,
    words: String,
    curves: Vec<Curve>,
    cards: Vec<Card>,
    splits: Vec<Split>,
    trainings: Vec<Training>,
}

/// A number of its own.
#[derive(Serialize)]
struct Tile {
    name: &'static str,
    value: Value,
    interval: Value,
    /// Whether it is shown as per cent.
    share: bool,
    note: &'static str,
}

/// A short answer to a big question.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Verdict {
    class: &'static str,
    word: &'static str,
    text: &'static str,
}

impl Verdict {
    fn better(word: &'static str, text: &'static str) -> Self {
        Self { class: "better", word, text }
    }

    fn middling(word: &'static str, text: &'static str) -> Self {
        Self { class: "middling", word, text }
    }

    fn worse(word: &'static str, text: &'static str) -> Self {
        Self { class: "worse", word, text }
    }
}

/// A split of the token shards.
#[derive(Serialize)]
struct Split {
    name: &'static str,
    rows: u64,
    tokens: u64,
}

/// Parameters of a training stage.
#[derive(Serialize)]
struct Training {
    stage: String,
    settings: Vec<(String, String)>,
}

/// The page of an evaluation.
pub fn render(
    session: &Session<'_>,
    found: &Found,
    report: &Map<String, Value>,
) -> Result<String, StageError> {
    let origin = session.context.origin()?;
    let model = session.context.inputs().get(MODEL).cloned().unwrap_or_default();
    let stages = curves::stages(&session.folder, &model)?;
    let fetch = |group: usize, partition: usize, rows: &[usize]| -> Result<RecordBatch, StageError> {
        session.fetch(group, partition, rows)
    };
    let chosen = gallery::choose(&found.scores, &found.rows, session.params.gallery);
    let answers = (found.predictions.as_slice(), &found.scores);
    let cards = gallery::cards(&chosen, answers, (&session.rows, &found.rows), &fetch)?;
    let page = Page {
        css: STYLE,
        js: SCRIPT,
        nonce: blake3::hash(format!("{report:?}").as_bytes()).to_hex()[..32].to_owned(),
        stage: origin.stages.last().map(|stage| stage.name.clone()).unwrap_or_default(),
        origin,
        r: report,
        captions: captions(report),
        measure: if captions(report) { "rouge_l" } else { "exact_match" },
        worst: worst(report),
        sliced: sliced(report),
        rows: found.rows.iter().collect::<BTreeSet<_>>().len(),
        tiles: tiles(report),
        looks: looks(report),
        listens: listens(report),
        words: words(&found.scores.tokenisation),
        curves: curves::curves(&stages)?,
        cards,
        splits: splits(session)?,
        trainings: stages.iter().filter_map(training).collect(),
    };
    fill("report.html", TEMPLATE, &page)
}

/// The template `source`, filled in; it may import what is in `parts.html`.
pub fn fill(name: &'static str, source: &str, page: &impl Serialize) -> Result<String, StageError> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_filter("percent", |value: Option<f64>| figure(value, |x| format!("{:.1} %", 100.0 * x)));
    environment.add_filter("number", |value: Option<f64>| figure(value, number));
    environment.add_filter("signed", |value: Option<f64>| figure(value, signed));
    environment.add_filter("points", |value: Option<f64>| figure(value, |x| format!("{:+.1}", 100.0 * x)));
    environment.add_filter("change", |value: Option<f64>| figure(value, |x| format!("{x:+.3}")));
    environment.add_filter("chance", |value: Option<f64>| figure(value, chance));
    environment.add_filter("width", |value: Option<f64>| {
        (100.0 * value.unwrap_or(0.0).clamp(0.0, 1.0) * 10.0).round() / 10.0
    });
    environment.add_filter("count", |count: u64| thousands(count));
    environment.add_filter("short", |text: &str| text.chars().take(10).collect::<String>());
    let failed = |error: minijinja::Error| StageError::new(format!("{name}: {error:#}")).because(error);
    environment.add_template("parts.html", PARTS).map_err(failed)?;
    environment.add_template(name, source).map_err(failed)?;
    environment.get_template(name).and_then(|template| template.render(Serde(page))).map_err(failed)
}

/// A dash stands for a number that there is not.
fn figure(value: Option<f64>, text: impl Fn(f64) -> String) -> String {
    value.filter(|value| value.is_finite()).map_or("–".to_owned(), text)
}

/// A difference.
fn signed(value: f64) -> String {
    // Not "-0.00".
    let value = if value.abs() < 0.005 { 0.0 } else { value };
    format!("{value:+.2}")
}

/// A p value.
fn chance(value: f64) -> String {
    if value < 0.001 { "<0.001".to_owned() } else { format!("{value:.3}") }
}

/// Three digits or so.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size >= 0.001 => format!("{value:.3}"),
        size if size >= 1e-9 => format!("{value:.1e}"),
        _ => "0".to_owned(),
    }
}

/// The headline's lesser numbers that the report has.
fn tiles(report: &Map<String, Value>) -> Vec<Tile> {
    let tile = |(key, name, share, note): &(&str, &'static str, bool, &'static str)| {
        let interval = report.get(&format!("{key}_ci")).cloned().unwrap_or_default();
        let value = report.get(*key)?.clone();
        Some(Tile { name, value, interval, share: *share, note })
    };
    [
        ("loss", "loss", false, "nats per answer token, with the right answer so far given"),
        ("perplexity", "perplexity", false, "exp(loss)"),
        ("token_accuracy", "token accuracy", true, "share of answer tokens that were the likeliest"),
        ("bleu_1", "BLEU-1", false, "of the corpus, closest reference length"),
        ("bleu_4", "BLEU-4", false, "of the corpus, closest reference length"),
        ("rouge_l", "ROUGE-L", false, "mean, beta 1.2"),
        ("cider_d", "CIDEr-D", false, "mean, from 0 to 10, document frequencies of these references"),
    ]
    .iter()
    .filter_map(tile)
    .collect()
}

fn number_at(report: &Map<String, Value>, path: &[&str]) -> Option<f64> {
    let first = report.get(*path.first()?)?;
    path[1..].iter().try_fold(first, |value, key| value.get(key))?.as_f64()
}

/// Whether hardly any answer is the reference.
fn captions(report: &Map<String, Value>) -> bool {
    number_at(report, &["exact_match"]).is_none_or(|exact| exact < FREE_TEXT)
}

fn sliced(report: &Map<String, Value>) -> bool {
    let columns = report.get("slices").and_then(Value::as_object);
    columns
        .into_iter()
        .flatten()
        .any(|(_, values)| values.as_object().is_some_and(|values| !values.is_empty()))
}

/// The larger of the losses with right and swapped images.
fn worst(report: &Map<String, Value>) -> f64 {
    let losses = [number_at(report, &["loss"]), number_at(report, &["image_swap", "loss"])];
    losses.into_iter().flatten().fold(f64::MIN_POSITIVE, f64::max)
}

/// Does it look? By the drop in exact match, or, of free text, by the rise in loss.
fn looks(report: &Map<String, Value>) -> Verdict {
    let low = |key: &str| report.get("image_swap")?.get(key)?.get(0)?.as_f64();
    let likelier = low("loss_increase_ci").is_some_and(|low| low > 0.0);
    let exact = number_at(report, &["exact_match"]).unwrap_or(0.0);
    let swapped = number_at(report, &["image_swap", "exact_match"]).unwrap_or(0.0);
    if captions(report) && likelier {
        return Verdict::better("Yes.", "Right answers are likelier about the right image.");
    }
    if exact >= FREE_TEXT && swapped <= 0.5 * exact {
        return Verdict::better("Yes.", "Most of its right answers need the right image.");
    }
    if low("exact_match_drop_ci").is_some_and(|low| low > 0.0) {
        return Verdict::middling(
            "A little.",
            "The right image helps, but many answers stay the same without it.",
        );
    }
    if likelier {
        return Verdict::middling(
            "Hardly.",
            "The right image makes right answers likelier, but not what it says.",
        );
    }
    Verdict::worse("No.", "It answers as well about any other image.")
}

/// Does it listen? By how often the answer changes with the question, and is right then.
fn listens(report: &Map<String, Value>) -> Verdict {
    let changed = number_at(report, &["question_swap", "changed"]).unwrap_or(0.0);
    let right = number_at(report, &["question_swap", "exact_match"]).unwrap_or(0.0);
    if changed >= 0.9 && right >= 0.5 {
        return Verdict::better("Yes.", "Another question gets another answer, and most of them are right.");
    }
    if changed >= 0.9 {
        return Verdict::middling("It does answer otherwise.", "Whether rightly is another matter.");
    }
    if changed >= 0.5 {
        return Verdict::middling("Often.", "Some questions get the answer of another.");
    }
    Verdict::worse("Hardly.", "It says the same whatever it is asked.")
}

/// How texts were split into words.
fn words(tokenisation: &[Tokenisation]) -> String {
    let has = |how| tokenisation.contains(&how);
    match (has(Tokenisation::Ptb), has(Tokenisation::Jieba)) {
        (true, true) => "Penn Treebank, and jieba where the reference is Chinese.",
        (_, true) => "jieba (Chinese).",
        _ => "Penn Treebank, lower case, no punctuation.",
    }
    .to_owned()
}

/// Rows and tokens of the shards.
fn splits(session: &Session<'_>) -> Result<Vec<Split>, StageError> {
    let mut splits = ["train", "validation"].map(|name| Split { name, rows: 0, tokens: 0 });
    for unit in &session.units {
        let shards = read_json(&unit.join("shards.json"))?;
        for split in &mut splits {
            split.rows += shards[split.name]["rows"].as_u64().unwrap_or(0);
            split.tokens += shards[split.name]["tokens"].as_u64().unwrap_or(0);
        }
    }
    Ok(splits.into())
}

/// `training.json` as a list of names and values, one level of nesting spelled out.
fn training(stage: &curves::Stage) -> Option<Training> {
    let settings = stage.settings.as_object()?;
    let mut list = Vec::new();
    for (name, value) in settings {
        match value {
            Value::Object(inner) => {
                list.extend(inner.iter().map(|(key, value)| (format!("{name}.{key}"), plain(value))));
            }
            value => list.push((name.clone(), plain(value))),
        }
    }
    Some(Training { stage: stage.name.clone(), settings: list })
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
