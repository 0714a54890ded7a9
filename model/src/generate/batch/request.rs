//! What is asked, who waits for the answer, and what happens to it.

use std::fmt;
use std::sync::Arc;

use crate::generate::{GenerateError, Options};

/// What names an image: the digest of its pixels.
pub type ImageName = blake3::Hash;

/// An image ready for the vision tower.
#[derive(Clone, Debug)]
pub struct Image {
    pub(super) pixels: Arc<[u8]>,
    pub(super) name: ImageName,
}

impl Image {
    /// `[3, image_size, image_size]` bytes of RGB.
    pub fn new(pixels: Vec<u8>) -> Self {
        Self { name: blake3::hash(&pixels), pixels: pixels.into() }
    }
}

/// What a request asks for.
#[derive(Debug)]
pub struct Request {
    /// The prompt's token ids, with one image pad per patch of an image.
    pub ids: Vec<u32>,
    /// Its images, in the order of their pads.
    pub images: Vec<Image>,
    /// When to stop and how to choose. A seed stands for one answer, whenever and beside whom it is given.
    pub options: Options,
    /// Texts that end the answer and are left out of it.
    pub stop: Vec<String>,
    /// Who asks.
    pub listener: Box<dyn Listener>,
}

/// Who waits for an answer. Called by the thread that answers everybody, so neither function may wait.
pub trait Listener: Send + fmt::Debug {
    /// Something happened.
    fn send(&mut self, event: Event);
    /// Whether nobody listens any more; the answer then ends.
    fn gone(&self) -> bool;
}

/// What happens to a request.
#[derive(Debug)]
pub enum Event {
    /// A token was chosen.
    Token {
        /// Its id.
        id: u32,
        /// The text that became complete with it; may be empty.
        text: String,
    },
    /// The answer is complete.
    Finished {
        /// Why it ended.
        finish: Finish,
        /// Text that was held back.
        text: String,
        /// Tokens of the prompt that were not computed again.
        cached: usize,
    },
    /// There will be no (more) answer.
    Failed(GenerateError),
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// With an end token or a stop text.
    Stop,
    /// It reached the most tokens it may have, or the end of the model's context.
    Length,
}
