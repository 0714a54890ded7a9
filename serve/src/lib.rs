//! A trained model over HTTP: OpenAI's chat completions, and a page to talk with it.
//!
//! ```text
//! http: hyper's connection -> routes: axum's router (CORS, key) -> chat: request -> prompt (the model's processor) -> the engine's queue
//!                                                              answer | stream  <- events <- the thread that owns the model
//! ```
//!
//! | file | what |
//! |---|---|
//! | `http/` | connections under hyper: how many, how slow, how large |
//! | `routes.rs` | what there is, who may have it, from where |
//! | [`chat`] | a chat completion: request, prompt, answer, stream |
//! | `images.rs` | images of requests: data URIs, and addresses where they are allowed |
//! | [`error`] | what is answered where there is no answer |
//! | `metrics.rs` | Prometheus |
//! | `page.rs`, `page/` | the page |
//!
//! Everything that a sender decides is bounded: connections, their silence, headers, bodies one by one and together, images and
//! their pixels, prompts, waiting requests, keys and values. One thread serves all connections; what takes longer than a moment
//! (parsing, decoding, rendering) runs on a few others, answers on the engine's own (`llavm_model::generate::batch::engine`).

mod app;
pub mod chat;
pub mod error;
mod http;
mod images;
mod metrics;
mod page;
mod routes;
mod server;
mod settings;

pub use server::{ServeError, Server, Stopper};
pub use settings::{Defaults, Settings};
