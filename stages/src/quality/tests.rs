use super::Quality;
use crate::filter::tests::{encoded, rows, verdicts_of};
use arrow::array::RecordBatch;
use image::{ImageFormat, RgbImage};
use llavm_pipeline::stage::Parameters;
use serde_json::{Value, json};

fn stage(params: Value) -> Quality {
    serde_json::from_value(params).unwrap()
}

/// The verdict on each pair of question and answer.
fn on_texts(params: Value, pairs: &[(&str, &str)]) -> String {
    let texts: Vec<_> = pairs.iter().map(|(prompt, answer)| (Vec::new(), *prompt, *answer)).collect();
    shown(&verdicts_of(&stage(params), &[rows(&texts, &["messages"])]))
}

fn shown(verdicts: &[Option<String>]) -> String {
    let verdicts: Vec<_> = verdicts.iter().map(|verdict| verdict.as_deref().unwrap_or("fine")).collect();
    verdicts.join("\n")
}

#[test]
fn lengths_count_characters_of_each_answer() {
    let pairs = [("q", "猫"), ("q", "一只猫。"), ("q", "a long story about a cat")];
    insta::assert_snapshot!(on_texts(json!({"min_answer_chars": 2, "max_answer_chars": 20}), &pairs), @r"
    answer-too-short: 1 character(s), under 2: `猫`
    fine
    answer-too-long: 24 character(s), over 20: `a long story about a cat`
    ");
}

#[test]
fn addresses_and_tags_are_found_in_any_turn() {
    let pairs = [
        ("q", "see HTTPS://example.org/图"),
        ("read www.example.org?", "yes"),
        ("What is www.?", "http:// is a scheme"),
        ("<image>\nWho is it?", "<person> on a stage"),
        ("Is <image> ok?", "an <image> in the answer"),
        ("3 < 4 > 2?", "yes <3"),
        ("<br/>", "a line break"),
    ];
    insta::assert_snapshot!(on_texts(json!({"reject_urls": true, "reject_tags": true}), &pairs), @r"
    url: holds `HTTPS://example.org/图`
    url: holds `www.example.org?`
    fine
    tag: holds `<person>`
    tag: holds `<image>`
    fine
    tag: holds `<br/>`
    ");
}

#[test]
fn answers_in_another_language_are_left_out() {
    let pairs = [("What?", "一只猫。"), ("这是什么？", "a cat"), ("几个？", "3")];
    insta::assert_snapshot!(on_texts(json!({"languages": ["zh"]}), &pairs), @r"
    fine
    language: the answers are in en, not in zh: `a cat`
    fine
    ");
}

#[test]
fn an_answer_may_come_so_often_and_no_more_across_batches() {
    let batch = |answers: &[&str]| -> RecordBatch {
        let texts: Vec<_> = answers.iter().map(|answer| (Vec::new(), "q", *answer)).collect();
        rows(&texts, &["messages"])
    };
    let stage = stage(json!({"max_repeats": 2, "max_answer_chars": 5}));
    let verdicts =
        verdicts_of(&stage, &[batch(&["a", "b", "a ", "too long"]), batch(&["a", "b", "too long", "b"])]);
    insta::assert_snapshot!(shown(&verdicts), @r"
    fine
    fine
    fine
    answer-too-long: 8 character(s), over 5: `too long`
    repeated-answer: the same answer stands in 2 earlier rows, as many as max_repeats allows
    fine
    answer-too-long: 8 character(s), over 5: `too long`
    repeated-answer: the same answer stands in 2 earlier rows, as many as max_repeats allows
    ");
}

#[test]
fn small_and_narrow_images_are_left_out_and_text_only_rows_stay() {
    let image = |width, height| encoded(&RgbImage::new(width, height), ImageFormat::Png);
    let (fine, small, wide) = (image(100, 80), image(100, 31), image(200, 64));
    let images: [Vec<&[u8]>; 5] = [vec![&fine], vec![&fine, &small], vec![&wide], vec![], vec![b"no image"]];
    let batch = rows(&images.map(|images| (images, "q", "a")), &["images"]);
    let verdicts = verdicts_of(&stage(json!({"min_image_side": 32, "max_aspect_ratio": 3.0})), &[batch]);
    insta::assert_snapshot!(shown(&verdicts), @r"
    fine
    image-too-small: 100 x 31 pixels, a side under 32
    aspect-ratio: 200 x 64 pixels, over 3 to 1
    fine
    fine
    ");
}

#[test]
fn rules_that_let_nothing_or_everything_pass_are_reported() {
    let reported = |params| stage(params).check().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(reported(json!({})), ["min_answer_chars"]);
    assert_eq!(reported(json!({"min_answer_chars": 9, "max_answer_chars": 3})), ["max_answer_chars"]);
    assert_eq!(
        reported(json!({"max_aspect_ratio": 0.5, "max_repeats": 0})),
        ["max_aspect_ratio", "max_repeats"]
    );
}
