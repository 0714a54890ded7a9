//! A benchmark's questions asked of a model, some images' at a time.
//!
//! In: questions, and their images. Out: an answer to each, or why it was not asked: an image that cannot be
//! decoded or is in none of the files costs its own questions and no others.

use super::Benchmark;
use super::files;
use super::item::Item;
use crate::asking::asker::{Asker, Question};
use crate::asking::kept::Kept;
use crate::asking::seen::Seen;
use llavm_model::chat_template::Message;
use llavm_model::generate::assistant::Assistant;
use llavm_model::processor::Processor;
use llavm_pipeline::StageError;
use rayon::prelude::*;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

/// Images that are decoded, and whose questions are asked, together.
const IMAGES_AT_ONCE: usize = 128;

/// An answer, or why the question was not asked: `benchmark/code: detail`.
pub type Said = Result<String, String>;

/// Hands over images one after the other, those that nobody asks about, too.
pub type Images<'a> =
    &'a dyn Fn(&mut dyn FnMut(files::Image) -> Result<(), StageError>) -> Result<(), StageError>;

/// Everything that asks.
pub struct Asking<'a> {
    pub benchmark: &'a Benchmark,
    pub items: &'a [Item],
    pub assistant: &'a Assistant,
    pub max_new_tokens: usize,
    pub batch_size: usize,
    /// Answers of earlier runs.
    pub kept: Option<&'a Kept>,
    /// Where images are decoded.
    pub pool: &'a rayon::ThreadPool,
    /// Called with how many questions of how many are done; an error ends the work.
    pub progress: &'a dyn Fn(usize, usize) -> Result<(), StageError>,
}

/// What is done so far.
struct Work<'a> {
    /// The prompts' tokens.
    ids: Vec<Vec<u32>>,
    said: Vec<Option<Said>>,
    /// The questions about each image.
    rows: BTreeMap<&'a str, Vec<usize>>,
    /// The images since the last questions were asked, those that nobody has to see again, too: which questions are asked
    /// together does not depend on what is known.
    window: Vec<String>,
    /// All images so far, and the questions all of whose images were among them.
    passed: BTreeSet<String>,
    handled: Vec<bool>,
    /// Encoded images that wait to be decoded, and the pixels of those that wait for others of their questions.
    encoded: Vec<files::Image>,
    pixels: BTreeMap<String, Vec<u8>>,
}

impl Work<'_> {
    fn is_open(&self, image: &str) -> bool {
        self.rows.get(image).is_some_and(|rows| rows.iter().any(|row| self.said[*row].is_none()))
    }

    /// The questions about an image are not asked.
    fn reject(&mut self, image: &str, reason: &str) {
        for row in self.rows.get(image).into_iter().flatten() {
            self.said[*row].get_or_insert_with(|| Err(reason.to_owned()));
        }
    }

    /// Whether it is known that a question cannot be asked.
    fn is_rejected(&self, row: usize) -> bool {
        matches!(self.said.get(row), Some(Some(Err(_))))
    }

    fn done(&self) -> usize {
        self.handled.iter().filter(|handled| **handled).count()
    }
}

/// What makes prompts.
struct Prompts<'a> {
    benchmark: &'a Benchmark,
    processor: &'a Processor,
    system: Option<&'a str>,
    /// Tokens that the model takes.
    limit: usize,
}

impl Prompts<'_> {
    fn prompt(&self, item: &Item) -> Result<Vec<u32>, String> {
        if item.images.is_empty()
            && let Some(name) = &item.image
        {
            return Err(format!("benchmark/no-image: the image {name} is in none of the files"));
        }
        let content = (self.benchmark.prompt)(item);
        let messages = [Message::new("user", &content)];
        let ids = self
            .processor
            .prompt(&messages, self.system, item.images.len())
            .map_err(|error| format!("benchmark/{}: {error}", error.code()))?;
        let (tokens, limit) = (ids.len(), self.limit);
        if tokens < limit {
            return Ok(ids);
        }
        Err(format!(
            "benchmark/too-long: {tokens} tokens; the model ends at max_position_embeddings = {limit}"
        ))
    }
}

impl Asking<'_> {
    /// What became of every question, in order.
    pub fn ask(&self, images: Images<'_>) -> Result<Vec<Said>, StageError> {
        let mut work = self.begin();
        let nothing = Seen::default();
        let is_unseen = |row: &usize| self.items[*row].images.is_empty() && !work.is_rejected(*row);
        let unseen: Vec<usize> = (0..self.items.len()).filter(is_unseen).collect();
        self.ask_rows(&unseen, &nothing, &mut work)?;
        images(&mut |image| {
            if !work.rows.contains_key(image.digest.as_str()) || !work.passed.insert(image.digest.clone()) {
                return Ok(());
            }
            work.window.push(image.digest.clone());
            if work.is_open(&image.digest) {
                work.encoded.push(image);
            }
            if work.window.len() < IMAGES_AT_ONCE { Ok(()) } else { self.flush(&mut work) }
        })?;
        self.flush(&mut work)?;
        let missing = || Err("benchmark/no-image: its image is in none of the files".to_owned());
        let said = work.said.into_iter().zip(work.handled);
        let said = said.map(|(said, handled)| said.filter(|said| handled || said.is_err()));
        Ok(said.map(|said| said.unwrap_or_else(missing)).collect())
    }

    /// The prompts; what cannot be asked, and what is known already.
    fn begin(&self) -> Work<'_> {
        let mut work = Work {
            ids: Vec::new(),
            said: Vec::new(),
            rows: BTreeMap::new(),
            window: Vec::new(),
            passed: BTreeSet::new(),
            handled: vec![false; self.items.len()],
            encoded: Vec::new(),
            pixels: BTreeMap::new(),
        };
        let nothing = Seen::default();
        let asker = self.asker(&nothing, Box::new(|_| Ok(())));
        for (row, (item, prompt)) in self.items.iter().zip(self.prompts()).enumerate() {
            let known = |ids: &Vec<u32>| asker.known(ids, &item.images.join(" "));
            work.said.push(match &prompt {
                Ok(ids) => known(ids).map(Ok),
                Err(reason) => Some(Err(reason.clone())),
            });
            work.ids.push(prompt.unwrap_or_default());
            item.images.iter().for_each(|image| work.rows.entry(image).or_default().push(row));
        }
        work
    }

    /// Every question as the model's processor asks it, or why it cannot; rendered by all threads.
    fn prompts(&self) -> Vec<Result<Vec<u32>, String>> {
        let prompts = Prompts {
            benchmark: self.benchmark,
            processor: &self.assistant.processor,
            system: self.assistant.system.as_deref(),
            limit: self.assistant.model.qwen.config().max_position_embeddings,
        };
        self.pool.install(|| self.items.par_iter().map(|item| prompts.prompt(item)).collect())
    }

    /// Decodes the images that wait, and asks the questions all of whose images are there; images that no other question needs go.
    fn flush(&self, work: &mut Work<'_>) -> Result<(), StageError> {
        let processor = &self.assistant.processor.image;
        let encoded = std::mem::take(&mut work.encoded);
        let prepare = |image: &files::Image| match &image.content {
            Ok(bytes) => processor.prepare(bytes).map_err(|error| error.to_string()),
            Err(why) => Err(why.clone()),
        };
        let decoded: Vec<Result<Vec<u8>, String>> =
            self.pool.install(|| encoded.par_iter().map(prepare).collect());
        for (image, pixels) in encoded.into_iter().zip(decoded) {
            match pixels {
                Ok(pixels) => drop(work.pixels.insert(image.digest, pixels)),
                Err(why) => work.reject(&image.digest, &format!("benchmark/bad-image: {why}")),
            }
        }
        let window = std::mem::take(&mut work.window);
        let is_ready = |row: &usize| {
            let images = &self.items[*row].images;
            !work.is_rejected(*row) && images.iter().all(|image| work.passed.contains(image))
        };
        let about = window.iter().filter_map(|image| work.rows.get(image.as_str())).flatten();
        let mut rows: Vec<usize> = about.copied().filter(is_ready).collect();
        rows.sort_unstable();
        rows.dedup();
        let mut seen = Seen::default();
        for row in &rows {
            let images = &self.items[*row].images;
            // Of what nobody asks about again there are no pixels.
            let pixels: Vec<&[u8]> =
                images.iter().filter_map(|image| work.pixels.get(image)).map(Vec::as_slice).collect();
            seen.add(&images.join(" "), &pixels.concat());
        }
        self.ask_rows(&rows, &seen, work)?;
        let mut pixels = std::mem::take(&mut work.pixels);
        pixels.retain(|image, _| work.is_open(image));
        work.pixels = pixels;
        Ok(())
    }

    fn ask_rows(&self, rows: &[usize], seen: &Seen, work: &mut Work<'_>) -> Result<(), StageError> {
        let done = Cell::new(work.done());
        let tell = |count: usize| {
            done.set(done.get() + count);
            (self.progress)(done.get(), self.items.len())
        };
        let question = |row: &usize| Question {
            ids: &work.ids[*row],
            shown: seen.number(&self.items[*row].images.join(" ")),
        };
        let questions: Vec<Question<'_>> = rows.iter().map(question).collect();
        let answers = self.asker(seen, Box::new(tell)).answers(&questions)?;
        for (row, answer) in rows.iter().zip(answers) {
            work.said[*row] = Some(Ok(answer));
            work.handled[*row] = true;
        }
        Ok(())
    }

    fn asker<'a>(
        &'a self,
        seen: &'a Seen,
        done: Box<dyn Fn(usize) -> Result<(), StageError> + 'a>,
    ) -> Asker<'a> {
        Asker {
            assistant: self.assistant,
            seen,
            max_new_tokens: self.max_new_tokens,
            batch_size: self.batch_size,
            kept: self.kept,
            done,
        }
    }
}
