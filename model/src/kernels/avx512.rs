//! `x W^T + b` on CPUs with AVX-512.
//!
//! Both `x` and `W` are long in the direction that is summed over. Up to 48 rows of `x` are laid next to each other once (a panel: a
//! register holds 16 rows), and the weight is read as it lies, a value for all rows of a panel at once; the `gemm` crate packs the weight
//! value by value instead, which takes a third as long as multiplying it by 168 rows. 130 to 140 GFLOP/s a core against 95 to 130
//! (Xeon of the 5th generation, 172 at most).

use std::arch::x86_64::{
    __m512, _mm512_add_ps, _mm512_castpd_ps, _mm512_castps_pd, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_reduce_add_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_shuffle_f32x4, _mm512_storeu_ps, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd,
    _mm512_unpacklo_ps,
};

use rayon::prelude::*;

use super::matrix::{Matrix, Out, in_pieces};

/// Values of a register.
const LANES: usize = 16;
/// Registers of rows in a panel.
const PANEL: usize = 3;
/// Outputs of a tile: with [`PANEL`] registers each, 24 sums, 3 registers of rows and one of the weight.
const TILE: usize = 8;
/// Values summed before the next part of the weight: rows of a panel stay in the second cache, a tile's part of the weight in the first.
const DEPTH: usize = 512;

/// Rows of the weight that are read at once where there are few of `x`.
const STREAMS: usize = 4;
/// As how many multiplications reading a value of the weight counts.
const WEIGHT_READ: usize = 4;

/// Whether this CPU can.
pub(super) fn available() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
}

/// Some rows of `x` next to each other: `[columns, 16 * registers]`, zeros behind the last row.
struct Panel {
    first: usize,
    rows: usize,
    registers: usize,
    values: Vec<f32>,
}

/// `x W^T + b`, `[rows, outputs]`; an empty `bias` adds nothing. Only where [`available`].
///
/// # Shapes
/// - x: `[rows, in]`, weight: `[out, in]`, both dense
pub(super) fn forward(x: &Matrix<'_>, weight: &Matrix<'_>, bias: &[f32]) -> Vec<f32> {
    let (rows, outputs) = (x.rows, weight.rows);
    assert!(
        x.values.len() >= rows * x.columns && weight.values.len() >= outputs * x.columns,
        "matrices end early"
    );
    assert!(bias.is_empty() || bias.len() == outputs, "a bias of another length");
    let most = LANES * PANEL;
    // SAFETY: `available` was asked.
    let panel = |n: usize| unsafe { Panel::of(x, n * most, most.min(rows - n * most)) };
    let panels: Vec<Panel> = (0..rows.div_ceil(most)).into_par_iter().map(panel).collect();
    let mut y = Vec::with_capacity(rows * outputs);
    let out = Out::of(&mut y);
    in_pieces(outputs, rows * x.columns * outputs, |piece| {
        let bias = bias.get(piece.clone()).unwrap_or_default();
        // SAFETY: `available` was asked; each piece is its own columns of `y`.
        unsafe { some_outputs(&panels, &weight.some_rows(&piece), bias, out.part(piece.start, outputs, 1)) }
    });
    // SAFETY: every column of every row was written.
    unsafe { y.set_len(rows * outputs) }
    y
}

/// [`forward`] of so few rows that reading the weight takes longest: sums along its rows as they lie.
pub(super) fn few(x: &Matrix<'_>, weight: &Matrix<'_>, bias: &[f32]) -> Vec<f32> {
    let (rows, inputs, outputs) = (x.rows, x.columns, weight.rows);
    assert!(x.values.len() >= rows * inputs && weight.values.len() >= outputs * inputs, "matrices end early");
    assert!(bias.is_empty() || bias.len() == outputs, "a bias of another length");
    let mut y = Vec::with_capacity(rows * outputs);
    let out = Out::of(&mut y).part(0, outputs, 1);
    in_pieces(outputs, WEIGHT_READ * outputs * inputs, |piece| {
        for output in piece.clone().step_by(STREAMS) {
            let count = STREAMS.min(piece.end - output);
            for row in 0..rows {
                // SAFETY: `available` was asked; `count` rows of the weight and one of `x` are there, as just checked.
                let sums = unsafe {
                    let (x, w) =
                        (x.values.as_ptr().add(row * inputs), weight.values.as_ptr().add(output * inputs));
                    along(x, w, inputs, count)
                };
                for (n, sum) in sums.into_iter().take(count).enumerate() {
                    let bias = bias.get(output + n).copied().unwrap_or_default();
                    // SAFETY: a value of this piece's own columns.
                    unsafe { out.pointer(row, output + n).write(sum + bias) }
                }
            }
        }
    });
    // SAFETY: every column of every row was written.
    unsafe { y.set_len(rows * outputs) }
    y
}

/// The products of `x` with up to [`STREAMS`] rows of the weight.
#[target_feature(enable = "avx512f")]
unsafe fn along(x: *const f32, w: *const f32, inputs: usize, count: usize) -> [f32; STREAMS] {
    let mut acc = [[_mm512_setzero_ps(); 2]; STREAMS];
    let whole = inputs / (2 * LANES) * (2 * LANES);
    // A row that is not there is the first one again.
    let row = |n: usize| if n < count { n * inputs } else { 0 };
    for at in (0..whole).step_by(2 * LANES) {
        // SAFETY: 32 values of every row from `at` on are before its end.
        unsafe {
            let (low, high) = (_mm512_loadu_ps(x.add(at)), _mm512_loadu_ps(x.add(at + LANES)));
            for (n, acc) in acc.iter_mut().enumerate() {
                let w = w.add(row(n) + at);
                acc[0] = _mm512_fmadd_ps(low, _mm512_loadu_ps(w), acc[0]);
                acc[1] = _mm512_fmadd_ps(high, _mm512_loadu_ps(w.add(LANES)), acc[1]);
            }
        }
    }
    for at in (whole..inputs).step_by(LANES) {
        let wide = LANES.min(inputs - at);
        // SAFETY: `wide` values are left.
        unsafe {
            let x = load(x.add(at), wide);
            for (n, acc) in acc.iter_mut().enumerate() {
                acc[0] = _mm512_fmadd_ps(x, load(w.add(row(n) + at), wide), acc[0]);
            }
        }
    }
    acc.map(|[low, high]| _mm512_reduce_add_ps(_mm512_add_ps(low, high)))
}

impl Panel {
    #[target_feature(enable = "avx512f")]
    unsafe fn of(x: &Matrix<'_>, first: usize, rows: usize) -> Self {
        let (columns, registers) = (x.columns, rows.div_ceil(LANES));
        let width = registers * LANES;
        let mut values: Vec<f32> = Vec::with_capacity(columns * width);
        for register in 0..registers {
            let begin = first + register * LANES;
            let real = LANES.min(first + rows - begin);
            for column in (0..columns).step_by(LANES) {
                let wide = LANES.min(columns - column);
                let mut block = [_mm512_setzero_ps(); LANES];
                for (row, block) in block.iter_mut().take(real).enumerate() {
                    // SAFETY: `wide` values of a row of `x`, whose size the caller checked.
                    *block = unsafe { load(x.values.as_ptr().add((begin + row) * columns + column), wide) };
                }
                for (at, lanes) in transposed(&block).into_iter().take(wide).enumerate() {
                    // SAFETY: 16 values of column `column + at`, within the capacity.
                    unsafe {
                        _mm512_storeu_ps(
                            values.as_mut_ptr().add((column + at) * width + register * LANES),
                            lanes,
                        );
                    }
                }
            }
        }
        // SAFETY: every register of every column was written.
        unsafe { values.set_len(columns * width) }
        Self { first, rows, registers, values }
    }
}

/// The products of all rows with some outputs, written to their columns of `out`.
#[target_feature(enable = "avx512f")]
unsafe fn some_outputs(panels: &[Panel], weight: &Matrix<'_>, bias: &[f32], out: Out) {
    let (outputs, inputs) = (weight.rows, weight.columns);
    // Sums of a panel as tiles leave them: `[outputs, 16 * registers]`.
    let mut sums: Vec<Vec<f32>> = panels
        .iter()
        .map(|panel| vec![0.0; outputs.next_multiple_of(LANES) * panel.registers * LANES])
        .collect();
    for begin in (0..inputs).step_by(DEPTH) {
        let depth = DEPTH.min(inputs - begin);
        for output in (0..outputs).step_by(TILE) {
            let count = TILE.min(outputs - output);
            for (panel, sums) in panels.iter().zip(&mut sums) {
                let width = panel.registers * LANES;
                let x = panel.values[begin * width..].as_ptr();
                let w = weight.values[output * inputs + begin..].as_ptr();
                let sums = sums[output * width..].as_mut_ptr();
                // SAFETY: `depth` columns of the panel, `count` rows of the weight and of the sums are there.
                unsafe {
                    match panel.registers {
                        1 => tiles::<1>(x, w, inputs, depth, sums, count),
                        2 => tiles::<2>(x, w, inputs, depth, sums, count),
                        _ => tiles::<PANEL>(x, w, inputs, depth, sums, count),
                    }
                }
            }
        }
    }
    for (panel, sums) in panels.iter().zip(&sums) {
        // SAFETY: the caller's.
        unsafe { write(panel, sums, outputs, bias, out) }
    }
}

/// A whole tile, or the outputs that are left one by one.
#[target_feature(enable = "avx512f")]
unsafe fn tiles<const V: usize>(
    x: *const f32,
    w: *const f32,
    inputs: usize,
    depth: usize,
    sums: *mut f32,
    count: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        if count == TILE {
            return tile::<V, TILE>(x, w, inputs, depth, sums);
        }
        for n in 0..count {
            tile::<V, 1>(x, w.add(n * inputs), inputs, depth, sums.add(n * V * LANES));
        }
    }
}

/// Adds to the sums of `16 V` rows and `N` outputs what `depth` inputs give.
#[target_feature(enable = "avx512f")]
unsafe fn tile<const V: usize, const N: usize>(
    x: *const f32,
    w: *const f32,
    inputs: usize,
    depth: usize,
    sums: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut acc = [[_mm512_setzero_ps(); V]; N];
        for (n, acc) in acc.iter_mut().enumerate() {
            for (v, acc) in acc.iter_mut().enumerate() {
                *acc = _mm512_loadu_ps(sums.add((n * V + v) * LANES));
            }
        }
        for at in 0..depth {
            let mut rows = [_mm512_setzero_ps(); V];
            for (v, rows) in rows.iter_mut().enumerate() {
                *rows = _mm512_loadu_ps(x.add((at * V + v) * LANES));
            }
            for (n, acc) in acc.iter_mut().enumerate() {
                let weight = _mm512_set1_ps(*w.add(n * inputs + at));
                for (acc, rows) in acc.iter_mut().zip(rows) {
                    *acc = _mm512_fmadd_ps(rows, weight, *acc);
                }
            }
        }
        for (n, acc) in acc.iter().enumerate() {
            for (v, acc) in acc.iter().enumerate() {
                _mm512_storeu_ps(sums.add((n * V + v) * LANES), *acc);
            }
        }
    }
}

/// Turns the sums of a panel to rows, adds the bias and writes them.
#[target_feature(enable = "avx512f")]
unsafe fn write(panel: &Panel, sums: &[f32], outputs: usize, bias: &[f32], out: Out) {
    let width = panel.registers * LANES;
    for output in (0..outputs).step_by(LANES) {
        let wide = LANES.min(outputs - output);
        let bias = bias.get(output..output + wide);
        // SAFETY: as many values as `wide` says.
        let bias = bias.map_or(_mm512_setzero_ps(), |bias| unsafe { load(bias.as_ptr(), wide) });
        for register in 0..panel.registers {
            let mut block = [_mm512_setzero_ps(); LANES];
            for (n, block) in block.iter_mut().enumerate() {
                let sums = &sums[(output + n) * width + register * LANES..][..LANES];
                // SAFETY: 16 values.
                *block = unsafe { _mm512_loadu_ps(sums.as_ptr()) };
            }
            let rows = transposed(&block).into_iter().enumerate();
            for (at, row) in rows.take(panel.rows - register * LANES) {
                let place = out.pointer(panel.first + register * LANES + at, output);
                // SAFETY: `wide` columns of a row of `out`, which are the caller's.
                unsafe { _mm512_mask_storeu_ps(place, mask(wide), _mm512_add_ps(row, bias)) }
            }
        }
    }
}

/// The first `count` lanes.
fn mask(count: usize) -> u16 {
    u16::MAX >> (LANES - count)
}

/// `count` values, and zeros.
#[target_feature(enable = "avx512f")]
unsafe fn load(from: *const f32, count: usize) -> __m512 {
    // SAFETY: the caller's; masked lanes are not read.
    unsafe { _mm512_maskz_loadu_ps(mask(count), from) }
}

/// Rows to columns.
#[target_feature(enable = "avx512f")]
fn transposed(rows: &[__m512; LANES]) -> [__m512; LANES] {
    const EVEN: i32 = 0x88;
    const ODD: i32 = 0xdd;
    let mut pairs = [_mm512_setzero_ps(); LANES];
    for n in 0..8 {
        pairs[2 * n] = _mm512_unpacklo_ps(rows[2 * n], rows[2 * n + 1]);
        pairs[2 * n + 1] = _mm512_unpackhi_ps(rows[2 * n], rows[2 * n + 1]);
    }
    // Of four rows each: quarter q of `fours[4 g + j]` is column `4 q + j` of rows `4 g..4 g + 4`.
    let mut fours = [_mm512_setzero_ps(); LANES];
    let low = |a, b| _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    let high = |a, b| _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    for g in (0..LANES).step_by(4) {
        fours[g] = low(pairs[g], pairs[g + 2]);
        fours[g + 1] = high(pairs[g], pairs[g + 2]);
        fours[g + 2] = low(pairs[g + 1], pairs[g + 3]);
        fours[g + 3] = high(pairs[g + 1], pairs[g + 3]);
    }
    let mut columns = [_mm512_setzero_ps(); LANES];
    for j in 0..4 {
        let (even, odd) = (
            [
                _mm512_shuffle_f32x4::<EVEN>(fours[j], fours[4 + j]),
                _mm512_shuffle_f32x4::<EVEN>(fours[8 + j], fours[12 + j]),
            ],
            [
                _mm512_shuffle_f32x4::<ODD>(fours[j], fours[4 + j]),
                _mm512_shuffle_f32x4::<ODD>(fours[8 + j], fours[12 + j]),
            ],
        );
        columns[j] = _mm512_shuffle_f32x4::<EVEN>(even[0], even[1]);
        columns[8 + j] = _mm512_shuffle_f32x4::<ODD>(even[0], even[1]);
        columns[4 + j] = _mm512_shuffle_f32x4::<EVEN>(odd[0], odd[1]);
        columns[12 + j] = _mm512_shuffle_f32x4::<ODD>(odd[0], odd[1]);
    }
    columns
}
