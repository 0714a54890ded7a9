//! What a training takes, from the sizes of its model: for `llavm run --dry-run`. Steps are exact when rows are counted and
//! batches are cut by rows; bytes are within about a third.

use super::parameters::Train;
use llavm_model::config::{ClipVisionConfig, Dtype, Qwen3Config};
use llavm_model::train::Part;
use llavm_model::{hub, load};
use llavm_pipeline::stage::{Estimate, Expected};

/// Tokens of a row without the pads of its image: the samples under `data/` have 39 and 44.
const WORDS: usize = 41;
/// Logits, their probabilities and gradients, of one run of rows (`llavm_model::loss`).
const LOGITS: u64 = 3 * (64 << 20);
/// What AdamW keeps of a trained number: itself, its gradient and two moments, in f32.
const TRAINED: u64 = 4 * 4;
/// What a checkpoint keeps of it.
const SAVED: u64 = 3 * 4;

impl Train {
    /// Steps, the bytes of the model folder and its checkpoints, and the bytes in memory at once, of each device where there are several.
    pub(super) fn expect(&self, expected: &Expected) -> Estimate {
        let rows = expected.rows();
        let qwen = hub::resolve(&self.qwen).ok().and_then(|folder| load::qwen3_config(&folder).ok());
        let clip = hub::resolve(&self.clip).ok().and_then(|folder| load::clip_config(&folder).ok());
        let tokens = tokens(&clip.clone().unwrap_or_default());
        let steps = self.expected_steps(rows, tokens);
        let steps_only = Estimate { rows, steps: Some(steps), ..Estimate::default() };
        let (Some(qwen), Some(clip)) = (qwen, clip) else { return steps_only };
        let projector = (clip.hidden_size + 1 + qwen.hidden_size + 1) * qwen.hidden_size;
        let lora = if self.trains(Part::Lora) { self.lora_parameters(&qwen) } else { 0 };
        let (language, vision) = (language_parameters(&qwen), vision_parameters(&clip));
        let parts = [
            (Part::Projector, projector),
            (Part::Lora, lora),
            (Part::Language, language),
            (Part::Vision, vision),
        ];
        let trained: usize =
            parts.iter().filter(|(part, _)| self.trains(*part)).map(|(_, parameters)| parameters).sum();
        let width = self.dtype.size() as u64;
        let whole = (language + vision + projector + lora) as u64 * width;
        let checkpoints = trained as u64 * SAVED * (self.save_total_limit as u64 + 1);
        let kept = (projector + trained) as u64 * width;
        let memory = whole + trained as u64 * TRAINED + self.activations(&qwen, tokens) + LOGITS;
        Estimate { disk: kept + checkpoints, memory: Some(memory), ..steps_only }
    }

    fn expected_steps(&self, rows: u64, row_tokens: usize) -> u64 {
        let mut arguments = self.arguments(0);
        if let Some(tokens) = self.max_tokens_per_batch {
            arguments.per_device_train_batch_size = (tokens / row_tokens).max(1);
        }
        arguments.total_steps(rows)
    }

    fn lora_parameters(&self, qwen: &Qwen3Config) -> usize {
        let config = self.lora.clone().unwrap_or_default().config();
        let Ok(matcher) = config.matcher() else { return 0 };
        let (hidden, wide) = (qwen.hidden_size, qwen.intermediate_size);
        let (queries, keys) =
            (qwen.num_attention_heads * qwen.head_dim, qwen.num_key_value_heads * qwen.head_dim);
        let linears = [
            ("self_attn.q_proj", hidden + queries),
            ("self_attn.k_proj", hidden + keys),
            ("self_attn.v_proj", hidden + keys),
            ("self_attn.o_proj", hidden + queries),
            ("mlp.gate_proj", hidden + wide),
            ("mlp.up_proj", hidden + wide),
            ("mlp.down_proj", hidden + wide),
        ];
        let layer = |n: usize| {
            let adapter = |(name, sides): &(&str, usize)| {
                matcher.adapter(&format!("model.layers.{n}.{name}")).map_or(0, |adapter| adapter.r * sides)
            };
            linears.iter().map(adapter).sum::<usize>()
        };
        (0..qwen.num_hidden_layers).map(layer).sum()
    }

    /// What backward needs of the forward pass of one batch: with checkpoints the input of every layer and all of one.
    fn activations(&self, qwen: &Qwen3Config, tokens: usize) -> u64 {
        let batch = self.max_tokens_per_batch.unwrap_or(self.per_device_train_batch_size * tokens);
        let queries = qwen.num_attention_heads * qwen.head_dim;
        let keys = qwen.num_key_value_heads * qwen.head_dim;
        let (hidden, wide) = (qwen.hidden_size, qwen.intermediate_size);
        let layers = qwen.num_hidden_layers;
        // Two norms; queries, keys and values before and after rotation; attention; gate, up and their product.
        let mut layer = 2 * hidden + 2 * (queries + 2 * keys) + 3 * wide;
        if self.trains(Part::Language) || self.trains(Part::Lora) {
            layer += 2 * hidden + queries + wide;
        }
        let layer = layer * self.dtype.size() + self.scores(qwen, tokens);
        let inputs = layers * hidden * self.dtype.size();
        let kept = if self.gradient_checkpointing { inputs + layer } else { layers * layer };
        (batch * kept) as u64
    }

    /// Bytes of a layer's attention for one token: probabilities in f32 whatever the model's type, and in that type. The CPU computes
    /// those of f32 models again for the way back.
    fn scores(&self, qwen: &Qwen3Config, tokens: usize) -> usize {
        let again = self.device.starts_with("cpu") && self.dtype == Dtype::F32;
        if again { 0 } else { qwen.num_attention_heads * tokens * (size_of::<f32>() + self.dtype.size()) }
    }
}

/// Tokens of a row with one image.
fn tokens(clip: &ClipVisionConfig) -> usize {
    WORDS + clip.num_patches()
}

fn language_parameters(qwen: &Qwen3Config) -> usize {
    let (hidden, head) = (qwen.hidden_size, qwen.head_dim);
    let (queries, keys) = (qwen.num_attention_heads * head, qwen.num_key_value_heads * head);
    let layer = 2 * hidden * (queries + keys) + 3 * hidden * qwen.intermediate_size + 2 * (hidden + head);
    let biases = if qwen.attention_bias { queries + 2 * keys + hidden } else { 0 };
    let heads = if qwen.tie_word_embeddings { 1 } else { 2 };
    heads * qwen.vocab_size * hidden + qwen.num_hidden_layers * (layer + biases) + hidden
}

fn vision_parameters(clip: &ClipVisionConfig) -> usize {
    let (hidden, wide) = (clip.hidden_size, clip.intermediate_size);
    let layer = 4 * hidden * (hidden + 1) + 2 * hidden * wide + wide + hidden + 4 * hidden;
    let patch = clip.num_channels * clip.patch_size * clip.patch_size * hidden;
    clip.num_hidden_layers * layer + patch + (clip.num_patches() + 2) * hidden + 4 * hidden
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Qwen3-0.6B's `config.json`.
    fn qwen() -> Qwen3Config {
        let config = json!({
            "model_type": "qwen3", "vocab_size": 151_936, "hidden_size": 1024, "intermediate_size": 3072,
            "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
            "max_position_embeddings": 40_960, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
            "attention_bias": false, "tie_word_embeddings": true
        });
        Qwen3Config::from_json(&config.to_string()).unwrap()
    }

    fn stage(more: &serde_json::Value) -> Train {
        let mut all = json!({ "qwen": "no/such", "clip": "no/such" });
        for (name, value) in more.as_object().unwrap() {
            all[name] = value.clone();
        }
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn parameters_are_counted_as_transformers_and_peft_count_them() {
        // sum(p.numel() for p in model.parameters()) of Qwen3-0.6B and CLIP ViT-B/32's vision tower; LoRA r 8 on q, k, v, o.
        assert_eq!(language_parameters(&qwen()), 596_049_920);
        assert_eq!(vision_parameters(&ClipVisionConfig::default()), 87_456_000);
        assert_eq!(stage(&json!({ "trainable": ["lora"] })).lora_parameters(&qwen()), 2_293_760);
    }

    #[test]
    fn the_references_first_stage_takes_seventeen_thousand_steps() {
        let align = stage(&json!({
            "per_device_train_batch_size": 8, "gradient_accumulation_steps": 4, "num_train_epochs": 1
        }));
        let rows = (595_375.0_f64 * 0.95).round() as u64;
        let estimate = align.expect(&Expected { groups: vec![(rows, 1.0)] });
        assert_eq!((estimate.steps, estimate.memory), (Some(17_676), None));
        let tokens = stage(&json!({ "max_tokens_per_batch": 1800, "num_train_epochs": 1 }));
        assert_eq!(tokens.expected_steps(2000, 90), 100);
    }

    #[test]
    fn memory_follows_the_patches_of_the_tower_and_scores_are_f32() {
        let large = ClipVisionConfig { image_size: 336, patch_size: 14, ..ClipVisionConfig::default() };
        assert_eq!((tokens(&ClipVisionConfig::default()), tokens(&large)), (90, 41 + 576));
        let bf16 = stage(&json!({ "dtype": "bf16" }));
        // 16 heads, of each of which a token scores 617 others, in f32 and in bf16.
        assert_eq!(bf16.scores(&qwen(), tokens(&large)), 16 * 617 * 6);
        assert_eq!(stage(&json!({})).scores(&qwen(), tokens(&large)), 0);
        let (few, many) = (bf16.activations(&qwen(), 90), bf16.activations(&qwen(), 617));
        assert!(many > 617 * few / 90, "scores grow with the square of the tokens");
    }

    #[test]
    fn checkpointing_keeps_less() {
        let (plain, checkpointed) = (stage(&json!({})), stage(&json!({ "gradient_checkpointing": true })));
        assert!(checkpointed.activations(&qwen(), 90) < plain.activations(&qwen(), 90));
        assert_eq!(plain.dtype, Dtype::F32);
    }
}
