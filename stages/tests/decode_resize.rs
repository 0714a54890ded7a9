//! Pictures against Pillow: `pillow/make_pillow.py` writes a picture in each mode and format, and the square that
//! `CLIPImageProcessor` on Pillow makes of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use arrow::array::{Array, FixedSizeBinaryArray, ListArray};
use common::{Table, pictures, root};
use llavm_stages::decode_resize::DecodeResize;
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
    DecodeResize::default().pixels(&encoded).unwrap()
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

fn reason(picture: Vec<u8>, params: serde_json::Value) -> String {
    pictures(&[vec![picture]]).then::<DecodeResize>(params).rejects[0].clone().unwrap()
}

#[test]
fn what_is_no_whole_picture_is_rejected_and_the_reason_told() {
    let cut = |name: &str| {
        let bytes = fixture(name);
        bytes[..bytes.len() / 2].to_vec()
    };
    let mut flipped = fixture("rgb.png");
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let mut endless = fixture("jpeg-420.jpg");
    endless.truncate(endless.len() - 2);
    let told = [
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
    .map(|picture| reason(picture, json!({})))
    .join("\n");
    insta::assert_snapshot!(told, @"
    decode-resize/undecodable: picture 1: there are no bytes
    decode-resize/undecodable: picture 1: neither JPEG, PNG, GIF, WebP nor BMP: begins with `<!DOCTYPE html><`
    decode-resize/undecodable: picture 1: neither JPEG, PNG, GIF, WebP nor BMP: begins with `\\xff`
    decode-resize/undecodable: picture 1: truncated: the JPEG ends before its end marker
    decode-resize/undecodable: picture 1: truncated: the JPEG ends before its end marker
    decode-resize/undecodable: picture 1: truncated: the JPEG ends before its end marker
    decode-resize/undecodable: picture 1: truncated: unexpected end of file
    decode-resize/undecodable: picture 1: Format error decoding Png: CRC error: expected 0x218666b8 have 0xea49d0e9 while decoding ChunkType { type: IDAT, critical: true, private: false, reserved: false, safecopy: false } chunk.
    decode-resize/undecodable: picture 1: Format error decoding Gif: Unexpected End of File
    decode-resize/undecodable: picture 1: Format error decoding WebP: Corrupt bitstream
    decode-resize/undecodable: picture 1: truncated: failed to fill whole buffer
    ");
}

#[test]
fn a_picture_over_max_pixels_is_rejected_before_it_is_decoded() {
    let told = reason(fixture("rgb.png"), json!({ "max_pixels": 29_999 }));
    insta::assert_snapshot!(told, @"decode-resize/too-large: picture 1: 200 × 150 pixels, over max_pixels = 29999");
    let mut bomb = fixture("rgb.png");
    bomb[16..24].copy_from_slice(&[0, 1, 0x86, 0xA0, 0, 1, 0x86, 0xA0]);
    assert!(reason(bomb, json!({})).starts_with("decode-resize/"));
}

#[test]
fn a_row_keeps_its_pictures_in_order_and_a_bad_one_rejects_the_row_alone() {
    let (cat, cup) = (fixture("rgb.png"), fixture("tall.png"));
    let rows = [vec![cat.clone(), cup.clone()], vec![cat.clone(), vec![1]], vec![], vec![cup]];
    let table = pictures(&rows).then::<DecodeResize>(json!({}));
    assert_eq!(table.rejects.iter().filter(|reason| reason.is_some()).count(), 1);
    assert_eq!(table.code(1), Some("decode-resize/undecodable"));
    let squares = |row: usize| squares(&table, row);
    assert_eq!(squares(0), [ours("rgb.png"), ours("tall.png")]);
    assert_eq!(squares(2), Vec::<Vec<u8>>::new());
    assert_eq!(squares(3), [ours("tall.png")]);
}

fn squares(table: &Table, row: usize) -> Vec<Vec<u8>> {
    let lists = table.batch.column(0).as_any().downcast_ref::<ListArray>().unwrap().value(row);
    let squares = lists.as_any().downcast_ref::<FixedSizeBinaryArray>().unwrap();
    (0..squares.len()).map(|n| squares.value(n).to_vec()).collect()
}

#[test]
fn the_extremest_shape_costs_no_more_than_its_middle() {
    let line = image::RgbImage::from_fn(20_000, 1, |x, _| image::Rgb([(x % 251) as u8; 3]));
    let mut encoded = std::io::Cursor::new(Vec::new());
    line.write_to(&mut encoded, image::ImageFormat::Png).unwrap();
    let pixels = DecodeResize::default().pixels(encoded.get_ref()).unwrap();
    assert_eq!(pixels.len(), 3 * 224 * 224);
}

#[test]
fn other_sizes_and_crops_give_squares_of_that_size() {
    for params in [json!({ "size": 336 }), json!({ "size": 32, "crop": "none", "filter": "lanczos3" })] {
        let stage: DecodeResize = serde_json::from_value(params).unwrap();
        assert_eq!(stage.pixels(&fixture("tall.png")).unwrap().len(), stage.n_bytes());
    }
}
