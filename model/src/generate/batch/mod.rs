//! Continuous batching (Orca, OSDI 2022): answers to requests that come and go, all of them one token further at a time.
//!
//! A request joins between two tokens of the others and leaves when its answer ends; nobody waits for the longest. Its prompt
//! is read in pieces, one between two tokens, so that a long one does not hold the others up. Linears see all sequences at once,
//! attention each alone with a cache of its own (`Qwen3::forward_each`), so what a request is answered does not depend on the
//! others: its logits are those it would have alone, to rounding.
//!
//! | file | what |
//! |---|---|
//! | `request.rs`, `queue.rs` | requests, and those that wait |
//! | `sequence.rs` | one request being answered |
//! | `prefixes.rs` | caches of earlier answers, for requests that begin alike |
//! | [`engine`] | the thread that owns the model |
//!
//! Memory: keys and values of all sequences, those their answers may still need included, and of the earlier answers together
//! stay within [`Limits::cache_bytes`].
//!
//! Linears read a weight once for all sequences; nothing is padded, joining and leaving cost nothing. On the CPU attention is a small
//! part; a GPU would want one kernel over pages of caches.

pub mod engine;
mod prefixes;
mod queue;
mod request;
mod sequence;

use std::collections::VecDeque;

use burn::tensor::Tensor;

use super::assistant::Assistant;
use super::{GenerateError, read};
use crate::cache::KvCache;
use crate::qwen3::Qwen3;
use prefixes::Prefixes;
pub use request::{Event, Finish, Image, ImageName, Listener, Request};
use sequence::{End, Sequence};

/// How much is answered at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests at once.
    pub sequences: usize,
    /// Requests that may wait.
    pub waiting: usize,
    /// Bytes of keys and values in all.
    pub cache_bytes: usize,
    /// Most tokens of a prompt that are read between two tokens of the other answers.
    pub prompt_piece: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sequences: 16, waiting: 64, cache_bytes: 1 << 30, prompt_piece: 256 }
    }
}

/// Why a request is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too many wait already.
    #[error("{waiting} requests are waiting already; try again later")]
    Full {
        /// How many.
        waiting: usize,
    },
    /// The prompt leaves no room for an answer.
    #[error("the prompt has {tokens} tokens, which leaves no room for an answer in a context of {limit}")]
    TooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Most tokens of prompt and answer.
        limit: usize,
    },
    /// No requests are taken any more.
    #[error("the server is stopping")]
    Closed,
}

/// Sequences that are answered together.
pub(super) struct Batcher<'a> {
    assistant: &'a Assistant,
    limits: Limits,
    /// Those whose prompts are still being read, in the order of their arrival.
    joining: VecDeque<Sequence<'a>>,
    running: Vec<Sequence<'a>>,
    prefixes: Prefixes,
}

impl<'a> Batcher<'a> {
    pub fn new(assistant: &'a Assistant, limits: Limits) -> Self {
        let (joining, running) = (VecDeque::new(), Vec::new());
        Self { assistant, limits, joining, running, prefixes: Prefixes::default() }
    }

    /// Sequences being answered.
    pub fn sequences(&self) -> usize {
        self.joining.len() + self.running.len()
    }

    /// Bytes of keys and values that are held.
    pub fn cache_bytes(&self) -> usize {
        self.all().map(Sequence::bytes).sum::<usize>() + self.prefixes.bytes()
    }

    /// Whether there is a place and memory for the request. Alone it always fits: [`engine::Engine::submit`] sees to that.
    pub fn fits(&self, request: &Request) -> bool {
        let needed = self.all().map(|sequence| self.needs(sequence.most_tokens())).sum::<usize>();
        let needs = self.needs(request.ids.len() + request.options.max_new_tokens);
        self.sequences() < self.limits.sequences
            && (self.sequences() == 0 || needed + needs <= self.limits.cache_bytes)
    }

    /// Begins with the request.
    pub fn admit(&mut self, request: Request) {
        let (room, sequence) = (self.room(), Sequence::new(request, self.assistant, &mut self.prefixes));
        let needs = self.needs(sequence.most_tokens());
        self.prefixes.shrink(room.saturating_sub(needs));
        self.joining.push_back(sequence);
    }

    /// One token more for all that run, and one chunk more of the prompt that joins next.
    pub fn step(&mut self) {
        self.read_prompt();
        self.decode();
    }

    /// Ends all answers.
    pub fn fail(&mut self, error: impl Fn() -> GenerateError) {
        for sequence in self.joining.drain(..).chain(self.running.drain(..)) {
            sequence.end(End::Failed(error()));
        }
    }

    fn read_prompt(&mut self) {
        let Some(mut sequence) = self.joining.pop_front() else { return };
        match sequence.read_prompt(self.assistant, self.limits.prompt_piece) {
            Ok(None) => self.joining.push_front(sequence),
            Ok(Some(mut logits)) => match sequence.choose(&mut logits) {
                None => self.running.push(sequence),
                Some(end) => self.retire(sequence, end),
            },
            Err(end) => self.retire(sequence, end),
        }
    }

    fn decode(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let logits = next_logits(&self.assistant.model.qwen, &mut self.running);
        let vocabulary = logits.dims()[1].max(1);
        let mut values = match read(logits) {
            Ok(values) => values,
            Err(error) => {
                let error = error.to_string();
                return self.fail(|| GenerateError::Device(error.clone()));
            }
        };
        let sequences = std::mem::take(&mut self.running);
        for (mut sequence, logits) in sequences.into_iter().zip(values.chunks_mut(vocabulary)) {
            match sequence.choose(logits) {
                None => self.running.push(sequence),
                Some(end) => self.retire(sequence, end),
            }
        }
    }

    /// Tells how it ended, and keeps what was computed.
    fn retire(&mut self, sequence: Sequence<'a>, end: End) {
        let healthy = !matches!(end, End::Failed(_));
        let (past, cache) = sequence.end(end);
        if healthy {
            self.prefixes.put(past, cache);
        }
        let room = self.room();
        self.prefixes.shrink(room);
    }

    /// Bytes that the sequences leave to earlier answers.
    fn room(&self) -> usize {
        let needed: usize = self.all().map(|sequence| self.needs(sequence.most_tokens())).sum();
        self.limits.cache_bytes.saturating_sub(needed)
    }

    fn needs(&self, tokens: usize) -> usize {
        KvCache::capacity(tokens) * token_bytes(&self.assistant.model.qwen)
    }

    fn all(&self) -> impl Iterator<Item = &Sequence<'a>> {
        self.joining.iter().chain(&self.running)
    }
}

/// Bytes of the keys and values of one token.
pub(super) fn token_bytes(qwen: &Qwen3) -> usize {
    let config = qwen.config();
    2 * config.num_hidden_layers
        * config.num_key_value_heads
        * config.head_dim
        * qwen.embed_tokens.dtype().size()
}

/// Feeds back the last token of each sequence; the logits behind them, `[sequences, vocab_size]`.
fn next_logits(qwen: &Qwen3, running: &mut [Sequence<'_>]) -> Tensor<2> {
    let ids: Vec<u32> = running.iter().map(Sequence::last_token).collect();
    let x = qwen.embed(&ids).reshape([ids.len(), 1, qwen.config().hidden_size]);
    let mut pasts: Vec<&mut KvCache> = running.iter_mut().map(|sequence| &mut sequence.cache).collect();
    qwen.logits(qwen.forward_each(x, &mut pasts).flatten::<2>(0, 1))
}
