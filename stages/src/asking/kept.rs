//! What a model answered, kept by model, question and settings, in a ledger of the store (`llavm_pipeline::stage::Ledger`).
//!
//! A key is made of everything that decides an answer: the content of the model's folder, device family and type of its numbers, the
//! prompt's tokens, the images, the most tokens of an answer and those that end it. How answers are scored, which of them, in which
//! slices and in which batches is not in it: a changed scorer asks nothing again, and neither does a run after one that was killed.

use llavm_pipeline::StageError;
use llavm_pipeline::stage::{JobContext, Ledger};
use serde::Serialize;
use serde_json::json;
use std::cell::{Cell, RefCell};

/// Raised when the same question gets another answer.
const VERSION: u32 = 2;

/// The values of one model.
pub struct Kept {
    ledger: RefCell<Box<dyn Ledger>>,
    settings: blake3::Hasher,
    asked: Cell<u64>,
    found: Cell<u64>,
}

/// `timing.json`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Timing {
    /// How many questions.
    #[serde(flatten)]
    pub counts: Counts,
    /// From the first question to the last answer, images included.
    pub seconds: f64,
}

/// How many questions were asked, and how many were answered before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Questions that went through the model, for an answer or for the loss of the right one.
    pub asked: u64,
    /// Those whose answer or loss was known.
    pub kept: u64,
}

impl Kept {
    /// What is kept of the model that input `model` of a job made, for questions asked with `settings`; `None` where the
    /// content of the model's folder is not known.
    pub fn open(
        context: &dyn JobContext,
        model: usize,
        settings: &impl Serialize,
    ) -> Result<Option<Self>, StageError> {
        let Some(name) = context.inputs().get(model) else { return Ok(None) };
        let stages = context.origin()?.stages;
        let Some(digest) =
            stages.into_iter().find(|stage| stage.name == *name).and_then(|stage| stage.digest)
        else {
            return Ok(None);
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(json!([VERSION, digest, settings]).to_string().as_bytes());
        let ledger = context.ledger(&format!("answers-{}", digest.get(..32).unwrap_or(&digest)))?;
        Ok(Some(Self {
            ledger: RefCell::new(ledger),
            settings: hasher,
            asked: Cell::new(0),
            found: Cell::new(0),
        }))
    }

    /// The key of a question: its tokens, what stands for its images, and what is wanted of it.
    pub fn key(&self, ids: &[u32], image: &str, wanted: &impl Serialize) -> String {
        let mut hasher = self.settings.clone();
        hasher.update(json!([ids, image, wanted]).to_string().as_bytes());
        hasher.finalize().to_hex().chars().take(40).collect()
    }

    /// The value of a key, which is text.
    pub fn get(&self, key: &str) -> Option<String> {
        serde_json::from_str(self.ledger.borrow().get(key)?).ok()
    }

    /// Writes values down.
    pub fn add(&self, values: &[(String, String)]) -> Result<(), StageError> {
        let line = |(key, value): &(String, String)| (key.clone(), json!(value).to_string());
        self.ledger.borrow_mut().add(&values.iter().map(line).collect::<Vec<_>>())
    }

    /// Counts questions that were asked, and such that need not be.
    pub fn count(&self, asked: usize, found: usize) {
        self.asked.set(self.asked.get() + asked as u64);
        self.found.set(self.found.get() + found as u64);
    }

    /// How many there were.
    pub fn counts(&self) -> Counts {
        Counts { asked: self.asked.get(), kept: self.found.get() }
    }
}
