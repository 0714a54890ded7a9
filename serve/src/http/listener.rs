//! All connections: how many there may be, and how they end.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use futures_util::future::{Either, select};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::connection;
use super::socket::Socket;
use crate::app::App;
use crate::error::ApiError;
use crate::routes;

/// How long answers may go on once the server is asked to stop.
const GRACE: Duration = Duration::from_secs(5);
/// How long it then takes to tell those who still wait.
const FAREWELL: Duration = Duration::from_secs(2);
/// The pause where the system has no more connections to give.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Serves until told to stop, and then until the answers being given have ended or their grace has.
pub async fn serve(listener: TcpListener, app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let all = app.settings.max_connections;
    let places = Arc::new(Semaphore::new(all));
    let router = routes::router(&app);
    loop {
        let accepted = match select(pin!(listener.accept()), pin!(connection::asked(&mut stop))).await {
            Either::Left((accepted, _)) => accepted,
            Either::Right(_) => break,
        };
        match accepted {
            Ok((stream, _)) => match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => {
                    let (app, router, stop) = (Arc::clone(&app), router.clone(), stop.clone());
                    tokio::spawn(async move {
                        talk(stream, router, app, stop).await;
                        drop(place);
                    });
                }
                Err(_) => refuse(stream, &app),
            },
            // Most are faults of one connection; where files run out, it takes a moment until one is closed.
            Err(error) => {
                tracing::debug!("a connection was not accepted: {error}");
                sleep(EXHAUSTED).await;
            }
        }
    }
    drop(listener);
    let done = || places.acquire_many(u32::try_from(all).unwrap_or(u32::MAX));
    if timeout(GRACE, done()).await.is_err() {
        app.engine.stop();
        let _ = timeout(FAREWELL, done()).await; // those who do not listen are not waited for
    }
}

async fn talk(stream: TcpStream, router: Router, app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true); // tokens are small; without, each would wait for the next
    app.metrics.connections.fetch_add(1, Ordering::Relaxed);
    if let Some(refused) = connection::serve(stream, router, &mut stop).await {
        app.metrics.responded(refused);
    }
    app.metrics.connections.fetch_sub(1, Ordering::Relaxed);
}

/// Reports to a connection that there is no place.
fn refuse(stream: TcpStream, app: &App) {
    let error = ApiError::unavailable("too many connections; try again");
    app.metrics.responded(error.status);
    Socket::new(stream).refuse(&error);
}
