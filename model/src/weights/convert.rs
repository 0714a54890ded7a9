//! Stored numbers to tensor data, in one pass from the mapped file to the destination.
//!
//! In: little-endian bytes of f64, f32, f16 or bf16. Out: burn `TensorData` in f32, f16 or bf16. No second
//! copy exists: each piece of the file is converted into its place and its pages are given back.

use std::ops::Range;

use burn::tensor::{DType, Element, TensorData};
use half::{bf16, f16};
use rayon::prelude::*;

use super::mapped::MappedFile;

/// Bytes converted before their pages are given back: 16 MiB, a multiple of every element width.
const PIECE: usize = 16 << 20;

/// The element type of a tensor in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// IEEE double.
    F64,
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// The upper half of an IEEE single.
    Bf16,
    /// No floating-point type that a parameter could have; its name in the file.
    Other(String),
}

impl Stored {
    /// Bytes per element; `None` for types that are never converted.
    pub fn width(&self) -> Option<usize> {
        match self {
            Self::F64 => Some(8),
            Self::F32 => Some(4),
            Self::F16 | Self::Bf16 => Some(2),
            Self::Other(_) => None,
        }
    }
}

/// The elements in `range` of `file` as `wanted`; `None` when either type is not a floating-point type of
/// this module. `range` must hold whole elements of `shape`.
pub(super) fn convert(
    file: &MappedFile,
    range: Range<usize>,
    stored: &Stored,
    shape: &[usize],
    wanted: DType,
) -> Option<TensorData> {
    let (file, shape) = (&(file, range), shape.to_vec());
    match (stored, wanted) {
        (Stored::F16, DType::F16) => Some(TensorData::new(decode(file, f16::from_le_bytes), shape)),
        (Stored::Bf16, DType::BF16) => Some(TensorData::new(decode(file, bf16::from_le_bytes), shape)),
        (_, DType::F32) => through_f32(file, stored, shape, |x| x),
        (_, DType::F16) => through_f32(file, stored, shape, f16::from_f32),
        (_, DType::BF16) => through_f32(file, stored, shape, bf16::from_f32),
        _ => None,
    }
}

/// Every stored type but f64 fits f32 exactly; f64 is rounded once to f32, then to `T`.
fn through_f32<T: Element + Send>(
    file: &(&MappedFile, Range<usize>),
    stored: &Stored,
    shape: Vec<usize>,
    cast: impl Fn(f32) -> T + Sync,
) -> Option<TensorData> {
    let values = match stored {
        Stored::F64 => decode(file, |b| cast(f64::from_le_bytes(b) as f32)),
        Stored::F32 => decode(file, |b| cast(f32::from_le_bytes(b))),
        Stored::F16 => decode(file, |b| cast(f16::from_le_bytes(b).to_f32())),
        Stored::Bf16 => decode(file, |b| cast(bf16::from_le_bytes(b).to_f32())),
        Stored::Other(_) => return None,
    };
    Some(TensorData::new(values, shape))
}

/// Elements of `WIDTH` bytes through `cast`, in order.
fn decode<const WIDTH: usize, T: Send>(
    (file, range): &(&MappedFile, Range<usize>),
    cast: impl Fn([u8; WIDTH]) -> T + Sync,
) -> Vec<T> {
    let mut values = Vec::with_capacity(range.len() / WIDTH);
    for start in range.clone().step_by(PIECE) {
        let piece = start..range.end.min(start + PIECE);
        let bytes = file.bytes().get(piece.clone()).unwrap_or_default();
        let (elements, _) = bytes.as_chunks::<WIDTH>();
        values.par_extend(elements.par_iter().map(|element| cast(*element)));
        file.release(piece);
    }
    values
}
