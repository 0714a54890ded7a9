//! OpenAI's objects: `chat.completion` and `chat.completion.chunk`.

use std::hash::{BuildHasher, RandomState};

use llavm_model::generate::batch::Finish;
use serde_json::{Value, json};

use crate::app::now;

/// Counted tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Of the prompt.
    pub prompt: usize,
    /// Of the answer, its end token included.
    pub completion: usize,
    /// Of the prompt, found in the cache.
    pub cached: usize,
}

impl Usage {
    fn json(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        })
    }
}

/// What all parts of one answer have in common.
#[derive(Clone, Debug)]
pub struct Answer {
    id: String,
    created: u64,
    model: String,
    /// Whether the stream ends with the usage.
    include_usage: bool,
}

fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

impl Answer {
    pub fn new(model: &str, include_usage: bool) -> Self {
        let number = RandomState::new().hash_one(0_u8); // seeded anew by the system
        Self { id: format!("chatcmpl-{number:016x}"), created: now(), model: model.to_owned(), include_usage }
    }

    /// All of it.
    pub fn whole(&self, text: &str, finish: Finish, usage: &Usage) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": null},
                "logprobs": null,
                "finish_reason": reason(finish),
            }],
            "usage": usage.json(),
        })
    }

    /// The first chunk: who speaks.
    pub fn first(&self) -> Value {
        self.chunk(&json!({"role": "assistant", "content": ""}), None)
    }

    /// A chunk of text.
    pub fn text(&self, text: &str) -> Value {
        self.chunk(&json!({"content": text}), None)
    }

    /// The chunk that says why the answer ended.
    pub fn end(&self, finish: Finish) -> Value {
        self.chunk(&json!({}), Some(finish))
    }

    /// The chunk behind it, if it was asked for.
    pub fn usage(&self, usage: &Usage) -> Option<Value> {
        self.include_usage.then(|| self.head(&json!([]), &usage.json()))
    }

    fn chunk(&self, delta: &Value, finish: Option<Finish>) -> Value {
        let choice =
            json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish.map(reason)});
        self.head(&json!([choice]), &Value::Null)
    }

    /// With `include_usage` every chunk has the field, null but in the last.
    fn head(&self, choices: &Value, usage: &Value) -> Value {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        });
        if self.include_usage
            && let Some(chunk) = chunk.as_object_mut()
        {
            chunk.insert("usage".to_owned(), usage.clone());
        }
        chunk
    }
}
