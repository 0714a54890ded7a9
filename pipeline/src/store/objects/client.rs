//! Requests of one bucket and prefix, one after the other, with errors for people.

use super::face::{Face, Pending};
use super::trouble::{explained, is_conflict, is_passing};
use crate::spec::error::StageError;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{
    Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion,
};
use std::ops::Range;
use std::sync::Arc;

/// How often a put is sent whose answers do not come.
const PUTS: usize = 3;

/// Sends requests.
#[derive(Debug)]
pub struct Client {
    pub face: Face,
    pub store: Arc<dyn ObjectStore>,
    /// What people call the store, and its server.
    pub name: String,
    pub server: String,
}

/// An object that is there.
pub struct Object {
    pub bytes: Bytes,
    pub version: UpdateVersion,
    /// Milliseconds since 1970 by the server's clock.
    pub modified: i64,
}

/// An object of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub key: String,
    pub bytes: u64,
    /// Milliseconds since 1970 by the server's clock.
    pub modified: i64,
    pub etag: Option<String>,
}

/// The first bytes of an object, and how many it has.
pub struct Part {
    pub bytes: Bytes,
    pub size: u64,
}

impl Client {
    pub fn new(store: Arc<dyn ObjectStore>, name: String, server: String) -> Result<Self, StageError> {
        let face = Face::start()
            .map_err(|cause| StageError::new(format!("{name}: no thread: {cause}")).because(cause))?;
        Ok(Self { face, store, name, server })
    }

    pub fn failed(&self, error: Error) -> StageError {
        explained(&self.name, &self.server, error)
    }

    pub fn key(&self, key: &str) -> Result<Key, StageError> {
        Key::parse(key).map_err(|cause| {
            StageError::new(format!("{}: `{key}` cannot name an object", self.name)).because(cause)
        })
    }

    /// The whole object; `None` when it is not there.
    pub fn get(&self, key: &str) -> Result<Option<Object>, StageError> {
        let (store, at) = (Arc::clone(&self.store), self.key(key)?);
        let got = self.face.wait(async move {
            let found = store.get(&at).await?;
            let (meta, bytes) = (found.meta.clone(), found.bytes().await?);
            let version = UpdateVersion { e_tag: meta.e_tag, version: meta.version };
            Ok(Object { bytes, version, modified: meta.last_modified.timestamp_millis() })
        });
        self.there(got)
    }

    /// What is known of an object; `None` when it is not there.
    pub fn head(&self, key: &str) -> Result<Option<Named>, StageError> {
        let (store, at) = (Arc::clone(&self.store), self.key(key)?);
        let got = self.face.wait(async move { store.head(&at).await });
        Ok(self.there(got)?.map(|meta| named(&meta)))
    }

    /// Bytes of an object, fewer where it ends; `None` when it is not there. It must have at least one byte in the range.
    pub fn begin_part(&self, key: &str, range: Range<u64>) -> Result<Pending<Part>, StageError> {
        let (store, at) = (Arc::clone(&self.store), self.key(key)?);
        Ok(self.face.begin(async move {
            let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
            let found = store.get_opts(&at, options).await?;
            let size = found.meta.size;
            Ok(Part { bytes: found.bytes().await?, size })
        }))
    }

    /// A missing object is no error.
    pub fn there<T>(&self, got: object_store::Result<T>) -> Result<Option<T>, StageError> {
        match got {
            Ok(found) => Ok(Some(found)),
            // The server's word for a missing object; a missing bucket has another one.
            Err(Error::NotFound { source, .. }) if !source.to_string().contains("NoSuchBucket") => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Puts a small object; `None` when somebody else was first, or when the answer to such a put was lost: all callers look
    /// who that was. So it may be sent again, which requests with conditions are not by themselves.
    pub fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> Result<Option<UpdateVersion>, StageError> {
        let (at, payload, options) = (self.key(key)?, PutPayload::from(bytes), PutOptions::from(mode));
        let put = || {
            let (store, at) = (Arc::clone(&self.store), at.clone());
            let (payload, options) = (payload.clone(), options.clone());
            self.face.wait(async move { store.put_opts(&at, payload, options).await })
        };
        let mut tried = put();
        for _ in 1..PUTS {
            if tried.as_ref().is_err_and(is_passing) {
                tried = put();
            }
        }
        match tried {
            Ok(put) => Ok(Some(put.into())),
            Err(error) if is_conflict(&error) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// All objects whose names begin with `folder/`, sorted by name.
    pub fn list(&self, folder: &str) -> Result<Vec<Named>, StageError> {
        let (store, at) = (Arc::clone(&self.store), self.key(folder)?);
        let listed = self.face.wait(async move {
            let at = if at.as_ref().is_empty() { None } else { Some(&at) };
            store.list(at).map_ok(|meta| named(&meta)).try_collect::<Vec<_>>().await
        });
        let mut listed = listed.map_err(|error| self.failed(error))?;
        listed.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(listed)
    }

    /// Whether there is any object whose name begins with `folder/`.
    pub fn has_any(&self, folder: &str) -> Result<bool, StageError> {
        let (store, at) = (Arc::clone(&self.store), self.key(folder)?);
        let found = self.face.wait(async move { store.list(Some(&at)).next().await.transpose() });
        found.map(|found| found.is_some()).map_err(|error| self.failed(error))
    }

    /// Removes objects; fine when they are not there.
    pub fn delete(&self, keys: impl IntoIterator<Item = String>) -> Result<(), StageError> {
        let keys: Result<Vec<Key>, StageError> = keys.into_iter().map(|key| self.key(&key)).collect();
        let (store, keys) = (Arc::clone(&self.store), keys?);
        if let [only] = keys.as_slice() {
            let only = only.clone();
            let deleted = self.face.wait(async move { store.delete(&only).await });
            return self.there(deleted).map(drop);
        }
        let deleted = self.face.wait(async move {
            let keys = futures_util::stream::iter(keys.into_iter().map(Ok)).boxed();
            store.delete_stream(keys).try_for_each(|_| std::future::ready(Ok(()))).await
        });
        self.there(deleted).map(drop)
    }
}

fn named(meta: &object_store::ObjectMeta) -> Named {
    Named {
        key: meta.location.to_string(),
        bytes: meta.size,
        modified: meta.last_modified.timestamp_millis(),
        etag: meta.e_tag.clone(),
    }
}
