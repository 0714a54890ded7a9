//! `POST /v1/chat/completions`.
//!
//! | file | what |
//! |---|---|
//! | [`request`] | JSON to a checked request; pure, and fuzzed |
//! | `prompt.rs` | its messages and images to what the model reads, by the model's own processor |
//! | `answer.rs` | what OpenAI's objects look like |
//! | `stream.rs` | the answer piece by piece |

mod answer;
mod prompt;
pub mod request;
mod stream;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use llavm_model::generate::batch::{Event, Finish, Listener, Request};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::app::App;
use crate::error::ApiError;
use crate::http::body::Body;
use crate::images;
use answer::{Answer, Usage};

/// Answers a conversation.
pub async fn completions(State(app): State<Arc<App>>, body: Body) -> Result<Response, ApiError> {
    let start = Instant::now();
    let defaults = app.settings.defaults.clone();
    let most_images = app.settings.max_images;
    let (mut chat, share) = app
        .work(move || {
            let chat = request::parse(&body.bytes, &defaults)?;
            chat.check_images(most_images)?;
            Ok((chat, body.share))
        })
        .await?;
    if let Some(model) = &chat.model {
        app.check_model(model)?;
    }
    if chat.images().any(images::is_remote) {
        let their = Arc::clone(&app);
        chat = app.fetch(move || prompt::fetch(chat, their.remote.as_ref())).await?;
    }
    let (stream, include_usage, their) = (chat.stream, chat.include_usage, Arc::clone(&app));
    let asked = app.work(move || prompt::prepare(chat, &their)).await?;
    drop(share);
    let answer = Answer::new(&app.settings.name, include_usage);
    let deltas = ask(&app, asked, start)?;
    if stream { Ok(stream::response(answer, deltas)) } else { whole(&answer, deltas).await }
}

/// What the engine is asked, but for who asks.
struct Asked {
    options: request::Options,
    ids: Vec<u32>,
    images: Vec<llavm_model::generate::batch::Image>,
}

/// Hands a request to the engine.
fn ask(app: &Arc<App>, asked: Asked, start: Instant) -> Result<Deltas, ApiError> {
    let Asked { options, ids, images } = asked;
    let prompt = ids.len();
    // As many events as an answer can have: the engine never waits for whoever reads.
    let most = options.max_tokens.min(app.engine.context());
    let (sender, events) = channel(most + 2);
    let listener = Box::new(Ear(sender));
    let (options, stop) = options.for_engine(app.processor.eos.clone());
    app.engine.submit(Request { ids, images, options, stop, listener })?;
    app.metrics.prompt_tokens.fetch_add(prompt as u64, Ordering::Relaxed);
    let usage = Usage { prompt, completion: 0, cached: 0 };
    Ok(Deltas { events, app: Arc::clone(app), usage, before: start, ended: false })
}

/// Who asks, on the engine's side.
#[derive(Debug)]
struct Ear(Sender<Event>);

impl Listener for Ear {
    fn send(&mut self, event: Event) {
        if let Err(error) = self.0.try_send(event) {
            tracing::debug!("nobody waits for an answer any more: {error}");
        }
    }

    fn gone(&self) -> bool {
        self.0.is_closed()
    }
}

/// Who asks, on the server's side. Dropping it cancels the answer.
struct Deltas {
    events: Receiver<Event>,
    app: Arc<App>,
    usage: Usage,
    /// When the last token came, at first when the request did.
    before: Instant,
    ended: bool,
}

/// What comes next of an answer.
enum Delta {
    Text(String),
    End { text: String, finish: Finish },
}

impl Deltas {
    /// Waits for what comes next.
    async fn next(&mut self) -> Result<Delta, ApiError> {
        match self.events.recv().await {
            Some(Event::Token { text, .. }) => {
                self.count_token();
                Ok(Delta::Text(text))
            }
            Some(Event::Finished { finish, text, cached }) => {
                self.ended = true;
                self.usage.cached = cached;
                self.app.metrics.cached_tokens.fetch_add(cached as u64, Ordering::Relaxed);
                Ok(Delta::End { text, finish })
            }
            Some(Event::Failed(error)) => {
                self.ended = true;
                Err(error.into())
            }
            None => {
                self.ended = true;
                Err(ApiError::internal("the answer broke off"))
            }
        }
    }

    fn count_token(&mut self) {
        let (now, metrics) = (Instant::now(), &self.app.metrics);
        let times = if self.usage.completion == 0 { &metrics.first_token } else { &metrics.next_tokens };
        times.add(now - self.before);
        metrics.completion_tokens.fetch_add(1, Ordering::Relaxed);
        self.before = now;
        self.usage.completion += 1;
    }
}

impl Drop for Deltas {
    fn drop(&mut self) {
        if !self.ended {
            self.app.metrics.cancelled.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The whole answer at once.
async fn whole(answer: &Answer, mut deltas: Deltas) -> Result<Response, ApiError> {
    let mut text = String::new();
    loop {
        match deltas.next().await? {
            Delta::Text(piece) => text.push_str(&piece),
            Delta::End { text: rest, finish } => {
                text.push_str(&rest);
                return Ok(Json(answer.whole(&text, finish, &deltas.usage)).into_response());
            }
        }
    }
}
