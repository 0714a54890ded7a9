//! What a server is told when it starts.

use llavm_model::generate::batch::Limits;
use llavm_model::sampler::Sampling;

/// Everything but the model.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the model is called.
    pub name: String,
    /// What counts where a request says nothing.
    pub defaults: Defaults,
    /// Keys, one of which a request must have; none: everybody may ask.
    pub api_keys: Vec<String>,
    /// Origins of pages elsewhere that may ask; `*` for all.
    pub cors: Vec<String>,
    /// Hosts from which images are fetched; `*` for all. None: images come with the request.
    pub remote_images: Vec<String>,
    /// How much is answered at once.
    pub limits: Limits,
    /// Most bytes of a request's body.
    pub max_body: usize,
    /// Most connections at once.
    pub max_connections: usize,
    /// Most pixels of an image as it is sent.
    pub max_pixels: u64,
    /// Most images of a conversation.
    pub max_images: usize,
}

/// How the model answers where a request says nothing.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "llavm".to_owned(),
            defaults: Defaults { max_tokens: 256, sampling: Sampling::default() },
            api_keys: Vec::new(),
            cors: Vec::new(),
            remote_images: Vec::new(),
            limits: Limits::default(),
            max_body: 16 << 20,
            max_connections: 512,
            max_pixels: 50_000_000,
            max_images: 16,
        }
    }
}
