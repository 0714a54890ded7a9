//! The part of a JPEG that is looked at, of the kind that most files are: sequential, one scan, three colours, chroma whole or halved.
//!
//! In: a file and a window. Out: the window's pixels, the same as those of the whole image (`libjpeg-turbo-rs`, whose tables, IDCT
//! and colour conversion these are). All scan data before the window's end has to be read; what is saved is everything else outside of it:
//! the IDCT, the upsampling, the colours. The loop over scan data is compiled for AVX2 and BMI2 as well.
//!
//! Anything unusual or damaged is left to the whole decoder.

use super::bits::{Bits, Block};
use crate::processor::image::codecs::Window;
use libjpeg_turbo_rs::common::huffman_table::HuffmanTable;
use libjpeg_turbo_rs::common::quant_table::QuantTable;
use libjpeg_turbo_rs::decode::marker::{JpegMetadata, MarkerReader};
use libjpeg_turbo_rs::simd::{self, SimdRoutines};
use pulp::NullaryFnOnce;
use std::ops::Range;
use std::sync::OnceLock;

/// What this CPU does best.
static ROUTINES: OnceLock<SimdRoutines> = OnceLock::new();
/// Side of a block.
const SIDE: usize = 8;
/// Pixels around a window that its upsampled chroma depends on.
const MARGIN: usize = 2;
/// A window that is narrower or lower is widened: filters have other rules for a few columns.
const NARROW: usize = 16;

/// A file whose headers say that it is of that kind.
pub struct Sequential {
    metadata: JpegMetadata,
    /// Luma samples for each chroma sample, in a row and in a column.
    luma: (usize, usize),
}

/// How a colour is coded.
struct Colour<'a> {
    /// Blocks in a unit.
    blocks: (usize, usize),
    tables: (&'a HuffmanTable, &'a HuffmanTable),
    quant: &'a QuantTable,
}

impl Sequential {
    /// Reads the headers. `None` for files of other kinds.
    pub fn open(bytes: &[u8]) -> Option<Self> {
        let metadata = MarkerReader::new(bytes).read_markers().ok()?;
        let (frame, scan) = (&metadata.frame, &metadata.scan);
        let is_plain = frame.precision == 8
            && !frame.is_progressive
            && !frame.is_lossless
            && !metadata.is_arithmetic
            && metadata.scans.len() == 1
            && (scan.spec_start, scan.spec_end, scan.succ_high, scan.succ_low) == (0, 63, 0, 0);
        let ids = frame.components.iter().map(|each| each.id);
        let is_colour = frame.components.len() == 3
            && ids.clone().eq(scan.components.iter().map(|each| each.component_id))
            && (metadata.saw_jfif_marker_at_first_sos
                || metadata.adobe_transform_at_first_sos.map_or_else(|| !ids.eq(*b"RGB"), |code| code != 0));
        if !is_plain || !is_colour {
            return None;
        }
        let sampling = |n: usize| {
            let each = &frame.components[n];
            (usize::from(each.horizontal_sampling), usize::from(each.vertical_sampling))
        };
        let luma = sampling(0);
        let is_halved = matches!(luma, (1 | 2, 1) | (2, 2)) && sampling(1) == (1, 1) && sampling(2) == (1, 1);
        let is_large = usize::from(frame.width) >= NARROW && usize::from(frame.height) >= NARROW;
        (is_halved && is_large).then_some(Self { metadata, luma })
    }

    pub fn size(&self) -> (u32, u32) {
        (self.metadata.frame.width.into(), self.metadata.frame.height.into())
    }

    /// Writes the window to its place among `pixels`, which are those of the whole image. `None` where that cannot be.
    pub fn decode(
        &self,
        bytes: &[u8],
        window: &Window,
        pixels: &mut [u8],
        planes: &mut Vec<u8>,
    ) -> Option<()> {
        let colours = [self.colour(0)?, self.colour(1)?, self.colour(2)?];
        let width = usize::from(self.metadata.frame.width);
        let rows = Rows { layout: self.layout(window), width, routines: ROUTINES.get_or_init(simd::detect) };
        let bits = Bits::new(bytes.get(self.metadata.entropy_data_offset..)?);
        let restart = usize::from(self.metadata.restart_interval);
        let work = Work { rows, colours, restart, bits, pixels, planes };
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = pulp::x86::V3::try_new() {
            return avx2.vectorize(work);
        }
        work.call()
    }

    fn colour(&self, n: usize) -> Option<Colour<'_>> {
        let (component, selected) =
            (self.metadata.frame.components.get(n)?, self.metadata.scan.components.get(n)?);
        let blocks = (component.horizontal_sampling.into(), component.vertical_sampling.into());
        let dc = self.metadata.dc_huffman_tables.get(usize::from(selected.dc_table_index))?.as_deref()?;
        let ac = self.metadata.ac_huffman_tables.get(usize::from(selected.ac_table_index))?.as_deref()?;
        let quant = self.metadata.quant_tables.get(usize::from(component.quant_table_index))?.as_ref()?;
        Some(Colour { blocks, tables: (dc, ac), quant })
    }

    fn layout(&self, window: &Window) -> Layout {
        let (h, v) = self.luma;
        let (width, height) =
            (usize::from(self.metadata.frame.width), usize::from(self.metadata.frame.height));
        let (columns, rows) = (wide(&window.columns, width), wide(&window.rows, height));
        let units = |kept: &Range<usize>, length: usize, side: usize| {
            kept.start.saturating_sub(MARGIN) / side..(kept.end + MARGIN).min(length).div_ceil(side)
        };
        Layout {
            luma: (h, v),
            chroma: (width.div_ceil(h), height.div_ceil(v)),
            across: width.div_ceil(SIDE * h),
            units: (units(&columns, width, SIDE * h), units(&rows, height, SIDE * v)),
            columns,
            rows,
        }
    }
}

/// At least [`NARROW`] pixels of `length`.
fn wide(kept: &Range<u32>, length: usize) -> Range<usize> {
    let (start, end) = (kept.start as usize, (kept.end as usize).min(length));
    let start = start.min(end.saturating_sub(NARROW));
    start..end.max(start + NARROW)
}

/// Where the window is, and where its blocks lie in memory.
struct Layout {
    luma: (usize, usize),
    /// Chroma samples of the image, across and down.
    chroma: (usize, usize),
    /// Units in a row of the image: a unit is all blocks of an area of `luma` blocks.
    across: usize,
    /// The units that are kept, by column and row.
    units: (Range<usize>, Range<usize>),
    /// The pixels that are wanted.
    columns: Range<usize>,
    rows: Range<usize>,
}

impl Layout {
    /// Samples in a row of a colour's plane that has so many blocks in a unit.
    fn stride(&self, blocks: usize) -> usize {
        self.units.0.len() * SIDE * blocks
    }

    /// Samples of a plane.
    fn samples(&self, (across, down): (usize, usize)) -> usize {
        self.stride(across) * self.units.1.len() * SIDE * down
    }
}

/// A call of [`Sequential::decode`], to be compiled for more than one instruction set.
struct Work<'a> {
    rows: Rows<'a>,
    colours: [Colour<'a>; 3],
    /// Units between two restart markers; 0 without any.
    restart: usize,
    bits: Bits<'a>,
    pixels: &'a mut [u8],
    planes: &'a mut Vec<u8>,
}

impl NullaryFnOnce for Work<'_> {
    type Output = Option<()>;

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "compiled once more with the caller's AVX2 and BMI2")]
    fn call(self) -> Option<()> {
        let Self { rows, colours, restart, mut bits, pixels, planes } = self;
        let layout = &rows.layout;
        let lengths = [layout.samples(layout.luma), layout.samples((1, 1)), layout.samples((1, 1))];
        let length = lengths.iter().sum();
        if planes.len() < length {
            planes.resize(length, 0);
        }
        let (luma, chroma) = planes[..length].split_at_mut(lengths[0]);
        let (blue, red) = chroma.split_at_mut(lengths[1]);
        let mut planes = [luma, blue, red];
        let mut previous = [0; 3];
        for n in 0..layout.units.1.end * layout.across {
            if restart > 0 && n > 0 && n.is_multiple_of(restart) {
                bits.restart()?;
                previous = [0; 3];
            }
            let (column, row) = (n % layout.across, n / layout.across);
            let kept = layout.units.0.contains(&column) && layout.units.1.contains(&row);
            let place = kept.then(|| (column - layout.units.0.start, row - layout.units.1.start));
            for ((colour, plane), previous) in colours.iter().zip(&mut planes).zip(&mut previous) {
                unit(
                    &mut bits,
                    (colour, previous),
                    place,
                    (plane, layout.stride(colour.blocks.0)),
                    rows.routines,
                )?;
            }
        }
        if bits.is_short() {
            return None;
        }
        let [luma, blue, red] = planes;
        rows.write([luma, blue, red], pixels);
        Some(())
    }
}

/// The blocks of a colour in a unit; they go to `place` among the units that are kept, if it is one.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled once more with the caller's AVX2 and BMI2")]
fn unit(
    bits: &mut Bits<'_>,
    (colour, previous): (&Colour<'_>, &mut i16),
    place: Option<(usize, usize)>,
    (plane, stride): (&mut [u8], usize),
    routines: &SimdRoutines,
) -> Option<()> {
    let mut block: Block = [0; 64];
    let (across, down) = colour.blocks;
    for y in 0..down {
        for x in 0..across {
            bits.block(colour.tables, previous, &mut block)?;
            let Some((column, row)) = place else { continue };
            let mut samples = [0; SIDE * SIDE];
            (routines.idct_islow)(&block, &colour.quant.values, &mut samples);
            let start = (row * down + y) * SIDE * stride + (column * across + x) * SIDE;
            let lines = plane[start..].chunks_mut(stride);
            for (line, samples) in lines.zip(samples.as_chunks::<SIDE>().0) {
                line[..SIDE].copy_from_slice(samples);
            }
        }
    }
    Some(())
}

/// From planes to rows of pixels.
struct Rows<'a> {
    layout: Layout,
    /// Of the image.
    width: usize,
    routines: &'a SimdRoutines,
}

impl Rows<'_> {
    /// `planes` hold the units that are kept.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "compiled once more with the caller's AVX2 and BMI2")]
    fn write(&self, [luma, blue, red]: [&[u8]; 3], pixels: &mut [u8]) {
        let Layout { luma: (h, v), units, columns, rows, .. } = &self.layout;
        let wanted = self.chroma_columns();
        let first = columns.start - h * wanted.start;
        let (mut sums, mut blues, mut reds) = (Vec::new(), Vec::new(), Vec::new());
        let stride = self.layout.stride(*h);
        for row in rows.clone() {
            let start = (row - units.1.start * SIDE * v) * stride + columns.start - units.0.start * SIDE * h;
            let luma = &luma[start..][..columns.len()];
            let blue = self.chroma(blue, row, &wanted, &mut sums, &mut blues);
            let red = self.chroma(red, row, &wanted, &mut sums, &mut reds);
            let out = &mut pixels[(row * self.width + columns.start) * 3..][..columns.len() * 3];
            self.routines.ycbcr_to_rgb_row(luma, &blue[first..], &red[first..], out, columns.len());
        }
    }

    /// The chroma samples that a row depends on: one more on each side, if there is one.
    fn chroma_columns(&self) -> Range<usize> {
        let Layout { luma: (h, _), chroma: (width, _), columns, .. } = &self.layout;
        if *h == 1 {
            return columns.clone();
        }
        (columns.start / 2).saturating_sub(1)..(columns.end.div_ceil(2) + 1).min(*width)
    }

    /// A row of chroma, one value for each pixel.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "compiled once more with the caller's AVX2 and BMI2")]
    fn chroma<'b>(
        &self,
        plane: &'b [u8],
        row: usize,
        wanted: &Range<usize>,
        sums: &mut Vec<u16>,
        out: &'b mut Vec<u8>,
    ) -> &'b [u8] {
        let Layout { luma: (h, v), chroma: (_, height), units, .. } = &self.layout;
        let samples = |row: usize| {
            let start =
                (row - units.1.start * SIDE) * self.layout.stride(1) + wanted.start - units.0.start * SIDE;
            &plane[start..][..wanted.len()]
        };
        let nearest = samples(row / v);
        if *h == 1 {
            return nearest;
        }
        out.resize(2 * wanted.len(), 0);
        if *v == 1 {
            self.routines.fancy_upsample_h2v1(nearest, wanted.len(), out);
        } else {
            let next = if row.is_multiple_of(2) {
                (row / 2).saturating_sub(1)
            } else {
                (row / 2 + 1).min(height - 1)
            };
            upsample(nearest, samples(next), sums, out);
        }
        out
    }
}

/// A row between two rows of samples, twice as wide: `h2v2_fancy_upsample` of libjpeg-turbo.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled once more with the caller's AVX2 and BMI2")]
fn upsample(nearest: &[u8], next: &[u8], sums: &mut Vec<u16>, out: &mut [u8]) {
    let count = nearest.len();
    sums.resize(count + 2, 0);
    for (sum, (nearest, next)) in sums[1..=count].iter_mut().zip(nearest.iter().zip(next)) {
        *sum = 3 * u16::from(*nearest) + u16::from(*next);
    }
    // Beyond an end comes the last one again.
    (sums[0], sums[count + 1]) = (sums[1], sums[count]);
    let around = sums[..count].iter().zip(&sums[1..=count]).zip(&sums[2..count + 2]);
    for (pair, ((left, sum), right)) in out.as_chunks_mut::<2>().0.iter_mut().zip(around) {
        let (even, odd) = ((3 * sum + left + 8) >> 4, (3 * sum + right + 7) >> 4);
        *pair = (even | odd << 8).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libjpeg_turbo_rs::{Decoder, Encoder, PixelFormat, Subsampling};

    /// Coloured waves and noise.
    fn pixels(width: usize, height: usize) -> Vec<u8> {
        let value = |n: usize| {
            let wave = (n as f64 / 11.0).sin() * 90.0 + (n as f64 / 997.0).cos() * 60.0;
            (128.0 + wave) as u8 ^ ((n.wrapping_mul(n ^ 0x9E37) >> 9) as u8 & 31)
        };
        (0..width * height * 3).map(value).collect()
    }

    fn jpeg((width, height): (usize, usize), subsampling: Subsampling, restart: u16) -> Vec<u8> {
        let pixels = pixels(width, height);
        let encoder = Encoder::new(&pixels, width, height, PixelFormat::Rgb).subsampling(subsampling);
        let encoder = if restart > 0 { encoder.restart_blocks(restart) } else { encoder };
        encoder.quality(40 + (width % 60) as u8).optimize_huffman(height.is_multiple_of(2)).encode().unwrap()
    }

    fn part(pixels: &[u8], width: usize, window: &Window) -> Vec<u8> {
        let columns = window.columns.start as usize * 3..window.columns.end as usize * 3;
        let rows = pixels.chunks(width * 3).enumerate();
        let rows = rows.filter(|(row, _)| window.rows.contains(&(*row as u32)));
        rows.flat_map(|(_, row)| row[columns.clone()].to_vec()).collect()
    }

    #[test]
    fn a_window_holds_the_pixels_of_the_whole_image() {
        let mut planes = Vec::new();
        for (width, height) in [(16, 16), (17, 40), (97, 33), (130, 201), (64, 64), (18, 300)] {
            for subsampling in [Subsampling::S444, Subsampling::S422, Subsampling::S420] {
                for restart in [0, 1, 5] {
                    let jpeg = jpeg((width, height), subsampling, restart);
                    let whole = Decoder::decode_to(&jpeg, PixelFormat::Rgb).unwrap().data;
                    let sequential = Sequential::open(&jpeg).expect("of the usual kind");
                    let (w, h) = sequential.size();
                    for (columns, rows) in [
                        (0..w, 0..h),
                        (1..w - 1, 0..h),
                        (w / 3..w / 2 + 1, h / 8..h),
                        (0..1, h / 2 + 1..h / 2 + 3),
                        (w - 2..w, h - 1..h),
                        (w / 5..w - w / 5, h / 7..h - h / 7),
                    ] {
                        let window = Window { columns, rows };
                        let mut pixels = vec![0; whole.len()];
                        sequential.decode(&jpeg, &window, &mut pixels, &mut planes).unwrap();
                        let same = part(&pixels, width, &window) == part(&whole, width, &window);
                        assert!(same, "{width} × {height}, {subsampling:?}, {restart}, {window:?}");
                        planes.fill(77);
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_damaged_or_unusual_is_left_to_the_whole_decoder() {
        let mut jpeg = jpeg((64, 48), Subsampling::S420, 0);
        let sequential = Sequential::open(&jpeg).unwrap();
        let whole = Window::whole(sequential.size());
        let decoded = |jpeg: &[u8]| {
            sequential.decode(jpeg, &whole, &mut vec![0; 64 * 48 * 3], &mut Vec::new()).is_some()
        };
        assert!(decoded(&jpeg));
        let middle = jpeg.len() - 100;
        assert!(!decoded(&jpeg[..middle]));
        jpeg[middle..middle + 2].copy_from_slice(&[0xFF, 0xD9]);
        assert!(!decoded(&jpeg));
        let pixels = pixels(32, 32);
        let encoder = || Encoder::new(&pixels, 32, 32, PixelFormat::Rgb);
        for unusual in [encoder().progressive(true), encoder().subsampling(Subsampling::S440)] {
            assert!(Sequential::open(&unusual.encode().unwrap()).is_none());
        }
    }
}
