//! The server: a socket, a model, and a thread for all connections.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use llavm_model::generate::assistant::Assistant;
use llavm_model::generate::batch::engine::Engine;
use llavm_model::hub::remote_image::{RemoteError, RemoteImages};
use tokio::runtime::Builder;
use tokio::sync::watch;

use crate::Settings;
use crate::app::App;
use crate::http::listener;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, or not one of this machine.
    #[error("cannot listen at {address}: {cause}")]
    Address {
        /// The address.
        address: String,
        /// The system's words.
        cause: io::Error,
    },
    /// The system gave no thread or no timer.
    #[error("cannot start: {0}")]
    Start(io::Error),
    /// The keys and values of not even one request fit.
    #[error("a cache of {bytes} bytes is too small for one request; raise --cache-mib")]
    Cache {
        /// Its size.
        bytes: usize,
    },
    /// Images cannot be fetched.
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

/// A server that listens, but does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
    stop: watch::Sender<bool>,
}

/// Stops a server, from any thread.
#[derive(Clone, Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stopper {
    /// Takes no more requests; answers being given may end.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// Most bytes of an image that is fetched, in parts of what a body may have: base64 makes four bytes of three.
const REMOTE_PART: usize = 2;

impl Server {
    /// Takes the address, before anything else takes time.
    pub fn listen(host: &str, port: u16) -> Result<TcpListener, ServeError> {
        let failed = |cause| ServeError::Address { address: format!("{host}:{port}"), cause };
        let listener = TcpListener::bind((host, port)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(listener)
    }

    /// A server of `assistant` at `listener`.
    pub fn new(listener: TcpListener, assistant: Assistant, settings: Settings) -> Result<Self, ServeError> {
        let address = listener.local_addr().map_err(ServeError::Start)?;
        let most = (settings.max_body / REMOTE_PART) as u64;
        let hosts = &settings.remote_images;
        let remote = if hosts.is_empty() { None } else { Some(RemoteImages::new(hosts, most)?) };
        let (processor, system) = (Arc::clone(&assistant.processor), assistant.system.clone());
        let engine = Engine::start(assistant, settings.limits).map_err(ServeError::Start)?;
        if engine.context() == 0 {
            return Err(ServeError::Cache { bytes: settings.limits.cache_bytes });
        }
        let app = Arc::new(App::new(engine, processor, system, remote, settings));
        Ok(Self { listener, address, app, stop: watch::Sender::new(false) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Most tokens of a prompt and its answer.
    pub fn context(&self) -> usize {
        self.app.engine.context()
    }

    /// What stops it.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.stop.clone())
    }

    /// Answers until it is stopped.
    pub fn run(self) -> Result<(), ServeError> {
        let runtime =
            Builder::new_current_thread().enable_io().enable_time().build().map_err(ServeError::Start)?;
        let Self { listener, app, stop, .. } = self;
        let ended = runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            listener::serve(listener, app, stop.subscribe()).await;
            Ok(())
        });
        runtime.shutdown_timeout(Duration::from_secs(1)); // an image that is still being decoded is not waited for
        ended.map_err(ServeError::Start)
    }
}
