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
    /// Part that keys of the file start with and keys of the model lack.
    added: &'static str,
    /// Whether a key of the file may stay unused.
    harmless: fn(&str) -> bool,
}

impl Layout {
    /// Keys as asked for, nothing left over: the projector.
    pub const EXACT: Self = Self { optional: "", added: "", harmless: |_| false };

    /// `Qwen3ForCausalLM`, or a `Qwen3Model` without `model.`. The hub's files store `lm_head.weight` even where
    /// it is tied to the embedding; a model that needs the head asks for it.
    pub const QWEN3: Self = Self {
        optional: "model.",
        added: "",
        harmless: |key| key == "lm_head.weight" || key.ends_with("rotary_emb.inv_freq"),
    };

    /// A `CLIPVisionModel` of transformers 4 or 5 (without `vision_model.`), or a whole `CLIPModel`.
    pub const CLIP_VISION: Self = Self {
        optional: "vision_model.",
        added: "",
        harmless: |key| {
            key.starts_with("text_model.")
                || key.ends_with("position_ids")
                || matches!(key, "text_projection.weight" | "visual_projection.weight" | "logit_scale")
        },
    };

    /// An adapter of PEFT, which wraps the model twice.
    pub const PEFT: Self = Self { optional: "", added: "base_model.model.", harmless: |_| false };
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

    /// The file's key for `key`.
    fn find(&self, key: &str) -> Option<String> {
        let added = format!("{}{key}", self.layout.added);
        let bare = key.strip_prefix(self.layout.optional).unwrap_or(key);
        [added.as_str(), bare].into_iter().find(|key| self.checkpoint.shape(key).is_some()).map(str::to_owned)
    }

    fn serve(&mut self, wanted: &TensorSpec<'_>) -> Option<TensorData> {
        let Some(key) = self.find(wanted.key) else {
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
