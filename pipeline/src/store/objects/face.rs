//! A blocking face for asynchronous requests: a small runtime on a thread of its own.

use object_store::{Error, Result};
use std::future::Future;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot::{self, Sender};
use tokio::task::JoinHandle;

/// Requests that may wait for the network at once.
pub const REQUESTS: usize = 64;

/// Runs requests as long as it lives.
#[derive(Debug)]
pub struct Face {
    runtime: Handle,
    /// The thread ends when this is dropped.
    _stop: Sender<()>,
}

/// A request on its way.
pub struct Pending<T>(Receiver<Result<T>>);

impl<T> Pending<T> {
    pub fn wait(self) -> Result<T> {
        self.0.recv().unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> Error {
    Error::Generic { store: "store", source: "the thread of its requests has ended".into() }
}

impl Face {
    pub fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(REQUESTS).build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::Builder::new().name("objects".to_owned()).spawn(move || {
            // An error says that the face is gone.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, _stop: stop })
    }

    /// Sends a request whose answer is asked for later.
    pub fn begin<T: Send + 'static>(
        &self,
        request: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Pending<T> {
        let (send, receive) = channel();
        self.runtime.spawn(async move {
            // Whoever does not wait any more wants no answer.
            let _ = send.send(request.await);
        });
        Pending(receive)
    }

    /// Sends a request and waits for its answer.
    pub fn wait<T: Send + 'static>(
        &self,
        request: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.begin(request).wait()
    }

    /// Something that goes on beside everything else until it is aborted.
    pub fn beside(&self, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.runtime.spawn(work)
    }
}
