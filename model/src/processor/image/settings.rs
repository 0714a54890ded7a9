//! The settings of image preprocessing.

use crate::config::PixelNorm;
use serde::{Deserialize, Serialize};

/// How an image becomes the square that a vision tower takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageProcessor {
    /// Side of the square in pixels. Default 224, CLIP ViT-B/32's.
    pub size: u32,
    /// What the short side (with `crop = "none"`, both) is resized to before the middle is cut out. Default `size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize_to: Option<u32>,
    /// Default `bicubic`, `CLIPImageProcessor`'s (Pillow's, antialiased).
    pub filter: Filter,
    /// Default `center`.
    pub crop: Crop,
    /// Default `pillow`.
    pub resampler: Resampler,
    /// Default `exif`.
    pub orientation: Orientation,
    /// Default `white`.
    pub alpha: Alpha,
    /// Most pixels of an encoded image. Default 178,956,970, at which Pillow raises `DecompressionBombError`.
    pub max_pixels: u64,
    /// How the tower's input is normalised; the model does that, on the device.
    pub norm: PixelNorm,
}

/// How pixels are interpolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    Nearest,
    Bilinear,
    Bicubic,
    Lanczos3,
}

/// How an image becomes a square.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Crop {
    /// The short side becomes `size`; of the long side the middle is kept.
    Center,
    /// The image is put in the middle of a square of the mean colour first, as LLaVA 1.5 does it: everything is kept.
    Pad,
    /// Both sides become `size`: everything is kept, out of proportion.
    None,
}

/// Who computes the square.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resampler {
    /// Pillow's sums, to the bit.
    Pillow,
    /// The crate `fast_image_resize`: 0.3% of the values are up to 2 levels off.
    Fast,
}

/// Whether an image is turned as its EXIF data says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Orientation {
    /// Upright, as `datasets` and Transformers' `load_image` give it.
    Exif,
    /// As the pixels are stored, as `Image.open` gives it.
    Stored,
}

/// What becomes of transparency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Alpha {
    /// The image is put on white, as Transformers' processors do it.
    White,
    /// Transparency is forgotten, as `convert("RGB")` does it: what lies under it shows.
    Drop,
}

impl Default for ImageProcessor {
    fn default() -> Self {
        Self {
            size: 224,
            resize_to: None,
            filter: Filter::Bicubic,
            crop: Crop::Center,
            resampler: Resampler::Pillow,
            orientation: Orientation::Exif,
            alpha: Alpha::White,
            max_pixels: 178_956_970,
            norm: PixelNorm::default(),
        }
    }
}
