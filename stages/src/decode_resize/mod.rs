//! `decode-resize`: encoded pictures to the square of pixels the vision model takes.
//!
//! In: `images` list<binary>, empty for a text-only row.
//! Out: `pixels` `list<fixed_size_binary[3·size·size]>`: u8, channels first, one per picture, as `CLIPImageProcessor` on
//! Pillow has them before it rescales and normalises (the model does that).
//!
//! | code | why a row is rejected |
//! |---|---|
//! | `undecodable` | the bytes are no whole picture in one of the formats; a page called `.jpg`, a truncated file |
//! | `too-large` | more than `max_pixels` pixels: a decompression bomb |

mod convolve;
pub mod decode;
mod jpeg;
mod resize;
mod squares;

use crate::arrays::{Lists, column, item_range, list_of};
use arrow::array::{Array, BinaryArray, FixedSizeBinaryArray, ListArray, RecordBatch};
use arrow::datatypes::DataType;
use decode::{Buffers, Unusable, decode};
use llavm_pipeline::stage::{Apply, Estimate, Expected, MapStage, OpenContext, Parameters, StageKind};
use llavm_pipeline::{Columns, Rejects, StageError};
use resize::Resizer;
use serde::{Deserialize, Serialize};
use squares::Squares;
use std::cell::RefCell;
use std::sync::Arc;

/// Parameters of `decode-resize`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecodeResize {
    /// Side of the square in pixels. Default 224, CLIP ViT-B/32's.
    pub size: u32,
    /// Default `bicubic`, `CLIPImageProcessor`'s (Pillow's, antialiased).
    pub filter: Filter,
    /// Default `center`.
    pub crop: Crop,
    /// Most pixels of an encoded picture. Default 178,956,970, at which Pillow raises `DecompressionBombError`.
    pub max_pixels: u64,
    /// Whether the pixels are kept (150,528 bytes a picture at 224), or computed again whenever they are read. Default true.
    #[serde(skip_serializing)]
    pub store: bool,
}

/// How pixels are interpolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    Nearest,
    Bilinear,
    Bicubic,
    Lanczos3,
}

/// How a picture becomes a square.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Crop {
    /// The short side becomes `size`; of the long side the middle is kept.
    Center,
    /// Both sides become `size`: everything is kept, out of proportion.
    None,
}

impl Default for DecodeResize {
    fn default() -> Self {
        Self { size: 224, filter: Filter::Bicubic, crop: Crop::Center, max_pixels: 178_956_970, store: true }
    }
}

impl StageKind for DecodeResize {
    const KIND: &'static str = "decode-resize";
    const VERSION: u32 = 2;
    const ABOUT: &'static str = "decode pictures and resize them as the vision model was trained";
    const PARAMS: &'static [&'static str] = &["size", "filter", "crop", "max_pixels", "store"];
}

impl Parameters for DecodeResize {
    /// One picture a row.
    fn estimate(&self, expected: &Expected) -> Option<Estimate> {
        Some(Estimate::table(expected, if self.store { self.n_bytes() as u64 } else { 0 }))
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        if !(1..=4096).contains(&self.size) {
            wrong.push(("size", "must be from 1 to 4096 pixels".to_owned()));
        }
        if self.max_pixels == 0 {
            wrong.push(("max_pixels", "must be at least 1".to_owned()));
        }
        wrong
    }
}

impl MapStage for DecodeResize {
    fn input(&self) -> Columns {
        Columns::new().with("images", list_of(DataType::Binary))
    }

    fn output(&self) -> Columns {
        Columns::new().with("pixels", list_of(DataType::FixedSizeBinary(self.n_bytes() as i32)))
    }

    fn stored(&self) -> bool {
        self.store
    }

    fn open(&self, _context: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError> {
        Ok(Box::new(self.clone()))
    }
}

impl Apply for DecodeResize {
    fn apply(&self, rows: &RecordBatch, rejects: &mut Rejects) -> Result<RecordBatch, StageError> {
        let images: &ListArray = column(rows, "images")?;
        let encoded = images.values().as_any().downcast_ref::<BinaryArray>();
        let encoded = encoded.ok_or_else(|| StageError::new("`images` is not a list of binary"))?;
        let mut squares = Squares::with_capacity(self.n_bytes(), encoded.len());
        let mut lists = Lists::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            if !rejects.is_rejected(row) {
                let range = item_range(images, row);
                let done = squares.len();
                let mut row_images = range.clone().map(|item| encoded.value(item)).enumerate();
                match row_images.try_for_each(|(n, bytes)| self.square(n, bytes, squares.push())) {
                    Ok(()) => {
                        lists.push(range.len());
                        continue;
                    }
                    Err((code, detail)) => {
                        squares.truncate(done);
                        rejects.reject(row, code, detail);
                    }
                }
            }
            lists.push_null();
        }
        let squares = FixedSizeBinaryArray::try_new(self.n_bytes() as i32, squares.finish(), None)?;
        Ok(RecordBatch::try_new(self.output().schema(), vec![lists.finish(Arc::new(squares))?])?)
    }
}

thread_local! {
    /// Buffers of the thread that works on a batch, so that a picture costs no allocation.
    static WORK: RefCell<(Buffers, Resizer)> = RefCell::default();
}

impl DecodeResize {
    /// Bytes of one square.
    pub fn n_bytes(&self) -> usize {
        3 * (self.size * self.size) as usize
    }

    /// One encoded picture to `[3, size, size]`, u8. Err: a reject's code and detail.
    pub fn pixels(&self, encoded: &[u8]) -> Result<Vec<u8>, (&'static str, String)> {
        let mut pixels = vec![0; self.n_bytes()];
        self.square(0, encoded, &mut pixels)?;
        Ok(pixels)
    }

    /// Writes the square of picture `n` of a row. What it wrote is of no use after an error.
    fn square(&self, n: usize, encoded: &[u8], square: &mut [u8]) -> Result<(), Unusable> {
        WORK.with_borrow_mut(|(buffers, resizer)| {
            let rgb = decode(encoded, self.max_pixels, buffers)?;
            resizer.resize(&rgb, (self.size, self.filter, self.crop), square);
            buffers.trim();
            Ok(())
        })
        .map_err(|(code, detail): Unusable| (code, format!("picture {}: {detail}", n + 1)))
    }
}
