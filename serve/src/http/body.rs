//! A request's body: not too large, not too slow, and all of them together within the memory they may take.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body as Incoming, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::header::CONNECTION;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::app::App;
use crate::error::ApiError;

/// The longest silence within a body, and the longest time for all of it.
const SILENCE: Duration = Duration::from_secs(15);
const WHOLE: Duration = Duration::from_mins(2);

/// A body in memory, and its share of what bodies may take, which goes back with it.
#[derive(Debug, Default)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub share: Option<OwnedSemaphorePermit>,
}

/// Why a body was not read to its end, or not at all. No other request can follow on its connection.
#[derive(Debug)]
pub struct Unread(pub ApiError);

impl IntoResponse for Unread {
    fn into_response(self) -> Response {
        ([(CONNECTION, "close")], self.0).into_response()
    }
}

impl FromRequest<Arc<App>> for Body {
    type Rejection = Unread;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Unread> {
        read(request.into_body(), app.settings.max_body, &app.bodies).await.map_err(Unread)
    }
}

/// Reads a body of at most `most` bytes.
async fn read(body: Incoming, most: usize, memory: &Arc<Semaphore>) -> Result<Body, ApiError> {
    if body.size_hint().lower() > most as u64 {
        return Err(ApiError::too_large(most));
    }
    let end = Instant::now() + WHOLE;
    let (mut pieces, mut whole) = (body.into_data_stream(), Body::default());
    loop {
        let patience = end.min(Instant::now() + SILENCE);
        let piece = timeout_at(patience, pieces.next()).await.map_err(|_| ApiError::slow())?;
        let Some(piece) = piece else { return Ok(whole) };
        whole.add(&piece.map_err(|error| ApiError::incomplete(&error))?, most, memory)?;
    }
}

impl Body {
    fn add(&mut self, piece: &[u8], most: usize, memory: &Arc<Semaphore>) -> Result<(), ApiError> {
        if piece.len() > most - self.bytes.len() {
            return Err(ApiError::too_large(most));
        }
        let bytes = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        let share = Arc::clone(memory).try_acquire_many_owned(bytes);
        let share = share.map_err(|_| ApiError::unavailable("too many large requests at once; try again"))?;
        match &mut self.share {
            Some(all) => all.merge(share),
            None => self.share = Some(share),
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }
}
