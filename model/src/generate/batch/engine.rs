//! The thread that owns a model and answers whoever asks.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use super::queue::Queue;
use super::{Batcher, Event, Limits, Refused, Request, token_bytes};
use crate::cache::KvCache;
use crate::generate::GenerateError;
use crate::generate::assistant::Assistant;

/// A model at work. Dropping it ends all answers.
#[derive(Debug)]
pub struct Engine {
    queue: Arc<Queue>,
    gauges: Arc<Gauges>,
    context: usize,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is doing.
#[derive(Debug, Default)]
struct Gauges {
    running: AtomicUsize,
    cache_bytes: AtomicUsize,
}

impl Engine {
    /// Starts the thread.
    pub fn start(assistant: Assistant, limits: Limits) -> io::Result<Self> {
        let (queue, gauges) =
            (Arc::new(Queue::new(limits.sequences + limits.waiting)), Arc::new(Gauges::default()));
        let context = context(&assistant, limits.cache_bytes);
        let (their_queue, their_gauges) = (Arc::clone(&queue), Arc::clone(&gauges));
        let thread = thread::Builder::new()
            .name("model".to_owned())
            .spawn(move || work(&assistant, limits, &their_queue, &their_gauges))?;
        Ok(Self { queue, gauges, context, thread: Some(thread) })
    }

    /// Most tokens that a prompt and its answer may have together: what the model was made for, and what fits into the cache.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Asks. An answer is cut where the context ends.
    pub fn submit(&self, mut request: Request) -> Result<(), Refused> {
        let (tokens, limit) = (request.ids.len(), self.context);
        let room = limit.saturating_sub(tokens);
        if tokens == 0 || room == 0 {
            return Err(Refused::TooLong { tokens, limit });
        }
        request.options.max_new_tokens = request.options.max_new_tokens.clamp(1, room);
        self.queue.push(request, self.running())
    }

    /// Requests being answered.
    pub fn running(&self) -> usize {
        self.gauges.running.load(Ordering::Relaxed)
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// Bytes of keys and values that are held.
    pub fn cache_bytes(&self) -> usize {
        self.gauges.cache_bytes.load(Ordering::Relaxed)
    }

    /// Whether the thread still answers.
    pub fn alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Engine {
    /// Ends all answers, and takes no more requests.
    pub fn stop(&self) {
        for mut request in self.queue.close() {
            request.listener.send(Event::Failed(GenerateError::Stopped));
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it catches its panics
        }
    }
}

/// What fits into the model's positions and, in whole blocks, into the cache.
fn context(assistant: &Assistant, cache_bytes: usize) -> usize {
    let block = KvCache::capacity(1);
    let fit = cache_bytes / (token_bytes(&assistant.model.qwen) * block).max(1) * block;
    assistant.model.qwen.config().max_position_embeddings.min(fit)
}

fn work(assistant: &Assistant, limits: Limits, queue: &Queue, gauges: &Gauges) {
    let mut batcher = Batcher::new(assistant, limits);
    while !queue.closed() {
        let step = catch_unwind(AssertUnwindSafe(|| {
            while let Some(request) = queue.next(batcher.sequences() == 0, |request| batcher.fits(request)) {
                batcher.admit(request);
                gauges.show(&batcher);
            }
            batcher.step();
        }));
        if step.is_err() {
            // The backend panics where memory or the device fails. What is half computed is thrown away.
            let why = "it panicked; `llavm doctor` says whether it can be trusted";
            let fresh = Batcher::new(assistant, limits);
            std::mem::replace(&mut batcher, fresh).fail(|| GenerateError::Device(why.to_owned()));
        }
        gauges.show(&batcher);
    }
    batcher.fail(|| GenerateError::Stopped);
}

impl Gauges {
    fn show(&self, batcher: &Batcher<'_>) {
        self.running.store(batcher.sequences(), Ordering::Relaxed);
        self.cache_bytes.store(batcher.cache_bytes(), Ordering::Relaxed);
    }
}
