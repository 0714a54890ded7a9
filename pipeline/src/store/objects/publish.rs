//! Content and records on their way into the bucket, when others may put the same.

use super::Objects;
use super::client::Object;
use super::names::text;
use super::transfer;
use crate::spec::error::StageError;
use crate::store::{Commit, Kind, Store, files};
use object_store::PutMode;
use std::time::Duration;

/// How often a put over a version is tried: each time somebody else was first.
const TRIES: u32 = 1_000;

/// The longest pause between two tries, in milliseconds.
const LONGEST_PAUSE: u64 = 500;

impl Objects {
    pub(super) fn put_content(&self, commit: &Commit<'_>, key: &str) -> Result<(), StageError> {
        let Commit { content, from, force, .. } = *commit;
        if content.kind == Kind::Table {
            let size = files::size(from)?;
            let is_there =
                || Ok::<_, StageError>(self.client.head(key)?.is_some_and(|there| there.bytes == size));
            if !force && !self.is_damaged(content)? && is_there()? {
                return Ok(());
            }
            return transfer::upload(&self.client, from, key, self.limits.part);
        }
        for file in files::files_below(from)? {
            let to = format!("{key}/{}", text(&file));
            transfer::upload(&self.client, &from.join(&file), &to, self.limits.part)?;
        }
        Ok(())
    }

    /// Puts a record where there is none, or one that is not accepted; gives the one that is there then.
    pub(super) fn put_record(&self, commit: &Commit<'_>) -> Result<Vec<u8>, StageError> {
        let key = text(&commit.record.record_name());
        let mut mode = PutMode::Create;
        for tried in 0..TRIES {
            if self.client.put(&key, commit.bytes.to_vec().into(), mode)?.is_some() {
                return Ok(commit.bytes.to_vec());
            }
            mode = match self.client.get(&key)? {
                None => PutMode::Create,
                Some(there) if there.bytes == commit.bytes => return Ok(commit.bytes.to_vec()),
                Some(Object { bytes, version, .. }) => {
                    // A folder's record says where its files are.
                    self.remember(commit.record, &bytes);
                    if !commit.force && (commit.accepts)(&bytes)? {
                        return Ok(bytes.to_vec());
                    }
                    PutMode::Update(version)
                }
            };
            self.pause(tried);
        }
        Err(self.contended(&key))
    }

    /// Replaces an object by what `change` makes of it, however often others are first. `None` leaves it as it is.
    pub(super) fn change_object(
        &self,
        key: &str,
        change: &mut dyn FnMut(Option<Vec<u8>>) -> Result<Option<Vec<u8>>, StageError>,
    ) -> Result<(), StageError> {
        for tried in 0..TRIES {
            let (bytes, mode) = match self.client.get(key)? {
                Some(Object { bytes, version, .. }) => (Some(bytes.to_vec()), PutMode::Update(version)),
                None => (None, PutMode::Create),
            };
            let Some(new) = change(bytes)? else { return Ok(()) };
            if self.client.put(key, new.into(), mode)?.is_some() {
                return Ok(());
            }
            self.pause(tried);
        }
        Err(self.contended(key))
    }

    /// Before the next try: longer each time, and not as long as others wait.
    fn pause(&self, tried: u32) {
        let digest = blake3::hash(self.leases.unique().as_bytes());
        let longest = (1_u64 << tried.min(9)).min(LONGEST_PAUSE);
        std::thread::sleep(Duration::from_millis(u64::from(digest.as_bytes()[0]) * longest / 256));
    }

    fn contended(&self, key: &str) -> StageError {
        let text = format!("{}: `{key}` was changed by others {TRIES} times in a row", self.client.name);
        StageError::new(text).help("Run the same command again.")
    }
}
