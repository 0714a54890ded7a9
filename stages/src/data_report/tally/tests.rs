//! Rows of every sort, counted; and the page of hostile ones.

use super::*;
use crate::data_report::page::render;
use crate::row::{images_type, message_fields};
use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Builder, ListBuilder, StringBuilder, StructBuilder, UInt32Builder,
};
use std::sync::Arc;

/// One row.
#[derive(Default)]
struct Sample<'a> {
    question: &'a str,
    answer: &'a str,
    images: &'a [&'a [u8]],
    language: Option<&'a str>,
    reject: Option<&'a str>,
}

fn batch(rows: &[Sample<'_>]) -> RecordBatch {
    let fields = message_fields();
    let mut images = ListBuilder::new(BinaryBuilder::new());
    let mut messages = ListBuilder::new(StructBuilder::from_fields(fields, 2));
    let (mut ids, mut labels) =
        (ListBuilder::new(UInt32Builder::new()), ListBuilder::new(Int32Builder::new()));
    for row in rows {
        row.images.iter().for_each(|image| images.values().append_value(image));
        images.append(true);
        for (role, content) in [("user", row.question), ("assistant", row.answer)] {
            let turn = messages.values();
            turn.field_builder::<StringBuilder>(0).unwrap().append_value(role);
            turn.field_builder::<StringBuilder>(1).unwrap().append_value(content);
            (2..message_fields().len())
                .for_each(|n| turn.field_builder::<StringBuilder>(n).unwrap().append_null());
            turn.append(true);
        }
        messages.append(true);
        let count = row.answer.len() as i32;
        (0..count + 2).for_each(|id| ids.values().append_value(id as u32));
        ids.append(row.reject.is_none());
        [-100, -100].into_iter().chain(0..count).for_each(|label| labels.values().append_value(label));
        labels.append(row.reject.is_none());
    }
    let texts = |of: &dyn Fn(usize, &Sample<'_>) -> Option<String>| -> ArrayRef {
        Arc::new(rows.iter().enumerate().map(|(n, row)| of(n, row)).collect::<StringArray>())
    };
    let images = images.finish();
    assert_eq!(*images.data_type(), images_type());
    RecordBatch::try_from_iter([
        ("id", texts(&|n, _| Some(format!("row-{n}")))),
        ("images", Arc::new(images) as ArrayRef),
        ("messages", Arc::new(messages.finish())),
        ("language", texts(&|_, row| row.language.map(str::to_owned))),
        ("input_ids", Arc::new(ids.finish())),
        ("labels", Arc::new(labels.finish())),
        ("reject", texts(&|_, row| row.reject.map(str::to_owned))),
    ])
    .unwrap()
}

fn photo(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../data/photos/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn rows_are_counted_as_they_are() {
    let (cat, rocket) = (photo("chelsea.jpg"), photo("rocket.jpg"));
    let rows = [
        Sample {
            question: "What?",
            answer: "A cat.",
            images: &[&cat],
            language: Some("en"),
            ..Sample::default()
        },
        Sample {
            question: "是什么？",
            answer: "猫。",
            images: &[&cat],
            language: Some("zh"),
            ..Sample::default()
        },
        Sample { question: "And this?", answer: "A cat.", images: &[&rocket, &cat], ..Sample::default() },
        Sample { question: "Hello", answer: "Hi", ..Sample::default() },
        Sample {
            images: &[b"<html>"],
            reject: Some("decode-resize/undecodable: begins with `<html>`"),
            ..Sample::default()
        },
    ];
    let mut tally = Tally::new(2);
    tally.add(&batch(&rows)).unwrap();
    assert_eq!((tally.rows, tally.rejected, tally.text_only, tally.images_per_row.sum()), (5, 1, 1, 4));
    assert_eq!(tally.images.values().copied().collect::<std::collections::BTreeSet<_>>(), [1, 3].into());
    assert_eq!(tally.languages["zh"], Share { rows: 1, rejected: 0 });
    assert_eq!(tally.answer_chars.quantile(0.0), 2, "characters, not bytes");
    assert_eq!((tally.tokens.sum(), tally.trained.sum()), (8 + 8 + 8 + 4, 6 + 6 + 6 + 2));
    assert_eq!(tally.repeated_images.len(), 1);
    assert_eq!(tally.samples.len(), 2);
    let reason = &tally.reasons["decode-resize/undecodable"];
    assert_eq!((reason.rows, reason.examples[0].unseen), (1, 1));
    let report = tally.report("cc3m", "shards", "shard", None);
    let answers: Vec<_> =
        report.answers.lines.iter().map(|line| (line.rows.as_str(), line.text.as_str())).collect();
    assert_eq!(answers, [("2", "A cat.")]);
    let facts: Vec<String> =
        report.facts.iter().map(|fact| format!("{} {} {}", fact.name, fact.value, fact.remark)).collect();
    insta::assert_snapshot!(facts.join("\n"), @"
    rows 5 
    usable rows 4 80.0%
    rejected rows 1 20.0%
    images 4 2 different
    text-only rows 1 25.0%
    questions 4 1.00 a row
    tokens 28 7.0 a row
    tokens trained on 20 71.4%
    ");
    let shares: Vec<String> =
        report.shares[1].lines.iter().map(|line| format!("{} {}", line.name, line.percent)).collect();
    insta::assert_snapshot!(shares.join("\n"), @"
    en, detected 40.0%
    en 20.0%
    unknown, without letters 20.0%
    zh 20.0%
    ");
}

#[test]
fn short_captions_have_a_language() {
    let languages = |answer: &str| {
        let mut tally = Tally::new(0);
        tally.add(&batch(&[Sample { question: "图中有什么？", answer, ..Sample::default() }])).unwrap();
        tally.languages.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(languages("猫。"), ["zh, detected"]);
    assert_eq!(languages("a cat"), ["en, detected"], "the answers decide, not the questions");
    assert_eq!(languages("42"), ["zh, detected"], "unless the answers hold no letter");
}

#[test]
fn batches_make_no_difference() {
    let photo = photo("rocket.jpg");
    let answers: Vec<String> = (0..40).map(|n| format!("answer {}", n % 7)).collect();
    let images = [photo.as_slice()];
    let rows: Vec<Sample<'_>> =
        answers.iter().map(|answer| Sample { answer, images: &images, ..Sample::default() }).collect();
    let whole = batch(&rows);
    let page = |size: usize| {
        let mut tally = Tally::new(5);
        for start in (0..40).step_by(size) {
            tally.add(&whole.slice(start, size.min(40 - start))).unwrap();
        }
        render(&tally.report("m", "s", "k", None)).unwrap()
    };
    let pages = [page(40), page(7), page(1)];
    assert!(pages[0] == pages[1] && pages[1] == pages[2]);
}

#[test]
fn nothing_of_the_data_becomes_markup() {
    let evil = "\"><script>alert('x')</script>&\0 {{ 1 }}";
    let reason = format!("{evil}: {evil}");
    let rows = [
        Sample { question: evil, answer: evil, language: Some(evil), ..Sample::default() },
        Sample { question: evil, answer: evil, reject: Some(&reason), ..Sample::default() },
        Sample { question: evil, answer: evil, ..Sample::default() },
    ];
    let mut tally = Tally::new(3);
    tally.add(&batch(&rows)).unwrap();
    let page = render(&tally.report(evil, evil, evil, Some(3))).unwrap();
    assert!(!page.contains("<script") && !page.contains('\0'), "{page}");
    assert!(page.contains("&lt;script&gt;") && page.contains("{{ 1 }}"), "{page}");
}

#[test]
fn a_table_without_rows_makes_a_page() {
    let page = render(&Tally::new(3).report("m", "s", "k", None)).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("<p>None.</p>"), "{page}");
}
