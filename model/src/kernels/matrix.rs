//! Matrices wherever they lie, their products, and products in pieces.
//!
//! The `gemm` crate is called for pieces of the result, so that all it does, the packing of its operands included, is done by all threads,
//! and results are written where they belong: Burn's backend packs a whole weight on one thread, and can write rows next to each
//! other only, which leaves a transposed result to be copied.

use std::ops::Range;

use gemm::Parallelism;
use rayon::prelude::*;

/// Outputs or inputs of a weight that a thread takes at once: the same for any number of threads, since it decides how sums are formed.
const PIECE: usize = 128;
/// Multiplications below which handing pieces to other threads takes longer than the work.
const ALONE: usize = 1 << 20;
/// A matrix in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix<'a> {
    /// From the first value on.
    pub values: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    /// From a row to the next.
    pub by_row: usize,
    /// From a column to the next.
    pub by_column: usize,
}

impl Matrix<'_> {
    /// The transposed matrix.
    pub fn turned(self) -> Self {
        let Self { values, rows, columns, by_row, by_column } = self;
        Self { values, rows: columns, columns: rows, by_row: by_column, by_column: by_row }
    }

    /// Some rows of it.
    pub fn some_rows(self, rows: &Range<usize>) -> Self {
        Self { values: &self.values[rows.start * self.by_row..], rows: rows.len(), ..self }
    }

    fn pointer(&self) -> *const f32 {
        let last = (self.rows.max(1) - 1) * self.by_row + (self.columns.max(1) - 1) * self.by_column;
        assert!(
            self.rows * self.columns == 0 || last < self.values.len(),
            "a matrix ends before its last value"
        );
        self.values.as_ptr()
    }
}

/// Memory that several threads write different parts of.
#[derive(Clone, Copy)]
pub(super) struct Out {
    pointer: *mut f32,
    by_row: usize,
    by_column: usize,
}

// SAFETY: whoever writes through it must write what nobody else does; `multiply` demands that.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

impl Out {
    /// The memory of `values`, up to its capacity.
    pub fn of(values: &mut Vec<f32>) -> Self {
        Self { pointer: values.as_mut_ptr(), by_row: 0, by_column: 0 }
    }

    /// Where a value of the matrix is.
    pub fn pointer(self, row: usize, column: usize) -> *mut f32 {
        self.pointer.wrapping_add(row * self.by_row + column * self.by_column)
    }

    /// A matrix in it.
    pub fn part(self, first: usize, by_row: usize, by_column: usize) -> Self {
        Self { pointer: self.pointer.wrapping_add(first), by_row, by_column }
    }
}

/// `out = a b`, or `out += a b`, on this thread.
///
/// # Safety
/// `out` is a matrix of as many rows as `a` and columns as `b` that nobody else uses meanwhile; where it is added to, it has values.
pub(super) unsafe fn multiply(out: Out, a: &Matrix<'_>, b: &Matrix<'_>, add: bool) {
    assert_eq!(a.columns, b.rows, "matrices do not fit");
    // SAFETY: `pointer` checks what is read, the caller what is written.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out.pointer,
            out.by_column as isize,
            out.by_row as isize,
            add,
            a.pointer(),
            a.by_column as isize,
            a.by_row as isize,
            b.pointer(),
            b.by_column as isize,
            b.by_row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// Calls `each` for all pieces of `length`, on all threads if there are as many multiplications as make it worth it.
pub(super) fn in_pieces(length: usize, multiplications: usize, each: impl Fn(Range<usize>) + Sync) {
    let piece = |n: usize| each(n * PIECE..length.min((n + 1) * PIECE));
    let pieces = 0..length.div_ceil(PIECE);
    if multiplications <= ALONE { pieces.for_each(piece) } else { pieces.into_par_iter().for_each(piece) }
}
