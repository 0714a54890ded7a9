//! Strict loading: a checkpoint hands a model the tensors it asks for and keeps account of the rest.

use std::collections::BTreeSet;

use burn::tensor::TensorData;
use half::{bf16, f16};

use super::{Checkpoint, Mismatch, WeightsError};
use crate::config::Dtype;
use crate::source::{TensorSource, TensorSpec};

/// How the keys in a file may differ from those that a model asks for, and what may be left over.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Part that keys of the model start with and keys of the file may lack.
    optional: &'static str,
    /// Parts that keys of the file start with and keys of the model lack, the likeliest first.
    added: &'static [&'static str],
    /// Parts of keys with other names in the file: the model's, the file's.
    renamed: &'static [(&'static str, &'static str)],
    /// Whether a key of the file may stay unused.
    harmless: fn(&str) -> bool,
}

impl Layout {
    /// Keys as asked for, nothing left over: the projector.
    pub const EXACT: Self = Self { optional: "", added: &[""], renamed: &[], harmless: |_| false };

    /// `Qwen3ForCausalLM`, or a `Qwen3Model` without `model.`. The hub's files store `lm_head.weight` even where
    /// it is tied to the embedding; a model that needs the head asks for it.
    pub const QWEN3: Self = Self {
        optional: "model.",
        harmless: |key| key == "lm_head.weight" || key.ends_with("rotary_emb.inv_freq"),
        ..Self::EXACT
    };

    /// A `CLIPVisionModel` of transformers 4 or 5 (without `vision_model.`), or a whole `CLIPModel`.
    pub const CLIP_VISION: Self = Self {
        optional: "vision_model.",
        harmless: |key| {
            key.starts_with("text_model.")
                || key.ends_with("position_ids")
                || matches!(key, "text_projection.weight" | "visual_projection.weight" | "logit_scale")
        },
        ..Self::EXACT
    };

    /// An adapter of PEFT, which wraps the model twice.
    pub const PEFT: Self = Self { added: &["base_model.model."], ..Self::EXACT };

    /// The language model of a LLaVA: as transformers saves it (`language_model.model.`, `language_model.lm_head.`), and as
    /// version 5 holds it (`model.language_model.`, `lm_head.`).
    pub const LLAVA_TEXT: Self = Self {
        optional: "model.",
        added: &["language_model.", "model.language_model.", ""],
        harmless: |key| is_llava_part(key, LANGUAGE) == Some(false) || (Self::QWEN3.harmless)(last_name(key)),
        ..Self::EXACT
    };

    /// The vision tower of a LLaVA.
    pub const LLAVA_VISION: Self = Self {
        optional: "vision_model.",
        added: &["vision_tower.", "model.vision_tower."],
        harmless: |key| is_llava_part(key, VISION) == Some(false) || key.ends_with("position_ids"),
        ..Self::EXACT
    };

    /// The projector of a LLaVA.
    pub const LLAVA_PROJECTOR: Self = Self {
        added: &["multi_modal_projector.", "model.multi_modal_projector."],
        renamed: &[("dense1.", "linear_1."), ("dense2.", "linear_2.")],
        harmless: |key| is_llava_part(key, PROJECTOR) == Some(false),
        ..Self::EXACT
    };

    /// The key in `checkpoint` of what a model calls `key`.
    pub(crate) fn find(&self, checkpoint: &Checkpoint, key: &str) -> Option<String> {
        let bare = key.strip_prefix(self.optional).unwrap_or(key);
        let candidates = self.added.iter().flat_map(|added| [key, bare].map(|key| format!("{added}{key}")));
        let rename =
            |key: String| self.renamed.iter().fold(key, |key, (ours, theirs)| key.replace(ours, theirs));
        candidates.map(rename).find(|key| checkpoint.shape(key).is_some())
    }
}

const LANGUAGE: &[&str] = &["language_model.", "lm_head."];
const VISION: &[&str] = &["vision_tower."];
const PROJECTOR: &[&str] = &["multi_modal_projector."];

/// Whether a key of a LLaVA belongs to the part `part`; `None` when it belongs to none that is known.
fn is_llava_part(key: &str, part: &[&str]) -> Option<bool> {
    let key = key.strip_prefix("model.").unwrap_or(key);
    let is_of = |part: &[&str]| part.iter().any(|start| key.starts_with(start));
    [LANGUAGE, VISION, PROJECTOR].iter().any(|known| is_of(known)).then(|| is_of(part))
}

/// The key without the name of the language model in front.
fn last_name(key: &str) -> &str {
    key.strip_prefix("language_model.").unwrap_or(key)
}

/// A [`TensorSource`] that serves a model from a [`Checkpoint`]. Faults are gathered while the model is built
/// and reported together by [`CheckpointSource::finish`].
#[derive(Debug)]
pub struct CheckpointSource<'a> {
    checkpoint: &'a Checkpoint,
    layout: Layout,
    taken: BTreeSet<String>,
    faults: Mismatch,
}

impl<'a> CheckpointSource<'a> {
    /// A source that has served nothing yet.
    pub fn new(checkpoint: &'a Checkpoint, layout: Layout) -> Self {
        let faults = Mismatch { place: checkpoint.place().to_owned(), ..Mismatch::default() };
        Self { checkpoint, layout, taken: BTreeSet::new(), faults }
    }

    /// The keys that were left over harmlessly; an error that lists every fault when there was one.
    pub fn finish(mut self) -> Result<Vec<String>, WeightsError> {
        let left = self.checkpoint.keys().filter(|key| !self.taken.contains(*key));
        let (harmless, extra): (Vec<&str>, Vec<&str>) = left.partition(|key| (self.layout.harmless)(key));
        let shape = |key: &str| self.checkpoint.shape(key).unwrap_or_default().to_vec();
        self.faults.extra = extra.into_iter().map(|key| (key.to_owned(), shape(key))).collect();
        if self.faults.is_empty() {
            return Ok(harmless.into_iter().map(str::to_owned).collect());
        }
        Err(WeightsError::Mismatch(Box::new(self.faults)))
    }

    fn serve(&mut self, wanted: &TensorSpec<'_>) -> Option<TensorData> {
        let Some(key) = self.layout.find(self.checkpoint, wanted.key) else {
            self.faults.missing.push((wanted.key.to_owned(), wanted.shape.to_vec()));
            return None;
        };
        let found = self.checkpoint.shape(&key).unwrap_or_default();
        if found != wanted.shape {
            self.faults.misshaped.push((key.clone(), found.to_vec(), wanted.shape.to_vec()));
            self.taken.insert(key);
            return None;
        }
        let data = self.checkpoint.read(&key, wanted.dtype.storage());
        let data =
            data.and_then(|data| data.map_err(|error| self.faults.unusable.push(error.to_string())).ok());
        self.taken.insert(key);
        data
    }
}

impl TensorSource for CheckpointSource<'_> {
    fn take(&mut self, wanted: &TensorSpec<'_>) -> TensorData {
        self.serve(wanted).unwrap_or_else(|| {
            let shape = wanted.shape.to_vec();
            let length = shape.iter().product();
            match wanted.dtype {
                Dtype::F32 => TensorData::new(vec![0.0_f32; length], shape),
                Dtype::F16 => TensorData::new(vec![f16::ZERO; length], shape),
                Dtype::Bf16 => TensorData::new(vec![bf16::ZERO; length], shape),
            }
        })
    }
}
