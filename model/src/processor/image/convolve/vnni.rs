//! The same sums with AVX-512 VNNI: four pixels of an axis at once.
//!
//! `vpdpbusd` multiplies u8 by i8 and adds four products to an i32. So a weight, a number of 24 bits, is cut into three digits
//! of base 256 from -128 to 127, and Σ weight · pixel = Σ d0 · pixel + 2⁸ Σ d1 · pixel + 2¹⁶ Σ d2 · pixel, all of it exact modulo
//! 2³², within which the sum lies. The four pixels are a *quad*: they follow each other along the axis and lie in one lane.
//! Quads begin at every fourth pixel; where the weights of a pixel begin inside one, zeros stand before them.

use super::{Kernel, PRECISION};
use std::arch::x86_64::{
    __m128i, __m512i, _mm_loadu_si128, _mm_setr_epi8, _mm_storeu_si128, _mm256_set_m128i, _mm512_add_epi32,
    _mm512_broadcast_i32x4, _mm512_castsi256_si512, _mm512_castsi512_si128, _mm512_cvtusepi32_epi8,
    _mm512_dpbusd_epi32, _mm512_extracti32x4_epi32, _mm512_inserti64x4, _mm512_loadu_si512, _mm512_max_epi32,
    _mm512_packs_epi32, _mm512_packus_epi16, _mm512_permutexvar_epi32, _mm512_set1_epi32, _mm512_setr_epi32,
    _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_slli_epi32, _mm512_srai_epi32, _mm512_storeu_si512,
};
use std::ops::Range;

/// Pixels in a quad.
const QUAD: usize = 4;
/// Quads in a register.
const LANES: usize = 16;
/// Bytes in a register.
const BYTES: usize = QUAD * LANES;

/// A [`Kernel`] whose weights are cut into digits.
#[derive(Debug)]
#[allow(clippy::struct_field_names, reason = "the digits are what it is named for")]
pub struct Digits {
    /// Output pixels.
    count: usize,
    /// For each output pixel its first quad; behind the last, up to a multiple of four, nothing counts.
    first: Vec<usize>,
    /// For each output pixel `length` quads: of each its four weights' digits, lowest first.
    digits: Vec<[i32; 3]>,
    /// The same for all pixels, zeros where it could be less: a loop of constant length is predicted.
    length: usize,
}

impl Digits {
    /// Quads are counted from the first pixel touched. `None` where a weight has more than three digits, or on a machine that
    /// cannot work with them.
    pub fn of(kernel: &Kernel) -> Option<Self> {
        if !is_x86_feature_detected!("avx512vnni") || !is_x86_feature_detected!("avx512bw") {
            return None;
        }
        let (start, _) = kernel.touched;
        let quads =
            |first: &usize, weights: &Range<usize>| ((first - start) % QUAD + weights.len()).div_ceil(QUAD);
        let length = kernel.pixels.iter().map(|(first, weights)| quads(first, weights)).max().unwrap_or(1);
        let count = kernel.pixels.len();
        let mut firsts: Vec<usize> = kernel.pixels.iter().map(|(first, _)| (first - start) / QUAD).collect();
        firsts.resize(count.next_multiple_of(QUAD), 0);
        let mut all = vec![[0; 3]; length * firsts.len()];
        for ((first, weights), quads) in kernel.pixels.iter().zip(all.chunks_exact_mut(length)) {
            let before = (first - start) % QUAD;
            for (n, weight) in kernel.weights[weights.clone()].iter().enumerate() {
                let (digits, rest) = digits(*weight);
                if rest != 0 {
                    return None;
                }
                let (quad, byte) = ((before + n) / QUAD, (before + n) % QUAD);
                for (lane, digit) in quads[quad].iter_mut().zip(digits) {
                    *lane |= i32::from(digit.cast_unsigned()) << (8 * byte);
                }
            }
        }
        Some(Self { count, first: firsts, digits: all, length })
    }

    /// First quad and digits of each output pixel.
    fn pixels(&self) -> impl Iterator<Item = (usize, &[[i32; 3]])> {
        self.first.iter().copied().zip(self.digits.chunks_exact(self.length)).take(self.count)
    }

    /// First quads and digits of four output pixels after the other.
    fn fours(&self) -> impl Iterator<Item = (&[usize; QUAD], &[[i32; 3]])> {
        self.first.as_chunks().0.iter().zip(self.digits.chunks_exact(QUAD * self.length))
    }

    /// The quads that are looked at, those behind the end included.
    fn quads(&self) -> usize {
        self.first.iter().max().map_or(0, |first| first + self.length)
    }
}

/// Three digits of base 256 from -128 to 127, lowest first, and what is left.
fn digits(weight: i32) -> ([i8; 3], i32) {
    let mut rest = weight;
    let digits = [(); 3].map(|()| {
        let digit = rest as i8;
        rest = (rest - i32::from(digit)) >> 8;
        digit
    });
    (digits, rest)
}

/// Memory that is used again for the next image.
#[derive(Debug, Default)]
pub struct Vnni {
    /// Four rows, quad by quad: of each row the quads of red, green, blue and nothing.
    columns: Vec<[u8; BYTES]>,
    /// The image after the horizontal pass: for each four rows the planes, for each plane the quads of all columns.
    narrow: Vec<[u8; BYTES]>,
}

impl Vnni {
    /// As [`super::Convolver::resize`]; `touched` and `digits` of both kernels.
    pub fn resize(
        &mut self,
        rgb: &[u8],
        width: usize,
        touched: ((usize, usize), (usize, usize)),
        (x, y): (&Digits, &Digits),
        planes: &mut [u8],
    ) {
        // SAFETY: digits are only made where the CPU has the features that both are compiled for.
        unsafe {
            self.horizontal_pass(rgb, width, touched, x, y);
            self.vertical_pass(x, y, planes);
        }
    }

    /// The horizontal pass, over the rows that the vertical pass needs.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn horizontal_pass(
        &mut self,
        rgb: &[u8],
        width: usize,
        ((left, right), (top, bottom)): ((usize, usize), (usize, usize)),
        x: &Digits,
        y: &Digits,
    ) {
        let registers = x.count.div_ceil(LANES);
        self.columns.resize(x.quads(), [0; BYTES]);
        self.narrow.resize(y.quads() * 3 * registers, [0; BYTES]);
        let columns = (right - left).div_ceil(QUAD);
        for (rows, out) in (top..bottom).step_by(QUAD).zip(self.narrow.chunks_exact_mut(3 * registers)) {
            turn(rgb, width, left, &(rows..bottom), &mut self.columns[..columns]);
            let (red, rest) = out.as_flattened_mut().split_at_mut(registers * BYTES);
            let (green, blue) = rest.split_at_mut(registers * BYTES);
            let planes = fours(red).iter_mut().zip(fours(green)).zip(fours(blue));
            for ((first, digits), ((red, green), blue)) in x.fours().zip(planes) {
                [*red, *green, *blue] = by_colour(four_sums(*first, digits, &self.columns));
            }
        }
    }

    /// The vertical pass.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn vertical_pass(&self, x: &Digits, y: &Digits, planes: &mut [u8]) {
        let side = x.count;
        let registers = side.div_ceil(LANES);
        let plane = side * y.count;
        for (row, (first, digits)) in y.pixels().enumerate() {
            for colour in 0..3 {
                let out = &mut planes[colour * plane + row * side..][..side];
                let (blocks, rest) = out.as_chunks_mut();
                let quads = &self.narrow[(first * 3 + colour) * registers..];
                for (n, block) in blocks.iter_mut().enumerate() {
                    *block = bytes(weighted(digits, &quads[n..], 3 * registers));
                }
                if !rest.is_empty() {
                    let values = bytes(weighted(digits, &quads[blocks.len()..], 3 * registers));
                    rest.copy_from_slice(&values[..rest.len()]);
                }
            }
        }
    }
}

/// Four quads after the other.
fn fours(plane: &mut [u8]) -> &mut [[u8; QUAD * QUAD]] {
    plane.as_chunks_mut().0
}

/// Puts four rows, from the pixel `left` on, into `columns`. Where there are fewer, the last comes again; it meets weights of
/// zero, as do pixels behind the end of a row.
#[target_feature(enable = "avx512f,avx512bw")]
fn turn(rgb: &[u8], width: usize, left: usize, rows: &Range<usize>, columns: &mut [[u8; BYTES]]) {
    // Of 16 bytes of a row, the first 12 are four pixels; -1 gives nothing.
    let by_colour = _mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1);
    let by_colour = _mm512_broadcast_i32x4(by_colour);
    let row = |n: usize| &rgb[((rows.start + n).min(rows.end - 1) * width + left) * 3..];
    let rows = [row(0), row(1), row(2), row(3)];
    for (quad, column) in columns.iter_mut().enumerate() {
        let pixels = |row: usize| sixteen(&rows[row][quad * QUAD * 3..]);
        let (low, high) = (_mm256_set_m128i(pixels(1), pixels(0)), _mm256_set_m128i(pixels(3), pixels(2)));
        let all = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
        store(_mm512_shuffle_epi8(all, by_colour), column);
    }
}

/// The first 16 bytes, with zeros behind the end.
#[inline]
fn sixteen(bytes: &[u8]) -> __m128i {
    let whole = bytes.first_chunk::<16>().copied().unwrap_or_else(|| {
        let mut whole = [0; 16];
        whole[..bytes.len()].copy_from_slice(bytes);
        whole
    });
    // SAFETY: reads the 16 bytes of the array; no alignment is asked for, and x86-64 always has SSE2.
    unsafe { _mm_loadu_si128(whole.as_ptr().cast()) }
}

/// The weighted sums of four output pixels, which begin at the quads `first`: of each, for four rows, red, green, blue and nothing.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn four_sums(first: [usize; QUAD], digits: &[[i32; 3]], columns: &[[u8; BYTES]]) -> [__m512i; QUAD] {
    let length = digits.len() / QUAD;
    let digits_of = |n: usize| &digits[n * length..][..length];
    let columns_of = |n: usize| &columns[first[n]..][..length];
    let digits = [digits_of(0), digits_of(1), digits_of(2), digits_of(3)];
    let columns = [columns_of(0), columns_of(1), columns_of(2), columns_of(3)];
    let mut sums =
        [[_mm512_set1_epi32(1 << (PRECISION - 1)), _mm512_setzero_si512(), _mm512_setzero_si512()]; QUAD];
    for n in 0..length {
        for ((sums, digits), columns) in sums.iter_mut().zip(digits).zip(columns) {
            *sums = with_quad(*sums, digits[n], &columns[n]);
        }
    }
    [scaled(sums[0]), scaled(sums[1]), scaled(sums[2]), scaled(sums[3])]
}

/// Four rows' four output pixels to each colour's quads.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn by_colour([s0, s1, s2, s3]: [__m512i; QUAD]) -> [[u8; QUAD * QUAD]; 3] {
    // Within each lane, rows and columns of 4 × 4 bytes change places; then the 4 × 4 numbers of the register.
    let turned = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    let lanes = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    // Clipped to 8 bits; lane by lane a row, of which each four bytes are a pixel.
    let rows = _mm512_packus_epi16(_mm512_packs_epi32(s0, s1), _mm512_packs_epi32(s2, s3));
    let colours = _mm512_permutexvar_epi32(lanes, _mm512_shuffle_epi8(rows, turned));
    let quads = _mm512_shuffle_epi8(colours, turned);
    let (green, blue) = (_mm512_extracti32x4_epi32::<1>(quads), _mm512_extracti32x4_epi32::<2>(quads));
    [bytes(_mm512_castsi512_si128(quads)), bytes(green), bytes(blue)]
}

/// The weighted sums of 16 lanes of every `stride`-th register of quads, rounded and clipped (`clip8`).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn weighted(digits: &[[i32; 3]], quads: &[[u8; BYTES]], stride: usize) -> __m128i {
    let mut sums = [_mm512_set1_epi32(1 << (PRECISION - 1)), _mm512_setzero_si512(), _mm512_setzero_si512()];
    for (n, digits) in digits.iter().enumerate() {
        sums = with_quad(sums, *digits, &quads[n * stride]);
    }
    _mm512_cvtusepi32_epi8(_mm512_max_epi32(scaled(sums), _mm512_setzero_si512()))
}

/// The sums of each digit, with one quad more.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn with_quad([s0, s1, s2]: [__m512i; 3], [d0, d1, d2]: [i32; 3], quads: &[u8; BYTES]) -> [__m512i; 3] {
    let quads = load(quads);
    [
        _mm512_dpbusd_epi32(s0, quads, _mm512_set1_epi32(d0)),
        _mm512_dpbusd_epi32(s1, quads, _mm512_set1_epi32(d1)),
        _mm512_dpbusd_epi32(s2, quads, _mm512_set1_epi32(d2)),
    ]
}

/// The sums of the digits put together, without the bits behind the point.
#[inline]
#[target_feature(enable = "avx512f")]
fn scaled([low, middle, high]: [__m512i; 3]) -> __m512i {
    let upper = _mm512_add_epi32(_mm512_slli_epi32(middle, 8), _mm512_slli_epi32(high, 16));
    _mm512_srai_epi32(_mm512_add_epi32(low, upper), PRECISION)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; BYTES]) -> __m512i {
    // SAFETY: reads the 64 bytes of the array; no alignment is asked for.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(register: __m512i, bytes: &mut [u8; BYTES]) {
    // SAFETY: writes the 64 bytes of the array; no alignment is asked for.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), register) }
}

#[inline]
fn bytes(register: __m128i) -> [u8; LANES] {
    let mut bytes = [0; LANES];
    // SAFETY: writes the 16 bytes of the array; no alignment is asked for, and x86-64 always has SSE2.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), register) };
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_the_weight_or_leave_a_rest() {
        for weight in [0, 1, -1, 127, 128, -128, -129, 1 << 22, -(1 << 22), 0x7F_7F7F, -0x80_8080, 5_000_000]
        {
            let ([d0, d1, d2], rest) = digits(weight);
            let value = i32::from(d0) + (i32::from(d1) << 8) + (i32::from(d2) << 16);
            assert_eq!((value, rest), (weight, 0));
        }
        assert_ne!(digits(0x80_0000).1, 0);
        assert_ne!(digits(-0x80_8081).1, 0);
    }
}
