//! Results written row by row by all threads; loops compiled for wide registers.

use std::mem::MaybeUninit;

use pulp::NullaryFnOnce;
use rayon::prelude::*;

/// Values to compute below which handing work to other threads takes longer than the work.
const ALONE: usize = 1 << 15;
/// Values that a thread computes at once.
const AT_ONCE: usize = 1 << 14;
/// Partial sums of a sum, whatever the registers hold: what is added first does not depend on the machine.
const LANES: usize = 16;

/// Values not written yet.
pub(super) type Unwritten = [MaybeUninit<f32>];

/// A function that is compiled once more for AVX2.
struct Wide<F>(F);

impl<F: FnOnce() -> R, R> NullaryFnOnce for Wide<F> {
    type Output = R;

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "compiled once more with the caller's AVX2")]
    fn call(self) -> R {
        (self.0)()
    }
}

/// `f()`, with AVX2 where the CPU has it. What `f` calls must be inlined into it.
#[inline]
pub(super) fn wide<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = pulp::x86::V3::try_new() {
        return avx2.vectorize(Wide(f));
    }
    f()
}

/// `rows` rows of `width` values, of which `write` fills each wholly.
pub(super) fn by_row(rows: usize, width: usize, write: impl Fn(usize, &mut Unwritten) + Sync) -> Vec<f32> {
    let [out, _] = by_rows(rows, [width, 0], width, |row, [out, _]| write(row, out));
    out
}

/// As [`by_row`], of two results at once.
pub(super) fn by_row_pair(
    rows: usize,
    width: usize,
    write: impl Fn(usize, [&mut Unwritten; 2]) + Sync,
) -> [Vec<f32>; 2] {
    by_rows(rows, [width; 2], 2 * width, write)
}

fn by_rows(
    rows: usize,
    width: [usize; 2],
    cost: usize,
    write: impl Fn(usize, [&mut Unwritten; 2]) + Sync,
) -> [Vec<f32>; 2] {
    let length = width.map(|width| rows * width);
    let [mut first, mut second] = length.map(Vec::<f32>::with_capacity);
    let at_once = (AT_ONCE / cost.max(1)).max(1);
    let some = |number: usize, one: &mut Unwritten, two: &mut Unwritten| {
        wide(|| {
            let place = |nth: usize, width: usize| nth * width..(nth + 1) * width;
            for (nth, row) in (number * at_once..rows.min((number + 1) * at_once)).enumerate() {
                write(row, [&mut one[place(nth, width[0])], &mut two[place(nth, width[1])]]);
            }
        });
    };
    let count = rows.div_ceil(at_once);
    let one = pieces(&mut first.spare_capacity_mut()[..length[0]], at_once * width[0], count);
    let two = pieces(&mut second.spare_capacity_mut()[..length[1]], at_once * width[1], count);
    if rows * cost <= ALONE {
        one.into_iter().zip(two).enumerate().for_each(|(number, (one, two))| some(number, one, two));
    } else {
        one.into_par_iter().zip(two).enumerate().for_each(|(number, (one, two))| some(number, one, two));
    }
    // SAFETY: the capacity is as large, and `write` filled every row.
    unsafe {
        first.set_len(length[0]);
        second.set_len(length[1]);
    }
    [first, second]
}

/// `count` pieces of `length` values each; the last may be shorter.
fn pieces(mut all: &mut Unwritten, length: usize, count: usize) -> Vec<&mut Unwritten> {
    (0..count)
        .map(|_| {
            let length = length.min(all.len());
            let (piece, rest) = std::mem::take(&mut all).split_at_mut(length);
            all = rest;
            piece
        })
        .collect()
}

/// The sum of `term` over two slices of one length.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled with the caller's registers")]
pub(super) fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (whole_a, rest_a) = a.as_chunks::<LANES>();
    let (whole_b, rest_b) = b.as_chunks::<LANES>();
    for (a, b) in whole_a.iter().zip(whole_b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += term(*a, *b);
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(rest_a).zip(rest_b) {
        *lane += term(*a, *b);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The largest value; minus infinity of none. NaN is passed over.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled with the caller's registers")]
pub(super) fn largest(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for values in whole {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}
