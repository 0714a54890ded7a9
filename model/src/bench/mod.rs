//! Timing of a model of a chosen size with random weights: how fast a machine trains and answers, no download needed.
//!
//! | size | Qwen3 | CLIP | vocabulary |
//! |---|---|---|---|
//! | `tiny` | 4 layers of 128 | 2 layers of 64 | 4,096 |
//! | `small` | 8 layers of 512 | ViT-B/32 | 151,936 |
//! | `0.6b` | Qwen3-0.6B | ViT-B/32 | 151,936 |
//!
//! Batches look like CC3M's rows: 17 tokens of template, the same in all, 8 to 15 of the question, one pad per patch, 9 of
//! template, and 10 to 25 of the answer, the only ones that carry loss.

mod generate;
mod train;

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use burn::tensor::Device;

use crate::clip::ClipVision;
use crate::config::{ClipVisionConfig, Dtype, Qwen3Config};
use crate::projector::Projector;
use crate::qwen3::Qwen3;
use crate::source::{Loader, RandomSource};
use crate::vlm::Vlm;

pub use generate::{Answering, time_generate};
pub use train::{Recipe, StepTime, Training, time_train};

/// The token that a patch replaces, in every size.
const IMAGE_PAD: u32 = 7;
/// The seed of weights and batches.
const SEED: u64 = 0;

/// How large a model is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Fits in a cache.
    Tiny,
    /// A small decoder under the real vision tower and vocabulary.
    Small,
    /// Qwen3-0.6B and CLIP ViT-B/32.
    Full,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tiny" => Ok(Self::Tiny),
            "small" => Ok(Self::Small),
            "0.6b" => Ok(Self::Full),
            _ => Err(format!("unknown size `{text}`: use tiny, small or 0.6b")),
        }
    }
}

impl Display for Size {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tiny => "tiny",
            Self::Small => "small",
            Self::Full => "0.6b",
        })
    }
}

impl Size {
    /// The language model.
    pub fn qwen3(self) -> Qwen3Config {
        let (hidden_size, layers, heads, kv_heads, head_dim, vocab_size) = match self {
            Self::Tiny => (128, 4, 4, 2, 32, 4096),
            Self::Small => (512, 8, 8, 4, 64, 151_936),
            Self::Full => (1024, 28, 16, 8, 128, 151_936),
        };
        Qwen3Config {
            vocab_size,
            hidden_size,
            intermediate_size: 3 * hidden_size,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            max_position_embeddings: 40_960,
            rms_norm_eps: 1e-6,
            rope_theta: 1e6,
            attention_bias: false,
            tie_word_embeddings: true,
            initializer_range: 0.02,
            dtype: Dtype::F32,
        }
    }

    /// The vision tower.
    pub fn clip(self) -> ClipVisionConfig {
        let full = ClipVisionConfig::default();
        match self {
            Self::Tiny => ClipVisionConfig {
                hidden_size: 64,
                num_hidden_layers: 2,
                num_attention_heads: 4,
                intermediate_size: 256,
                ..full
            },
            Self::Small | Self::Full => full,
        }
    }

    /// The whole model with random weights.
    pub(crate) fn model(self, device: &Device, dtype: Dtype) -> Vlm {
        let (qwen, clip) = (self.qwen3(), self.clip());
        let mut source = RandomSource::new(SEED);
        let tower = ClipVision::load(Loader::new(&mut source, device, dtype), &clip);
        let loader = Loader::new(&mut source, device, dtype);
        let projector = Projector::load(loader, clip.hidden_size, qwen.hidden_size);
        let language = Qwen3::load(Loader::new(&mut source, device, dtype), &qwen);
        Vlm::new(Some(tower), projector, language, IMAGE_PAD)
    }
}

/// The middle value; of an even number of values the higher of the two, 0 of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_size_is_qwen3_0_6b() {
        let config = Size::Full.qwen3();
        assert!(config.validate().is_ok());
        assert_eq!((config.intermediate_size, config.num_key_value_groups()), (3072, 2));
        assert_eq!("0.6b".parse(), Ok(Size::Full));
        assert!("huge".parse::<Size>().unwrap_err().contains("tiny, small or 0.6b"));
    }

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median(vec![]).to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn every_step_and_token_asked_for_is_timed() {
        let device = Device::flex();
        for recipe in [Recipe::Align, Recipe::Lora] {
            let run = time_train(Size::Tiny, recipe, 2, 2, &device, Dtype::F32, |_| {}).unwrap();
            assert_eq!(run.steps.len(), 2);
            assert!(run.samples_per_second() > 0.0 && run.tokens_per_second() > run.samples_per_second());
            let trained = match recipe {
                Recipe::Align => 64 * 128 + 128 + 128 * 128 + 128,
                // q 128 -> 128, k and v 128 -> 64, o 128 -> 128, in 4 layers at rank 8.
                Recipe::Lora => 64 * 128 + 128 + 128 * 128 + 128 + 4 * 8 * (256 + 192 + 192 + 256),
            };
            assert_eq!(run.trained, trained);
        }
        let run = time_generate(Size::Tiny, 1, 12, 5, 2, &device, Dtype::F32).unwrap();
        assert!(run.prefill > 0.0 && run.decode > 0.0);
    }
}
