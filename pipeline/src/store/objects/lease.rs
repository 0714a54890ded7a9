//! Leases: who is making what, and who uses the store. They save work; nothing is wrong without them.
//!
//! A lease is an object that is there only once (put if absent). Its holder renews it; one that was not renewed for as long as
//! [`Leases::ttl`] by the server's own clock may be taken over. Two that take it over at once are told apart by the object's
//! version, so that one of them gets it.

use super::client::{Client, Object};
use crate::spec::error::StageError;
use bytes::Bytes;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::task::JoinHandle;

/// A lease is renewed so many times before it would be taken over.
const RENEWALS: u32 = 4;

/// Takes leases for one process.
#[derive(Debug)]
pub struct Leases {
    client: Arc<Client>,
    /// How long a lease lasts that nobody renews.
    ttl: Duration,
    /// Nobody else is called that.
    me: String,
    next: AtomicU64,
    /// What the server's clock said, and when.
    clock: Mutex<Option<(i64, Instant)>>,
}

/// Held as long as this lives.
#[derive(Debug)]
pub struct Lease {
    client: Arc<Client>,
    key: String,
    renewing: JoinHandle<()>,
    lost: Arc<AtomicBool>,
}

impl Leases {
    pub fn new(client: Arc<Client>, ttl: Duration) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        // A hasher's keys are random.
        let random = RandomState::new().hash_one(since);
        let me = format!("{since:x}-{:x}-{random:x}", std::process::id());
        Self { client, ttl, me, next: AtomicU64::new(0), clock: Mutex::default() }
    }

    /// A name that nobody else uses.
    pub fn unique(&self) -> String {
        format!("{}-{}", self.me, self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// `None` when somebody else holds the lease.
    pub fn take(&self, key: &str) -> Result<Option<Lease>, StageError> {
        let token = self.unique();
        if let Some(version) = self.client.put(key, body(&token, 0), PutMode::Create)? {
            return self.hold(key, token, version).map(Some);
        }
        let Some(there) = self.client.get(key)? else { return Ok(None) };
        if is_of(&there.bytes, &token) {
            // The answer to the put was lost.
            return self.hold(key, token, there.version).map(Some);
        }
        if self.is_alive(there.modified)? {
            return Ok(None);
        }
        let Object { version, .. } = there;
        match self.client.put(key, body(&token, 0), PutMode::Update(version))? {
            Some(version) => self.hold(key, token, version).map(Some),
            None => Ok(None),
        }
    }

    /// Whether a lease of this age may still be renewed.
    pub fn is_alive(&self, modified: i64) -> Result<bool, StageError> {
        let age = self.now()?.saturating_sub(modified);
        Ok(u128::try_from(age).is_ok_and(|age| age <= self.ttl.as_millis()) || age < 0)
    }

    /// Milliseconds since 1970 by the server's clock, asked once.
    pub fn now(&self) -> Result<i64, StageError> {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let (said, at) = match *clock {
            Some(known) => known,
            None => *clock.insert((self.ask_clock()?, Instant::now())),
        };
        Ok(said.saturating_add(i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX)))
    }

    /// When the server says that something was put just now.
    fn ask_clock(&self) -> Result<i64, StageError> {
        let key = format!("locks/clock/{}", self.unique());
        self.client.put(&key, Bytes::from_static(b"now"), PutMode::Overwrite)?;
        let put = self.client.head(&key)?;
        self.client.delete([key])?;
        put.map(|put| put.modified)
            .ok_or_else(|| StageError::new(format!("{}: what was just put is not there", self.client.name)))
    }

    fn hold(&self, key: &str, token: String, version: UpdateVersion) -> Result<Lease, StageError> {
        let lost = Arc::new(AtomicBool::new(false));
        let renewing = Renewing {
            store: Arc::clone(&self.client.store),
            key: self.client.key(key)?,
            token,
            version,
            every: self.ttl / RENEWALS,
        };
        let seen = Arc::clone(&lost);
        let renewing = self.client.face.beside(async move {
            renewing.go_on().await;
            seen.store(true, Ordering::Relaxed);
        });
        Ok(Lease { client: Arc::clone(&self.client), key: key.to_owned(), renewing, lost })
    }
}

/// What a lease holds: whose it is, and how often it was renewed, so that every renewal has another version.
fn body(token: &str, renewed: u64) -> Bytes {
    Bytes::from(format!("{token} {renewed}"))
}

fn is_of(bytes: &[u8], token: &str) -> bool {
    bytes.strip_prefix(token.as_bytes()).is_some_and(|rest| rest.starts_with(b" "))
}

/// A lease that is being renewed.
struct Renewing {
    store: Arc<dyn ObjectStore>,
    key: Key,
    token: String,
    version: UpdateVersion,
    every: Duration,
}

impl Renewing {
    /// Ends when somebody else has it.
    async fn go_on(mut self) {
        for renewed in 1.. {
            tokio::time::sleep(self.every).await;
            let options = PutOptions::from(PutMode::Update(self.version.clone()));
            let payload = PutPayload::from(body(&self.token, renewed));
            match self.store.put_opts(&self.key, payload, options).await {
                Ok(put) => self.version = put.into(),
                Err(error) if super::trouble::is_conflict(&error) => match self.own().await {
                    Some(version) => self.version = version,
                    None => return,
                },
                // The next renewal may come through.
                Err(error) => tracing::debug!(%error, key = %self.key, "a lease was not renewed"),
            }
        }
    }

    /// The version that is there, when an answer was lost and it is ours.
    async fn own(&self) -> Option<UpdateVersion> {
        let found = self.store.get(&self.key).await.ok()?;
        let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        let bytes = found.bytes().await.ok()?;
        is_of(&bytes, &self.token).then_some(version)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
        if !self.lost.load(Ordering::Relaxed) {
            // One that stays behind is taken over when its time is up.
            let _ = self.client.delete([std::mem::take(&mut self.key)]);
        }
    }
}
