//! Generation: prompts in, answers out, one token at a time.
//!
//! In: prompts as token ids with the patch states of their pictures. Out: the ids of the answers. The prompts of a
//! batch are padded on the left and share one forward pass per token; keys and values of past tokens are cached.
//! [`session`] keeps the cache over the turns of a chat; [`assistant`] goes from words and pictures to words.

pub mod assistant;
pub mod conversation;
pub mod session;

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use rand_chacha::ChaCha8Rng;

use crate::attention::TokenMask;
use crate::cache::KvCache;
use crate::sampler::{Sampling, SamplingError};
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
    /// Token ids, with one image pad per patch of a picture.
    pub ids: Vec<u32>,
    /// Patch states of its pictures, in order: `[images, patches, vision hidden]`; `None` without pictures.
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
    let longest = check_lengths(model, prompts)?;
    let lengths: Vec<usize> = prompts.iter().map(|prompt| prompt.ids.len()).collect();
    let mut ids = Vec::with_capacity(prompts.len() * longest);
    for prompt in prompts {
        ids.resize(ids.len() + longest - prompt.ids.len(), padding(model));
        ids.extend(&prompt.ids);
    }
    let features: Vec<Tensor<3>> = prompts.iter().filter_map(|prompt| prompt.features.clone()).collect();
    let batch = Batch {
        input_ids: &ids,
        mask: &TokenMask::left_padded(&lengths, longest),
        features: (!features.is_empty()).then(|| Tensor::cat(features, 0)),
    };
    let mut cache = KvCache::new();
    let logits = last_logits(model, &batch, &mut cache)?;
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

/// A token for places that are masked; it must not be an image pad.
fn padding(model: &Vlm) -> u32 {
    u32::from(model.image_pad_id == 0)
}

/// Runs the batch, which follows what is in `cache`; the logits after each row's last token, `[batch, vocab_size]`.
fn last_logits(model: &Vlm, batch: &Batch<'_>, cache: &mut KvCache) -> Result<Tensor<2>, GenerateError> {
    let tokens = batch.mask.tokens();
    let last: Vec<usize> = (1..=batch.mask.batch()).map(|row| row * tokens - 1).collect();
    let hidden = model.hidden_cached(batch, cache)?;
    Ok(model.logits_at(hidden, &last))
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
}

/// Chooses tokens and feeds them back until every row is done. `logits` follow what is in `cache`.
fn decode(
    model: &Vlm,
    cache: &mut KvCache,
    mut logits: Tensor<2>,
    mut rows: Vec<Row>,
    options: &Options,
    on_token: OnToken<'_>,
) -> Result<Vec<Vec<u32>>, GenerateError> {
    let room = model.qwen.config().max_position_embeddings - cache.tokens();
    for step in 0..options.max_new_tokens.min(room) {
        if step > 0 {
            let ids: Vec<u32> = rows.iter().filter_map(|row| row.seen.last().copied()).collect();
            logits = next_logits(model, &ids, cache);
        }
        if choose(logits.clone(), &mut rows, options, on_token)?.is_break() || rows.iter().all(|row| row.done)
        {
            break;
        }
    }
    Ok(rows.into_iter().map(|mut row| row.seen.split_off(row.prompt)).collect())
}

/// Appends the next token to every row that is not done.
fn choose(
    logits: Tensor<2>,
    rows: &mut [Row],
    options: &Options,
    on_token: OnToken<'_>,
) -> Result<ControlFlow<()>, GenerateError> {
    let vocabulary = logits.dims()[1].max(1);
    let data = logits.try_into_data_as::<f32>().map_err(|error| GenerateError::Device(error.to_string()))?;
    let mut values = data.try_to_vec::<f32>().map_err(|error| GenerateError::Device(error.to_string()))?;
    for (number, (row, logits)) in rows.iter_mut().zip(values.chunks_mut(vocabulary)).enumerate() {
        if row.done {
            continue;
        }
        if logits.iter().any(|logit| logit.is_nan()) {
            return Err(GenerateError::Device(
                "the logits are not numbers (NaN); run `llavm doctor`".to_owned(),
            ));
        }
        let id = options.sampling.next(logits, &row.seen, &mut row.rng);
        row.seen.push(id);
        row.done = options.eos.contains(&id);
        if on_token(number, id).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}
