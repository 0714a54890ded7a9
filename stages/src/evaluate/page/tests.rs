//! The page of an evaluation that never happened: 24 images of coloured squares, three questions each.

use super::*;
use crate::evaluate::numbers::{Metric, Numbers};
use crate::evaluate::prediction::{ImageSwap, Prediction, QuestionSwap};
use crate::evaluate::scores::Scores;
use crate::metrics::resample::Resampler;
use llavm_pipeline::stage::OriginStage;
use serde_json::json;

const COLOURS: [(&str, &str, [u8; 3]); 4] = [
    ("red", "红色", [204, 51, 51]),
    ("green", "绿色", [51, 153, 85]),
    ("blue", "蓝色", [51, 85, 204]),
    ("yellow", "黄色", [221, 187, 51]),
];
const IMAGES: usize = 24;

/// Every seventh answer is wrong.
fn predictions() -> Vec<Prediction> {
    let row = |row: usize| {
        let ((en, zh, _), (other_en, other_zh, _)) = (COLOURS[row % 4], COLOURS[(row + 1) % 4]);
        let red = if en == "red" { "yes" } else { "no" };
        [
            ("What colour is the square?", en, other_en, "en", "colour"),
            ("正方形是什么颜色？", zh, other_zh, "zh", "colour"),
            ("Is there a red square?", red, if red == "yes" { "no" } else { "yes" }, "en", "yes-no"),
        ]
        .into_iter()
        .enumerate()
        .map(move |(turn, (question, reference, other, language, kind))| Prediction {
            id: format!("shapes-{row:05}"),
            turn: turn as u32,
            image: None,
            references: Vec::new(),
            question: question.to_owned(),
            reference: reference.to_owned(),
            answer: if (3 * row + turn) % 7 == 3 { other } else { reference }.to_owned(),
            loss: 0.1 + (row % 5) as f64 / 10.0,
            answer_tokens: 2,
            correct_tokens: if (3 * row + turn) % 7 == 3 { 1 } else { 2 },
            image_swap: Some(ImageSwap {
                id: format!("shapes-{:05}", (row + 1) % IMAGES),
                answer: if row.is_multiple_of(9) { reference } else { other }.to_owned(),
                loss: 2.5,
            }),
            question_swap: Some(QuestionSwap {
                question: if turn == 2 { "What colour is the square?" } else { "Is there a red square?" }
                    .to_owned(),
                reference: Some(if turn == 2 { en } else { red }.to_owned()),
                answer: if turn == 2 { en } else { red }.to_owned(),
            }),
            slices: vec![Some(language.to_owned()), Some(kind.to_owned())],
        })
        .collect::<Vec<_>>()
    };
    (0..IMAGES).flat_map(row).collect()
}

/// A square on a grey ground, 64 pixels a side.
fn image(row: usize) -> Vec<u8> {
    let (x, y) = (8 + 4 * (row % 7), 8 + 5 * (row % 5));
    let inside = |at: usize| (x..x + 22).contains(&(at % 64)) && (y..y + 22).contains(&(at / 64));
    let plane = |channel: usize| {
        (0..64 * 64).map(move |at| if inside(at) { COLOURS[row % 4].2[channel] } else { 214 })
    };
    (0..3).flat_map(plane).collect()
}

fn page_of(predictions: &[Prediction]) -> String {
    let scores = Scores::of(predictions);
    let rows: Vec<usize> = (0..predictions.len()).map(|at| at / 3).collect();
    let slices = ["language".to_owned(), "kind".to_owned()];
    let resampler = Resampler::new(rows.clone(), 200, 1);
    let numbers = Numbers {
        predictions,
        scores: &scores,
        slices: &slices,
        metrics: &Metric::DEFAULT,
        resampler: &resampler,
    };
    let mut report = numbers.fields();
    report.insert("images".to_owned(), json!(IMAGES));
    report.insert("split".to_owned(), json!("validation"));
    report.insert("seed".to_owned(), json!(42));
    report.insert("rejected".to_owned(), json!({"decode-resize/undecodable": 3}));
    let chosen = gallery::choose(&scores, &rows, 16);
    let cards =
        chosen.iter().map(|members| gallery::card(members, predictions, &scores, &image(rows[members[0]])));
    fill(
        "report.html",
        TEMPLATE,
        &Page {
            css: STYLE,
            js: SCRIPT,
            nonce: "0".to_owned(),
            stage: "report".to_owned(),
            origin: origin(),
            r: &report,
            captions: captions(&report),
            measure: "exact_match",
            worst: worst(&report),
            sliced: sliced(&report),
            rows: IMAGES,
            tiles: tiles(&report),
            looks: looks(&report),
            listens: listens(&report),
            words: words(&scores.tokenisation),
            curves: vec![curves::tests::example("align"), curves::tests::example("lora")],
            cards: cards.collect(),
            splits: vec![Split { name: "train", rows: 20_000, tokens: 1_234_567 }],
            trainings: vec![Training {
                stage: "align".to_owned(),
                settings: vec![("learning_rate".to_owned(), "0.0001".to_owned())],
            }],
        },
    )
    .unwrap()
}

fn origin() -> Origin {
    let stage = |name: &str, kind: &'static str, from: &[&str]| OriginStage {
        name: name.to_owned(),
        kind,
        version: 1,
        params: json!({}),
        from: from.iter().map(|&name| name.to_owned()).collect(),
        partitions: 1,
        rows: 24_000,
        key: Some("9f86d081884c7d659a2feaa0c55ad015".to_owned()),
        digest: Some("60303ae22b998861bce3b28f33eec1be".to_owned()),
    };
    Origin {
        name: "quickstart".to_owned(),
        text: "name = \"quickstart\"\n[stages.scenes]\nkind = \"shapes\"\n".to_owned(),
        seed: 42,
        stages: vec![
            stage("scenes", "shapes", &[]),
            stage("pixels", "decode-resize", &["scenes"]),
            stage("shards", "shard", &["labels", "pixels"]),
            stage("align", "train", &["shards"]),
            stage("report", "evaluate", &["align", "shards"]),
        ],
    }
}

#[test]
fn a_page_asks_the_network_for_nothing() {
    let page = page_of(&predictions());
    for foreign in ["http://", "https://", "url(", "@import", "<link", "src=\"/", "fetch("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert_eq!(page.matches("data:image/png;base64,").count(), 16);
}

#[test]
fn what_the_data_says_is_text_and_nothing_else() {
    let mut predictions = predictions();
    predictions[0].answer = "<script>alert(1)</script><img src=x onerror=alert(1)>".to_owned();
    predictions[0].id = "\"><b>".to_owned();
    let page = page_of(&predictions);
    assert!(
        page.contains("&lt;script&gt;alert(1)")
            && !page.contains("<script>alert")
            && !page.contains("<img src=x")
    );
}

#[test]
fn every_part_of_the_page_is_there() {
    let page = page_of(&predictions());
    for part in [
        "72 questions about 24 images it has never seen",
        "Does it look?",
        "Does it listen?",
        "Where it is good",
        "Yes or no?",
        "How it was trained",
        "What it says",
        "What it was trained on",
        "undecodable",
        "kind = &quot;shapes&quot;",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn verdicts_follow_the_numbers() {
    let report = |exact: f64, swapped: f64, low: f64| json!({"exact_match": exact, "image_swap": {"exact_match": swapped, "exact_match_drop_ci": [low, 1.0]}});
    let word = |report: Value| looks(report.as_object().unwrap()).word;
    assert_eq!(word(report(0.9, 0.1, 0.7)), "Yes.");
    assert_eq!(word(report(0.9, 0.8, 0.05)), "A little.");
    assert_eq!(word(report(0.9, 0.9, -0.01)), "No.");
    let listening = |changed: f64, exact: f64| {
        let report = json!({"question_swap": {"changed": changed, "exact_match": exact}});
        listens(report.as_object().unwrap()).word
    };
    assert_eq!(listening(0.95, 0.9), "Yes.");
    assert_eq!(listening(0.1, 0.1), "Hardly.");
}

#[test]
fn numbers_have_three_digits_or_so() {
    assert_eq!(
        [1234.5, 12.34, 1.234, 0.1234, 0.000_012, 0.0].map(number),
        ["1234", "12.3", "1.23", "0.123", "1.2e-5", "0"]
    );
    assert_eq!([0.5, -0.001, 2.0].map(signed), ["+0.50", "+0.00", "+2.00"]);
    assert_eq!([0.0, 0.0009, 0.0625, 1.0].map(chance), ["<0.001", "<0.001", "0.062", "1.000"]);
    assert_eq!(figure(None, number), "–");
}
