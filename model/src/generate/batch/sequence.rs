//! One request being answered: its prompt read in chunks, then a token at a time.

use super::prefixes::Prefixes;
use super::request::{Event, Finish, ImageName, Request};
use crate::attention::TokenMask;
use crate::cache::KvCache;
use crate::generate::assistant::Assistant;
use crate::generate::past::Past;
use crate::generate::stop::StopText;
use crate::generate::{GenerateError, Row, read};
use crate::stream::TextStream;
use crate::vlm::Batch;

/// How an answer ends.
#[derive(Debug)]
pub(super) enum End {
    /// As it should.
    Finished(Finish),
    /// A stop text came; what is held back belongs to it.
    StopText,
    /// Nobody listens any more.
    Gone,
    /// The model gave no answer.
    Failed(GenerateError),
}

/// A request and how far it is.
#[derive(Debug)]
pub(super) struct Sequence<'a> {
    request: Request,
    row: Row,
    /// The prompt.
    prompt: Past<ImageName>,
    /// Keys and values of the tokens fed so far.
    pub cache: KvCache,
    /// Tokens of the prompt that were in a cache.
    cached: usize,
    text: TextStream<'a>,
    stop: StopText,
}

impl<'a> Sequence<'a> {
    /// Begins with what `prefixes` has of the prompt.
    pub fn new(request: Request, assistant: &'a Assistant, prefixes: &mut Prefixes) -> Self {
        let names: Vec<ImageName> = request.images.iter().map(|image| image.name).collect();
        let per_image = assistant.processor.image_tokens().count;
        let prompt = Past::of_prompt(&request.ids, assistant.model.image_pad_id, &names, per_image);
        let (cache, cached) = prefixes.take(&prompt);
        Self {
            row: Row::new(&request.ids, request.options.sampling.rng(0)),
            stop: StopText::new(&request.stop),
            text: TextStream::new(assistant.processor.tokenizer()),
            request,
            prompt,
            cache,
            cached,
        }
    }

    /// Tokens that prompt and answer may have together.
    pub fn most_tokens(&self) -> usize {
        self.row.prompt + self.request.options.max_new_tokens
    }

    /// Bytes of its keys and values.
    pub fn bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// The token chosen last.
    pub fn last_token(&self) -> u32 {
        self.row.seen.last().copied().unwrap_or_default()
    }

    /// Reads at most `most` further tokens of the prompt, more only where one image has more. The logits behind the prompt,
    /// once all of it is read.
    pub fn read_prompt(&mut self, assistant: &Assistant, most: usize) -> Result<Option<Vec<f32>>, End> {
        if self.request.listener.gone() {
            return Err(End::Gone);
        }
        let start = self.cache.tokens();
        let chunk = start..self.prompt.chunk_end(start, most);
        let images = self.request.images.get(self.prompt.images_in(&chunk)).unwrap_or_default();
        let pixels = images.iter().flat_map(|image| image.pixels.iter().copied()).collect();
        let batch = Batch {
            input_ids: self.request.ids.get(chunk.clone()).unwrap_or_default(),
            mask: &TokenMask::full(1, chunk.len()),
            features: assistant.features(pixels),
        };
        let hidden = assistant.model.hidden_cached(&batch, &mut self.cache);
        let hidden = hidden.map_err(|error| End::Failed(error.into()))?;
        if chunk.end < self.prompt.tokens() {
            return Ok(None);
        }
        let logits = assistant.model.logits_at(hidden, &[chunk.len().saturating_sub(1)]);
        read(logits).map(Some).map_err(End::Failed)
    }

    /// Chooses the next token and sends it; how the answer ends, if it does.
    pub fn choose(&mut self, logits: &mut [f32]) -> Option<End> {
        if self.request.listener.gone() {
            return Some(End::Gone);
        }
        let id = match self.row.choose(logits, &self.request.options) {
            Ok(id) => id,
            Err(error) => return Some(End::Failed(error)),
        };
        let more = match self.text.push(id) {
            Ok(more) => more,
            Err(error) => return Some(End::Failed(error.into())),
        };
        let (text, stopped) = self.stop.push(&more);
        self.request.listener.send(Event::Token { id, text });
        if stopped {
            Some(End::StopText)
        } else if self.row.done {
            Some(End::Finished(Finish::Stop))
        } else {
            let full = self.row.seen.len() >= self.most_tokens();
            full.then_some(End::Finished(Finish::Length))
        }
    }

    /// Sends how the answer ended; what was computed for it.
    pub fn end(mut self, end: End) -> (Past<ImageName>, KvCache) {
        let event = match end {
            End::Finished(finish) => Some(rest(self.text, self.stop).map_or_else(
                |error| Event::Failed(error.into()),
                |text| Event::Finished { finish, text, cached: self.cached },
            )),
            End::StopText => {
                Some(Event::Finished { finish: Finish::Stop, text: String::new(), cached: self.cached })
            }
            End::Failed(error) => Some(Event::Failed(error)),
            End::Gone => None,
        };
        if let Some(event) = event {
            self.request.listener.send(event);
        }
        let mut past = self.prompt;
        past.extend(self.row.seen.drain(self.row.prompt..));
        past.truncate(self.cache.tokens()); // the token chosen last was not fed back
        (past, self.cache)
    }
}

/// The text that was held back by whoever makes text of tokens or watches it.
fn rest(text: TextStream<'_>, mut stop: StopText) -> Result<String, crate::tokenizer::TokenizerError> {
    let (mut out, stopped) = stop.push(&text.finish()?);
    if !stopped {
        out.push_str(&stop.finish());
    }
    Ok(out)
}
