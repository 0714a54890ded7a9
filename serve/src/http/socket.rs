//! A socket for hyper. Whoever takes nothing for too long is not waited for; and where hyper refuses a request before any of our
//! code sees it, with a status and no body, the body is OpenAI's error object.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use crate::error::ApiError;

/// The longest time until the other end takes more of an answer.
const READER: Duration = Duration::from_secs(30);

/// A socket, and when it is given up.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    /// Runs while the other end takes nothing.
    deadline: Pin<Box<Sleep>>,
    waiting: bool,
    /// Bytes that go out before any others.
    first: Vec<u8>,
    /// The status of a request that hyper refused.
    pub refused: Option<StatusCode>,
}

impl Socket {
    pub fn new(stream: TcpStream) -> Self {
        let deadline = Box::pin(sleep(READER));
        Self { stream, deadline, waiting: false, first: Vec::new(), refused: None }
    }

    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Refuses a request behind which nothing follows. What does not go out at once does not go out.
    pub fn refuse(&mut self, error: &ApiError) {
        self.refused = Some(error.status);
        if let Err(cause) = self.stream.try_write(&error.last_words()) {
            tracing::debug!("a connection was not refused: {cause}");
        }
    }

    /// Writes what can be written, or waits until the deadline.
    fn poll_some(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_ready() {
            self.waiting = false;
            return written;
        }
        if !self.waiting {
            self.waiting = true;
            self.deadline.as_mut().reset(Instant::now() + READER);
        }
        self.deadline.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_first(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.first.is_empty() {
            let bytes = std::mem::take(&mut self.first);
            let written = self.poll_some(context, &bytes);
            let sent = if let Poll::Ready(Ok(sent)) = written { sent } else { 0 };
            self.first = bytes.get(sent..).unwrap_or_default().to_vec();
            ready!(written)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_first(context))?;
        let Some(error) = refusal(bytes) else { return self.poll_some(context, bytes) };
        self.refused = Some(error.status);
        self.first = error.last_words();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_first(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The error behind a response that is nothing but a head of hyper's own: all of ours name the type of their content.
fn refusal(bytes: &[u8]) -> Option<ApiError> {
    let status = bytes.strip_prefix(b"HTTP/1.1 4")?.get(..2)?;
    let head = std::str::from_utf8(bytes).ok()?.strip_suffix("\r\n\r\n")?.to_ascii_lowercase();
    let bare = head.contains("\r\ncontent-length: 0") && !head.contains("\r\ncontent-type");
    bare.then(|| match status {
        b"14" | b"31" => ApiError::large_head(),
        _ => ApiError::invalid("invalid_http", "the request is no valid HTTP/1.1"),
    })
}
