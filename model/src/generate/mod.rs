//! Generation: prompts in, answers out, one token at a time.
//!
//! In: prompts as token ids with the patch states of their images. Out: the ids of the answers. The prompts of a
//! batch are padded on the left and share one forward pass per token; keys and values of past tokens are cached.
//! [`session`] keeps the cache over the turns of a chat; [`batch`] answers requests that come and go; [`shared`] computes once
//! what many prompts begin with; [`assistant`] goes from words and images to words.

pub mod assistant;
pub mod batch;
pub mod conversation;
mod past;
pub mod session;
pub mod shared;
pub mod stop;

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use rand_chacha::ChaCha8Rng;

use crate::attention::TokenMask;
use crate::cache::KvCache;
use crate::sampler::{Sampling, SamplingError};
use crate::tokenizer::TokenizerError;
use crate::vlm::{Batch, BatchError, Vlm};

/// When to stop and how to choose.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Most tokens of an answer.
    pub max_new_tokens: usize,
    /// How each token is chosen.
    pub sampling: Sampling,
    /// Tokens that end an answer; the one that did is part of it, as in transformers.
    pub eos: Vec<u32>,
}

/// One prompt.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Token ids, with one image pad per patch of an image.
    pub ids: Vec<u32>,
    /// Patch states of its images, in order: `[images, patches, vision hidden]`; `None` without images.
    pub features: Option<Tensor<3>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The prompt leaves no room for an answer.
    #[error(
        "the prompt has {tokens} tokens; the model ends at max_position_embeddings = {limit}. Shorten the prompt, or start a new conversation."
    )]
    TooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// The model's limit.
        limit: usize,
    },
    /// There is nothing to answer.
    #[error("the prompt is empty")]
    Empty,
    /// The prompts fit the model in some other way not.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A setting is out of range.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
    /// The answer is no text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Whoever answers is being stopped.
    #[error("the answer was cut off: the program is stopping")]
    Stopped,
}

/// Called with the row and the id of each new token; `Break` ends all answers.
pub type OnToken<'a> = &'a mut dyn FnMut(usize, u32) -> ControlFlow<()>;

/// The answers to `prompts`, in their order. Row `n` draws from the generator of number `first + n`, so that cutting
/// a long list into batches does not change what is drawn.
pub fn generate(
    model: &Vlm,
    prompts: &[Prompt],
    first: u64,
    options: &Options,
    on_token: OnToken<'_>,
) -> Result<Vec<Vec<u32>>, GenerateError> {
    options.sampling.validate()?;
    check_lengths(model, prompts)?;
    let mut cache = KvCache::new();
    let parts = prompts.iter().map(|prompt| Part { ids: &prompt.ids, features: prompt.features.clone() });
    let logits = model.qwen.logits(follow(model, &parts.collect::<Vec<_>>(), &mut cache)?);
    let rows = prompts
        .iter()
        .zip(first..)
        .map(|(prompt, number)| Row::new(&prompt.ids, options.sampling.rng(number)));
    decode(model, &mut cache, logits, rows.collect(), options, on_token)
}

/// The longest prompt; an error when one is empty or leaves no room for an answer.
fn check_lengths(model: &Vlm, prompts: &[Prompt]) -> Result<usize, GenerateError> {
    let limit = model.qwen.config().max_position_embeddings;
    let lengths = || prompts.iter().map(|prompt| prompt.ids.len());
    let longest = lengths().max().unwrap_or(0);
    if lengths().min().unwrap_or(0) == 0 {
        return Err(GenerateError::Empty);
    }
    if longest >= limit {
        return Err(GenerateError::TooLong { tokens: longest, limit });
    }
    Ok(longest)
}

/// Tokens of one row, with the patch states of the images among them.
struct Part<'a> {
    ids: &'a [u32],
    features: Option<Tensor<3>>,
}

/// Runs the parts, a row each, behind what is in `cache`, and adds them to it; the hidden states of their last tokens,
/// `[parts, hidden_size]`. One part must have a token.
fn follow(model: &Vlm, parts: &[Part<'_>], cache: &mut KvCache) -> Result<Tensor<2>, GenerateError> {
    let lengths: Vec<usize> = parts.iter().map(|part| part.ids.len()).collect();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let mut ids = Vec::with_capacity(parts.len() * longest);
    for part in parts {
        ids.resize(ids.len() + longest - part.ids.len(), padding(model));
        ids.extend(part.ids);
    }
    let features: Vec<Tensor<3>> = parts.iter().filter_map(|part| part.features.clone()).collect();
    let batch = Batch {
        input_ids: &ids,
        mask: &TokenMask::left_padded(&lengths, longest),
        features: (!features.is_empty()).then(|| Tensor::cat(features, 0)),
    };
    Ok(model.last_hidden_cached(&batch, cache)?)
}

/// A token for places that are masked; it must not be an image pad.
fn padding(model: &Vlm) -> u32 {
    u32::from(model.image_pad_id == 0)
}

/// Runs the batch, which follows what is in `cache`; the logits after each row's last token, `[batch, vocab_size]`.
fn last_logits(model: &Vlm, batch: &Batch<'_>, cache: &mut KvCache) -> Result<Tensor<2>, GenerateError> {
    Ok(model.qwen.logits(model.last_hidden_cached(batch, cache)?))
}

/// Feeds one token per row back; the logits after them, `[batch, vocab_size]`. An image pad that the model itself chose
/// is a word like any other here, as in transformers.
fn next_logits(model: &Vlm, ids: &[u32], cache: &mut KvCache) -> Tensor<2> {
    let (batch, hidden) = (ids.len(), model.qwen.config().hidden_size);
    let x = model.qwen.embed(ids).reshape([batch, 1, hidden]);
    let hidden = model.qwen.forward_cached(x, &TokenMask::full(batch, 1), cache);
    model.qwen.logits(hidden.flatten::<2>(0, 1))
}

/// One sequence that is being answered.
#[derive(Debug)]
struct Row {
    /// Prompt and answer so far.
    seen: Vec<u32>,
    prompt: usize,
    rng: ChaCha8Rng,
    done: bool,
}

impl Row {
    fn new(prompt: &[u32], rng: ChaCha8Rng) -> Self {
        Self { seen: prompt.to_vec(), prompt: prompt.len(), rng, done: false }
    }

    /// Appends the next token; `logits`, which this changes, follow the last one.
    fn choose(&mut self, logits: &mut [f32], options: &Options) -> Result<u32, GenerateError> {
        let id = options.sampling.next(logits, &self.seen, &mut self.rng);
        let id = id.map_err(|error| GenerateError::Device(error.to_string()))?;
        self.seen.push(id);
        self.done = options.eos.contains(&id);
        Ok(id)
    }
}

/// Chooses tokens and feeds them back until every row is done. `logits` follow what is in `cache`. Rows that are done are left
/// out once they are half of those that are computed.
fn decode(
    model: &Vlm,
    cache: &mut KvCache,
    mut logits: Tensor<2>,
    mut rows: Vec<Row>,
    options: &Options,
    on_token: OnToken<'_>,
) -> Result<Vec<Vec<u32>>, GenerateError> {
    let room = model.qwen.config().max_position_embeddings.saturating_sub(cache.tokens());
    let mut computed: Vec<usize> = (0..rows.len()).collect();
    for step in 0..options.max_new_tokens.min(room) {
        if step > 0 {
            leave_out(&mut computed, &rows, cache);
            let ids: Vec<u32> = computed.iter().filter_map(|row| rows[*row].seen.last().copied()).collect();
            logits = next_logits(model, &ids, cache);
        }
        let chosen = choose(logits.clone(), &mut rows, &computed, options, on_token)?;
        if chosen.is_break() || rows.iter().all(|row| row.done) {
            break;
        }
    }
    Ok(rows.into_iter().map(|mut row| row.seen.split_off(row.prompt)).collect())
}

/// Takes rows that are done out of those that are computed, and out of the cache.
fn leave_out(computed: &mut Vec<usize>, rows: &[Row], cache: &mut KvCache) {
    let open: Vec<usize> = (0..computed.len()).filter(|at| !rows[computed[*at]].done).collect();
    if 2 * open.len() <= computed.len() {
        *cache = cache.pick(&open);
        *computed = open.iter().map(|at| computed[*at]).collect();
    }
}

/// Appends the next token to every row that is not done. `computed`: the row of each line of the logits.
fn choose(
    logits: Tensor<2>,
    rows: &mut [Row],
    computed: &[usize],
    options: &Options,
    on_token: OnToken<'_>,
) -> Result<ControlFlow<()>, GenerateError> {
    let vocabulary = logits.dims()[1].max(1);
    let mut values = read(logits)?;
    for (number, logits) in computed.iter().zip(values.chunks_mut(vocabulary)) {
        let row = &mut rows[*number];
        if row.done {
            continue;
        }
        let id = row.choose(logits, options)?;
        if on_token(*number, id).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The values of logits, row after row.
fn read(logits: Tensor<2>) -> Result<Vec<f32>, GenerateError> {
    let data = logits.try_into_data_as::<f32>().map_err(|error| GenerateError::Device(error.to_string()))?;
    data.try_to_vec::<f32>().map_err(|error| GenerateError::Device(error.to_string()))
}
