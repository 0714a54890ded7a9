//! What `shapes` promises: rows that depend on the parameters alone, and answers that the pixels bear out.

use super::questions::Turn;
use super::source::{Row, ShapesSource};
use super::words::{COLOURS, Language};
use super::{Kind, Shapes, paint};
use arrow::array::RecordBatch;
use insta::assert_snapshot;
use llavm_pipeline::stage::{Parameters, Source};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const ALL: [&str; 8] = ["id", "images", "n_images", "messages", "language", "source", "kind", "scene"];

fn stage(mut params: Value) -> Shapes {
    params.as_object_mut().unwrap().entry("rows").or_insert(json!(400));
    serde_json::from_value(params).unwrap()
}

fn source(extra: Value) -> ShapesSource {
    ShapesSource::new(stage(extra), 42, 128)
}

fn all_rows(source: &ShapesSource, rows: u64) -> Vec<Row> {
    (0..rows).map(|row| source.row(row)).collect()
}

fn bytes(source: &ShapesSource, partition: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for batch in source.batches(partition, &ALL).unwrap() {
        let batch: RecordBatch = batch.unwrap();
        let mut writer = arrow::ipc::writer::FileWriter::try_new(&mut bytes, &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
    }
    bytes
}

#[test]
fn eight_threads_draw_the_same_bytes_as_one() {
    let source = source(json!({}));
    let with = |threads: usize| -> Vec<Vec<u8>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| (0..source.partitions().len()).into_par_iter().map(|n| bytes(&source, n)).collect())
    };
    let one = with(1);
    assert_eq!(one.len(), 4);
    assert!(one == with(8));
}

#[test]
fn a_row_does_not_depend_on_how_many_there_are() {
    let (few, many) = (source(json!({"rows": 10})), source(json!({"rows": 5000})));
    for row in 0..10 {
        assert_eq!((few.row(row).scene, few.row(row).turns), (many.row(row).scene, many.row(row).turns));
    }
}

#[test]
fn a_digest_changes_with_what_the_columns_depend_on_only() {
    let digest = |extra: Value, column: &str| source(extra).digest(0, &[column]).unwrap();
    for (extra, changed) in [
        (json!({"size": 32}), ["images"].as_slice()),
        (json!({"turns": 1}), &["messages", "language", "kind"]),
        (json!({"objects": 1}), &ALL),
        (json!({"rows": 100}), &ALL),
        (json!({"rows": 500}), &[]),
    ] {
        for column in ALL {
            let differs = digest(json!({}), column) != digest(extra.clone(), column);
            assert_eq!(differs, changed.contains(&column), "{extra} {column}");
        }
    }
    let other_seed = ShapesSource::new(stage(json!({})), 43, 128);
    assert_ne!(digest(json!({}), "id"), other_seed.digest(0, &["id"]).unwrap());
}

#[test]
fn other_questions_leave_the_images_as_they_are() {
    let (some, others) = (source(json!({})), source(json!({"kinds": ["count"], "languages": ["zh"]})));
    for row in 0..50 {
        assert_eq!(some.row(row).scene, others.row(row).scene);
        assert!(others.row(row).turns.iter().all(|turn| turn.kind == Kind::Count));
    }
}

#[test]
fn the_questions_of_a_row_are_about_different_facts() {
    for row in all_rows(&source(json!({})), 400) {
        assert!((1..=4).contains(&row.turns.len()));
        let describes = row.turns.iter().any(|turn| turn.kind == Kind::Describe);
        assert!(!describes || row.turns.len() == 1);
        let asks = |kind| row.turns.iter().any(|turn| turn.kind == kind);
        assert!(!(asks(Kind::Place) && asks(Kind::Count)));
        let kinds: Vec<Kind> = row.turns.iter().map(|turn| turn.kind).collect();
        let open = kinds.iter().filter(|kind| **kind != Kind::YesNo);
        assert!(open.clone().all(|kind| open.clone().filter(|other| *other == kind).count() == 1));
    }
}

#[test]
fn yes_or_no_is_asked_about_what_is_wished_only() {
    let rows = all_rows(&source(json!({"yes_no": ["size", "count"], "languages": ["en"]})), 400);
    let asked = rows.iter().flat_map(|row| &row.turns).filter(|turn| turn.kind == Kind::YesNo);
    let (size, number): (Vec<&Turn>, Vec<&Turn>) = asked.partition(|turn| turn.question.contains("size"));
    assert!(!size.is_empty() && number.iter().all(|turn| turn.question.contains("number")));
}

/// The share of right answers when each question gets its most frequent answer, the image unseen.
#[test]
fn without_the_image_less_than_half_is_right() {
    let mut answers: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    let rows = all_rows(&source(json!({"rows": 20000})), 20000);
    for Turn { question, answer, .. } in rows.iter().flat_map(|row| &row.turns) {
        *answers.entry(question.clone()).or_default().entry(answer.clone()).or_default() += 1;
    }
    let best: usize = answers.values().filter_map(|of| of.values().max()).sum();
    let all: usize = answers.values().flat_map(BTreeMap::values).sum();
    let share = best as f64 / all as f64;
    assert!(share < 0.40, "{share}");
    for (question, of) in answers.iter().filter(|(question, _)| question.starts_with("Is the colour")) {
        let yes = of["yes"] as f64 / of.values().sum::<usize>() as f64;
        assert!((yes - 0.5).abs() < 0.12, "{question} {yes}");
    }
}

/// What the pixels of an image show, found without knowing the scene.
struct Seen {
    colour: usize,
    /// Of each shape: the pixels it covers.
    shapes: Vec<Vec<(usize, usize)>>,
}

fn saturation(pixel: &[u8]) -> u8 {
    pixel.iter().max().unwrap() - pixel.iter().min().unwrap()
}

fn look(png: &[u8]) -> Seen {
    let image = image::load_from_memory(png).unwrap().to_rgb8();
    let (width, height) = (image.width() as usize, image.height() as usize);
    let mut paint: BTreeMap<[u8; 3], usize> = BTreeMap::new();
    image
        .pixels()
        .filter(|pixel| saturation(&pixel.0) > 60)
        .for_each(|pixel| *paint.entry(pixel.0).or_default() += 1);
    let paint = *paint.iter().max_by_key(|(_, count)| **count).unwrap().0;
    let far =
        |a: [u8; 3], b: [u8; 3]| -> i32 { (0..3).map(|c| (i32::from(a[c]) - i32::from(b[c])).pow(2)).sum() };
    let colour = (0..COLOURS.len()).min_by_key(|index| far(COLOURS[*index].1, paint)).unwrap();
    let mut open: Vec<bool> = image.pixels().map(|pixel| far(pixel.0, paint) < 2500).collect();
    let mut shapes = Vec::new();
    while let Some(start) = open.iter().position(|open| *open) {
        let (mut shape, mut edge) = (Vec::new(), vec![start]);
        open[start] = false;
        while let Some(at) = edge.pop() {
            let (x, y) = (at % width, at / width);
            shape.push((x, y));
            let near = [(x.wrapping_sub(1), y), (x + 1, y), (x, y.wrapping_sub(1)), (x, y + 1)];
            for (x, y) in near.into_iter().filter(|(x, y)| *x < width && *y < height) {
                if std::mem::take(&mut open[y * width + x]) {
                    edge.push(y * width + x);
                }
            }
        }
        shapes.push(shape);
    }
    Seen { colour, shapes }
}

/// Left, top, width, height.
fn bounds(shape: &[(usize, usize)]) -> [usize; 4] {
    let range = |values: Vec<usize>| (*values.iter().min().unwrap(), *values.iter().max().unwrap());
    let (left, right) = range(shape.iter().map(|(x, _)| *x).collect());
    let (top, bottom) = range(shape.iter().map(|(_, y)| *y).collect());
    [left, top, right - left + 1, bottom - top + 1]
}

/// By how much of its bounding box a shape covers, and of the box's corners.
fn form(shape: &[(usize, usize)]) -> &'static str {
    let [left, top, width, height] = bounds(shape);
    let full = shape.len() as f64 / (width * height) as f64;
    let filled = |x: usize, y: usize| shape.contains(&(x, y));
    let low_corner = filled(left, top + height - 1) || filled(left + 1, top + height - 1);
    match (full > 0.93, full > 0.70, low_corner) {
        (true, ..) => "square",
        (false, true, _) => "circle",
        (false, false, true) => "triangle",
        (false, false, false) => "cross",
    }
}

#[test]
fn the_pixels_bear_out_every_answer() {
    let source = source(json!({"size": 192, "languages": ["en"]}));
    for row in all_rows(&source, 400) {
        let seen = look(&paint::png(&row.scene, 192).unwrap());
        let [left, top, width, height] = bounds(&seen.shapes[0]);
        let cell = (2 * left + width) / 128 + 3 * ((2 * top + height) / 128);
        let facts = [
            ("colour", COLOURS[seen.colour].0[0]),
            ("shape", form(&seen.shapes[0])),
            ("size", if width.max(height) > 44 { "large" } else { "small" }),
            ("number", ["one", "two", "three"][seen.shapes.len() - 1]),
            ("place", super::words::PLACES[cell][0]),
        ];
        for turn in &row.turns {
            assert_eq!(
                expected(turn, &facts, seen.shapes.len()),
                turn.answer,
                "{}: {}",
                row.scene.label(),
                turn.question
            );
        }
    }
}

/// The answer that the facts give.
fn expected(turn: &Turn, facts: &[(&str, &str); 5], count: usize) -> String {
    let [(_, colour), (_, shape), (_, size), (_, number), (_, place)] = facts;
    let fact = |name: &str| facts.iter().find(|(fact, _)| *fact == name).unwrap().1;
    match turn.kind {
        Kind::Colour => fact("colour").to_owned(),
        Kind::Shape => fact("shape").to_owned(),
        Kind::Size => fact("size").to_owned(),
        Kind::Place => fact("place").to_owned(),
        Kind::Count => fact("number").to_owned(),
        Kind::YesNo => {
            let words: Vec<&str> = turn.question.trim_end_matches('?').splitn(4, ' ').collect();
            let named = words[3].trim_start_matches("a ").trim_start_matches("the ");
            if fact(words[2]) == named { "yes" } else { "no" }.to_owned()
        }
        Kind::Describe if count == 1 => format!("a {size} {colour} {shape} at the {place}"),
        Kind::Describe => {
            format!("{number} {size} {colour} {shape}{}", if *shape == "cross" { "es" } else { "s" })
        }
    }
}

#[test]
fn both_languages_say_the_same() {
    let say = |languages: Value| all_rows(&source(json!({"languages": languages})), 200);
    for (en, zh) in say(json!(["en"])).iter().zip(say(json!(["zh"]))) {
        let kinds = |row: &Row| row.turns.iter().map(|turn| turn.kind).collect::<Vec<_>>();
        assert_eq!(kinds(en), kinds(&zh));
        for (en, zh) in en.turns.iter().zip(&zh.turns).filter(|(en, _)| en.kind == Kind::YesNo) {
            assert_eq!(en.answer == "yes", zh.answer == "是", "{} {}", en.question, zh.question);
        }
    }
    assert!(say(json!(["zh"])).iter().all(|row| row.language == Language::Zh));
}

#[test]
fn the_first_rows_are_these() {
    let line = |row: Row| {
        let turns: Vec<String> = row
            .turns
            .iter()
            .map(|turn| format!("{}: {} {}", turn.kind.name(), turn.question, turn.answer))
            .collect();
        format!("{} | {}", row.scene.label(), turns.join(" | "))
    };
    let source = source(json!({}));
    let rows: Vec<String> = all_rows(&source, 8).into_iter().map(line).collect();
    assert_snapshot!(rows.join("\n"), @r"
    small purple cross: left, bottom left | colour: 说出颜色。 紫色 | yes-no: 大小是小吗？ 是 | count: 说出数量。 两个 | yes-no: 形状是十字形吗？ 是
    large orange square: centre | yes-no: Is the shape a circle? no | yes-no: Is the place the top left? no | yes-no: Is the size small? no | yes-no: Is the colour orange? yes
    large blue square: top right, bottom left | yes-no: Is the size large? yes | colour: Name the colour. blue | shape: What shape is drawn? square | yes-no: Is the number two? yes
    small blue triangle: left | describe: What does the picture show? a small blue triangle at the left
    large red circle: right, left | size: 画得多大？ 大 | yes-no: 形状是十字形吗？ 不是 | count: 说出数量。 两个 | yes-no: 颜色是黄色吗？ 不是
    small red square: centre, top left, top | describe: 描述这张图片。 三个小的红色正方形
    large green triangle: top left, bottom, left | colour: 说出颜色。 绿色 | shape: 说出形状。 三角形 | count: 说出数量。 三个 | size: 说出大小。 大
    large red square: centre | describe: Describe the picture. a large red square at the centre
    ");
}

#[test]
fn wrong_parameters_are_reported_by_name() {
    for (extra, param) in [
        (json!({"rows": 0}), "rows"),
        (json!({"languages": []}), "languages"),
        (json!({"size": 8}), "size"),
        (json!({"turns": 0}), "turns"),
        (json!({"objects": 4}), "objects"),
        (json!({"kinds": []}), "kinds"),
        (json!({"kinds": ["place"]}), "kinds"),
        (json!({"kinds": ["count"], "objects": 1}), "kinds"),
        (json!({"kinds": ["yes-no"], "yes_no": ["place"]}), "kinds"),
        (json!({"kinds": ["yes-no"], "yes_no": []}), "kinds"),
    ] {
        let wrong = stage(extra.clone()).check();
        assert_eq!(wrong.iter().map(|(param, _)| *param).collect::<Vec<_>>(), [param], "{extra}");
    }
    assert!(stage(json!({})).check().is_empty());
}
