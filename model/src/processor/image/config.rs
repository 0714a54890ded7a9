//! `preprocessor_config.json`, as Transformers' `CLIPImageProcessor` reads and writes it.
//!
//! What it does not know (`resampler`, `orientation`, `alpha`, `max_pixels`) it keeps and ignores.

use super::{Crop, Filter, ImageProcessor};
use crate::config::PixelNorm;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A `preprocessor_config.json` that asks for something else than what can be done here.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{key}` is {value}; {supported}")]
pub struct UnsupportedImage {
    /// The key.
    pub key: &'static str,
    /// What it says.
    pub value: String,
    /// What is supported.
    pub supported: &'static str,
}

/// Processors that do what [`ImageProcessor`] does; each with its endings `Fast`, `Pil` and `FeatureExtractor`.
const PROCESSORS: [&str; 6] = ["CLIP", "ChineseCLIP", "Siglip", "Llava", "ViT", "Blip"];
const ENDINGS: [&str; 4] = ["ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor"];

/// Keys that must have one value where they are there, and what is said of another.
const FIXED: [(&str, &str); 4] = [
    ("do_resize", "images are always resized"),
    ("do_rescale", "pixels are always rescaled"),
    ("do_reduce_labels", "there are no labels in images"),
    ("do_image_splitting", "an image is one square"),
];
/// Keys that mean something else than can be done here.
const UNKNOWN: [(&str, &str); 3] = [
    ("crop_pct", "name `size` and `crop_size` instead"),
    ("pad_size", "images are padded to a square of their longer side"),
    ("image_grid_pinpoints", "an image is one square"),
];

impl Filter {
    /// Pillow's number for it, as `resample` has it.
    fn resample(self) -> u64 {
        match self {
            Self::Nearest => 0,
            Self::Lanczos3 => 1,
            Self::Bilinear => 2,
            Self::Bicubic => 3,
        }
    }

    fn from_resample(value: &Value) -> Result<Self, UnsupportedImage> {
        [Self::Nearest, Self::Lanczos3, Self::Bilinear, Self::Bicubic]
            .into_iter()
            .find(|filter| value.as_u64() == Some(filter.resample()))
            .ok_or_else(|| {
                unsupported("resample", value, "0 to 3 (nearest, lanczos, bilinear, bicubic) are supported")
            })
    }
}

fn unsupported(key: &'static str, value: &Value, supported: &'static str) -> UnsupportedImage {
    UnsupportedImage { key, value: value.to_string(), supported }
}

/// The value of a key; `null` counts as none.
fn present<'a>(config: &'a Value, key: &str) -> Option<&'a Value> {
    config.get(key).filter(|value| !value.is_null())
}

/// Sets `target` to the value of a key, where there is one.
fn read<T: DeserializeOwned>(
    config: &Value,
    key: &'static str,
    supported: &'static str,
    target: &mut T,
) -> Result<(), UnsupportedImage> {
    if let Some(value) = present(config, key) {
        *target = serde_json::from_value(value.clone()).map_err(|_| unsupported(key, value, supported))?;
    }
    Ok(())
}

impl ImageProcessor {
    /// As the `preprocessor_config.json` that Transformers reads. Padding is `LlavaImageProcessor`'s, all else `CLIPImageProcessor`'s.
    pub fn to_preprocessor_config(&self) -> Value {
        let square = |side: u32| json!({"height": side, "width": side});
        let resize_to = self.resize_to.unwrap_or(self.size);
        let size = match self.crop {
            Crop::Center | Crop::Pad => json!({"shortest_edge": resize_to}),
            Crop::None => square(resize_to),
        };
        let pads = self.crop == Crop::Pad;
        json!({
            "image_processor_type": if pads { "LlavaImageProcessor" } else { "CLIPImageProcessor" },
            "do_convert_rgb": true,
            "do_pad": pads,
            "do_resize": true,
            "size": size,
            "resample": self.filter.resample(),
            "do_center_crop": self.crop != Crop::None || resize_to != self.size,
            "crop_size": square(self.size),
            "do_rescale": true,
            "rescale_factor": 1.0 / 255.0,
            "do_normalize": true,
            "image_mean": self.norm.mean,
            "image_std": self.norm.std,
            "resampler": self.resampler,
            "orientation": self.orientation,
            "alpha": self.alpha,
            "max_pixels": self.max_pixels,
        })
    }

    /// Reads a `preprocessor_config.json`; a key that is missing has CLIP's value, `size` that of `image_size`.
    pub fn from_preprocessor_config(config: &Value, image_size: u32) -> Result<Self, UnsupportedImage> {
        refuse_unknown(config)?;
        let mut image = Self { size: image_size, ..Self::default() };
        if present(config, "do_normalize") == Some(&json!(false)) {
            image.norm = PixelNorm { mean: [0.0; 3], std: [1.0; 3] };
        } else {
            read(config, "image_mean", "three numbers are expected", &mut image.norm.mean)?;
            read(config, "image_std", "three numbers are expected", &mut image.norm.std)?;
        }
        if let Some(value) = present(config, "resample") {
            image.filter = Filter::from_resample(value)?;
        }
        read(config, "resampler", "\"pillow\" and \"fast\" are supported", &mut image.resampler)?;
        read(config, "orientation", "\"exif\" and \"stored\" are supported", &mut image.orientation)?;
        read(config, "alpha", "\"white\" and \"drop\" are supported", &mut image.alpha)?;
        read(config, "max_pixels", "a number of pixels is expected", &mut image.max_pixels)?;
        image.read_size(config)?;
        Ok(image)
    }

    /// `size`, `do_center_crop`, `crop_size` and `do_pad`.
    fn read_size(&mut self, config: &Value) -> Result<(), UnsupportedImage> {
        let side_of = |key: &'static str| {
            let one = |value| side(value).ok_or_else(|| unsupported(key, value, "one side is expected"));
            present(config, key).map(one).transpose()
        };
        let (resized, cropped) = (side_of("size")?, side_of("crop_size")?);
        let both_sides = present(config, "size").is_some_and(|size| size.get("height").is_some());
        let crops = present(config, "do_center_crop").map_or(!both_sides, |crop| *crop == json!(true));
        let pads = present(config, "do_pad") == Some(&json!(true));
        let resized = resized.or(cropped).unwrap_or(self.size);
        self.size = if crops { cropped.unwrap_or(resized) } else { resized };
        self.resize_to = Some(resized).filter(|resized| *resized != self.size);
        self.crop = match (pads, both_sides) {
            (true, _) => Crop::Pad,
            (false, true) => Crop::None,
            (false, false) => Crop::Center,
        };
        if resized < self.size {
            let supported = "it must not be larger than `size`: a tower takes no empty border";
            return Err(unsupported("crop_size", &config["crop_size"], supported));
        }
        if self.crop == Crop::Center && !crops {
            let value = config.get("do_center_crop").unwrap_or(&Value::Null);
            return Err(unsupported("do_center_crop", value, "a vision tower takes squares only"));
        }
        Ok(())
    }
}

/// A number, `{"shortest_edge": n}`, or `{"height": n, "width": n}`.
fn side(value: &Value) -> Option<u32> {
    let edge = |key: &str| value.get(key).and_then(Value::as_u64);
    let square = edge("height").filter(|height| edge("width") == Some(*height));
    let side = value.as_u64().or(edge("shortest_edge")).or(square)?;
    u32::try_from(side).ok().filter(|side| *side > 0)
}

fn refuse_unknown(config: &Value) -> Result<(), UnsupportedImage> {
    for key in ["image_processor_type", "feature_extractor_type"] {
        let known = |name: &str| {
            PROCESSORS.iter().any(|start| name.strip_prefix(start).is_some_and(|end| ENDINGS.contains(&end)))
        };
        if let Some(value) = present(config, key).filter(|value| !value.as_str().is_some_and(known)) {
            return Err(unsupported(key, value, "CLIP's, SigLIP's, LLaVA's, ViT's and BLIP's are supported"));
        }
    }
    for (key, supported) in FIXED {
        let fixed = json!(matches!(key, "do_resize" | "do_rescale"));
        if let Some(value) = present(config, key).filter(|value| **value != fixed) {
            return Err(unsupported(key, value, supported));
        }
    }
    for (key, supported) in UNKNOWN {
        if let Some(value) = present(config, key) {
            return Err(unsupported(key, value, supported));
        }
    }
    let factor = |value: &&Value| value.as_f64().is_none_or(|factor| (factor * 255.0 - 1.0).abs() > 1e-6);
    match present(config, "rescale_factor").filter(factor) {
        Some(value) => Err(unsupported("rescale_factor", value, "pixels are divided by 255")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Alpha, Orientation, Resampler};
    use super::*;

    #[test]
    fn what_is_written_reads_back_equal() {
        for crop in [Crop::Center, Crop::Pad, Crop::None] {
            for (filter, resize_to) in [
                (Filter::Nearest, None),
                (Filter::Bilinear, Some(64)),
                (Filter::Bicubic, None),
                (Filter::Lanczos3, Some(50)),
            ] {
                let image = ImageProcessor {
                    size: 48,
                    resize_to,
                    filter,
                    crop,
                    resampler: Resampler::Fast,
                    orientation: Orientation::Stored,
                    alpha: Alpha::Drop,
                    max_pixels: 9,
                    ..ImageProcessor::default()
                };
                let written = image.to_preprocessor_config();
                assert_eq!(ImageProcessor::from_preprocessor_config(&written, 224), Ok(image));
            }
        }
    }

    #[test]
    fn an_old_and_a_new_clip_configuration_read_equal() {
        let old = json!({"feature_extractor_type": "CLIPFeatureExtractor", "size": 336, "crop_size": 336, "do_center_crop": true, "resample": 3});
        let new = json!({"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}});
        let expected = ImageProcessor { size: 336, ..ImageProcessor::default() };
        for config in [old, new] {
            assert_eq!(ImageProcessor::from_preprocessor_config(&config, 224).as_ref(), Ok(&expected));
        }
        let nothing = ImageProcessor::from_preprocessor_config(&json!({}), 224);
        assert_eq!(nothing, Ok(ImageProcessor::default()));
    }

    #[test]
    fn other_sizes_and_crops_are_honoured() {
        let read = |config| ImageProcessor::from_preprocessor_config(&config, 224).unwrap();
        let cut = read(json!({"size": {"shortest_edge": 256}, "crop_size": 224}));
        assert_eq!((cut.size, cut.resize_to, cut.crop), (224, Some(256), Crop::Center));
        let siglip = read(
            json!({"image_processor_type": "SiglipImageProcessor", "size": {"height": 384, "width": 384}}),
        );
        assert_eq!((siglip.size, siglip.resize_to, siglip.crop), (384, None, Crop::None));
        let llava = read(
            json!({"image_processor_type": "LlavaImageProcessorFast", "do_pad": true, "size": {"shortest_edge": 336}, "crop_size": 336}),
        );
        assert_eq!((llava.size, llava.crop), (336, Crop::Pad));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_its_key() {
        let refused = [
            json!({"do_resize": false}),
            json!({"resample": 5}),
            json!({"size": {"height": 224, "width": 448}}),
            json!({"size": {"shortest_edge": 224}, "crop_size": 256}),
            json!({"size": {"shortest_edge": 224}, "do_center_crop": false}),
            json!({"rescale_factor": 0.5}),
            json!({"image_processor_type": "Qwen2VLImageProcessor"}),
            json!({"crop_pct": 0.9}),
        ]
        .map(|config| ImageProcessor::from_preprocessor_config(&config, 224).unwrap_err().key);
        let keys = [
            "do_resize",
            "resample",
            "size",
            "crop_size",
            "do_center_crop",
            "rescale_factor",
            "image_processor_type",
            "crop_pct",
        ];
        assert_eq!(refused, keys);
    }
}
