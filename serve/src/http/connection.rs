//! One connection, from its first request to its last.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::socket::Socket;
use crate::error::ApiError;

/// The longest time until a request's head is there; also how long a connection may idle.
const HEAD: Duration = Duration::from_secs(10);
/// Most bytes of a head, and of what is read or written at once.
const BUFFER: usize = 64 << 10;
/// What is still taken behind the last answer, so that its reader gets it instead of a broken connection (RFC 9112, 9.6).
const LINGER_BYTES: usize = 64 << 20;
const LINGER_SILENCE: Duration = Duration::from_millis(250);
const LINGER: Duration = Duration::from_secs(5);

/// Answers requests until either end has enough; the status of a request that no handler saw.
pub async fn serve(
    stream: TcpStream,
    router: Router,
    stop: &mut watch::Receiver<bool>,
) -> Option<StatusCode> {
    let io = TokioIo::new(Socket::new(stream));
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER)
        .max_header_size(BUFFER)
        .serve_connection(io, TowerToHyperService::new(router));
    let (mut stop, mut stopping) = (pin!(asked(stop)), false);
    let ended = poll_fn(|context| {
        if !stopping && stop.as_mut().poll(context).is_ready() {
            stopping = true;
            Pin::new(&mut http).graceful_shutdown();
        }
        http.poll_without_shutdown(context)
    })
    .await;
    let parts = http.into_parts();
    let (half, mut socket) = (!parts.read_buf.is_empty(), parts.io.into_inner());
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
        // A head that began and did not end; hyper says nothing to it.
        if error.is_timeout() && half && socket.refused.is_none() {
            socket.refuse(&ApiError::slow());
        }
    }
    let refused = socket.refused;
    close(socket.into_stream()).await;
    refused
}

/// Waits until the server is asked to stop.
pub async fn asked(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await; // nobody left to ask is the end, too
}

/// Ends what is sent, and takes what still comes for a moment.
async fn close(mut stream: TcpStream) {
    if poll_fn(|context| Pin::new(&mut stream).poll_shutdown(context)).await.is_err() {
        return;
    }
    let (end, mut taken, mut piece) = (Instant::now() + LINGER, 0, vec![0; BUFFER]);
    while taken < LINGER_BYTES {
        let patience = end.min(Instant::now() + LINGER_SILENCE);
        if !matches!(timeout_at(patience, stream.readable()).await, Ok(Ok(()))) {
            return;
        }
        match stream.try_read(&mut piece) {
            Ok(0) => return,
            Ok(bytes) => taken += bytes,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
