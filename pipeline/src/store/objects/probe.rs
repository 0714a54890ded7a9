//! Whether a bucket keeps the two promises that everything here stands on: a put if absent happens once, and a put over a version
//! happens only while that version is there.

use super::client::Client;
use crate::spec::error::StageError;
use bytes::Bytes;
use object_store::{PutMode, UpdateVersion};

/// Asks the bucket; an error says which promise it does not keep. `name`: an object that nobody else uses.
pub fn probe(client: &Client, name: &str) -> Result<(), StageError> {
    let key = format!("locks/probe/{name}");
    let found = keeps_promises(client, &key);
    let removed = client.delete([key]);
    match found? {
        Some(broken) => Err(refused(client, broken)),
        None => removed,
    }
}

fn keeps_promises(client: &Client, key: &str) -> Result<Option<&'static str>, StageError> {
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    // Whether or not an answer of the first is lost, there is an object now.
    let first = client.put(key, text("1"), PutMode::Create)?;
    if client.put(key, text("2"), PutMode::Create)?.is_some() {
        return Ok(Some("puts an object that is there already (If-None-Match)"));
    }
    let Some(first) = first.or_else(|| client.get(key).ok().flatten().map(|there| there.version)) else {
        return Ok(Some("says that an object is there, and it is not"));
    };
    if first.e_tag.is_none() {
        return Ok(Some("gives no ETag"));
    }
    let second = client.put(key, text("3"), PutMode::Update(first.clone()))?;
    let is_ours =
        |client: &Client| Ok::<_, StageError>(client.get(key)?.is_some_and(|there| there.bytes == "3"));
    if second.is_none() && !is_ours(client)? {
        return Ok(Some("does not put over the version that is there (If-Match)"));
    }
    let stale = UpdateVersion { version: None, ..first };
    if client.put(key, text("4"), PutMode::Update(stale))?.is_some() {
        return Ok(Some("puts over a version that is no longer there (If-Match)"));
    }
    Ok(None)
}

fn refused(client: &Client, why: &str) -> StageError {
    let text = format!("{} cannot be a store: {} {why}", client.name, client.server);
    StageError::new(text).help(
        "Several machines would overwrite each other's results. Use a server with conditional puts \
         (such as Amazon S3, or SeaweedFS 4.48), or a folder as `store`.",
    )
}
