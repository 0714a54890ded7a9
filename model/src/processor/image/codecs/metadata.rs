//! EXIF orientation: where it stands in a file, and what it does to pixels.
//!
//! As Pillow's `getexif` finds it: the tag 0x0112 in the EXIF block, otherwise `tiff:Orientation` in the XMP packet. A TIFF's own tag
//! is part of the format: Pillow always applies it.

use crate::magic::{Content, Image};

/// Whether and how the file says that it is turned: EXIF's 1 (upright) to 8.
pub fn orientation(bytes: &[u8]) -> u8 {
    let blocks = match Content::of_image(bytes) {
        Some(Content::Image(Image::Jpeg)) => jpeg_blocks(bytes),
        Some(Content::Image(Image::Png)) => png_blocks(bytes),
        Some(Content::Image(Image::WebP)) => webp_blocks(bytes),
        Some(Content::Image(Image::Tiff)) => Blocks { exif: Some(bytes), xmp: None },
        _ => Blocks::default(),
    };
    let exif = blocks.exif.and_then(exif_orientation);
    let found = exif.or_else(|| blocks.xmp.and_then(xmp_orientation));
    found.filter(|turn| (1..=8).contains(turn)).map_or(1, |turn| turn as u8)
}

/// The orientation that is applied even to what is taken as stored: a TIFF's.
pub(super) fn orientation_of_format(bytes: &[u8]) -> u8 {
    if Content::of_image(bytes) == Some(Content::Image(Image::Tiff)) { orientation(bytes) } else { 1 }
}

/// The parts of a file that may say so.
#[derive(Default)]
struct Blocks<'a> {
    exif: Option<&'a [u8]>,
    xmp: Option<&'a [u8]>,
}

/// APP1 segments before the first scan.
fn jpeg_blocks(bytes: &[u8]) -> Blocks<'_> {
    let mut blocks = Blocks::default();
    let mut at = 2;
    while let Some(&[0xFF, marker]) = bytes.get(at..at + 2) {
        if marker == 0xFF {
            at += 1;
            continue;
        }
        if matches!(marker, 0xDA | 0xD9) {
            break;
        }
        if matches!(marker, 0x01 | 0xD0..=0xD8) {
            at += 2;
            continue;
        }
        let Some(length) = bytes.get(at + 2..at + 4).map(be_u16) else { break };
        let Some(segment) = bytes.get(at + 4..at + 2 + usize::from(length)) else { break };
        if marker == 0xE1 {
            let exif = segment.strip_prefix(b"Exif\0\0");
            let xmp = segment.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0");
            blocks.exif = blocks.exif.or(exif);
            blocks.xmp = blocks.xmp.or(xmp);
        }
        at += 2 + usize::from(length);
    }
    blocks
}

/// `eXIf` and the text chunk of XMP.
fn png_blocks(bytes: &[u8]) -> Blocks<'_> {
    let mut blocks = Blocks::default();
    let mut rest = &bytes[8..];
    while let Some((head, after)) = rest.split_at_checked(8) {
        let length = be_u32(head) as usize;
        let Some(data) = after.get(..length) else { break };
        match &head[4..] {
            b"eXIf" => blocks.exif = Some(data.strip_prefix(b"Exif\0\0").unwrap_or(data)),
            b"iTXt" if data.starts_with(b"XML:com.adobe.xmp\0") => blocks.xmp = Some(data),
            _ => {}
        }
        rest = after.get(length + 4..).unwrap_or_default();
    }
    blocks
}

/// The chunks `EXIF` and `XMP `.
fn webp_blocks(bytes: &[u8]) -> Blocks<'_> {
    let mut blocks = Blocks::default();
    let mut rest = &bytes[12..];
    while let Some((head, after)) = rest.split_at_checked(8) {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let Some(data) = after.get(..length) else { break };
        match &head[..4] {
            b"EXIF" => blocks.exif = Some(data.strip_prefix(b"Exif\0\0").unwrap_or(data)),
            b"XMP " => blocks.xmp = Some(data),
            _ => {}
        }
        rest = after.get(length + length % 2..).unwrap_or_default();
    }
    blocks
}

fn be_u16(bytes: &[u8]) -> u16 {
    bytes.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

fn be_u32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// The tag 0x0112 of the first directory of a TIFF structure.
fn exif_orientation(tiff: &[u8]) -> Option<u32> {
    let little = match tiff.get(..2)? {
        b"II" => true,
        b"MM" => false,
        _ => return None,
    };
    let number = |at: usize, length: usize| -> Option<u64> {
        let bytes = tiff.get(at..at.checked_add(length)?)?;
        let digits = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if little { bytes.iter().rev().fold(0, digits) } else { bytes.iter().fold(0, digits) })
    };
    // A big TIFF (version 43) has numbers of twice the length.
    let big = number(2, 2)? == 43;
    let (pointer, count, entry) = if big { (8, 8, 20) } else { (4, 2, 12) };
    let directory = usize::try_from(number(if big { 8 } else { 4 }, pointer)?).ok()?;
    let entries = number(directory, count)?.min(65_536) as usize;
    let first = directory + count;
    let mut tags = (0..entries).map(|n| first + n * entry);
    let tag = tags.find(|at| number(*at, 2) == Some(0x0112))?;
    // Type 3 is a number of two bytes, of which one stands in the entry itself.
    (number(tag + 2, 2)? == 3).then(|| number(tag + 4 + pointer, 2)).flatten().map(|turn| turn as u32)
}

/// Pillow's `tiff:Orientation(="|>)([0-9])`.
fn xmp_orientation(packet: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"tiff:Orientation";
    let mut names = packet.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME);
    names.find_map(|(at, _)| {
        let rest = &packet[at + NAME.len()..];
        let value = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?;
        value.first().filter(|digit| digit.is_ascii_digit()).map(|digit| u32::from(digit - b'0'))
    })
}

/// Writes the upright image to `upright`; its size. `turn`: 2 to 8.
pub(super) fn turn(turn: u8, (width, height): (u32, u32), rgb: &[u8], upright: &mut Vec<u8>) -> (u32, u32) {
    let (w, h) = (width as usize, height as usize);
    let swapped = turn >= 5;
    let (to_w, to_h) = if swapped { (h, w) } else { (w, h) };
    if upright.len() < rgb.len() {
        upright.resize(rgb.len(), 0);
    }
    let pixels = rgb.as_chunks::<3>().0;
    let mut out = upright.as_chunks_mut::<3>().0.iter_mut();
    for y in 0..to_h {
        for (x, pixel) in (0..to_w).zip(&mut out) {
            let (from_x, from_y) = match turn {
                2 => (w - 1 - x, y),
                3 => (w - 1 - x, h - 1 - y),
                4 => (x, h - 1 - y),
                5 => (y, x),
                6 => (y, h - 1 - x),
                7 => (w - 1 - y, h - 1 - x),
                _ => (w - 1 - y, x),
            };
            *pixel = pixels[from_y * w + from_x];
        }
    }
    (to_w as u32, to_h as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_orientation_brings_the_corner_where_exif_says() {
        // 0 1 2
        // 3 4 5
        let rgb: Vec<u8> = (0..6_u8).flat_map(|n| [n; 3]).collect();
        let turned = |orientation| {
            let mut out = Vec::new();
            let size = turn(orientation, (3, 2), &rgb, &mut out);
            (size, out.iter().step_by(3).copied().collect::<Vec<u8>>())
        };
        assert_eq!(turned(2), ((3, 2), vec![2, 1, 0, 5, 4, 3]));
        assert_eq!(turned(3), ((3, 2), vec![5, 4, 3, 2, 1, 0]));
        assert_eq!(turned(4), ((3, 2), vec![3, 4, 5, 0, 1, 2]));
        assert_eq!(turned(5), ((2, 3), vec![0, 3, 1, 4, 2, 5]));
        assert_eq!(turned(6), ((2, 3), vec![3, 0, 4, 1, 5, 2]));
        assert_eq!(turned(7), ((2, 3), vec![5, 2, 4, 1, 3, 0]));
        assert_eq!(turned(8), ((2, 3), vec![2, 5, 1, 4, 0, 3]));
    }

    #[test]
    fn xmp_tells_where_exif_is_silent() {
        assert_eq!(xmp_orientation(br#"<x tiff:Orientation="6"/>"#), Some(6));
        assert_eq!(xmp_orientation(b"<tiff:Orientation>3</tiff:Orientation>"), Some(3));
        assert_eq!(xmp_orientation(b"tiff:Orientation is not said"), None);
    }

    #[test]
    fn odd_blocks_are_upright() {
        for tiff in
            [&b""[..], b"II", b"II*\0\xFF\xFF\xFF\xFF", b"MM\0*\0\0\0\x08\xFF\xFF", b"XX*\0\x08\0\0\0"]
        {
            assert_eq!(exif_orientation(tiff), None);
        }
    }
}
