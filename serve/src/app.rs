//! What all requests share.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use llavm_model::generate::batch::engine::Engine;
use llavm_model::hub::remote_image::RemoteImages;
use llavm_model::processor::Processor;
use llavm_model::processor::image::ImageProcessor;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::Settings;
use crate::error::ApiError;
use crate::metrics::Metrics;

/// Bodies that may be in memory at once, in bodies of the largest size.
const BODIES: usize = 4;
/// Images fetched from elsewhere at once.
const FETCHES: usize = 8;

/// Everything that a request may need.
#[derive(Debug)]
pub struct App {
    pub engine: Engine,
    pub processor: Arc<Processor>,
    /// Image preprocessing, with the server's limit of pixels.
    pub image: ImageProcessor,
    /// The system prompt of conversations without one.
    pub system: Option<String>,
    pub settings: Settings,
    pub metrics: Metrics,
    pub remote: Option<RemoteImages>,
    /// When the server started, in seconds since 1970.
    pub started: u64,
    /// Bytes that bodies may still take.
    pub bodies: Arc<Semaphore>,
    /// Who may parse, decode and render.
    working: Arc<Semaphore>,
    /// Who may fetch.
    fetching: Arc<Semaphore>,
}

impl App {
    pub fn new(
        engine: Engine,
        processor: Arc<Processor>,
        system: Option<String>,
        remote: Option<RemoteImages>,
        settings: Settings,
    ) -> Self {
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        let max_pixels = processor.image.max_pixels.min(settings.max_pixels);
        let bodies = settings.max_body.saturating_mul(BODIES).min(Semaphore::MAX_PERMITS);
        Self {
            image: ImageProcessor { max_pixels, ..processor.image.clone() },
            engine,
            processor,
            system,
            metrics: Metrics::default(),
            remote,
            started: now(),
            bodies: Arc::new(Semaphore::new(bodies)),
            working: Arc::new(Semaphore::new(workers)),
            fetching: Arc::new(Semaphore::new(FETCHES)),
            settings,
        }
    }

    /// Whether `name` is the model that is served.
    pub fn check_model(&self, name: &str) -> Result<(), ApiError> {
        if name == self.settings.name {
            return Ok(());
        }
        let message = format!("there is no model `{name:.80}` here; this is `{}`", self.settings.name);
        Err(ApiError::not_found("model_not_found", message))
    }

    /// Does what takes longer than a moment on a thread of its own.
    pub async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        apart(&self.working, work).await
    }

    /// As [`App::work`], for what waits for others more than it works.
    pub async fn fetch<T: Send + 'static>(
        &self,
        fetch: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        apart(&self.fetching, fetch).await
    }
}

async fn apart<T: Send + 'static>(
    places: &Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let stopping = || ApiError::unavailable("the server is stopping");
    let place = Arc::clone(places).acquire_owned().await.map_err(|_| stopping())?;
    let done = spawn_blocking(move || {
        let done = work();
        drop(place); // held until the work ends, even where nobody waits for it any more
        done
    });
    done.await.map_err(|_| ApiError::internal("the request could not be read; the server's log says why"))?
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
