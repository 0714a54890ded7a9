//! Images against Pillow: `pillow/make_pillow.py` writes an image in each mode and format, and the square that
//! `CLIPImageProcessor` on Pillow makes of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use arrow::array::{Array, AsArray, RecordBatch};
use common::{Table, images, root};
use llavm_model::processor::image::{Alpha, ImageProcessor, Orientation};
use llavm_pipeline::Rejects;
use llavm_pipeline::stage::MapStage;
use llavm_stages::decode_resize::DecodeResize;
use llavm_stages::image_lists::{ImageLists, Origin, OriginLists};
use serde_json::json;
use std::fs::read;
use std::path::Path;

/// Most and mean distance between two squares, in grey levels.
#[derive(Debug, Clone, Copy)]
struct Distance {
    max: u8,
    mean: f64,
}

fn distance(ours: &[u8], pillows: &[u8]) -> Distance {
    assert_eq!(ours.len(), pillows.len());
    let apart = ours.iter().zip(pillows).map(|(a, b)| a.abs_diff(*b));
    let total: u64 = apart.clone().map(u64::from).sum();
    Distance { max: apart.max().unwrap(), mean: total as f64 / ours.len() as f64 }
}

/// A fixture's square as Pillow has it, channels first.
fn square(name: &str) -> Vec<u8> {
    let pixels = image::open(root("stages/tests/pillow").join(format!("{name}.png"))).unwrap().to_rgb8();
    (0..3)
        .flat_map(|channel| pixels.pixels().map(move |pixel| pixel.0[channel]).collect::<Vec<_>>())
        .collect()
}

fn ours(name: &str) -> Vec<u8> {
    let encoded = read(root("stages/tests/pillow").join(name)).unwrap();
    ImageProcessor { alpha: Alpha::Drop, orientation: Orientation::Stored, ..ImageProcessor::default() }
        .prepare(&encoded)
        .unwrap()
}

fn names(keep: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = std::fs::read_dir(root("stages/tests/pillow")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names
        .filter_map(|name| name.strip_suffix(".png").map(str::to_owned))
        .filter(|name| {
            name.contains('.')
                && Path::new(name).extension().is_none_or(|extension| extension != "rgb")
                && keep(name)
        })
        .collect();
    names.sort();
    names
}

#[test]
fn every_mode_and_format_but_subsampled_inks_is_pillows_to_the_bit() {
    let names = names(|name| name != "subsampled-inks.jpg");
    assert_eq!(names.len(), 34);
    for name in &names {
        assert_eq!(distance(&ours(name), &square(name)).max, 0, "{name}");
    }
}

#[test]
fn subsampled_inks_are_close_to_pillow() {
    let apart = distance(&ours("subsampled-inks.jpg"), &square("subsampled-inks.jpg"));
    println!("{apart:?}");
    assert!(apart.max <= 3 && apart.mean < 0.3, "{apart:?}");
}

fn fixture(name: &str) -> Vec<u8> {
    read(root("stages/tests/pillow").join(name)).unwrap()
}

fn reason(image: Vec<u8>, params: serde_json::Value) -> String {
    images(&[vec![image]]).then::<DecodeResize>(params).rejects[0].clone().unwrap()
}

#[test]
fn what_is_no_whole_image_is_rejected_and_the_reason_reported() {
    let cut = |name: &str| {
        let bytes = fixture(name);
        bytes[..bytes.len() / 2].to_vec()
    };
    let mut flipped = fixture("rgb.png");
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let mut endless = fixture("jpeg-420.jpg");
    endless.truncate(endless.len() - 2);
    let reported = [
        Vec::new(),
        b"<!DOCTYPE html><title>404".to_vec(),
        vec![0xFF],
        cut("jpeg-420.jpg"),
        cut("jpeg-progressive.jpg"),
        endless,
        cut("rgb.png"),
        flipped,
        cut("frames.gif")[..40].to_vec(),
        cut("lossless.webp"),
        cut("rgb.bmp"),
    ]
    .map(|image| reason(image, json!({})))
    .join("\n");
    insta::assert_snapshot!(reported, @"
    decode-resize/undecodable: image 1: there are no bytes
    decode-resize/undecodable: image 1: no image: it is a web page (HTML), such as a login or an error page: download the file itself: the address may need a login, or its raw form
    decode-resize/undecodable: image 1: neither JPEG, PNG, GIF, WebP, BMP, TIFF nor JPEG 2000: begins with `\\xff`
    decode-resize/undecodable: image 1: truncated JPEG: the file ends before its pixels do
    decode-resize/undecodable: image 1: truncated JPEG: the file ends before its pixels do
    decode-resize/undecodable: image 1: truncated JPEG: the file ends before its pixels do
    decode-resize/undecodable: image 1: truncated PNG: the file ends before its pixels do
    decode-resize/undecodable: image 1: PNG: CRC error: expected 0x218666b8 have 0xea49d0e9 while decoding ChunkType { type: IDAT, critical: true, private: false, reserved: false, safecopy: false } chunk.
    decode-resize/undecodable: image 1: GIF: Unexpected End of File
    decode-resize/undecodable: image 1: WebP: Corrupt bitstream
    decode-resize/undecodable: image 1: truncated: failed to fill whole buffer
    ");
}

#[test]
fn an_image_over_max_pixels_is_rejected_before_it_is_decoded() {
    let reported = reason(fixture("rgb.png"), json!({ "max_pixels": 29_999 }));
    insta::assert_snapshot!(reported, @"decode-resize/too-large: image 1: 200 × 150 pixels, over max_pixels = 29999");
    let mut bomb = fixture("rgb.png");
    bomb[16..24].copy_from_slice(&[0, 1, 0x86, 0xA0, 0, 1, 0x86, 0xA0]);
    assert!(reason(bomb, json!({})).starts_with("decode-resize/"));
}

#[test]
fn a_row_keeps_its_images_in_order_and_a_bad_one_rejects_the_row_alone() {
    let (cat, cup) = (fixture("rgb.png"), fixture("tall.png"));
    let rows = [vec![cat.clone(), cup.clone()], vec![cat.clone(), vec![1]], vec![], vec![cup]];
    let table = images(&rows).then::<DecodeResize>(json!({}));
    assert_eq!(table.rejects.iter().filter(|reason| reason.is_some()).count(), 1);
    assert_eq!(table.code(1), Some("decode-resize/undecodable"));
    let squares = |row: usize| squares(&table, row);
    assert_eq!(squares(0), [ours("rgb.png"), ours("tall.png")]);
    assert_eq!(squares(2), Vec::<Vec<u8>>::new());
    assert_eq!(squares(3), [ours("tall.png")]);
}

#[test]
fn rows_that_show_the_same_image_share_its_pixels_and_its_fault() {
    let (cat, cup, broken) = (fixture("rgb.png"), fixture("tall.png"), b"<html>".to_vec());
    let rows = [
        vec![cat.clone()],
        vec![broken.clone()],
        vec![cup.clone(), cat.clone()],
        vec![cat.clone()],
        vec![cup.clone(), broken],
    ];
    let table = images(&rows).then::<DecodeResize>(json!({ "alpha": "drop" }));
    let items = table.batch.column(0).as_list::<i32>().values().as_binary_view().clone();
    assert_eq!((items.len(), items.data_buffers().len()), (4, 2));
    for (row, names) in [(0, vec!["rgb.png"]), (2, vec!["tall.png", "rgb.png"]), (3, vec!["rgb.png"])] {
        assert_eq!(squares(&table, row), names.into_iter().map(ours).collect::<Vec<_>>());
    }
    assert_eq!([1, 4].map(|row| table.code(row)), [Some("decode-resize/undecodable"); 2]);
    assert!(table.rejects[4].as_ref().unwrap().contains("image 2: no image: it is a web page"));
}

/// An image, its digest, and where it stands.
type Shown<'a> = (&'a Vec<u8>, u8, Option<Origin>);

#[test]
fn what_stands_elsewhere_is_judged_but_not_kept_and_a_rejected_row_keeps_what_others_show() {
    let (cat, cup, broken) = (fixture("rgb.png"), fixture("tall.png"), b"<html>".to_vec());
    let at = |row, item| Some(Origin { partition: 0, row, item });
    let rows: [Vec<Shown<'_>>; 6] = [
        vec![(&cat, 1, None)],
        vec![(&cat, 1, at(0, 0))],
        vec![(&broken, 2, None), (&cup, 3, None)],
        vec![(&cup, 3, at(2, 1)), (&cat, 1, at(0, 0))],
        vec![(&broken, 2, at(2, 0))],
        vec![],
    ];
    let mut origins = OriginLists::with_capacity(rows.len());
    for row in &rows {
        row.iter().for_each(|(_, digest, elsewhere)| origins.item([*digest; 16], *elsewhere));
        origins.push();
    }
    let encoded = rows.each_ref().map(|row| row.iter().map(|(image, ..)| (*image).clone()).collect());
    let encoded = images(&encoded).batch["images"].clone();
    let columns = [("images", encoded, true), ("origins", origins.finish().unwrap(), true)];
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let stage: DecodeResize = serde_json::from_value(json!({ "alpha": "drop" })).unwrap();
    let prepare = stage.open(&common::NoEngine).unwrap();
    // Of rows 3 and 4 alone nothing is known beforehand: what they show is decoded for the verdict.
    for first in [0, 3] {
        let batch = batch.slice(first, rows.len() - first);
        let mut rejects = Rejects::none(batch.num_rows());
        let found = prepare.apply(&batch, &mut rejects).unwrap();
        let pixels = ImageLists::of(&found, "pixels").unwrap();
        let kept = |row: usize| -> Vec<_> {
            pixels.row(row - first).map(|image| image.map(<[u8]>::to_vec)).collect()
        };
        if first == 0 {
            assert_eq!(kept(0), [Some(ours("rgb.png"))]);
            assert_eq!([kept(1), kept(2)], [vec![None], vec![None, Some(ours("tall.png"))]]);
        }
        assert_eq!([kept(3), kept(4), kept(5)], [vec![None, None], vec![], vec![]]);
        let rejected: Vec<usize> = rejects.new_rejects().map(|(row, _)| row + first).collect();
        assert_eq!(rejected, if first == 0 { vec![2, 4] } else { vec![4] });
        let none = |row: usize| found["origins"].is_null(row - first);
        assert_eq!((3..6).map(none).collect::<Vec<_>>(), [false, true, false]);
    }
}

fn squares(table: &Table, row: usize) -> Vec<Vec<u8>> {
    let items = table.batch.column(0).as_list::<i32>().value(row);
    items.as_binary_view().iter().map(|item| item.unwrap().to_vec()).collect()
}

#[test]
fn the_extremest_shape_costs_no_more_than_its_middle() {
    let line = image::RgbImage::from_fn(20_000, 1, |x, _| image::Rgb([(x % 251) as u8; 3]));
    let mut encoded = std::io::Cursor::new(Vec::new());
    line.write_to(&mut encoded, image::ImageFormat::Png).unwrap();
    let pixels = ImageProcessor::default().prepare(encoded.get_ref()).unwrap();
    assert_eq!(pixels.len(), 3 * 224 * 224);
}

#[test]
fn other_sizes_and_crops_give_squares_of_that_size() {
    for params in [json!({ "size": 336 }), json!({ "size": 32, "crop": "none", "filter": "lanczos3" })] {
        let processor: ImageProcessor = serde_json::from_value(params).unwrap();
        assert_eq!(processor.prepare(&fixture("tall.png")).unwrap().len(), processor.n_bytes());
    }
}
