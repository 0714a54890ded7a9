//! Objects in memory that count what is asked of them, and fail when they are told to.

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use llavm_pipeline::storage::{Limits, Objects};
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What goes wrong with a put or a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done.
    Before,
    /// It is done, and the answer is lost.
    After,
    /// The answer is lost on its way, and the client sends it again by itself.
    Twice,
}

/// What a server does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ignores {
    #[default]
    Nothing,
    /// `If-None-Match`.
    Create,
    /// `If-Match`.
    Update,
}

#[derive(Debug, Default)]
pub struct State {
    /// By operation and the first part of the name.
    calls: BTreeMap<(&'static str, String), usize>,
    /// Puts and removals so far.
    changes: usize,
    /// Which of them fails, and how.
    fault: Option<(usize, Fault)>,
}

/// A bucket in memory.
#[derive(Clone, Debug, Default)]
pub struct Bucket {
    pub inner: Arc<InMemory>,
    pub state: Arc<Mutex<State>>,
    pub ignores: Ignores,
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bucket")
    }
}

fn broken() -> Error {
    Error::Generic { store: "bucket", source: "the connection is broken".into() }
}

impl Bucket {
    /// The store of a machine whose folder is `folder`. Files go in small parts, so that most need several.
    pub fn store(&self, folder: &Path) -> Arc<Objects> {
        self.store_with(folder, Limits { young: Duration::ZERO, ..limits() })
    }

    pub fn store_with(&self, folder: &Path, limits: Limits) -> Arc<Objects> {
        Objects::over(Arc::new(self.clone()), "mem://bucket", "memory", folder, limits).unwrap()
    }

    /// How often each operation was asked for, by the first part of the name; counts again from here.
    pub fn take_calls(&self) -> BTreeMap<(&'static str, String), usize> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }

    /// From now on, change number `at` (from 0) goes wrong.
    pub fn fail(&self, at: usize, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        (state.changes, state.fault) = (0, Some((at, fault)));
    }

    /// Whether the fault has come.
    pub fn has_failed(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.fault.is_none_or(|(at, _)| state.changes > at)
    }

    /// All objects and what they hold.
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        futures_executor(async {
            let listed: Vec<ObjectMeta> = self.inner.list(None).map(Result::unwrap).collect().await;
            let mut objects = BTreeMap::new();
            for meta in listed {
                let got = self.inner.get_opts(&meta.location, GetOptions::default()).await.unwrap();
                objects.insert(meta.location.to_string(), got.bytes().await.unwrap().to_vec());
            }
            objects
        })
    }

    pub fn set(&self, key: &str, bytes: &[u8]) {
        let (key, payload) = (Key::parse(key).unwrap(), PutPayload::from(bytes.to_vec()));
        futures_executor(self.inner.put_opts(&key, payload, PutOptions::default())).unwrap();
    }

    fn count(&self, operation: &'static str, key: &Key) {
        let top = key.as_ref().split('/').next().unwrap_or_default().to_owned();
        *self.state.lock().unwrap().calls.entry((operation, top)).or_default() += 1;
    }

    /// The fault of this change, if it is its turn.
    fn change(&self) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        let turn = state.changes;
        state.changes += 1;
        state.fault.filter(|(at, _)| *at == turn).map(|(_, fault)| fault)
    }
}

/// Runs something that never waits for anything but memory.
pub fn futures_executor<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

#[async_trait]
impl ObjectStore for Bucket {
    async fn put_opts(&self, location: &Key, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let operation = match &opts.mode {
            PutMode::Overwrite => "put",
            PutMode::Create => "create",
            PutMode::Update(_) => "update",
        };
        self.count(operation, location);
        let opts = match (&opts.mode, self.ignores) {
            (PutMode::Create, Ignores::Create) | (PutMode::Update(_), Ignores::Update) => {
                PutOptions::default()
            }
            _ => opts,
        };
        let put = || self.inner.put_opts(location, payload.clone(), opts.clone());
        match self.change() {
            None => put().await,
            Some(Fault::Before) => Err(broken()),
            Some(Fault::After) => {
                put().await?;
                Err(broken())
            }
            Some(Fault::Twice) => {
                put().await?;
                put().await
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Key,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.count("multipart", location);
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(Upload { inner, bucket: self.clone(), location: location.clone() }))
    }

    async fn get_opts(&self, location: &Key, options: GetOptions) -> Result<GetResult> {
        self.count(if options.head { "head" } else { "get" }, location);
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Key>>) -> BoxStream<'static, Result<Key>> {
        match self.change() {
            Some(Fault::Before) => stream::once(async { Err(broken()) }).boxed(),
            Some(Fault::After) => {
                let gone = self.inner.delete_stream(locations).collect::<Vec<_>>();
                stream::once(async move {
                    gone.await;
                    Err(broken())
                })
                .boxed()
            }
            Some(Fault::Twice) | None => {
                let bucket = self.clone();
                let counted = locations.inspect(move |key| {
                    if let Ok(key) = key {
                        bucket.count("delete", key);
                    }
                });
                self.inner.delete_stream(counted.boxed())
            }
        }
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.count("list", prefix.unwrap_or(&Key::default()));
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A file that comes in parts.
#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    bucket: Bucket,
    location: Key,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.bucket.count("part", &self.location);
        let part = self.inner.put_part(data);
        match self.bucket.change() {
            Some(Fault::Before) => Box::pin(async { Err(broken()) }),
            Some(Fault::After) => Box::pin(async {
                part.await?;
                Err(broken())
            }),
            Some(Fault::Twice) | None => part,
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        match self.bucket.change() {
            Some(Fault::Before) => Err(broken()),
            Some(Fault::After) => {
                self.inner.complete().await?;
                Err(broken())
            }
            Some(Fault::Twice) | None => self.inner.complete().await,
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

/// What tests wait for is near.
pub fn limits() -> Limits {
    Limits { part: 4096, patience: Duration::from_millis(10), ..Limits::default() }
}
