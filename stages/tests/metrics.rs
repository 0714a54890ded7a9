//! The caption measures against pycocoevalcap and jieba; the values and their script stand in `metrics/`.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use llavm_stages::metrics::Caption;
use llavm_stages::metrics::bleu::{BleuCounts, bleu};
use llavm_stages::metrics::cider::cider_d;
use llavm_stages::metrics::rouge::rouge_l;
use llavm_stages::metrics::words::{Tokenisation, Words};
use serde_json::Value;

/// Differences that rounding in another order may leave.
const BOUND: f64 = 1e-9;

fn fixture() -> Value {
    serde_json::from_str(include_str!("metrics/captions.json")).unwrap()
}

fn split(words: &Value) -> Vec<String> {
    words.as_str().unwrap().split_whitespace().map(str::to_owned).collect()
}

fn captions(set: &Value) -> Vec<Caption> {
    let row = |row: &Value| Caption {
        candidate: split(&row["candidate_words"]),
        references: row["reference_words"].as_array().unwrap().iter().map(split).collect(),
    };
    set["rows"].as_array().unwrap().iter().map(row).collect()
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn same(ours: &[f64], theirs: &[f64], what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (n, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() < BOUND, "{what} {n}: {a} {b}");
    }
}

#[test]
fn scores_equal_pycocoevalcap() {
    let fixture = fixture();
    for name in ["english", "chinese", "characters", "five_english", "five_chinese", "one_row"] {
        let (set, rows) = (&fixture[name], captions(&fixture[name]));
        let counts: Vec<BleuCounts> = rows.iter().map(BleuCounts::of).collect();
        same(&bleu(&counts, &vec![1.0; rows.len()]), &numbers(&set["bleu"]), "bleu");
        let rouge: Vec<f64> = rows.iter().map(rouge_l).collect();
        same(&rouge, &numbers(&set["rouge_l_rows"]), "rouge");
        same(
            &[rouge.iter().sum::<f64>() / rows.len() as f64],
            &numbers(&serde_json::json!([set["rouge_l"]])),
            "rouge",
        );
        let cider = cider_d(&rows);
        same(&cider, &numbers(&set["cider_d_rows"]), "cider");
        same(
            &[cider.iter().sum::<f64>() / rows.len() as f64],
            &numbers(&serde_json::json!([set["cider_d"]])),
            "cider",
        );
    }
}

/// Every text of the set with its words by the original.
fn texts(set: &Value) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    for row in set["rows"].as_array().unwrap() {
        texts.push((text(&row["candidate"]), text(&row["candidate_words"])));
        let references = row["references"].as_array().unwrap().iter();
        texts.extend(
            references.zip(row["reference_words"].as_array().unwrap()).map(|(a, b)| (text(a), text(b))),
        );
    }
    texts
}

#[test]
fn english_words_equal_stanfords() {
    let fixture = fixture();
    let probes = fixture["probes"].as_array().unwrap().iter();
    let probes = probes.map(|probe| {
        (probe["text"].as_str().unwrap().to_owned(), probe["words"].as_str().unwrap().to_owned())
    });
    for (text, expected) in probes.chain(texts(&fixture["english"])).chain(texts(&fixture["five_english"])) {
        assert_eq!(Words::new().of(&text, Tokenisation::Ptb).join(" "), expected, "{text}");
    }
}

#[test]
fn chinese_words_equal_jiebas() {
    let mut words = Words::new();
    let fixture = fixture();
    for (text, expected) in texts(&fixture["chinese"]).into_iter().chain(texts(&fixture["five_chinese"])) {
        assert_eq!(words.of(&text, Tokenisation::Jieba).join(" "), expected, "{text}");
    }
    for (text, expected) in texts(&fixture["characters"]) {
        assert_eq!(words.of(&text, Tokenisation::Characters).join(" "), expected, "{text}");
    }
}
