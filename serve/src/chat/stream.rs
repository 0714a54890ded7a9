//! An answer as server-sent events: the role first, then text as it comes, then why it ended, the usage if asked for, `[DONE]`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde_json::Value;

use super::answer::Answer;
use super::{Delta, Deltas};

/// After this much silence a comment is sent, so that nobody in between takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const DONE: &str = "[DONE]";

struct Stream {
    answer: Answer,
    deltas: Deltas,
    ready: VecDeque<Event>,
    ended: bool,
}

/// The stream as a response. Dropping it, as hyper does when its reader hangs up, cancels the answer.
pub fn response(answer: Answer, deltas: Deltas) -> Response {
    let ready = VecDeque::from([event(&answer.first())]);
    let stream = Stream { answer, deltas, ready, ended: false };
    let events = unfold(stream, |mut stream: Stream| async move {
        let event = stream.next().await?;
        Some((Ok::<_, Infallible>(event), stream))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive");
    let unbuffered = [("x-accel-buffering", "no")]; // nginx would gather it otherwise
    (unbuffered, Sse::new(events).keep_alive(keep_alive)).into_response()
}

fn event(value: &Value) -> Event {
    Event::default().data(value.to_string())
}

impl Stream {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            match self.deltas.next().await {
                Ok(Delta::Text(text)) => self.say(&text),
                Ok(Delta::End { text, finish }) => {
                    self.say(&text);
                    self.ready.push_back(event(&self.answer.end(finish)));
                    self.ready.extend(self.answer.usage(&self.deltas.usage).as_ref().map(event));
                    self.ready.push_back(Event::default().data(DONE));
                    self.ended = true;
                }
                Err(error) => {
                    // The status is out already.
                    self.ready.push_back(event(&error.body()));
                    self.ended = true;
                }
            }
        }
    }

    /// A token that completes no character says nothing.
    fn say(&mut self, text: &str) {
        if !text.is_empty() {
            self.ready.push_back(event(&self.answer.text(text)));
        }
    }
}
